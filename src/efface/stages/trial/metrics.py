"""The metrics of a plan, tried on two test images: settings, fills, units and what is done to the maps."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from efface.base.shown import shown
from efface.base.types import Split
from efface.erase.contract import check_filled, checked_fill, labels_of
from efface.erase.post import apply_post
from efface.erase.ranking import for_unit
from efface.metrics.probes.block import whole_of
from efface.metrics.probes.description import Reading, fields_of, reading
from efface.metrics.probes.probe import Checks
from efface.metrics.probes.tokens import drops_tokens
from efface.models.fewer_tokens import check_fewer_tokens
from efface.plug.call import Call
from efface.stages.run.plan import Plan, PlannedCurve
from efface.stages.run.run import Run

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of one map, by its name."""


def lost_channels(plan: Plan, shapes: Shapes) -> Iterator[str]:
    """Metrics that rank features of maps whose channels `post` has reduced to one value: all of a pixel's are tied."""
    for name, shape in shapes.items():
        for curve in plan.curves:
            if curve.view.maps != name or len(shape) != 3 or shape[0] == 1:
                continue
            readings = (read for probe, read in _readings(curve) if fields_of(probe).get("unit") == "feature")
            for read in dict.fromkeys(readings):
                with suppress(Exception):  # said where posts are refused
                    maps = _reduced(shape, read)
                    if maps.ndim == 3 or maps.shape[1] == 1:
                        yield (
                            f"metrics.{curve.entry.name}, {curve.view.name}: unit 'feature' ranks channels, but 'post' "
                            "leaves one value a pixel; drop channel_sum or channel_max from it"
                        )


def unfit_posts(run: Run, plan: Plan, shapes: Shapes) -> list[str]:
    """Metrics whose `post` does not turn maps of these shapes into what they take, in words."""
    problems: dict[str, None] = {}
    for curve in plan.curves:
        if curve.view.maps not in shapes:
            continue
        for read in dict.fromkeys(read for _, read in _readings(curve)):
            try:
                maps = _reduced(shapes[curve.view.maps], read)
                if read.values is not None:
                    for_unit(maps, read.values, run.data["test"].shape[0])
            except Exception as error:  # noqa: BLE001  a post may raise anything
                problems[f"metrics.{curve.entry.name}, {curve.view.name}: {error}"] = None
    return list(problems)


def unfit_metrics(plan: Plan, network: nn.Module, images: Tensor, training: Split | None) -> list[str]:
    """Metrics whose settings, fill or unit do not suit the network, or images of this size, in words."""
    problems, mask = list(plan.problems), torch.zeros_like(images[:, 0], dtype=torch.bool)
    mask[:, : mask.shape[1] // 2] = True
    seeds = torch.arange(len(images), device=images.device)
    offered = {"mean": images.mean((0, 2, 3)), "seeds": seeds, "training": training}
    firsts = {curve.entry.name: curve for curve in reversed(plan.curves)}
    for curve in (candidate for candidate in plan.curves if candidate is firsts[candidate.entry.name]):
        name, reads, point = curve.entry.name, curve.entry.formula.uses, curve.repeats[0][0].point
        try:
            if "imputer" in reads and drops_tokens(point.imputer):
                _check_dropping(network, images)
            elif "imputer" in reads:
                with _naming("imputer", point.imputer):
                    fill = checked_fill(point.imputer, point.imputer(images, mask, **offered), images)
                check_filled(point.imputer, fill, mask)
            if "groups" in reads and isinstance(point.unit, Call):
                with _naming("unit", point.unit):
                    labels_of(point.unit, images)
            for probe in (whole_of(task.probe) for planned in curve.points for task in planned.tasks.values()):
                if isinstance(probe, Checks):
                    probe.check(network, images)
        except Exception as error:  # noqa: BLE001  a fill or a unit may raise anything
            text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            problems.append(f"metrics.{name}: {text.removeprefix(f'{name}: ')}")
    return problems


def _check_dropping(network: nn.Module, images: Tensor) -> None:
    """Raise ValueError if the tokens of the network cannot be dropped."""
    try:
        check_fewer_tokens(network, images)
    except ValueError as error:
        raise ValueError(f"imputer drop_tokens: {error}; give another imputer") from error


@contextmanager
def _naming(key: str, call: Call) -> Iterator[None]:
    """Turn an error of a plug-in that is no ValueError into one that names its key and its path."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{key}: {call.call} fails: {type(error).__name__}: {error}") from error


def wrong_costs(run: Run, plan: Plan) -> list[str]:
    """Metrics whose probes do not say what they cost, in words."""
    images, problems = {name: len(split) for name, split in run.data.items()}, dict[str, None]()
    probes = (
        (curve.entry.name, whole_of(task.probe))
        for curve in plan.curves
        for planned in curve.points
        for task in planned.tasks.values()
    )
    kinds = {(name, type(probe)): probe for name, probe in probes}
    for (name, kind), probe in kinds.items():
        where = f"metrics.{name}: the 'cost' of the probe {kind.__name__}"
        try:
            cost = probe.cost(images, run.refit)
        except Exception as error:  # noqa: BLE001  a probe of one's own may raise anything
            text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            problems[f"{where} fails: {text}; return forward passes, a number from 0"] = None
            continue
        if not isinstance(cost, int | float) or not 0 <= cost < math.inf:
            problems[f"{where} is {shown(cost)}; expected forward passes, a number from 0"] = None
    return list(problems)


def _readings(curve: PlannedCurve) -> Iterator[tuple[Any, Reading]]:
    """The probes of a curve that read maps, and how they do."""
    for point in curve.points:
        for task in point.tasks.values():
            if curve.entry.formula.subject == "maps" and (read := reading(whole_of(task.probe))) is not None:
                yield whole_of(task.probe), read


def _reduced(shape: tuple[int, ...], read: Reading) -> Tensor:
    """Two maps of this shape as a probe looks at them."""
    return apply_post(torch.zeros(2, *shape), read.post)
