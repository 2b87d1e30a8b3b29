"""The images of a page: some by a rule, with the map of every method and what is left of them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from efface.base import draws
from efface.base.types import Split
from efface.erase.masking import to_stored
from efface.erase.post import apply_post
from efface.metrics import Point
from efface.metrics.probes import Erasure, erased
from efface.metrics.probes.tokens import drops_tokens
from efface.plug.call import Call
from efface.report.gallery import Gallery, is_vector
from efface.report.stats import Curve
from efface.stages.run.case import case_of
from efface.stages.run.curves import PlannedRun
from efface.stages.run.map_files import map_store
from efface.stages.run.plan import ranked_as
from efface.stages.run.run import Run
from efface.stages.run.views import View
from efface.store.arrays import read_rows
from efface.store.maps import MapStore

_EVEN, _ENDS, _FRACTIONS = 4, 2, 3
"""Evenly spaced images, best and worst cases, and fractions that are shown."""
_GALLERY_FRACTION = 0.3
_GREY = Call(call="efface.impute.constant", kwargs={"value": 0.5})
"""Stands in a picture for tokens that are dropped."""
_REMOVED = {"patch": "patches", "token": "patches", "superpixel": "superpixels"}


def gallery(planned: PlannedRun) -> Gallery | None:
    """Return some test images with every existing map and the erased images, or None without maps.

    The images are evenly spaced, and those on which the methods are best and worst by the first metric that scores
    single images.
    """
    run = planned.run
    test, stores = run.data["test"], _stores(run)
    if not stores:
        return None
    why = _chosen(planned)
    indices = torch.tensor(sorted(why))
    chosen = sorted(fraction for fraction in run.study.fractions if 0 < fraction < 1) or [_GALLERY_FRACTION]
    middle = min(chosen, key=lambda fraction: abs(fraction - _GALLERY_FRACTION))
    places = np.linspace(0, len(chosen) - 1, min(_FRACTIONS, len(chosen))).round().astype(int)
    shown = sorted({middle, *(chosen[place] for place in places)})
    maps: dict[str, Tensor] = {}
    masked: dict[float, dict[str, Tensor]] = {fraction: {} for fraction in shown}
    unit: object = None
    for view, store in stores.items():
        case = case_of(run, {"test": store}, network=False)
        for fraction in shown:
            point = ranked_as(run, planned.plan.redrawn, view, fraction)
            if point is None:  # no metric reads this map
                break
            fill = _GREY if drops_tokens(point.imputer) else point.imputer
            gone = Erasure("most_first", fraction, fill, point.post, point.unit)
            maps[view.name], unit = maps.get(view.name, _shown(run, point, store, indices)), point.unit
            masked[fraction][view.name] = to_stored(erased(case, gone, indices)).cpu()
    if not maps:
        return None
    return Gallery(
        read_rows(test.images, indices).cpu(),
        _labels(run, test, indices),
        maps,
        masked.pop(middle),
        middle,
        further=masked,
        rows=tuple(indices.tolist()),
        why=tuple(why[row] for row in indices.tolist()),
        removed=_removed(unit),
    )


def rows_of(run: Run) -> list[View]:
    """Return the rows of the report. Further draws of a row are left out."""
    return [view for view in run.views if not view.draw_of]


def _stores(run: Run) -> dict[View, MapStore]:
    """Return the maps that exist and belong to this study."""
    stores = {}
    for view in rows_of(run):
        try:
            stores[view] = map_store(run, view.maps, "test")
        except (FileNotFoundError, ValueError):  # none yet, or stale: the report shows nothing that is not this study's
            continue
    return stores


def _chosen(planned: PlannedRun) -> dict[int, str]:
    """Return the test rows that are shown, each with the reason."""
    count = len(planned.run.data["test"])
    even = torch.linspace(0, count - 1, min(_EVEN, count)).round().long().tolist()
    why = dict.fromkeys(even, "evenly spaced")
    judging = [
        curve
        for curve in planned.curves
        if curve.sample == "images" and curve.direction != "none" and curve.family in ("", "erasure")
    ]
    if not judging:
        return why
    first = judging[0]
    means = _means([curve for curve in judging if (curve.metric, curve.score) == (first.metric, first.score)], count)
    order = [int(row) for row in np.argsort(-means) if not np.isnan(means[row]) and int(row) not in why]
    of = f"of the methods on {first.metric}"
    why |= dict.fromkeys(order[:_ENDS], f"best case {of}")
    return why | {row: f"worst case {of}" for row in order[::-1][:_ENDS] if row not in order[:_ENDS]}


def _means(curves: Sequence[Curve], count: int) -> np.ndarray:
    """Return the mean score of all methods but controls on each image, higher is more truthful; NaN if unknown."""
    judged = [curve for curve in curves if not curve.control] or list(curves)
    total, known = np.zeros(count), np.zeros(count)
    for curve in judged:
        values = curve.values.mean(axis=1)
        for image, value in zip(curve.pairs or range(len(values)), values, strict=True):
            if image < count and not np.isnan(value):
                total[image] += value
                known[image] += 1
    sign = -1 if judged[0].direction == "lower" else 1
    return np.where(known > 0, sign * total / np.maximum(known, 1), np.nan)


def _removed(unit: object) -> str:
    """Return what is erased, in words."""
    if not isinstance(unit, Call):
        return "channels of pixels" if unit == "feature" else "pixels"
    return _REMOVED.get(unit.call.rpartition(".")[2], "units")


def _shown(run: Run, point: Point, store: MapStore, indices: torch.Tensor) -> torch.Tensor:
    """Return the maps as they were ranked. Channels are summed for display; those of a vector are its coordinates."""
    maps = store.take(indices)
    if store.kind == "seeds":
        return draws.uniform(maps, run.data["test"].shape[1:])
    maps = apply_post(maps, point.post)
    return maps if maps.ndim == 3 or is_vector(run.data["test"].shape) else maps.sum(1)


def _labels(run: Run, test: Split, indices: torch.Tensor) -> tuple[str, ...]:
    explained = run.target_classes("test")

    def named(number: int) -> str:
        return test.classes[number] if number < len(test.classes) else str(number)

    return tuple(f"{named(int(test.targets[row]))}, explained as {named(int(explained[row]))}" for row in indices)
