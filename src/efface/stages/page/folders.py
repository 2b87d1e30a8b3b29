"""Folders of runs, read by the plans in them: no code of the folder runs."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from efface.stages.page.comparison import write_comparison
from efface.stages.run.curves import RunRecord, read_record
from efface.stages.run.kept_plan import NAME, KeptRun, KeptStudy, read_kept
from efface.stages.run.progress import say
from efface.stages.run.state import failures_of, run_facts, say_failures, say_files
from efface.store.file_name import file_name
from efface.store.links import refuse_links
from efface.store.maps import finished_rows, partial_path
from efface.study.schema import Claim
from efface.study.yaml_file import InvalidStudyError, load

_PLACES = ("out", "weights", "file", "folder", "root", "path", "classes", "study", "says", "source", "published")
"""Keys of a study whose texts are no dotted paths."""
_FOREIGN = re.compile(r"(?!efface\.)[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def kept_folder(path: Path) -> tuple[dict[str, list[RunRecord]], tuple[Claim, ...]]:
    """Return the runs of a folder by variant, and its claims.

    path: folder of a study, a run, a variant, or a seed.

    InvalidStudyError: it holds no plan, its plan is damaged, or it needs code that is not of efface.
    """
    if (path / NAME).exists():
        kept = read_kept(path)
        if isinstance(kept, KeptRun):
            runs_by_name = {"": {path: kept}}
            claims = kept.claims
        else:
            runs_by_name = {
                name: {path / part: _run(path / part) for part in parts} for name, parts in kept.parts.items()
            }
            claims = kept.claims
    else:
        seeds = sorted(file.parent for file in path.glob(f"seed-*/{NAME}") if file.parent.name[5:].isdigit())
        if not seeds:
            raise InvalidStudyError(_refusal(path))
        seeds.sort(key=lambda folder: int(folder.name[5:]))
        runs_by_name, claims = {"": {seed: _run(seed) for seed in seeds}}, ()
        if len({run.settings for run in runs_by_name[""].values()}) > 1:
            numbers = ", ".join(seed.name[5:] for seed in seeds)
            raise InvalidStudyError(
                f"{path}: its seeds ({numbers}) were run with different settings; give the folders of seeds one by "
                "one, or run the study again"
            )
    refuse_links(path, [folder for runs in runs_by_name.values() for folder in runs])
    return {name: [read_record(*item) for item in runs.items()] for name, runs in runs_by_name.items()}, claims


def status_of_folder(path: Path, only: Sequence[str] = (), *, facts: dict[str, Any] | None = None) -> None:
    """Say of every run in a folder which networks, maps and results are there, by its last plan.

    facts: gets the same as plain values, as `efface.stages.status.status` gives them.
    """
    facts = {} if facts is None else facts
    facts |= {"out": str(path), "runs": []}
    for one in _narrowed(path, only)[0]:
        networks = {
            network.name: not network.file or (one.folder / network.file).is_file() for network in one.kept.networks
        }
        extractions = []
        for maps in one.kept.maps:
            files = [one.folder / "maps" / f"{file_name(name)}-{maps.split}.h5" for name in maps.names]
            if not all(file.is_file() for file in files):
                finished = min(maps.rows if file.is_file() else finished_rows(partial_path(file)) for file in files)
                extractions.append((maps.method, maps.split, finished, maps.rows))
        say_files(str(one.folder), networks, extractions)
        total = len(one.kept.tasks)
        say(f"probes: {total - one.open} of {total} done, {one.open} left")
        failures = failures_of(one.kept.curves, one.results)
        say_failures(failures)
        done = (total, total - one.open, one.open)
        found = run_facts(str(one.folder), networks, extractions, done, failures)
        facts["runs"].append(found | {"rounds": "", "at_most": False})


def report_of_folder(path: Path, only: Sequence[str] = (), against: str | None = None) -> None:
    """Write the page of each run in a folder, and of several beside one another. A page keeps the pictures that it had.

    against: method with which all others are compared, in place of the reference of the study.
    FileNotFoundError: nothing is measured there. ValueError: a run has no such method.
    """
    from efface.stages.page.record_page import write_record_page  # draws with matplotlib, which takes seconds to import

    runs, beside, claims = _narrowed(path, only)
    if against is not None:
        beside = {name: [_compared_with(one, against) for one in several] for name, several in beside.items()}
        runs = [one for several in beside.values() for one in several]
    measured = [one for one in runs if one.results.records]
    if not measured:
        raise FileNotFoundError(f"{runs[0].results.path}: nothing is measured there; run the measure stage first")
    for one in measured:
        write_record_page(one)
    if len(runs) > 1:
        write_comparison(path / "report", path.resolve().name, beside, claims)


def _compared_with(record: RunRecord, against: str) -> RunRecord:
    """Return a record whose methods are compared with this one."""
    known = dict.fromkeys(curve.draw_of or curve.method for curve in record.curves if not curve.twin_of)
    if against not in known:
        raise ValueError(f"{record.folder}: --against: there is no method '{against}'; there are {', '.join(known)}")
    return replace(record, kept=record.kept.model_copy(update={"references": (against,)}))


def _narrowed(
    path: Path, only: Sequence[str]
) -> tuple[list[RunRecord], Mapping[str, Sequence[RunRecord]], tuple[Claim, ...]]:
    """Return the runs of a folder with these metrics alone; all metrics if there are none."""
    beside, claims = kept_folder(path)
    if only:
        every = [one for runs in beside.values() for one in runs]
        known = {metric.name for one in every for metric in one.kept.metrics}
        only = [name for asked in only for name in (_at_settings(asked, every) or [asked])]
        if unknown := [name for name in only if name not in known]:
            raise ValueError(f"--metrics: {path} has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        beside = {name: [_with_metrics(one, only) for one in runs] for name, runs in beside.items()}
        claims = tuple(claim for claim in claims if claim.metric in only)
    return [one for runs in beside.values() for one in runs], beside, claims


def _at_settings(metric: str, records: Sequence[RunRecord]) -> list[str]:
    """Return the names of a metric at each of its settings; none if the studies do not measure it at several."""
    kept = [record.kept.facts for record in records]
    return list(dict.fromkeys(name for facts in kept if facts for name, of in facts.setting_of.items() if of == metric))


def _with_metrics(record: RunRecord, only: Sequence[str]) -> RunRecord:
    metrics = tuple(metric for metric in record.kept.metrics if metric.name in only)
    curves = tuple(curve for curve in record.kept.curves if curve.metric in only)
    keys = {key for curve in curves for repeat in curve.repeats for point in repeat for key in point.values()}
    tasks = tuple(key for key in record.kept.tasks if key in keys)
    return replace(record, kept=record.kept.model_copy(update={"metrics": metrics, "curves": curves, "tasks": tasks}))


def _run(folder: Path) -> KeptRun:
    if not (folder / NAME).exists():
        raise InvalidStudyError(_refusal(folder))
    kept = read_kept(folder)
    if isinstance(kept, KeptStudy):
        raise InvalidStudyError(
            f"{folder / NAME}: belongs to a study of several runs, expected one run; run report again"
        )
    return kept


def _refusal(path: Path) -> str:
    """Return why a folder without a plan is refused, and what its study would import."""
    if not (path / "study.yml").is_file() and not any(path.glob("seed-*/study.yml")):
        return (
            f"{path}: there is no study.yml in it, nor in seed-0, seed-1, ...; give a study's YAML file, or the folder "
            "of a run, of one of its variants, or of one seed"
        )
    study = next(file for file in (path / "study.yml", *sorted(path.glob("seed-*/study.yml"))) if file.is_file())
    try:
        foreign = ", ".join(dict.fromkeys(_dotted(load(study)))) or "nothing but efface"
    except InvalidStudyError:
        foreign = "unknown code, because it is not a valid study"
    return (
        f"{path}: has no {NAME}, so efface would read {study}, which imports {foreign}. This runs code of the person "
        f"who made the folder. Add --trust if you know this person, or write {NAME} with the report stage of the "
        "study's own file"
    )


def _dotted(tree: Any, key: str = "") -> Iterator[str]:
    """Yield the dotted paths of a study that do not lead into efface."""
    if isinstance(tree, dict):
        for name, subtree in tree.items():
            yield from _dotted(subtree, str(name))
    elif isinstance(tree, list):
        for subtree in tree:
            yield from _dotted(subtree, key)
    elif isinstance(tree, str) and key not in _PLACES and _FOREIGN.fullmatch(tree):
        yield tree
