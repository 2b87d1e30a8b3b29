"""Trial of every method on two test images, before hours are spent."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from efface.base import draws
from efface.execute import is_stop
from efface.methods.calling import MethodCall, attribute, is_class
from efface.methods.looked_at import layers_looked_at
from efface.models.memory import with_smaller_batches
from efface.plug.facts import fact
from efface.stages.run.curves import PlannedRun
from efface.stages.run.display import display
from efface.stages.run.map_files import learnt_path, needed_splits
from efface.stages.run.method_calls import method_call, seed_text
from efface.stages.run.needs import unmet
from efface.stages.run.progress import duration, say
from efface.stages.run.run import Run
from efface.stages.run.weights_kept import weights_kept
from efface.stages.trial.error_text import batch_hint, error_text
from efface.stages.trial.files import try_file
from efface.stages.trial.metrics import lost_channels, unfit_metrics, unfit_posts, wrong_costs
from efface.stages.trial.network import try_network
from efface.stages.trial.pairs import unfit_pairs
from efface.stages.trial.trial import Trial
from efface.stages.work.at_work import Subject, is_crash, left, noted
from efface.stages.work.learning import learnt_on_trial
from efface.study.schema import MethodEntry

SOON = 3.0  # seconds; most trials end before that, so that no bar is shown
NEARLY = 0.75
"""Part of that time after which a method that still calls the network is let off with what it has shown. A method that
calls the network no more and does not end is stopped after the whole time, and is an error."""
LONG = 20.0  # seconds for the trial of one method: SmoothGrad of IG on a VGG-16 would take an hour on a CPU


class _LongError(BaseException):
    """Ends a trial that takes too long. It is a BaseException, so that no method catches it."""


_Learnt = dict[tuple[str | None, Path | None], dict[str, Tensor] | None]
"""Tensors that methods learnt on a few images, by network and file. Entries that learn the same learn once."""


def preflight(
    planned: PlannedRun, *, warn: bool = False, long: float = LONG, splits: Sequence[str] | None = None
) -> list[Trial]:
    """Run every method on two test images. ValueError: everything that does not work, one line each.

    warn: also make one image's map for another class. It shows whether a method ignores the class.
    long: seconds after which the trial of a method ends.
    splits: splits whose maps are extracted; None: those that the study's metrics read, which must be in the data.
    """
    run, plan = planned.run, planned.plan
    if not run.first.trained():
        say("the network is not trained yet, so the methods are tried on fresh weights")
    network, images, logits = try_network(run)
    if splits is None:
        needed_splits(run)
    trials, problems, learnt, methods = list[Trial](), [], _Learnt(), dict[str, MethodCall]()
    first = [entry for entry in run.entries if entry.draw == 1]
    with display(float(len(first)), "try", "methods", delay=SOON) as live:
        for entry in first:
            try:
                trial = _tried(run, entry, network, images, logits, learnt, methods, warn=warn, long=long)
                trials.append(trial)
                if trial.leaves_thread or ("module" not in vars(run.first) and run.first.trained()):
                    network = run.first.to_try()  # a thread may still change the old one
            except BaseException as error:
                if is_stop(error):
                    raise
                if "module" not in vars(run.first):
                    network = run.first.to_try()
                text = error_text(error)
                where = f"attribution_methods.{entry.name}: "
                text = text if text.startswith(where[:-2]) else where + text
                problems.append(text + _low_precision(network) + batch_hint(entry, error))
            live.update()
    trials += [trial for entry in run.entries for trial in _of_further_draw(entry, trials, methods)]
    shapes = {name: shape for trial in trials for name, shape in trial.shapes.items()}
    for line in lost_channels(plan, shapes):
        say(f"warning: {line}")
    problems += unmet(run, plan)
    problems += unfit_metrics(plan, network, images.float().div(255), run.data.get("train"))
    problems += unfit_posts(run, plan, shapes)
    problems += wrong_costs(run, plan)
    with weights_kept(network, "metrics: the trial of a method on another network", run.first.give_up):
        problems += unfit_pairs(run, plan, network, methods)
    if problems:
        raise ValueError("\nefface: ".join(problems))
    return trials


def _of_further_draw(entry: MethodEntry, trials: list[Trial], methods: dict[str, MethodCall]) -> list[Trial]:
    """Return the trial of a further draw, which is that of the first one; nothing for others, or if the first failed.

    Draws differ in their seeds alone.
    """
    if entry.draw == 1:
        return []
    first = next((trial for trial in trials if trial.name == entry.undrawn.name), None)
    if first is None:
        return []
    names = dict(zip(entry.undrawn.gives, entry.gives, strict=True))
    methods |= {names[name]: method for name, method in methods.items() if name in names}
    shapes = {names[name]: shape for name, shape in first.shapes.items() if name in names}
    return [replace(first, name=entry.name, shapes=shapes, warnings=[])]


def _tried(
    run: Run,
    entry: MethodEntry,
    network: nn.Module,
    images: Tensor,
    logits: Tensor,
    learnt: _Learnt,
    methods: dict[str, MethodCall],
    *,
    warn: bool,
    long: float,
) -> Trial:
    """Try one entry. A method that is tried to the end is added to `methods`, by the names of its maps."""
    if entry.file is not None:
        return try_file(run, entry)
    subject = Subject(f"attribution_methods.{entry.name}", "trial")
    end = left(run.folder).get(subject.name)
    if end is not None and (not warn or is_crash(end)):
        return _left_out(subject, end, checking=warn)
    own = network if entry.network is None else run.network_of(entry).to_try()
    with noted(run.folder, subject):
        method = method_call(entry, _learnt(run, entry, own, learnt))
        threads: list[str] = []
        with weights_kept(own, subject.name, run.network_of(entry).give_up, tell=threads.append, on_trial=True):
            trial = _try(run, method, entry, own, images, logits, warn=warn, long=long)
    trial.leaves_thread = bool(threads)
    trial.warnings.extend(line.removeprefix(f"{subject.name}: ") for line in threads)
    if not trial.cut:
        methods |= dict.fromkeys(entry.gives, replace(method, timeout=long))
    return trial


def _low_precision(network: nn.Module) -> str:
    """Return a remark on weights below 32 bits, which may be the cause of an error; "" if there are none."""
    kinds = dict.fromkeys(str(parameter.dtype) for parameter in network.parameters() if parameter.dtype.itemsize < 4)
    shown = " and ".join(kind.removeprefix("torch.") for kind in kinds)
    return f". The network has weights of type {shown}; if that is the cause, hand it over in float32" if kinds else ""


def _left_out(subject: Subject, end: str, *, checking: bool) -> Trial:
    """Return the trial of a method during which the process of an earlier command ended: it is not tried here again.

    ValueError: a check was asked for.
    """
    said = f"the process of an earlier command ended {end} while this method was running"
    if checking:
        raise ValueError(f"{said}; fix the method and extract its maps again, or leave it out")
    say(f"{subject.name}: {said}, so it is not tried before its maps are extracted")
    return Trial(subject.name, 0.0, [], {}, cut=True)


def _learnt(run: Run, entry: MethodEntry, network: nn.Module, learnt: _Learnt) -> dict[str, Tensor] | None:
    what = (entry.network, learnt_path(run, entry))
    if what not in learnt:
        learnt[what] = learnt_on_trial(run, entry, network)
    return learnt[what]


def _try(
    run: Run,
    method: MethodCall,
    entry: MethodEntry,
    network: nn.Module,
    images: Tensor,
    logits: Tensor,
    *,
    warn: bool,
    long: float,
) -> Trial:
    indices = torch.arange(len(images))
    seeds = draws.seeds_of(seed_text(run, entry, "test"), indices).to(run.device)
    masks = run.data["test"].masks
    floats = images.float().div(255)

    def maps(classes: Tensor) -> dict[str, Tensor]:
        n = len(classes)
        own = None if masks is None else masks[indices[:n]].to(run.device)

        def computed(max_batch: int) -> dict[str, Tensor]:
            return attribute(method, network, floats[:n], classes, seeds=seeds[:n], max_batch=max_batch, masks=own)

        return with_smaller_batches(computed, run.study.max_batch)

    targets, attributions, other = logits.argmax(1), dict[str, Tensor](), dict[str, Tensor]()
    method = replace(method, timeout=min(long, method.timeout or long))
    with _counting(time.monotonic() + long * NEARLY) as counted:
        try:
            attributions = maps(targets)
            per_image = counted[0] / len(images)
            if warn:  # of one image: some methods take long
                other = maps((targets[:1] + 1) % logits.shape[1])
        except _LongError:
            if not attributions:
                per_image = counted[0] / len(images)
                message = (
                    f"test stopped after {duration(long)} on {run.device}. Its maps will be checked during extraction. "
                    f"The time estimate uses the {per_image:.0f} forward passes per image counted so far, so it is a "
                    "lower bound."
                )
                return Trial(entry.name, per_image, [message], {}, cut=True)
    warnings = _doubts(method, network, floats, targets, attributions)
    for name, attribution in attributions.items():
        if not attribution.is_floating_point():
            continue
        of = f"{name}: " if name != entry.name else ""
        if (attribution.flatten(1).max(1).values == attribution.flatten(1).min(1).values).any():
            warnings.append(f"{of}the map of an image is constant, so its ranking is random")
        if other and not entry.is_control and _same(attribution[:1], other[name]):
            warnings.append(f"{of}the map is the same whatever class is explained")
    shapes = {name: tuple(values.shape[1:]) for name, values in attributions.items() if values.is_floating_point()}
    layers = layers_looked_at(method.call, network, floats)
    return Trial(entry.name, per_image, warnings, shapes, layers=layers)


def _doubts(
    method: MethodCall, network: nn.Module, images: Tensor, targets: Tensor, maps: dict[str, Tensor]
) -> list[str]:
    """Return what the method's own function doubts about its maps."""
    doubts = None if is_class(method.call) else fact(method.call.resolve(), "doubts")
    if doubts is None or len(maps) != 1:
        return []
    return list(doubts(network, images, targets, next(iter(maps.values())), **method.call.kwargs))


def _same(maps: Tensor, others: Tensor) -> bool:
    """Return whether two maps are equal up to the rounding that the batch size causes."""
    return bool((maps - others).abs().max() <= 1e-5 * maps.abs().max())


@contextmanager
def _counting(until: float) -> Iterator[list[int]]:
    """Count the images that pass through any network, also through copies and a second network.

    until: time of the monotonic clock. A module that starts after it raises _LongError.
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
        for handle in handles:
            handle.remove()
