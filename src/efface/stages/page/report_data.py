"""The parts of a page beside the curves: facts about the study, and a gallery of images, maps, erased images."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version

import numpy as np
import torch

from efface import draws
from efface.erase.masking import to_stored
from efface.erase.post import apply_post
from efface.metrics import Point
from efface.metrics.probes import Erasure, erased
from efface.metrics.probes.block import whole_of
from efface.metrics.probes.description import KINDS, NONE, describe
from efface.metrics.probes.probe import Explains
from efface.metrics.probes.tokens import drops_tokens
from efface.plug.call import Call
from efface.report.cautions import SHARES
from efface.report.gallery import Gallery
from efface.report.page import Cost, Facts
from efface.report.words import listed
from efface.stages.page.pictures import picture
from efface.stages.run.case import case_of
from efface.stages.run.curves import PlannedRun
from efface.stages.run.labels import labels_said
from efface.stages.run.map_files import extraction_key, map_store
from efface.stages.run.plan import Plan, of_maps, ranked_as
from efface.stages.run.provenance import package_versions, surroundings
from efface.stages.run.rounds import needed, spent_share
from efface.stages.run.run import Run
from efface.stages.run.views import View
from efface.store.arrays import read_rows
from efface.store.maps import MapStore
from efface.store.results import Results
from efface.study.metric_entry import MetricEntry
from efface.types import Split

_SHOWN = 6  # images of the gallery
_GALLERY_FRACTION = 0.3
_GREY = Call(call="efface.impute.constant", kwargs={"value": 0.5})
"""Stands in a picture for tokens that are dropped."""


def facts(planned: PlannedRun, measured: Sequence[str]) -> Facts:
    """Return the facts that the page states beside the numbers. measured: metrics that have a result."""
    run, plan = planned.run, planned.plan
    study = run.study
    more = {name: version(name) for name in ("torchvision", "h5py", "scipy")}
    return Facts(
        study=run.text,
        name=study.out.name,
        versions=package_versions() | more,
        device=surroundings(run.device)["device"],
        seconds=seconds_of(run.results),
        unfinished=_unfinished(planned, measured),
        data=data_said(run),
        network=network_said(run),
        warnings=(*labels_said(run), *remarks(run, plan)),
        how={entry.name: how_of(planned, entry) for entry in study.metrics},
        degenerate=degenerate_of(conditions_of(plan), run.results),
        costs={entry.name: cost for entry in study.metrics if (cost := _cost(planned, entry)) is not None},
        layers=layers_of(run),
        picture=picture(run),
        passes=np.nan if study.decide is None else spent_share(planned),
    )


def data_said(run: Run) -> str:
    """Return one line on the data set."""
    sizes = ", ".join(f"{len(split):,} {name} images" for name, split in run.data.items())
    c, h, w = run.data["test"].shape
    return f"{run.study.data.call}: {sizes}, {c} x {h} x {w}"


def network_said(run: Run) -> str:
    """Return one line on the network, with its test accuracy."""
    trained = run.first.trained()
    right = f"{float(run.right().float().mean()):.2%} of the test images right" if trained else "not trained yet"
    return f"{run.study.model.call}: {right}"


def layers_of(run: Run) -> dict[str, tuple[str, ...]]:
    """Return the layers that each method looked at when its test maps were extracted, in words."""
    entries = [entry for entry in run.entries if entry.file is None and entry.draw == 1]
    records = {entry.name: run.results.records.get(extraction_key(run, entry, "test"), {}) for entry in entries}
    return {name: tuple(record["layers"]) for name, record in records.items() if record.get("layers")}


def conditions_of(plan: Plan) -> dict[str, str]:
    """Return the keys of the results that tell whether the maps of each row are fit to be scored."""
    return {name: task.key for name, task in plan.conditions.items()}


def how_of(planned: PlannedRun, entry: MetricEntry) -> dict[str, str]:
    """Return what a metric's numbers depend on, in words. "none" stands for what its probes do not have."""
    run, points = planned.run, (point for curve in planned.plan.of(entry)[:1] for point in curve.points)
    probes = [whole_of(task.probe) for point in points for task in point.tasks.values()]
    explains = [probe.explains for probe in probes if isinstance(probe, Explains)]
    descriptions = [dataclasses.asdict(describe(probe)) for probe in probes]
    values = {
        kind: dict.fromkeys(description[kind] for description in descriptions if description[kind] != NONE)
        for kind in KINDS
    }
    return {kind: ", ".join(words) or NONE for kind, words in values.items()} | {
        "explain": (explains or [run.study.explain])[-1]
    }


def degenerate_of(conditions: Mapping[str, str], results: Results) -> dict[str, dict[str, float]]:
    """Return the mean share of each kind of degenerate map, by row of the report. NaN: not known.

    conditions: for each row, the key of the result that tells it.
    """
    records = {name: results.records[key] for name, key in conditions.items() if key in results}
    return {
        name: {kind: float(row[kind]) if isinstance(row.get(kind), int | float) else np.nan for kind in SHARES}
        for name, row in sorted(records.items())
    }


def cost_of(keys: Iterable[str], results: Results, images: int, sample: str) -> Cost | None:
    """Return the time of the probes of these keys, or None if none has run.

    images: number of test images. sample: what a sample of the metric is, "repeats" or "images".
    """
    records = [results.records[key] for key in dict.fromkeys(keys) if key in results.records]
    if not records:
        return None
    seconds = sum(row.get("seconds", 0.0) for row in records)
    if sample == "repeats":
        return Cost(seconds, np.nan, np.nan)
    maps = len({row.get("method") for row in records} - {None}) or 1
    return Cost(seconds, seconds / images, seconds / images / maps)


def seconds_of(results: Results) -> dict[str, float]:
    """Return the seconds spent on each kind of work, summed over processes."""
    names = {
        "train": "train",
        "extract": "extract maps",
        "retrain": "retrain (ROAR, KAR)",
        "perturb": "perturb (MoRF, LeRF)",
        "degeneracy": "look for degenerate maps",
    }
    seconds: dict[str, float] = {}
    for row in results.records.values():
        kind = row.get("probe", {}).get("probe", "other work")
        seconds[names.get(kind, kind)] = seconds.get(names.get(kind, kind), 0.0) + row.get("seconds", 0.0)
    return seconds


def _cost(planned: PlannedRun, entry: MetricEntry) -> Cost | None:
    keys = (task.key for curve in planned.plan.of(entry) for point in curve.points for task in point.tasks.values())
    return cost_of(keys, planned.run.results, len(planned.run.data["test"]), entry.formula.sample)


def _unfinished(planned: PlannedRun, measured: Sequence[str]) -> tuple[str, ...]:
    run, tasks = planned.run, needed(planned)
    missing = sum(task.key not in run.results for task in tasks)
    without = [entry.name for entry in run.study.metrics if entry.name not in measured]
    of = f", all of {', '.join(without)} among them" if without else ""
    return (f"{missing} of {len(tasks)} probes are not run yet{of}: run the measure stage",) if missing else ()


def remarks(run: Run, plan: Plan) -> tuple[str, ...]:
    """Return what the data left out, and which rows some metrics do not have, in words."""
    frozen = [entry for entry in of_maps(run) if entry.formula.sample == "images"]
    redrawn = [view.name for view in _rows(run) if frozen and view.name in plan.redrawn]
    noted = tuple(note for split in run.data.values() for note in split.notes)
    return noted + tuple(
        f"{name} is ranked anew in each epoch of a training. For a network that does not train, it equals "
        f"a fixed random ranking, so {listed([entry.name for entry in frozen])} are not run for it."
        for name in redrawn
    )


def gallery(planned: PlannedRun) -> Gallery | None:
    """Return some test images with every existing map and the erased images, or None without maps."""
    run = planned.run
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
    indices = torch.linspace(0, len(test) - 1, min(_SHOWN, len(test))).round().long()
    chosen = [f for f in run.study.fractions if 0 < f < 1] or [_GALLERY_FRACTION]
    fraction = min(chosen, key=lambda f: abs(f - _GALLERY_FRACTION))
    maps, masked = {}, {}
    for view, store in stores.items():
        point = ranked_as(run, planned.plan.redrawn, view, fraction)
        if point is None:  # no metric reads this map
            continue
        case = case_of(run, {"test": store}, network=False)
        fill = _GREY if drops_tokens(point.imputer) else point.imputer
        gone = Erasure("most_first", fraction, fill, point.post, point.unit)
        maps[view.name] = _shown(run, point, store, indices)
        masked[view.name] = to_stored(erased(case, gone, indices)).cpu()
    if not maps:
        return None
    return Gallery(read_rows(test.images, indices).cpu(), _labels(run, test, indices), maps, masked, fraction)


def _rows(run: Run) -> list[View]:
    """Return the rows of the report. Further draws of a row are left out."""
    return [view for view in run.views if not view.draw_of]


def _shown(run: Run, point: Point, store: MapStore, indices: torch.Tensor) -> torch.Tensor:
    """Return the maps as they were ranked. Channels are summed for display."""
    maps = store.take(indices)
    if store.kind == "seeds":
        return draws.uniform(maps, run.data["test"].shape[1:])
    maps = apply_post(maps, point.post)
    return maps if maps.ndim == 3 else maps.sum(1)


def _labels(run: Run, test: Split, indices: torch.Tensor) -> tuple[str, ...]:
    explained = run.target_classes("test")

    def named(number: int) -> str:
        return test.classes[number] if number < len(test.classes) else str(number)

    return tuple(f"{named(int(test.targets[row]))}, explained as {named(int(explained[row]))}" for row in indices)
