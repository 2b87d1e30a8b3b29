"""Stage check: every method tried on two images, every metric planned, before hours are spent."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from efface import draws
from efface.erase.ranking import for_unit
from efface.methods.calling import Convention, attribute
from efface.metrics.probes.description import Reading, reading, settings
from efface.plug.call import Call
from efface.stages.extract import splits
from efface.stages.run.estimate import plan
from efface.stages.run.inputs import check_classes
from efface.stages.run.learn import learnt_on_trial
from efface.stages.run.method_calls import convention, seed_text
from efface.stages.run.network import Network
from efface.stages.run.plan import applies, of_maps, points, unmet, viewed
from efface.stages.run.progress import bar, duration, say
from efface.stages.run.run import Run
from efface.stages.run.training_check import flat, try_terms
from efface.stages.run.view import View
from efface.store.arrays import take
from efface.study.schema import MethodEntry, MetricEntry

_SOON = 3.0  # seconds; most studies are tried by then
_LONG = 20.0  # seconds that one method may be tried: SmoothGrad of IG on a VGG-16 would take an hour of a CPU


class _LongError(BaseException):
    """Raised within a method's pass, when it has been tried for long enough; no method's own error handling ends it."""


@dataclass
class Trial:
    """What two images tell of a method."""

    name: str
    rows: float
    """Forward rows for one image."""
    warnings: list[str]
    shapes: dict[str, tuple[int, ...]]
    """Of one map, by its name; a ranking that is drawn anew has none."""
    cut: bool = False
    """Whether it was left before it was through: then `rows` are only those until then."""


def check_study(run: Run) -> float:
    """Try and plan. Returns the seconds that what is left may take. ValueError: what cannot work, a line each."""
    data = ", ".join(f"{len(split)} {name}" for name, split in run.data.items())
    c, h, w = run.data["test"].shape
    say(f"data: {run.study.data.call}: {data} images of {c} x {h} x {w}")
    trials = preflight(run, warn=True)
    for warning in flat(run):
        say(f"warning: {warning}")
    for each in trials:
        for warning in each.warnings:
            say(f"warning: {each.name}: {warning}")
    if not run.study.references():
        say(
            "warning: no method is a random control (efface.methods.control.random); without one no curve says how "
            "much better than chance it is"
        )
    return plan(run, {each.name: each.rows for each in trials}, least=any(each.cut for each in trials))


def preflight(run: Run, *, warn: bool = False) -> list[Trial]:
    """Run every method on two test images. ValueError: all that does not work, a line each.

    warn: whether to ask for an image's map of another class, too, to see whether a method is blind to it.
    """
    if not run.first.trained():
        say("the network is not trained yet: methods are tried on fresh weights")
    network, images, logits = try_network(run)
    splits(run)
    trials, problems, learnt = [], [], dict[tuple[str | None, Path | None], dict[str, Tensor] | None]()
    with bar(float(len(run.entries())), "try", "method", delay=_SOON) as progress:
        for entry in run.entries():
            try:
                own = network if entry.network is None else run.network_of(entry).to_try()
                if (what := (entry.network, run.learnt_path(entry))) not in learnt:
                    learnt[what] = learnt_on_trial(run, entry, own)
                trials.append(_try(run, convention(entry, learnt[what]), entry, own, images, logits, warn=warn))
            except Exception as error:  # noqa: BLE001  a method may raise anything; all are to be tried
                plain = isinstance(error, ValueError | FileNotFoundError)
                text = str(error) if plain else f"{type(error).__name__}: {error}"
                where = f"attribution_methods.{entry.name}: "
                problems.append(text if text.startswith(where[:-2]) else where + text)
            progress.update()
    for name, shape in ((name, shape) for trial in trials for name, shape in trial.shapes.items()):
        for line in _lost_channels(run, name, shape):
            say(f"warning: {line}")
    problems += unmet(run)
    problems += _unfit_metrics(run, network, images.float().div(255))
    problems += _unfit_posts(run, {name: shape for trial in trials for name, shape in trial.shapes.items()})
    if problems:
        raise ValueError("\nefface: ".join(problems))
    return trials


def try_network(run: Run) -> tuple[nn.Module, Tensor, Tensor]:
    """The network (with fresh weights, where it is to be trained), two test images, its answers to them.

    ValueError: it, or the judge, cannot take them, has too few classes, or cannot be trained as the study says.
    """
    train = run.data.get("train")
    for where, fit in (
        ("fit", run.first.fit),
        ("refit", run.refit),
        *(("judge.fit", each.fit) for each in run.networks()[1:]),
    ):
        if fit is not None and fit.keep == "best" and train is not None and train.validation is None:
            raise ValueError(
                f"{where}.keep: is 'best', but no rows are set apart to choose by; set data.kwargs.validation=0.125"
            )
    for each in run.networks()[1:]:
        _answers(run, each)
    found = _answers(run, run.first)
    try_terms(run)
    return found


def _answers(run: Run, of: Network) -> tuple[nn.Module, Tensor, Tensor]:
    """A network, two test images, its answers to them."""
    network = of.to_try()
    images = take(run.data["test"].images, torch.arange(min(2, len(run.data["test"])))).to(run.device)
    try:
        with torch.inference_mode():
            logits = network(images.float().div(255))
    except Exception as error:
        size, why = " x ".join(map(str, images.shape[1:])), " ".join(str(error).split())
        where = "model" if of is run.first else f"{of.name}.model"
        raise ValueError(f"{where}: {of.model.call} fails on images of {size}: {why}") from error
    for name, split in run.data.items():
        check_classes(logits, split, name)
    return network, images, logits


def _try(
    run: Run,
    method: Convention,
    entry: MethodEntry,
    network: nn.Module,
    images: Tensor,
    logits: Tensor,
    *,
    warn: bool,
) -> Trial:
    rows = torch.arange(len(images))
    seeds = draws.seeds_of(seed_text(run, entry, "test"), rows).to(run.device)
    masks = run.data["test"].masks
    floats = images.float().div(255)

    def maps(classes: Tensor) -> dict[str, Tensor]:
        n = len(classes)
        own = None if masks is None else masks[rows[:n]].to(run.device)
        return attribute(method, network, floats[:n], classes, seeds=seeds[:n], rows=run.study.rows, masks=own)

    targets, found, other = logits.argmax(1), dict[str, Tensor](), dict[str, Tensor]()
    with _counting(time.monotonic() + _LONG) as counted:
        try:
            found = maps(targets)
            per_image = counted[0] / len(images)
            if warn:  # of one image: some methods take long
                other = maps((targets[:1] + 1) % logits.shape[1])
        except _LongError:
            if not found:
                per_image = counted[0] / len(images)
                told = (
                    f"{duration(_LONG)} on {run.device} were not enough to try it: what it gives is looked at when it "
                    f"is extracted, and the plan counts the {per_image:.0f} rows an image that it had until then"
                )
                return Trial(entry.name, per_image, [told], {}, cut=True)
    warnings = []
    for name, each in found.items():
        if not each.is_floating_point():
            continue
        of = f"{name}: " if name != entry.name else ""
        if (each.flatten(1).max(1).values == each.flatten(1).min(1).values).any():
            warnings.append(f"{of}the map of an image is constant: its ranking is a shuffle")
        if other and _same(each[:1], other[name]):
            control = " (as a control is)" if entry.is_control else ""
            warnings.append(f"{of}the map is the same whatever class is explained{control}")
    shapes = {name: tuple(each.shape[1:]) for name, each in found.items() if each.is_floating_point()}
    return Trial(entry.name, per_image, warnings, shapes)


def _same(maps: Tensor, others: Tensor) -> bool:
    """Whether two maps are equal but for what the size of a batch makes of rounding."""
    return bool((maps - others).abs().max() <= 1e-5 * maps.abs().max())


def _lost_channels(run: Run, name: str, shape: tuple[int, ...]) -> Iterator[str]:
    """Metrics that rank features of maps whose channels the post has thrown away: all of a pixel's are tied."""
    for entry, view in product(of_maps(run), run.views()):
        if view.maps != name or len(shape) != 3 or shape[0] == 1 or not applies(run, entry, view):
            continue
        found = _readings(run, entry, view)
        for read in dict.fromkeys(read for probe, read in found if settings(probe).get("unit") == "feature"):
            with suppress(Exception):  # said where posts are refused
                maps = _reduced(shape, read)
                if maps.ndim == 3 or maps.shape[1] == 1:
                    yield (
                        f"metrics.{entry.name}, {view.name}: unit 'feature' ranks channels, but 'post' leaves one "
                        "value a pixel; drop channel_sum or channel_max from it"
                    )


def _unfit_posts(run: Run, shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """Metrics whose post does not leave of the maps' shapes what they take."""
    problems: dict[str, None] = {}
    for entry in of_maps(run):
        for view in run.views():
            if view.maps not in shapes or not applies(run, entry, view):
                continue
            for read in dict.fromkeys(read for _, read in _readings(run, entry, view)):
                try:
                    maps = _reduced(shapes[view.maps], read)
                    if read.values is not None:
                        for_unit(maps, read.values, run.data["test"].shape[0])
                except Exception as error:  # noqa: BLE001  a post may raise anything
                    problems[f"metrics.{entry.name}, {view.name}: {error}"] = None
    return list(problems)


def _readings(run: Run, entry: MetricEntry, view: View) -> Iterator[tuple[Any, Reading]]:
    """The probes of a metric that read maps, and how they do."""
    with suppress(Exception):  # a point that the metric does not take: said where settings are refused
        for point in points(run, entry, view):
            for probe in entry.formula.probes(point).values():
                if (read := reading(probe)) is not None:
                    yield probe, read


def _reduced(shape: tuple[int, ...], read: Reading) -> Tensor:
    """Two maps of this shape as a probe looks at them."""
    maps = torch.zeros(2, *shape)
    for each in read.post:
        maps = each(maps)
    return maps


def _unfit_metrics(run: Run, network: nn.Module, images: Tensor) -> list[str]:
    """Metrics whose settings, fill or unit do not suit the network, or images of this size."""
    problems, mask = [], torch.zeros_like(images[:, 0], dtype=torch.bool)
    mask[:, : mask.shape[1] // 2] = True
    offered = {"mean": images.mean((0, 2, 3)), "seeds": torch.arange(len(images), device=images.device)}
    for entry in (each for each in run.study.metrics if viewed(run, each)):
        view = viewed(run, entry)[0]
        try:
            point, reads = next(iter(points(run, entry, view))), entry.formula.reads
            if "imputer" in reads:
                point.imputer(images, mask, **offered)
            if "groups" in reads and isinstance(point.unit, Call):
                point.unit(images)
            for probe in (probe for each in points(run, entry, view) for probe in entry.formula.probes(each).values()):
                if hasattr(probe, "check"):
                    probe.check(network, images)
        except Exception as error:  # noqa: BLE001  a fill or a unit may raise anything
            text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            problems.append(f"metrics.{entry.name}: {text.removeprefix(f'{entry.name}: ')}")
    return problems


@contextmanager
def _counting(until: float) -> Iterator[list[int]]:
    """Rows that go into any network while the context lasts, a second one or a copy as well.

    _LongError: a pass begins, or goes on to its next module, after `until` (monotonic).
    """
    counted, depth = [0], 0

    def enter(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        nonlocal depth
        if time.monotonic() > until:
            raise _LongError
        if not depth and arguments and isinstance(arguments[0], Tensor) and arguments[0].ndim:
            counted[0] += len(arguments[0])
        depth += 1

    def leave(*_: Any) -> None:
        nonlocal depth
        depth = max(0, depth - 1)

    handles = (register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True))
    try:
        yield counted
    finally:
        for each in handles:
            each.remove()
