"""The page of several networks side by side: their curves on the same metric and method in one figure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from efface.metrics.formula import FRACTION_REMOVED
from efface.report.claims import Answer, answer_claims
from efface.report.stats import Curve, at_points, without_empty
from efface.stages.page.accuracy import unaccompanied_of
from efface.stages.run.curves import RunRecord
from efface.stages.run.progress import say
from efface.study.schema import Claim, Side
from efface.study.study import Study, read
from efface.study.yaml_file import InvalidStudyError

Beside = Mapping[str, Sequence[RunRecord]]
"""Runs by the name under which the page shows them, one for each seed."""


Merged = Mapping[tuple[str, str, str], Mapping[str, Curve]]
"""A curve for each name, by metric, score and method."""


def write_comparison(folder: Path, name: str, beside: Beside, claims: Sequence[Claim] = ()) -> None:
    """Write the page of the runs side by side. Print its path, what it leaves out, and the verdict on each claim.

    The others are compared with the first name. With one name, the page shows one study over its seeds.
    ValueError: the curves of a metric have no point in common.
    """
    from efface.report import page  # draws with matplotlib, which takes seconds to import
    from efface.stages.page.facts_of_several import facts_of_several

    merged_curves = merged(beside)
    if merged_curves:
        answers = answers_of(claims, beside)
        common, left_out = at_common_points(merged_curves)
        facts = facts_of_several(name, beside)
        warnings = (*facts.warnings, *left_out, *_unaccompanied(beside, merged_curves))
        facts = replace(facts, claims=answers, warnings=warnings)
        network = next(iter(beside)) if len(beside) > 1 else ""
        first = next(iter(beside.values()))[0].kept
        shown = side_by_side(common, one=not network)
        rows = tuple(beside) if network else first.methods
        path = page.write(folder, shown, None, facts, references=first.references, network=network, methods=rows)
        for line in left_out:
            say(line)
        for answer in answers:
            say(f"claim {answer.verdict}: {answer.says} ({answer.message})")
        say(f"side by side: {path}")


def answers_of(claims: Sequence[Claim], beside: Beside) -> tuple[Answer, ...]:
    """Return the answer to each claim, from the runs that it names alone.

    So a claim about one variant is paired by its test images, also if other variants have other images. If a variant
    that it names has no run, the answer comes from all runs, and says so.
    """
    asked = [_variants(claim) for claim in claims]
    names = [tuple(name for name in beside if name in some or not some <= {*beside}) for some in asked]
    named = {some: merged({name: beside[name] for name in some}) for some in dict.fromkeys(names)}
    return tuple(answer_claims([claim], named[some])[0] for claim, some in zip(claims, names, strict=True))


def _variants(claim: Claim) -> set[str]:
    return {side.variant for side in (claim.more, claim.less) if isinstance(side, Side)}


def study_of(path: Path) -> Study:
    """Return the study of a YAML file, or of the folder of a run, a variant or a seed. The folder may have moved.

    InvalidStudyError: there is no study, or the seeds in the folder belong to different studies.
    """
    if not path.is_dir():
        return read(path)
    if (path / "study.yml").exists():
        return read(path / "study.yml", [f"out={path}"])
    seeds = sorted(
        int(file.parent.name[5:]) for file in path.glob("seed-*/study.yml") if file.parent.name[5:].isdigit()
    )
    if not seeds:
        raise InvalidStudyError(
            f"{path}: there is no study.yml in it, nor in seed-0, seed-1, ...; give a study's YAML file, or the folder "
            "of a run, of one of its variants, or of one seed"
        )
    kept = [read(folder / "study.yml", [f"out={folder}"]) for folder in (path / f"seed-{seed}" for seed in seeds)]
    study = kept[0].model_copy(update={"out": path, "seeds": tuple(seeds)})
    if study.parts()[""] != kept:
        raise InvalidStudyError(
            f"{path}: its seeds ({', '.join(map(str, seeds))}) were run with different settings; give the folders of "
            "seeds one by one, or run the study again"
        )
    return study


def labels(runs: Sequence[tuple[Path, str]]) -> list[str]:
    """Return a unique label for each folder and variant: the folder's name, with parents if names are equal.

    ValueError: a folder is given twice.
    """
    whole = [(folder.resolve().parts, name) for folder, name in runs]
    short = unique_labels = [f"{parts[-1]} {name}".strip() for parts, name in whole]
    for depth in range(2, max((len(parts) for parts, _ in whole), default=0) + 1):
        longer = [f"{Path(*parts[-depth:])} {name}".strip() for parts, name in whole]
        if len({*unique_labels}) < len(unique_labels):
            unique_labels = [
                long if short.count(label) > 1 else label for label, long in zip(short, longer, strict=True)
            ]
    if twice := sorted({label for label in unique_labels if unique_labels.count(label) > 1}):
        raise ValueError(
            f"compare: {', '.join(twice)} is given twice; give it only once, or give one of them another "
            "folder with out=..."
        )
    return unique_labels


def side_by_side(merged_curves: Merged, *, one: bool = False) -> list[Curve]:
    """Return the curves for a page. `metric` holds the method and `method` the name, unless there is only one name."""
    curves = []
    for (metric, _, method), named in merged_curves.items():
        for name, curve in named.items():
            if one:
                curves.append(curve)
            else:
                of = metric if curve.family == "network" else f"{metric} · {method}"
                curves.append(replace(curve, metric=of, method=name, control=False))
    return curves


def at_common_points(merged_curves: Merged) -> tuple[Merged, tuple[str, ...]]:
    """Return the curves at the points that all names have, and a sentence on the points that are left out.

    ValueError: two names have no point in common but 0, at which nothing is removed.
    """
    common: dict[tuple[str, str, str], Mapping[str, Curve]] = {}
    said: dict[str, None] = {}
    for what, named in merged_curves.items():
        points = {name: (*curve.at, *curve.empty) for name, curve in named.items()}
        if len({frozenset(at) for at in points.values()}) == 1:
            common[what] = named
            continue
        shared = set.intersection(*map(set, points.values()))
        first = next(iter(named.values()))
        key = f"metrics.{what[0]}: " + ("fractions" if first.axis == FRACTION_REMOVED else "its points")
        if not shared - {0.0}:
            listing = "; ".join(f"{name or 'the study'} has {_listed(points[name])}" for name in named)
            raise ValueError(
                f"{key}: {listing}: they have only the point 0 in common; give the runs common fractions and measure "
                "again, or leave this metric out"
            )
        for name in named:
            if gone := set(points[name]) - shared:
                said[f"{key}: {name or 'the study'} also has {_listed(gone)}, which another run lacks: left out"] = None
        common[what] = {name: at_points(curve, shared) for name, curve in named.items()}
    return common, tuple(said)


def _listed(points: Iterable[float]) -> str:
    return ", ".join(f"{point:g}" for point in sorted(points))


def merged(beside: Beside) -> Merged:
    """Return a curve for each metric, score, method and name.

    With one run for each name, samples are images, paired if all runs have the same test images. With several seeds, a
    sample is the mean of a seed.
    """
    means = any(len(several) > 1 for several in beside.values())
    alike = len({one.kept.data for several in beside.values() for one in several}) == 1
    means |= not alike
    curves_by_seed: dict[tuple[str, str, str], dict[str, list[tuple[int, Curve]]]] = {}
    for name, several in beside.items():
        for one in several:
            for curve in (curve for curve in _measured_curves(one) if not curve.draw_of and not curve.twin_of):
                what = curve.metric, curve.score, curve.method
                curves_by_seed.setdefault(what, {}).setdefault(name, []).append((one.kept.seed, curve))
    whole = {
        (what, name): _mean_of(by_seed, same_images=alike) if means else by_seed[0][1]
        for what, named in curves_by_seed.items()
        for name, by_seed in named.items()
    }
    shown = dict(zip(whole, without_empty(list(whole.values())), strict=True))
    return {what: {name: shown[what, name] for name in named} for what, named in curves_by_seed.items()}


def _measured_curves(record: RunRecord) -> Iterator[Curve]:
    """Yield the network's accuracy, then every curve of the run that has a result."""
    if (own := record.accuracy) is not None:
        yield own
    for curve in record.curves:
        if not curve.missing or curve.failed or not np.isnan(curve.values).all():
            yield curve


def _unaccompanied(beside: Beside, merged_curves: Merged) -> tuple[str, ...]:
    """Return the metrics that a reader of these metrics needs beside them, in sentences."""
    shown = {(metric, name) for (metric, _, _), named in merged_curves.items() for name in named}
    of = [[metric for metric in ones[0].kept.metrics if (metric.name, name) in shown] for name, ones in beside.items()]
    return tuple(dict.fromkeys(line for metrics in of for line in unaccompanied_of(metrics)))


def _mean_of(by_seed: Sequence[tuple[int, Curve]], *, same_images: bool) -> Curve:
    """Return one curve of several seeds. A sample is the mean of a seed.

    same_images: True if all seeds have the same test images. The curve then keeps their values.
    """
    curve = by_seed[0][1]
    values = np.stack([_mean(one.values) for _, one in by_seed])
    missing = sorted({at for _, one in by_seed for at in one.missing or ()})
    seeds = tuple(seed for seed, _ in by_seed)
    images = [_images_of(one) for _, one in by_seed] if same_images else []
    known = [one for one in images if one is not None]
    shared = (
        np.stack(known) if known and len(known) == len(by_seed) and len({one.shape for one in known}) == 1 else None
    )
    return replace(
        curve,
        values=values,
        images=shared,
        sample="repeats",
        pairs=seeds,
        missing=tuple(missing),
        failed=next((f"seed {seed}: {one.failed}" for seed, one in by_seed if one.failed), ""),
        trained="networks",
    )


def _images_of(curve: Curve) -> np.ndarray | None:
    """Return the value of each test image at each point, as a mean over the repeats of a retrained metric."""
    if curve.sample == "images":
        return curve.values.T.astype(np.float32)
    return None if curve.images is None else curve.images.mean(axis=0)


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over samples at each point. NaN samples are left out."""
    known = ~np.isnan(values)
    return np.where(known.any(0), np.where(known, values, 0).sum(0) / np.maximum(known.sum(0), 1), np.nan)
