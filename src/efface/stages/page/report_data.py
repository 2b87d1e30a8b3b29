"""The parts of a page beside the curves: facts about the study, and a gallery of images, maps, erased images."""

import dataclasses
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import numpy as np
import torch

from efface import draws
from efface.erase.masking import to_stored
from efface.erase.post import apply_post
from efface.metrics import Point
from efface.metrics.probes import Erasure, erased
from efface.metrics.probes.description import KINDS, NONE, describe
from efface.metrics.probes.probe import Explains
from efface.report.cautions import SHARES
from efface.report.gallery import Gallery
from efface.report.page import Cost, Facts
from efface.report.words import listed
from efface.stages.page.pictures import picture
from efface.stages.run.case import case_of
from efface.stages.run.curves import PlannedRun
from efface.stages.run.labels import labels_said
from efface.stages.run.map_files import map_store
from efface.stages.run.plan import Plan, of_maps, ranked_as
from efface.stages.run.provenance import surroundings, versions
from efface.stages.run.run import Run
from efface.stages.run.views import View
from efface.store.arrays import read_rows
from efface.store.maps import MapStore
from efface.study.metric_entry import MetricEntry
from efface.study.study import dump
from efface.types import Split

_SHOWN = 6  # images of the gallery
_GALLERY_FRACTION = 0.3


def facts(one: PlannedRun, measured: Sequence[str]) -> Facts:
    """Return the facts that the page states beside the numbers. measured: metrics that have a result."""
    run, plan = one.run, one.plan
    data, study = run.data, run.study
    sizes = ", ".join(f"{len(split):,} {name} images" for name, split in data.items())
    c, h, w = data["test"].shape
    trained = run.first.trained()
    right = f"{float(run.right().float().mean()):.2%} of the test images right" if trained else "not trained yet"
    more = {name: version(name) for name in ("torchvision", "h5py", "scipy")}
    return Facts(
        study=dump(study),
        name=study.out.name,
        versions=versions() | more,
        device=surroundings(run.device)["device"],
        seconds=_seconds(run),
        unfinished=_unfinished(run, plan, measured),
        data=f"{study.data.call}: {sizes}, {c} x {h} x {w}",
        network=f"{study.model.call}: {right}",
        warnings=(*labels_said(run), *_remarks(run, plan)),
        how={entry.name: how_of(one, entry) for entry in study.metrics},
        degenerate=_degenerate(one),
        costs={entry.name: cost for entry in study.metrics if (cost := _cost(one, entry)) is not None},
        picture=picture(run),
    )


def facts_of_several(name: str, beside: Mapping[str, Sequence[PlannedRun]]) -> Facts:
    """Return the facts that the page of several networks states beside the numbers."""
    every = [one for several in beside.values() for one in several]
    runs = [one.run for one in every]
    first = runs[0]
    seconds: dict[str, float] = {}
    for each in (_seconds(run) for run in runs):
        for what, spent in each.items():
            seconds[what] = seconds.get(what, 0.0) + spent
    missing = [one.run.folder for one in every if one.plan.open(one.run.results)]
    models = {
        label: ", ".join(dict.fromkeys(one.run.study.model.call for one in several))
        for label, several in beside.items()
    }
    networks = [f"{label}: {model}" if label else model for label, model in models.items()]
    return Facts(
        study="\n".join(f"# {run.folder}\n{dump(run.study)}" for run in runs),
        name=name,
        versions=versions(),
        device=surroundings(first.device)["device"],
        seconds=seconds,
        unfinished=tuple(f"{folder}: probes are missing; run the measure stage" for folder in missing),
        data="; ".join(dict.fromkeys(run.study.data.call for run in runs)),
        network="; ".join(networks),
        warnings=(),
    )


def how_of(one: PlannedRun, entry: MetricEntry) -> dict[str, str]:
    """Return what a metric's numbers depend on, in words. "none" stands for what its probes do not have."""
    run, points = one.run, (point for curve in one.plan.of(entry)[:1] for point in curve.points)
    probes = [task.probe for point in points for task in point.tasks.values()]
    explains = [each.explains for each in probes if isinstance(each, Explains)]
    descriptions = [dataclasses.asdict(describe(each)) for each in probes]
    values = {kind: dict.fromkeys(each[kind] for each in descriptions if each[kind] != NONE) for kind in KINDS}
    return {kind: ", ".join(words) or NONE for kind, words in values.items()} | {
        "explain": (explains or [run.study.explain])[-1]
    }


def _degenerate(one: PlannedRun) -> dict[str, dict[str, float]]:
    """Return the mean share of each kind of degenerate map, by row of the report. NaN: not known."""
    results = one.run.results
    rows = {name: results.rows[task.key] for name, task in one.plan.conditions.items() if task.key in results}
    return {
        name: {kind: np.nan if row.get(kind) is None else float(row[kind]) for kind in SHARES}
        for name, row in sorted(rows.items())
    }


def _cost(one: PlannedRun, entry: MetricEntry) -> Cost | None:
    """Return the time of the metric's own probes, or None if none has run."""
    run, points = one.run, (point for curve in one.plan.of(entry) for point in curve.points)
    keys = dict.fromkeys(task.key for point in points for task in point.tasks.values())
    rows = [run.results.rows[key] for key in keys if key in run.results.rows]
    if not rows:
        return None
    seconds, images = sum(row["seconds"] for row in rows), len(run.data["test"])
    if entry.formula.sample == "repeats":
        return Cost(seconds, np.nan, np.nan)
    maps = len({row["method"] for row in rows} - {None}) or 1
    return Cost(seconds, seconds / images, seconds / images / maps)


def _seconds(run: Run) -> dict[str, float]:
    """Return the seconds spent on each kind of work, summed over processes."""
    names = {
        "train": "train",
        "extract": "extract maps",
        "retrain": "retrain (ROAR, KAR)",
        "perturb": "perturb (MoRF, LeRF)",
        "degeneracy": "look for degenerate maps",
    }
    found: dict[str, float] = {}
    for row in run.results.rows.values():
        kind = row["probe"]["probe"]
        found[names.get(kind, kind)] = found.get(names.get(kind, kind), 0.0) + row["seconds"]
    return found


def _unfinished(run: Run, plan: Plan, measured: Sequence[str]) -> tuple[str, ...]:
    missing = len(plan.open(run.results))
    without = [entry.name for entry in run.study.metrics if entry.name not in measured]
    of = f", all of {', '.join(without)} among them" if without else ""
    return (f"{missing} of {len(plan.tasks)} probes are not run yet{of}: run the measure stage",) if missing else ()


def _remarks(run: Run, plan: Plan) -> tuple[str, ...]:
    frozen = [entry for entry in of_maps(run) if entry.formula.sample == "images"]
    redrawn = [view.name for view in _rows(run) if frozen and view.name in plan.redrawn]
    noted = tuple(note for split in run.data.values() for note in split.notes)
    return noted + tuple(
        f"{name} is ranked anew in each epoch of a training. For a network that does not train, it equals "
        f"a fixed random ranking, so {listed([entry.name for entry in frozen])} are not run for it."
        for name in redrawn
    )


def gallery(one: PlannedRun) -> Gallery | None:
    """Return some test images with every existing map and the erased images, or None without maps."""
    run = one.run
    test, stores = run.data["test"], {}
    for view in _rows(run):
        try:
            stores[view] = map_store(run, view.maps, "test")
        except FileNotFoundError:
            continue
        except ValueError:  # stale: the report shows nothing that is not this study's
            continue
    if not stores:
        return None
    rows = torch.linspace(0, len(test) - 1, min(_SHOWN, len(test))).round().long()
    chosen = [f for f in run.study.fractions if 0 < f < 1] or [_GALLERY_FRACTION]
    fraction = min(chosen, key=lambda f: abs(f - _GALLERY_FRACTION))
    maps, masked = {}, {}
    for view, store in stores.items():
        point = ranked_as(run, one.plan.redrawn, view, fraction)
        if point is None:  # no metric reads this map
            continue
        case = case_of(run, {"test": store}, network=False)
        gone = Erasure("most_first", fraction, point.imputer, point.post, point.unit)
        maps[view.name] = _shown(run, point, store, rows)
        masked[view.name] = to_stored(erased(case, gone, rows)).cpu()
    if not maps:
        return None
    return Gallery(read_rows(test.images, rows).cpu(), _labels(run, test, rows), maps, masked, fraction)


def _rows(run: Run) -> list[View]:
    """Return the rows of the report. Further draws of a row are left out."""
    return [view for view in run.views if not view.draw_of]


def _shown(run: Run, point: Point, store: MapStore, rows: torch.Tensor) -> torch.Tensor:
    """Return the maps as they were ranked. Channels are summed for display."""
    found = store.take(rows)
    if store.kind == "seeds":
        return draws.uniform(found, run.data["test"].shape[1:])
    found = apply_post(found, point.post)
    return found if found.ndim == 3 else found.sum(1)


def _labels(run: Run, test: Split, rows: torch.Tensor) -> tuple[str, ...]:
    explained = run.target_classes("test")

    def named(number: int) -> str:
        return test.classes[number] if number < len(test.classes) else str(number)

    return tuple(f"{named(int(test.targets[row]))}, explained as {named(int(explained[row]))}" for row in rows)
