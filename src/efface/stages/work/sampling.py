"""Samples: what the network makes of the classes of the test images, from noise; kept as HDF5 and gone on from.

Sample i is aimed at the class of test row i, over again where there are more samples than rows; its noise is row i's.
"""

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from efface import execute
from efface.base import draws
from efface.base.types import Images, Targets
from efface.execute import Failure, task_status
from efface.metrics.probes import Samples
from efface.models.memory import Onwards, with_smaller_batches
from efface.stages.run.display import display
from efface.stages.run.progress import duration, say, say_out_of_memory
from efface.stages.run.provenance import GENERATED, surroundings
from efface.stages.run.run import Run
from efface.stages.run.worker import current_run, keep_failure
from efface.stages.work.through import work_through
from efface.store.keys import key, versions
from efface.store.maps import MapStore, MapWriter
from efface.study.study import Study
from efface.training import generate
from efface.training.generate import COST, Advance, Sampling

_BLOCK = 32  # samples that a kill may cost a worker: hundreds of passes each, a minute or so of a small network


@dataclass(frozen=True)
class Sample:
    """The work: a block of samples, by the number of its first."""

    study: Study
    settings: Sampling

    def __call__(self, first: int) -> np.ndarray:
        run = current_run(self.study)
        numbers = torch.arange(first, min(first + block_of(run), self.settings.count))
        cost = float(COST * self.settings.steps * len(numbers))
        with task_status.working_on(run.folder, f"samples from {first}", cost, "passes"):
            return sampled(run, self.settings, numbers).numpy(force=True)


def make_samples(run: Run, wanted: Iterable[Sampling] | None = None) -> list[str]:
    """Make those samples that are not there yet, and say where they are; sentences on what failed.

    wanted: by default the study's `samples`.
    """
    failures = []
    for settings in dict.fromkeys([run.study.samples] if wanted is None else wanted):
        if not samples_path(run, settings).exists():
            failures += _make(run, settings)
        with contextlib.suppress(FileNotFoundError):
            store = _store(run, settings)
            say(f"samples: {len(store)} images in {store.path}")
    return failures


def samples_of(run: Run, settings: Sampling) -> Samples:
    """The samples that the stage made. FileNotFoundError: not made, or not to the end."""
    store = _store(run, settings)
    return Samples(store.take(torch.arange(len(store))), store.targets)


def some_samples(
    run: Run, settings: Sampling, indices: Int[Tensor, " n"], advance: Advance = execute.advance
) -> Images:
    """The samples of these test rows: those that the stage made, or, where it has not, made now and not kept."""
    if samples_path(run, settings).exists() and int(indices.max()) < settings.count:
        with task_status.already_there():
            advance(float(COST * settings.steps * len(indices)))
        return _store(run, settings).take(indices)
    return sampled(run, settings, indices, advance).cpu()


def sampled(run: Run, settings: Sampling, numbers: Int[Tensor, " n"], advance: Advance = execute.advance) -> Images:
    """Samples by number, computed; in smaller batches when memory runs out."""
    targets = aims(run, numbers).to(run.device)
    seeds = draws.seeds_of(f"{run.study.seed} samples", numbers).to(run.device)

    onwards = Onwards(advance)

    def generated(max_batch: int) -> Images:
        onwards.restart()
        shape = run.data["test"].shape
        return generate.samples(run.network, targets, seeds, shape, settings, max_batch=max_batch, advance=onwards)

    return with_smaller_batches(generated, run.study.max_batch, halved=partial(say_out_of_memory, "samples"))


def aims(run: Run, numbers: Int[Tensor, " n"]) -> Targets:
    """The classes that samples of these numbers are aimed at."""
    targets = run.data["test"].targets.cpu()
    return targets[numbers % len(targets)]


def samples_path(run: Run, settings: Sampling) -> Path:
    """The file of these samples."""
    return run.folder / "samples" / f"samples-{key(samples_provenance(run, settings))}.h5"


def samples_provenance(run: Run, settings: Sampling) -> dict[str, Any]:
    """Return what samples are made from."""
    return {
        "samples": settings.identity(),
        "count": settings.count,
        "network": run.network_digest,
        "data": run.data_digest["test"],
        "seed": run.study.seed,
        "versions": versions(*GENERATED),
    }


def block_of(run: Run) -> int:
    """Samples that are made and kept at once: on a GPU as many as a pass holds."""
    return run.study.max_batch if run.device.type == "cuda" else min(run.study.max_batch, _BLOCK)


def _make(run: Run, settings: Sampling) -> list[str]:
    path, started, failures = samples_path(run, settings), time.monotonic(), []
    targets = aims(run, torch.arange(settings.count))
    writer = MapWriter(path, samples_provenance(run, settings), targets, torch.empty(run.data["test"].shape), "images")
    try:
        size = block_of(run)
        tasks = [first for first in range(0, settings.count, size) if not writer.done[first : first + size].all()]
        with display(settings.costs, "samples", "passes", tasks=len(tasks), folders=[run.folder]) as live:
            live.already(float(COST * settings.steps * int(writer.done.sum())))

            def cost(first: int) -> float:
                return float(COST * settings.steps * min(size, settings.count - first))

            work = Sample(run.study, settings)
            for first, outcome in work_through(run.study, work, tasks, live.update, cost=cost):
                live.finished(cost(first), failed=isinstance(outcome, Failure))
                if isinstance(outcome, Failure):
                    failures.append(f"samples from {first} on: {outcome.reason}")
                    keep_failure(run, f"samples {first}", outcome)
                else:
                    writer.write(first, torch.from_numpy(outcome))
        if not failures:
            writer.close()
    finally:
        writer.abandon()
    if not failures:
        seconds = time.monotonic() - started
        run.results.append(_row(run, settings, round(seconds, 3)))
        say(f"{settings.count} samples in {duration(seconds)}")
    return failures


def _store(run: Run, settings: Sampling) -> MapStore:
    path = samples_path(run, settings)
    if not path.exists():
        raise FileNotFoundError(f"{path}: not there, or not whole yet; run the samples stage to finish it")
    return MapStore(path, samples_provenance(run, settings), settings.count)


def _row(run: Run, settings: Sampling, seconds: float) -> dict[str, Any]:
    return {
        "key": f"samples-{key(samples_provenance(run, settings))}",
        "probe": {"probe": "samples"} | settings.model_dump(),
        "made_from": samples_provenance(run, settings),
        "seconds": seconds,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    } | surroundings(run.device)
