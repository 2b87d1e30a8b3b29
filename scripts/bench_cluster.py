"""How much time the executors of clusters take beside the work: Ray on this machine, and Slurm's jobs as processes.

    python scripts/bench_cluster.py [--tasks 1000] [--seconds 1] [--executors ray slurm] [--quick]

For each executor, with two workers:

1. The seconds to the first answer, and the seconds of so many tasks that do nothing, with the start of the workers.
2. The seconds of one such task, from the first answer to the last.
3. The throughput of two workers beside that of one, from the first answer on. A task sleeps, so that the load of this
   machine does not matter.

`--quick`: 50 tasks, and few short ones in part 3. About two minutes without it.
"""

import argparse
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soaking.cluster_tasks import nothing, sleeps

from efface.execute import ray, slurm

OVERHEAD_CEILING, ALL_CEILING, GAIN_FLOOR = 0.05, 60.0, 1.8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a task of part 3")
    parser.add_argument("--executors", nargs="+", choices=["ray", "slurm"], default=["ray", "slurm"])
    parser.add_argument("--quick", action="store_true", help="the smallest size of each part")
    options = parser.parse_args()
    tasks, seconds = (50, 0.3) if options.quick else (options.tasks, options.seconds)
    with tempfile.TemporaryDirectory() as folder:
        executors: dict[str, Callable[..., Any]] = {
            "ray": functools.partial(ray, cpus=0.5),
            "slurm": functools.partial(slurm, cluster="local", folder=str(Path(folder) / "jobs")),
        }
        for name in options.executors:
            bench(name, executors[name], tasks, seconds, 6 if options.quick else 20)


def bench(name: str, executor: Callable[..., Any], tasks: int, seconds: float, slow: int) -> None:
    """The three parts for one executor."""
    first, last = answered(executor, nothing, range(tasks), workers=2)
    print(f"{name}: the first answer after {first:.1f} s")
    say(f"{tasks} tasks that do nothing", last, ALL_CEILING, "s")
    say("one of them", 1e3 * (last - first) / (tasks - 1), 1e3 * OVERHEAD_CEILING, "ms")
    rates = []
    for workers in (1, 2):
        first, last = answered(executor, functools.partial(sleeps, seconds=seconds), range(slow), workers=workers)
        rates.append((slow - workers) / (last - first))
    say("throughput of two workers beside one", rates[1] / rates[0], GAIN_FLOOR, "times", least=True)


def answered(executor: Callable[..., Any], work: Callable[..., Any], tasks: Any, workers: int) -> tuple[float, float]:
    """The seconds to the first and to the last answer."""
    started = time.perf_counter()
    times = [time.perf_counter() - started for _ in executor(work, tasks, workers=workers)]
    return times[0], times[-1]


def say(what: str, found: float, limit: float, unit: str, *, least: bool = False) -> None:
    """A figure and whether it keeps its goal."""
    kept = "kept" if (found >= limit if least else found <= limit) else "MISSED"
    print(f"  {what}: {found:.2f} {unit} (goal {'at least ' * least}{limit:g} {unit}, {kept})", flush=True)


if __name__ == "__main__":
    main()
