"""What stands in a report beside the curves: facts about the study, and a gallery of images, maps and erased images."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version

import numpy as np
import torch

from efface import draws
from efface.erase.masking import to_stored
from efface.metrics import Point
from efface.metrics.probes import Erasure, erased
from efface.metrics.probes.description import KINDS, NONE, conventions
from efface.report.cautions import SHARES
from efface.report.gallery import Gallery
from efface.report.page import Cost, Facts
from efface.report.words import listed
from efface.stages.run.plan import Cell, applies, cells, of_maps, points, ranked_as, viewed
from efface.stages.run.provenance import surroundings, versions
from efface.stages.run.run import Run
from efface.stages.run.view import View
from efface.stages.visualize import picture
from efface.store.arrays import take
from efface.store.maps import MapStore
from efface.study.schema import MetricEntry
from efface.study.study import dump
from efface.types import Split

_SHOWN = 6  # images of the gallery
_GALLERY_FRACTION = 0.3


def facts(run: Run, measured: Sequence[str]) -> Facts:
    """What the page says beside the numbers. measured: the metrics of which anything is there."""
    data, study, planned = run.data, run.study, cells(run)
    sizes = ", ".join(f"{len(split):,} {name} images" for name, split in data.items())
    c, h, w = data["test"].shape
    accuracy = (
        float((run.logits("test").argmax(1) == data["test"].targets.cpu()).float().mean())
        if run.first.trained()
        else None
    )
    right = "not trained yet" if accuracy is None else f"{accuracy:.2%} of the test images right"
    more = {name: version(name) for name in ("torchvision", "h5py", "scipy")}
    return Facts(
        study=dump(study),
        name=study.out.name,
        versions=versions() | more,
        device=surroundings(run.device)["device"],
        seconds=_seconds(run),
        unfinished=_unfinished(run, planned, measured),
        data=f"{study.data.call}: {sizes}, {c} x {h} x {w}",
        network=f"{study.model.call}: {right}",
        warnings=_remarks(run),
        how={entry.name: _how(run, entry) for entry in study.metrics},
        degenerate=_degenerate(run, planned),
        costs={entry.name: cost for entry in study.metrics if (cost := _cost(run, entry)) is not None},
        picture=picture(run),
    )


def facts_of_several(name: str, beside: Mapping[str, Sequence[Run]]) -> Facts:
    """What the page of several networks says beside the numbers."""
    runs = [run for of in beside.values() for run in of]
    first = runs[0]
    seconds: dict[str, float] = {}
    for each in (_seconds(run) for run in runs):
        for what, spent in each.items():
            seconds[what] = seconds.get(what, 0.0) + spent
    missing = [run.folder for run in runs if any(cell.key not in run.results for cell in cells(run))]
    models = {label: ", ".join(dict.fromkeys(run.study.model.call for run in of)) for label, of in beside.items()}
    told = [f"{label}: {model}" if label else model for label, model in models.items()]
    return Facts(
        study="\n".join(f"# {run.folder}\n{dump(run.study)}" for run in runs),
        name=name,
        versions=versions(),
        device=surroundings(first.device)["device"],
        seconds=seconds,
        unfinished=tuple(f"{folder}: probes are missing; run the measure stage" for folder in missing),
        data="; ".join(dict.fromkeys(run.study.data.call for run in runs)),
        network="; ".join(told),
        warnings=(),
    )


def _how(run: Run, entry: MetricEntry) -> dict[str, str]:
    """What the metric's numbers depend on; "none" for what its probes do not have."""
    view = (viewed(run, entry) or run.views())[0]
    probes = [each for point in points(run, entry, view) for each in entry.formula.probes(point).values()]
    explains = [each.explains for each in probes if hasattr(each, "explains")]
    said = [conventions(each) for each in probes]
    told = {kind: dict.fromkeys(each[kind] for each in said if each[kind] != NONE) for kind in KINDS}
    return {kind: ", ".join(words) or NONE for kind, words in told.items()} | {
        "explain": (explains or [run.study.explain])[-1]
    }


def _degenerate(run: Run, planned: Sequence[Cell]) -> dict[str, dict[str, float]]:
    """By row of the report, the means of what was found on its maps; NaN for what is not known."""
    found = {}
    for cell in planned:
        if cell.view is not None and _kind(cell) == "degeneracy" and cell.key in run.results:
            row = run.results.rows[cell.key]
            found[cell.view.name] = {kind: np.nan if row.get(kind) is None else float(row[kind]) for kind in SHARES}
    return found


def _cost(run: Run, entry: MetricEntry) -> Cost | None:
    """Seconds of the metric's own probes; None where none has run."""
    alone = cells(run.of(run.study.model_copy(update={"metrics": (entry,)})))
    rows = [
        run.results.rows[cell.key] for cell in alone if _kind(cell) != "degeneracy" and cell.key in run.results.rows
    ]
    if not rows:
        return None
    seconds, images = sum(row["seconds"] for row in rows), len(run.data["test"])
    if entry.formula.over == "repeats":
        return Cost(seconds, np.nan, np.nan)
    maps = len({row["method"] for row in rows} - {None}) or 1
    return Cost(seconds, seconds / images, seconds / images / maps)


def _kind(cell: Cell) -> str:
    return type(cell.probe).__name__.lower()


def _seconds(run: Run) -> dict[str, float]:
    """Time spent, summed over processes."""
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


def _unfinished(run: Run, planned: Sequence[Cell], measured: Sequence[str]) -> tuple[str, ...]:
    missing = sum(cell.key not in run.results for cell in planned)
    without = [entry.name for entry in run.study.metrics if entry.name not in measured]
    of = f", all of {', '.join(without)} among them" if without else ""
    return (f"{missing} of {len(planned)} probes are not run yet{of}: run the measure stage",) if missing else ()


def _remarks(run: Run) -> tuple[str, ...]:
    frozen = [entry for entry in of_maps(run) if entry.formula.over == "images"]
    redrawn = [view.name for view in _rows(run) if frozen and not applies(run, frozen[0], view)]
    return tuple(
        f"{name} is ranked anew in each epoch of a training; to a network that does not train it is no other than "
        f"a fixed random ranking, so {listed([entry.name for entry in frozen])} are not run for it."
        for name in redrawn
    )


def gallery(run: Run) -> Gallery | None:
    """Some test images with every map that is there, and what the map erases."""
    test, stores = run.data["test"], {}
    for view in _rows(run):
        try:
            stores[view] = run.store(view.maps, "test")
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
        point = ranked_as(run, view, fraction)
        if point is None:  # no metric reads this map
            continue
        case = run.case({"test": store}, network=False)
        gone = Erasure("most_first", fraction, point.imputer, point.post, point.unit)
        maps[view.name] = _shown(run, point, store, rows)
        masked[view.name] = to_stored(erased(case, gone, rows)).cpu()
    if not maps:
        return None
    return Gallery(take(test.images, rows).cpu(), _labels(run, test, rows), maps, masked, fraction)


def _rows(run: Run) -> list[View]:
    """The views that are rows of the report by themselves, and no further draw of one."""
    return [view for view in run.views() if not view.draw_of]


def _shown(run: Run, point: Point, store: MapStore, rows: torch.Tensor) -> torch.Tensor:
    """The maps as they were ranked, channels summed for the eye."""
    found = store.take(rows)
    if store.kind == "seeds":
        return draws.uniform(found, run.data["test"].shape[1:])
    for each in point.post:
        found = each(found)
    return found if found.ndim == 3 else found.sum(1)


def _labels(run: Run, test: Split, rows: torch.Tensor) -> tuple[str, ...]:
    explained = run.explained("test")

    def named(number: int) -> str:
        return test.classes[number] if number < len(test.classes) else str(number)

    return tuple(f"{named(int(test.targets[row]))}, explained as {named(int(explained[row]))}" for row in rows)
