"""Trial of the pairs of a method and a metric that hands it another network: a cut, a redrawn or a wrapped one."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from efface.base.types import Images, Maps, Split, Targets
from efface.execute import is_stop
from efface.methods.calling import MethodCall
from efface.metrics.probes import Case, Explain
from efface.models.memory import with_smaller_batches
from efface.stages.run.case import case_of
from efface.stages.run.method_calls import explainer_of
from efface.stages.run.plan import Plan, PlannedCurve, ProbeTask
from efface.stages.run.run import Run
from efface.stages.trial.error_text import error_text
from efface.store.arrays import read_rows
from efface.store.maps import MapStore

_REMEDY = "; drop this method or the metric from the study"
_IMAGES = 32  # test images that a metric may choose from; the method gets one of them


class _TriedError(BaseException):
    """Ends the trial of a pair, once the method has answered. No metric catches it."""


class _FailedError(BaseException):
    """Ends the trial of a pair whose method failed; the cause is the method's own error."""


def unfit_pairs(run: Run, plan: Plan, network: nn.Module, methods: Mapping[str, MethodCall]) -> Iterator[str]:
    """Yield a sentence for each metric that hands a method another network on which the method fails.

    Of each curve one point is tried, on one image; if it fails and the metric may lack points, the others as well. A
    metric that hands over the given network, or that needs a training or more images first, is not tried.

    network: the given network. methods: the methods that passed their own trial, by the names of their maps.
    """
    data = dict(run.data) | {"test": _few(run.data["test"])}
    for curve in plan.curves:
        if curve.view.maps not in methods:
            continue
        tasks = [task for point in curve.repeats[0] for task in point.tasks.values() if task.probe.needs.method]
        failure: str | None = None
        for task in tasks[::-1] if curve.entry.formula.may_lack_points else tasks[-1:]:
            failure = _failure(run, data, network, methods[curve.view.maps], curve, task)
            if failure is None:
                break
        if failure is not None:
            yield (
                f"metrics.{curve.entry.name}, {curve.view.name}: the metric calls this method on another network, and "
                f"it fails there: {failure.removesuffix(_REMEDY)}{_REMEDY}"
            )


def _failure(
    run: Run,
    data: Mapping[str, Split],
    network: nn.Module,
    method: MethodCall,
    curve: PlannedCurve,
    task: ProbeTask,
) -> str | None:
    """Return the error of the method in words; None if it works, or if the metric does not come to it."""

    def one(asked: nn.Module, images: Images, targets: Targets, indices: Tensor, masks: Tensor | None = None) -> Maps:
        if asked is network:
            raise _TriedError
        given = asked, images[:1], targets[:1], indices[:1], *(() if masks is None else (masks[:1],))

        def explained(max_batch: int) -> Maps:
            return explainer_of(run, curve.view, method=method, network=network, max_batch=max_batch)(*given)

        try:
            with_smaller_batches(explained, run.study.max_batch)
        except BaseException as error:
            if is_stop(error):
                raise
            raise _FailedError from error
        raise _TriedError

    case = _case(run, data, network, one)
    try:
        task.probe(case)
    except _FailedError as error:
        return error_text(error.__cause__ or error)
    except _TriedError:
        return None
    except Exception:  # noqa: BLE001  what a metric raises itself is said when it is measured
        return None
    return None


def _case(run: Run, data: Mapping[str, Split], network: nn.Module, explain: Explain) -> Case:
    split = data["test"]
    return dataclasses.replace(
        case_of(run, {"test": _Maps(split.shape)}, network=False),
        given_network=network,
        data=data,
        target_classes=split.targets.cpu(),
        advance=lambda _: None,
        explain=explain,
        once=_no_training,
    )


def _no_training(*_: Any) -> NoReturn:
    raise _TriedError


class _Maps(MapStore):
    """Stands for the maps that are not there yet. Nothing but `take` may be called."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._size = shape[1:]

    def take(self, indices: Tensor) -> Maps:
        return torch.rand(len(indices), *self._size, generator=torch.Generator().manual_seed(0))


def _few(split: Split) -> Split:
    indices = torch.linspace(0, len(split) - 1, min(_IMAGES, len(split))).round().long().unique()
    masks = None if split.masks is None else split.masks[indices.to(split.masks.device)]
    targets = split.targets[indices.to(split.targets.device)]
    return dataclasses.replace(split, images=read_rows(split.images, indices), targets=targets, masks=masks)
