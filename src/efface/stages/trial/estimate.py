"""The work that a run has left, and an estimate of its time."""

import inspect
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from efface.execute import processors, slots
from efface.models.memory import with_smaller_batches
from efface.plug.call import Call
from efface.plug.facts import fact
from efface.stages.run.curves import PlannedRun
from efface.stages.run.map_files import missing_extractions
from efface.stages.run.network import Network
from efface.stages.run.progress import duration, say
from efface.stages.run.run import Run
from efface.stages.work.sampling import samples_path
from efface.stages.work.through import is_own
from efface.store.arrays import read_rows
from efface.store.maps import finished_rows, partial_path
from efface.training.loop import TrainingSettings


@dataclass(frozen=True)
class Estimate:
    """The work that a run has left. A pass is one image through the network once; a training step takes three.

    networks: passes of the training of each network, by its name; 0 if it is trained.
    maps: files of maps to extract. map_passes: their passes.
    probes: probes of the plan. probes_left: those without a result. trainings: those of them that train.
    probe_passes: their passes. sample_passes: passes of the samples that are to be made.
    workers: tasks that run at once. seconds_per_pass, seconds: of one pass, and of all passes that are left.
    seconds_around: see `around_the_work`.
    at_least: the seconds are a lower bound, because a method was not tried to its end.
    at_most: the study measures in rounds, and may need fewer probes.
    """

    networks: Mapping[str, float]
    maps: int
    map_passes: float
    probes: int
    probes_left: int
    trainings: int
    probe_passes: float
    sample_passes: float
    workers: int
    seconds_per_pass: float
    seconds: float
    seconds_around: tuple[float, float]
    at_least: bool
    at_most: bool

    def facts(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return asdict(self)


def say_estimate(planned: PlannedRun, passes_of: Mapping[str, float], *, least: bool) -> Estimate:
    """Print the work that is left, in forward passes and trainings, and return it.

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
    networks = {
        "first network" if net is run.first else net.name: 0.0 if net.trained() else float(_passes_of(net, images))
        for net in run.networks()
    }
    say("plan (a pass: one image through the network once; a training step takes three):")
    for name, needed in networks.items():
        say(f"  {name}: {f'{needed:,.0f} passes' if needed else 'done'}")
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
    if is_own(executor):
        workers = min(workers, processors())
    trained = sum(_passes_of(net, images) / _devices_of(net.fit) for net in run.networks() if not net.trained())
    retrained = sum(cell.probe.cost(images, run.refit) for cell in todo if not cell.probe.needs.network)
    shared = retrained * (1 - 1 / _devices_of(run.refit))
    seconds = per_pass * (trained + (3 * extraction + passes - shared + sampling) / workers)
    around = around_the_work()
    about = f"{at_most}{span(seconds, around, least=least)}"
    say(
        f"  estimate: {about} with {workers} at once: {duration(seconds)} of passes "
        f"({per_pass * 1e3:.2g} ms a pass on {run.device}), and the start of workers, reading, trials and the page"
    )
    return Estimate(
        networks=networks,
        maps=len(missing),
        map_passes=float(extraction),
        probes=len(plan.tasks),
        probes_left=len(todo),
        trainings=trainings,
        probe_passes=float(passes),
        sample_passes=float(sampling),
        workers=workers,
        seconds_per_pass=per_pass,
        seconds=float(seconds),
        seconds_around=around,
        at_least=least,
        at_most=bool(at_most),
    )


def around_the_work() -> tuple[float, float]:
    """Return the least and the most seconds that a command takes besides its passes, judged by this process so far.

    A command starts as this one did, reads the same data and makes the same trials, and it draws the page. Its workers
    start from one process that imports the same. Where workers are new interpreters, each stage of up to three starts
    them likewise.
    """
    so_far = time.process_time()
    return so_far, 4 * so_far


def span(seconds: float, around: tuple[float, float], *, least: bool = False) -> str:
    """Return from when to when a command may end, in words. least: the passes may take longer."""
    low, high = (duration(seconds + each) for each in around)
    if least:
        return f"at least {low}"
    return low if low == high else f"{low} to {high}"


def _devices_of(fit: TrainingSettings | None) -> int:
    if fit is None:
        return 1
    return max(1, torch.cuda.device_count()) if fit.devices == "auto" else fit.devices


def _passes_of(network: Network, images: Mapping[str, int]) -> float:
    """Return the forward passes of a training: three per image and epoch, and those of its attack and regularisers.

    images: number of images of each split.
    """
    fit = network.fit
    if fit is None:
        return 0.0
    steps = 0 if fit.attack is None else _setting(fit.attack, "steps", 8) * _setting(fit.attack, "restarts", 1)
    of_regularizers = sum(fact(regularizer.term.resolve(), "cost") for regularizer in fit.regularizers)
    return (3.0 + 2 * steps + of_regularizers) * fit.epochs * images["train"]


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

    def timed(max_batch: int) -> float:
        best = float("inf")
        for _ in range(3):
            started = time.perf_counter()
            with torch.inference_mode():
                network(images[:max_batch]).cpu()
            best = min(best, time.perf_counter() - started)
        return best / max_batch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return with_smaller_batches(timed, count)
    finally:
        torch.set_num_threads(threads)
