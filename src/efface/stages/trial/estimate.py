"""The work that a run has left, and an estimate of its time."""

import inspect
import time
from collections.abc import Mapping

import torch

from efface.execute import processors, slots
from efface.plug import words
from efface.plug.call import Call
from efface.plug.facts import fact
from efface.stages.run.curves import PlannedRun
from efface.stages.run.map_files import missing_extractions
from efface.stages.run.network import Network
from efface.stages.run.progress import duration, say
from efface.stages.run.run import Run
from efface.stages.work.sampling import samples_path
from efface.store.arrays import read_rows
from efface.store.maps import finished_rows, partial_path


def say_estimate(planned: PlannedRun, passes_of: Mapping[str, float], *, least: bool) -> float:
    """Print the work that is left, in forward passes and trainings. Return the estimated seconds.

    passes_of: forward passes of each method for one image. least: whether some of these are lower bounds.
    """
    run, plan = planned.run, planned.plan
    images = {name: len(split) for name, split in run.data.items()}
    per_pass = _seconds_per_pass(run)
    extraction = 0.0
    missing = missing_extractions(run)
    for task in missing:
        finished = finished_rows(partial_path(run.map_path(task.method, task.split)))
        extraction += passes_of[task.method] * (images[task.split] - finished)
    first = sum(
        _passes_of(untrained, images["train"])
        for untrained in run.networks()
        if untrained.fit and not untrained.trained()
    )
    say("plan (a pass: one image through the network once; a training step takes three):")
    for net in run.networks():
        passes = 0.0 if net.trained() else _passes_of(net, images["train"])
        say(f"  {'first network' if net is run.first else net.name}: {f'{passes:,.0f} passes' if passes else 'done'}")
    say(f"  maps: {len(missing)} files to extract, {extraction:,.0f} passes")
    todo = plan.open(run.results)
    trainings = sum(not cell.probe.needs.network for cell in todo)
    passes = sum(cell.probe.cost(images, run.refit) for cell in todo)
    at_most = "" if run.study.decide is None else "at most "
    say(f"  probes: {at_most}{len(todo)} of {len(plan.tasks)} to run: {trainings} trainings, {passes:,.0f} passes")
    wanted = {cell.probe.needs.samples for cell in todo}
    sampling = sum(
        samples.costs for samples in wanted if samples is not None and not samples_path(run, samples).exists()
    )
    if sampling:
        say(f"  samples: {sampling:,.0f} passes")
    executor, tasks = run.study.executor, len(missing) + len(todo)
    workers = 1 if run.device.type == "cuda" else slots(executor.resolve(), tasks, executor.kwargs)  # they share it
    if words.name_of(executor.call):  # its workers run on this machine
        workers = min(workers, processors())
    seconds = per_pass * (first + (3 * extraction + passes + sampling) / workers)
    about = f"{'at least ' if least else ''}{duration(seconds)}"
    say(f"  estimate: {at_most}{about} with {workers} at once ({per_pass * 1e3:.2g} ms a pass on {run.device})")
    return seconds


def _passes_of(network: Network, images: int) -> float:
    """Return the forward passes of a training: three per image and epoch, and those of its attack and regularisers."""
    fit = network.fit
    if fit is None:
        return 0.0
    steps = 0 if fit.attack is None else _setting(fit.attack, "steps", 8) * _setting(fit.attack, "restarts", 1)
    of_regularizers = sum(fact(regularizer.term.resolve(), "cost") for regularizer in fit.regularizers)
    return (3.0 + 2 * steps + of_regularizers) * fit.epochs * images


def _setting(call: Call, name: str, otherwise: int) -> int:
    """Return an integer setting of a call: the given value, else the function's default, else `otherwise`."""
    known = inspect.signature(call.resolve()).parameters.get(name)
    value = call.kwargs.get(name, None if known is None else known.default)
    return value if isinstance(value, int) else otherwise


def _seconds_per_pass(run: Run) -> float:
    """Return the seconds of a forward pass for one image. It is the fastest of three timed batches."""
    network = run.first.to_try()
    count = min(run.study.max_batch, 64, len(run.data["test"]))
    images = read_rows(run.data["test"].images, torch.arange(count)).to(run.device).float().div(255)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    best = float("inf")
    try:
        for _ in range(3):
            started = time.perf_counter()
            with torch.inference_mode():
                network(images).cpu()
            best = min(best, time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return best / count
