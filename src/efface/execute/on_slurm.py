"""Slurm: tasks in array jobs that submitit starts. Each job works through many tasks. The extra `slurm`."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from efface.execute.elsewhere import Place, check_counts, needed, outcome, packed
from efface.execute.executor import runs_at_once
from efface.execute.lane import Lane
from efface.execute.pool import WorkerDiedError
from efface.execute.progress import go_on
from efface.execute.starting import blocked
from efface.execute.task_folder import SILENCE, Beating, TaskFolder, Watched, read, write

Task = TypeVar("Task")
Cluster = Literal["slurm", "local", "debug"]

_LOOK = 0.2  # seconds between two looks for answers: with a look of 1 s, a task of 1 s would wait as long as it takes
_LEADS = {"slurm": 90, "local": 30, "debug": 0}
"""Seconds before the end of a job at which submitit's signal comes."""
_MOST_JOBS = 1000  # Slurm's MaxArraySize is 1001 unless a site changes it
_STARTS, _BEGINNINGS = 3, 20


@runs_at_once(lambda tasks, workers=4, cluster="slurm": 1 if cluster == "debug" else min(workers, tasks))
def slurm(
    work: Callable[[Task], Any],
    tasks: Iterable[Task],
    *,
    workers: int = 4,
    minutes: int = 60,
    task_minutes: float = 0.0,
    cpus: int = 1,
    gpus: int = 0,
    memory_gb: float | None = None,
    partition: str | None = None,
    setup: Sequence[str] = (),
    sbatch: Mapping[str, Any] | None = None,
    cluster: Cluster = "slurm",
    folder: str = "slurm_jobs",
    threads: int = 1,
    retries: int = 2,
) -> Iterator[tuple[Task, Any]]:
    """Run tasks in array jobs of Slurm. Each job works through many tasks, and begins none that does not fit.

    This process submits the jobs, waits, and submits again until all tasks are done. Slurm's signals before the end of
    a job (USR1, USR2, TERM) let the task at work go; it is done in another job. If this process ends, its jobs end.

    workers: most jobs at once, from 1 to 1000.
    minutes: wall time of a job, at least 2.
    task_minutes: the longest that a task takes, as far as known. The jobs learn it from the tasks that they finish.
    cpus, gpus, memory_gb: of each job. None: the default of the partition.
    partition: Slurm's partition. None: the default of the site.
    setup: shell commands before each job, such as `module load cuda`.
    sbatch: further options of sbatch, such as `{account: mine, qos: low}`.
    cluster: "slurm"; "local" runs the jobs as processes of this machine, and "debug" in this process.
    folder: folder for tasks, answers and logs, which all machines see. What this call writes is removed at its end.
    threads: threads of torch in each job, at least 1.
    retries: how often a task is begun again whose job died.

    ValueError: submitit is not installed, or the work does not pickle, or no job starts, or a task was begun in 20 jobs
    without an end. WorkerDiedError: a task's job died each time; all other tasks are done. An exception of the work is
    raised again here.
    """
    submitit = needed("submitit", "slurm")
    tasks = list(tasks)
    if not tasks:
        return
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise ValueError(
            "executor: there is no sbatch here; start the command on a machine that submits jobs to Slurm, or set "
            "executor.kwargs.cluster=local"
        )
    root = Path(folder).absolute()
    _end_abandoned(root)
    call = TaskFolder(root / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{time.monotonic_ns()}")
    call.fill(packed(work), [packed(task) for task in tasks])
    jobs = submitit.AutoExecutor(call.path / "jobs", cluster=cluster)
    jobs.update_parameters(
        name="efface",
        timeout_min=minutes,
        cpus_per_task=cpus,
        gpus_per_node=gpus,
        mem_gb=memory_gb,
        slurm_partition=partition,
        slurm_setup=list(setup) or None,
        slurm_array_parallelism=workers,
        slurm_signal_delay_s=_LEADS["slurm"],
        slurm_additional_parameters={"no-requeue": True} | dict(sbatch or {}),  # this process submits again
    )
    lane = Lane(
        call.path,
        "",
        Place.here(),
        threads,
        minutes * 60.0 - _LEADS[cluster],
        task_minutes * 60.0,
        most=1 if cluster == "debug" else None,
        driver=os.getpid() if cluster == "debug" else None,
    )
    beating, lanes = Beating(call.life("driver")), _Lanes(jobs, call, lane, cluster, workers)
    try:
        yield from _answers(call, lanes, tasks, retries, minutes)
    finally:
        beating.stop()  # the lanes let their tasks go
        lanes.end()
        _remove(call.path)


def check_slurm(
    *,
    workers: int = 4,
    minutes: int = 60,
    task_minutes: float = 0.0,
    cpus: int = 1,
    gpus: int = 0,
    cluster: str = "slurm",
    threads: int = 1,
    retries: int = 2,
) -> None:
    """Raise ValueError for numbers that no job can have, and for a task that fits into no job."""
    check_counts(_MOST_JOBS, workers=workers, cpus=cpus, threads=threads, gpus=gpus or None, retries=retries or None)
    if not isinstance(minutes, int) or minutes < 2:
        raise ValueError(f"kwargs.minutes: is {minutes!r}; expected a whole number of minutes from 2")
    if not 0 <= task_minutes <= minutes - _LEADS.get(cluster, 0) / 60:
        raise ValueError(
            f"kwargs.task_minutes: is {task_minutes!r}; expected a number from 0 to the {minutes} minutes of a job, "
            f"less the {_LEADS.get(cluster, 0)} s that it has to end; raise minutes"
        )


class _Lanes:
    """The jobs that are submitted and have not ended."""

    def __init__(self, jobs: Any, call: TaskFolder, lane: Lane, cluster: Cluster, most: int) -> None:
        self.jobs, self.call, self.lane, self.cluster = jobs, call, lane, cluster
        self.most = 1 if cluster == "debug" else most
        self.alive: dict[str, tuple[Any, Watched]] = {}
        self.count, self.unstarted = 0, 0

    def submit(self, count: int, task_seconds: float) -> None:
        """Submit an array of this many jobs."""
        names = [str(self.count + each) for each in range(count)]
        self.count += count
        lanes = [replace(self.lane, name=name, task_seconds=task_seconds) for name in names]
        with blocked("SIGINT"):  # a Ctrl-C of the terminal is for this process; it ends the jobs
            submitted = self.jobs.map_array(Lane.__call__, lanes)
        for name, job in zip(names, submitted, strict=True):
            self.alive[name] = job, Watched(self.call.life(name))
        if self.cluster == "slurm":
            write(self.call.path / "job_ids", "\n".join(job.job_id for job, _ in self.alive.values()).encode())

    def ended(self) -> list[str]:
        """Return the names of the lanes that have ended since the last call."""
        names = [name for name, (job, life) in self.alive.items() if self._has_ended(job, life)]
        for name in names:
            job, life = self.alive.pop(name)
            is_started = self.cluster == "debug" or life.look() or job.paths.result_pickle.exists()
            self.unstarted = 0 if is_started else self.unstarted + 1
            if self.unstarted >= _STARTS:
                said = (read(job.paths.stderr) or read(job.paths.stdout)).strip().splitlines()[-5:]
                raise ValueError(
                    f"executor: {_STARTS} jobs in a row ended before they began a task; the last one, {job.job_id}, "
                    f"said: {' | '.join(said) or 'nothing'}"
                )
        return names

    def end(self) -> None:
        """End all jobs. One that runs has a few seconds to let its task go."""
        until = time.monotonic() + SILENCE
        for job, life in self.alive.values():
            if self.cluster == "local":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(job.job_id), signal.SIGTERM)
            elif not life.look():
                job.cancel(check=False)
        while self.cluster != "debug" and self.alive and time.monotonic() < until:
            self.alive = {name: pair for name, pair in self.alive.items() if not self._has_ended(*pair)}
            time.sleep(_LOOK / 2)

    def _has_ended(self, job: Any, life: Watched) -> bool:
        """Return whether a job has ended. Its sign of life tells it sooner than Slurm, which is asked rarely."""
        if self.cluster == "debug":
            job.submission().result()  # `job.done()` would start a debugger after an error, and leave its logs open
            return True
        if self.cluster == "local" or not life.look():
            return bool(job.done())
        if life.has_gone():
            return True
        if life.lives():
            return False
        job.cancel(check=False)  # it is silent: killed, or its machine is gone
        return True


def _answers(
    call: TaskFolder, lanes: _Lanes, tasks: list[Task], retries: int, minutes: int
) -> Iterator[tuple[Task, Any]]:
    """Yield the tasks with their outcomes. Submit jobs as long as there are tasks that no job has claimed."""
    waiting, deaths, longest = dict(enumerate(tasks)), Counter[int](), lanes.lane.task_seconds
    while todo := [number for number in waiting if deaths[number] <= retries]:
        claims = call.numbers("claims")
        unclaimed = [number for number in todo if number not in claims]
        if (room := min(lanes.most - len(lanes.alive), len(unclaimed))) > 0:
            _refuse_endless(call, unclaimed, minutes)
            lanes.submit(room, longest)
        ended = lanes.ended()
        for number in (done := sorted(call.numbers("done") & waiting.keys())):
            answered, seconds = call.answer(number)
            longest = max(longest, seconds)
            yield waiting.pop(number), outcome(answered)
        for number in call.claimed(ended, waiting, all_have_ended=not lanes.alive):
            deaths[number] += 1
            if deaths[number] <= retries:
                call.free(number)
        if not done:
            _wait()
    if waiting:
        raise WorkerDiedError(
            f"executor: {len(waiting)} of {len(tasks)} tasks lost their job {retries + 1} times (killed, or out of "
            "memory); finished work is kept: run the same command again, with more executor.kwargs.memory_gb or a "
            "smaller 'max_batch' if memory was short"
        )


def _refuse_endless(call: TaskFolder, numbers: list[int], minutes: int) -> None:
    """Raise ValueError for a task that many jobs began and none could finish."""
    if any(call.times_let_go(number) >= _BEGINNINGS for number in numbers):
        raise ValueError(
            f"executor: a task was begun in {_BEGINNINGS} jobs of {minutes} minutes, and never finished; raise "
            "executor.kwargs.minutes"
        )


def _end_abandoned(root: Path) -> None:
    """Wait for the jobs of calls whose process was killed, for they write into the same files, and remove the rest."""
    for call in [TaskFolder(path) for path in sorted(root.glob("*-*-*"))]:
        driver = Watched(call.life("driver"))
        while driver.path.exists() and driver.lives() and not driver.is_sure():
            _wait()
        if driver.path.exists() and driver.lives():
            continue
        _cancel(read(call.path / "job_ids").split())
        lives = [Watched(path) for path in (call.path / "lives").glob("[0-9]*")]
        while any(life.path.exists() and life.lives() for life in lives):
            _wait()
        _remove(call.path)


def _wait() -> None:
    go_on()
    time.sleep(_LOOK)


def _cancel(ids: list[str]) -> None:
    """Cancel jobs of Slurm that wait or run. The processes of "local" end by themselves."""
    if ids and (scancel := shutil.which("scancel")) is not None:
        subprocess.run([scancel, *ids], check=False, capture_output=True)  # noqa: S603  identifiers that Slurm gave


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):  # another call has its folder there
        path.parent.rmdir()
