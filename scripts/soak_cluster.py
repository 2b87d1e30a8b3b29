"""Kills workers, nodes and drivers of the executors of clusters, and counts what is lost.

    python scripts/soak_cluster.py [--count 20] [--seed 0] [--kinds "ray worker" ...] [--out FOLDER] [--quick]

A small study runs with Ray on two nodes of this machine, or with Slurm's jobs as processes. At a random moment one of
its processes is killed with SIGKILL:

- ray worker, slurm worker: a process that does tasks.
- ray node: a node of the cluster, with its workers. Another one takes its place for the next try.
- ray driver, slurm driver: the command itself. The same command then runs again.

The command must end well, its tables and maps must be those of `serial`, and no task may be done twice after its result
was written. `--count` is for each kind. `--quick` is one try of two kinds: about two minutes. Without it: about half a
minute for each try. The exit status is 1 if an outcome is bad. Linux alone: processes are read from /proc.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from soaking.kill import write_both
from soaking.runs import STUDY, different, fresh, numbers
from soaking.table import Table

KINDS = ("ray worker", "ray node", "ray driver", "slurm worker", "slurm driver")
QUICK = ("ray worker", "slurm driver")
MARK = "EFFACE_SOAK_CLUSTER"
METHODS = [*STUDY["attribution_methods"][:2], {"name": "slow", "method": "own.slow"}]
LIMIT = 300.0
"""Seconds in which a command must end."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20, help="tries of each kind (default: 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--out", type=Path, help="default: a temporary folder, which is removed")
    parser.add_argument("--quick", action="store_true", help="one try of two kinds")
    options = parser.parse_args()
    kinds, count = (QUICK, 1) if options.quick else (options.kinds, options.count)
    out = (options.out or Path(tempfile.mkdtemp(prefix="soak-cluster-"))).resolve()
    os.environ |= {MARK: str(os.getpid()), "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
    draw, table = random.Random(options.seed), Table("cluster")  # noqa: S311  no secret
    reference = undisturbed(out)
    with nodes(needed=any(kind.startswith("ray") for kind in kinds)) as (address, replace_node):
        executors = {
            "ray": {"call": "ray", "kwargs": {"address": address, "cpus": 1.0}},
            "slurm": {"call": "slurm", "kwargs": {"cluster": "local", "workers": 2}},
        }
        for kind in kinds:
            executor, victim = kind.split()
            struck = 0
            while struck < count:
                began = time.monotonic()
                folder = fresh(out / "killed")
                write_both(folder, attribution_methods=METHODS, executor=executors[executor])
                strike = replace_node if victim == "node" else STRIKES[victim]
                outcome, note = one(folder, strike, draw, again=victim == "driver", reference=reference)
                struck += outcome != "not struck"
                table.add(kind, outcome, note, time.monotonic() - began)
    print(table.text())
    if options.out is None:
        shutil.rmtree(out, ignore_errors=True)
    return 1 if table.bad else 0


def undisturbed(out: Path) -> Any:
    """The numbers of the study with one process."""
    folder = fresh(out / "undisturbed")
    write_both(folder, attribution_methods=METHODS, executor="serial")
    code, said = ended(start(folder), folder)
    assert code == 0, said
    return numbers(folder / "run")


def one(
    folder: Path, strike: Callable[[Any], bool], draw: random.Random, *, again: bool, reference: Any
) -> tuple[str, str]:
    """Strike a command once, between its first task and its end. The outcome, and what was said."""
    command = start(folder)
    wait_for(lambda: begun(folder) or command.poll() is not None)
    time.sleep(draw.uniform(0.0, 5.0))
    struck = command.poll() is None and strike(command)
    code, said = ended(command, folder)
    if again and struck:
        code, said = ended(start(folder), folder)
    if code is None:
        return "hang", said
    if code != 0:
        return ("traceback" if "Traceback" in said else "LOST"), said.strip().rpartition("\n")[2]
    if wrong := different(numbers(folder / "run"), reference):
        return "SILENT", f"{len(wrong)} differ: {wrong[:4]}"
    rows = [json.loads(line) for line in (folder / "run" / "results.jsonl").read_text().splitlines()]
    if twice := [key for key, times in Counter(row["key"] for row in rows).items() if times > 1]:
        return "LOST", f"done again: {twice[:4]}"
    return ("equal" if struck else "not struck"), ""


def start(folder: Path) -> "subprocess.Popen[str]":
    with (folder / "said.txt").open("a") as file:
        words = [sys.executable, "-m", "efface", "all", "study.yml"]
        return subprocess.Popen(words, cwd=folder, stdout=file, stderr=file, text=True)


def ended(command: "subprocess.Popen[str]", folder: Path) -> tuple[int | None, str]:
    """The exit status of a command, None if it does not end in time, and what it said."""
    try:
        code = command.wait(LIMIT)
    except subprocess.TimeoutExpired:
        command.kill()
        code = None
    return code, (folder / "said.txt").read_text()


def begun(folder: Path) -> bool:
    """Whether the first result is there."""
    return (folder / "run" / "results.jsonl").exists()


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + LIMIT
    while not condition() and time.monotonic() < until:
        time.sleep(0.1)


def workers() -> list[int]:
    """The processes that do tasks of commands of this script."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (each / "cmdline").read_bytes()
            own = f"{MARK}={os.getpid()}".encode() in (each / "environ").read_bytes()
            if own and (line.startswith(b"ray::Worker") or b"submitit.core._submit" in line):
                found.append(int(each.name))
    return found


def kill_worker(_: Any) -> bool:
    found = workers()
    for process in found[:1]:
        os.kill(process, signal.SIGKILL)
    return bool(found)


def kill_driver(command: Any) -> bool:
    command.kill()
    return True


STRIKES: dict[str, Callable[[Any], bool]] = {"worker": kill_worker, "driver": kill_driver}


@contextlib.contextmanager
def nodes(*, needed: bool) -> Iterator[tuple[str, Callable[[Any], bool]]]:
    """A Ray cluster of two nodes on this machine: its address, and a function that kills one and starts another."""
    if not needed:
        yield "", lambda _: False
        return
    with tempfile.TemporaryDirectory(prefix="soak-", dir="/tmp") as folder:
        (Path(folder) / "ray").mkdir()
        os.environ["RAY_TMPDIR"] = folder  # read when ray is imported
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        second = [cluster.add_node(num_cpus=1)]

        def replace(_: Any) -> bool:
            cluster.remove_node(second.pop(), allow_graceful=False)
            second.append(cluster.add_node(num_cpus=1))
            return True

        try:
            yield cluster.address, replace
        finally:
            cluster.shutdown()


if __name__ == "__main__":
    sys.exit(main())
