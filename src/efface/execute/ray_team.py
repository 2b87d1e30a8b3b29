"""The workers of a Ray cluster: actors that do one task at a time."""

import functools
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from efface.execute.elsewhere import Place, answer
from efface.execute.task_folder import machine
from efface.execute.worker import busy_with, start_worker

_ON_ONE_GPU = 4  # as many as `processes` starts there: each has its own context, data and ranks on the GPU
_LOOK = 1.0  # seconds between two looks at the size of the cluster, and at a Ctrl-C
_PATIENCE = 5.0
"""Seconds that a worker has to let its task go."""
_BIRTHS = 3
"""Workers in a row that may fail to start."""


class Whereabouts(NamedTuple):
    """Where a worker is: its machine, its process number, and Ray's identifier of its node."""

    machine: str
    process: int
    node: str


class Worker:
    """The actor. Its signals, threads and end are those of a worker of `processes`."""

    def __init__(self, place: Place, threads: int) -> None:
        place.enter()
        start_worker(None, threads)

    def whereabouts(self) -> Whereabouts:
        """Return where this worker is."""
        import ray

        return Whereabouts(machine(), os.getpid(), ray.get_runtime_context().get_node_id())

    def work(self, work: bytes, task: bytes) -> bytes:
        """Return the answer to a task."""
        return busy_with(functools.partial(answer, work), task)


@dataclass(frozen=True)
class Share:
    """What each worker has.

    cpus: processors, above 0. gpus: GPUs, from 0; None: a part of one if the cluster has any. threads: of torch.
    place: where it works.
    """

    cpus: float
    gpus: float | None
    threads: int
    place: Place


class _Job(NamedTuple):
    actor: Any
    number: int
    task: bytes


class Team:
    """The workers of one connection. They stay for the next call: each needs seconds to start and to read the data."""

    def __init__(self, ray: Any, share: Share) -> None:
        self.ray, self.share = ray, share
        self.node = ray.get_runtime_context().get_node_id()
        self.idle: list[Any] = []
        self.busy: dict[Any, _Job] = {}
        self._starting: dict[Any, Any] = {}
        self._where: dict[Any, Whereabouts] = {}
        self._looked, self._unborn = float("-inf"), 0

    def fits(self, ray: Any, share: Share) -> bool:
        """Return whether these workers can do the tasks of another call."""
        return ray.is_initialized() and (ray.get_runtime_context().get_node_id(), share) == (self.node, self.share)

    def look_after(self) -> None:
        """Ask all workers of an earlier call whether they still live. Each is idle once it has answered."""
        self._starting |= {actor.whereabouts.remote(): actor for actor in self.idle}
        self.idle = []
        self._looked, self._unborn = float("-inf"), 0

    def grow(self, most: int) -> None:
        """Start workers until there are `most`, or as many as the cluster has room for. ValueError: it has none."""
        if time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        found = self.ray.cluster_resources()
        gpus = self._gpus(found)
        room = int(found.get("CPU", 0.0) / self.share.cpus)
        if gpus:
            room = min(room, int(found.get("GPU", 0.0) / gpus + 1e-6))
        if not room:
            raise ValueError(
                f"executor: the Ray cluster has {found.get('CPU', 0.0):g} processors and {found.get('GPU', 0.0):g} "
                f"GPUs, but a worker needs {self.share.cpus:g} and {gpus:g}; set executor.kwargs.cpus and "
                "executor.kwargs.gpus"
            )
        create = self.ray.remote(Worker).options(
            num_cpus=self.share.cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )
        for _ in range(min(most, room) - len(self.idle) - len(self.busy) - len(self._starting)):
            actor = create.remote(self.share.place, self.share.threads)
            self._starting[actor.whereabouts.remote()] = actor

    def _gpus(self, found: dict[str, float]) -> float:
        if self.share.gpus is not None:
            return self.share.gpus
        return 1 / _ON_ONE_GPU if found.get("GPU", 0.0) else 0.0

    def give(self, work: Any, number: int, task: bytes) -> None:
        """Give a task to an idle worker. work: Ray's reference to the work."""
        actor = self.idle.pop()
        self.busy[actor.work.remote(work, task)] = _Job(actor, number, task)

    def done(self) -> Iterator[tuple[int, bytes, bytes | None]]:
        """Wait a while, and yield the tasks that came back: number, task, and answer; None if the worker was lost."""
        ready, _ = self.ray.wait([*self._starting, *self.busy], timeout=_LOOK)
        for reference in ready:
            if reference in self._starting:
                self._welcome(reference, self._starting.pop(reference))
                continue
            job = self.busy.pop(reference)
            try:
                found = self.ray.get(reference)
            except self.ray.exceptions.RayTaskError:
                raise
            except self.ray.exceptions.RayError:  # the worker, its node, or the answer on it is lost
                self.ray.kill(job.actor)
                self._looked = float("-inf")
                yield job.number, job.task, None
                continue
            self.idle.append(job.actor)
            yield job.number, job.task, found

    def _welcome(self, reference: Any, actor: Any) -> None:
        try:
            self._where[actor] = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            self._unborn += 1
            self._looked = float("-inf")
            if self._unborn >= _BIRTHS:
                said = str(error).strip().splitlines()[-1]
                raise ValueError(
                    f"executor: {_BIRTHS} workers in a row did not start; the last one said: {said}"
                ) from error
            return
        self._unborn = 0
        self.idle.append(actor)

    def end(self) -> None:
        """End all workers. Those at a task have a few seconds to let it go."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

        elsewhere: dict[str, list[int]] = {}
        for job in self.busy.values():
            where = self._where[job.actor]
            if where.machine == machine():
                terminate([where.process])
            else:
                elsewhere.setdefault(where.node, []).append(where.process)
        for node, processes in elsewhere.items():
            self.ray.remote(terminate).options(num_cpus=0, scheduling_strategy=On(node, soft=False)).remote(processes)
        if self.busy:
            self.ray.wait([*self.busy], num_returns=len(self.busy), timeout=_PATIENCE)
        for actor in [*self._starting.values(), *self.idle, *(job.actor for job in self.busy.values())]:
            self.ray.kill(actor)
        self.idle, self.busy, self._starting = [], {}, {}


def terminate(processes: list[int]) -> None:
    """Ask processes of this machine to end."""
    for process in processes:
        try:
            os.kill(process, signal.SIGTERM)
        except ProcessLookupError:
            continue
