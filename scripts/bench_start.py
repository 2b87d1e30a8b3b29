"""How long efface takes to start, to plan, and to read what is there: nothing is trained or explained.

    python scripts/bench_start.py [--results 1000 10000 100000] [--rounds 3] [--quick]

Five parts. CPU seconds are of one thread; each figure is the median of the rounds.

1. `efface status` on a finished run of the demo's study, beside `import torch` alone: the difference is efface's own.
2. Planning 10,000 tasks with their keys.
3. A second `measure` of the same run, which has nothing to do: how often it opens each map file.
4. At so many results: planning, `status`, the time to write each, and CPU and memory of the command `efface report`.
   The results are made up, and nobody waits for the disk.
5. Workers of `processes` whose tasks only sleep: CPU seconds of a program with two and with four of them, and their
   memory. PSS counts memory that processes share once for all of them. Then the demo's study with two workers: the CPU
   seconds of its command that are not those of its tasks.

`--quick` takes the smallest size of each part. About ten minutes on one core without it.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
import yaml

from efface.stages.measure import measure
from efface.stages.run.plan import Plan, make_plan
from efface.stages.run.run import Run
from efface.stages.status import status
from efface.store.results import Score
from efface.study.study import Study, check, read

ROOT = Path(__file__).parent.parent
STATUS_CEILING, PLAN_CEILING, OPENS_CEILING, REPORT_CEILING, MEMORY_CEILING = 1.5, 1.0, 2, 30, 1.0
WORKER_CEILING, STUDY_CEILING = 1.0, 4.0
PLANNED = 10_000
METHODS, FRACTIONS = 10, 20
SMALL = ["fit.epochs=1", "fractions=[0.5]", "repeats=1", "executor=serial", "data.kwargs.validation=0"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="the smallest size of each part")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    counts, rounds = ([200], 1) if options.quick else (options.results, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        study = demo(Path(folder), quick=options.quick)
        bench_status(study, rounds)
        bench_plan(Path(folder), 1_000 if options.quick else PLANNED, rounds)
        bench_second_run(study)
        for count in counts:
            bench_results(Path(folder) / str(count), count, rounds)
        bench_workers(rounds)
        bench_study(Path(folder), rounds, quick=options.quick)


def demo(folder: Path, *, quick: bool) -> Path:
    """A finished run of the demo's study; the path of its resolved study."""
    small = SMALL[:-1] if quick else []
    run = [
        sys.executable,
        "-m",
        "efface",
        "all",
        str(ROOT / "configs" / "digits.yml"),
        f"out={folder / 'demo'}",
        *small,
    ]
    subprocess.run(run, check=True, capture_output=True)
    return folder / "demo" / "study.yml"


def bench_status(study: Path, rounds: int) -> None:
    """Part 1."""
    torch, whole = (
        statistics.median(cost_of(words)[0] for _ in range(rounds))
        for words in (["-c", "import torch"], ["-m", "efface", "status", str(study)])
    )
    print(f"status of the demo: {whole:.2f} s CPU, import torch {torch:.2f} s")
    say("status beyond torch", whole - torch, STATUS_CEILING, "s")


def bench_plan(folder: Path, count: int, rounds: int) -> None:
    """Part 2. Signatures and sources are read before: a process does that once."""
    run = Run(synthetic(folder / "planned", count))
    assert len(run.data_digest) == 2
    make_plan(run)
    seconds = statistics.median(timed(lambda: make_plan(run)) for _ in range(rounds))
    tasks = len(make_plan(run).tasks)
    print(f"{tasks:,} tasks are planned in {seconds:.2f} s CPU")
    say(f"{PLANNED:,} tasks planned", seconds * PLANNED / tasks, PLAN_CEILING, "s")


def bench_second_run(study: Path) -> None:
    """Part 3."""
    with counted_opens() as opens:
        quiet(lambda: measure(read(study)))
    maps = {path: times for path, times in opens.items() if path.endswith(".h5") and "/maps/" in path}
    print(f"a second measure opens {len(maps)} map files {sum(maps.values())} times")
    say("openings of a map file, at most", max(maps.values(), default=0), OPENS_CEILING, "")


@contextlib.contextmanager
def counted_opens() -> Iterator[Counter[str]]:
    """Within: how often each HDF5 file is opened in this process."""
    opens: Counter[str] = Counter()
    plain = h5py.File.__init__

    def opened(self: h5py.File, name: object, *arguments: object, **settings: object) -> None:
        opens[str(name)] += 1
        plain(self, name, *arguments, **settings)

    h5py.File.__init__ = opened
    try:
        yield opens
    finally:
        h5py.File.__init__ = plain


def bench_results(folder: Path, count: int, rounds: int) -> None:
    """Part 4."""
    study = synthetic(folder, count)
    run = Run(study)
    plan = make_plan(run)
    written = timed(lambda: write_results(run, plan))
    planned = statistics.median(timed(lambda: make_plan(run)) for _ in range(rounds))
    told = statistics.median(timed(lambda: quiet(lambda: status(study))) for _ in range(rounds))
    tasks = len(plan.tasks)
    print(
        f"{tasks:,} results: plan {planned:.2f} s, status {told:.2f} s CPU; "
        f"written in {1e3 * written / tasks:.2f} ms each"
    )
    cpu, memory = cost_of(["-m", "efface", "report", str(folder / "study.yml")])
    say("report", cpu, REPORT_CEILING, "s")
    say("memory of the report", memory, MEMORY_CEILING, "GB")


def cost_of(words: list[str]) -> tuple[float, float]:
    """CPU seconds of a Python process, and its memory in GB."""
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, code, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
    assert process.returncode == 0, words
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6


SLEEPING = """
import sys, time
from pathlib import Path
from efface.execute.pool import in_workers

def sleep_and_tell(task):
    time.sleep(1)
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return [int(each.split()[1]) / 1e3 for name in ("Rss:", "Pss:") for each in lines if each.startswith(name)]

if __name__ == "__main__":
    count = int(sys.argv[1])
    memory = [found for _, found in in_workers(sleep_and_tell, list(range(count)), workers=count)]
    print(*(sum(each) / count for each in zip(*memory)))
"""


def bench_workers(rounds: int) -> None:
    """Part 5, workers."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "sleeping.py"
        program.write_text(SLEEPING)
        few, many = (
            statistics.median(cost_of([str(program), str(count)])[0] for _ in range(rounds)) for count in (2, 4)
        )
        shown = subprocess.run([sys.executable, str(program), "4"], check=True, capture_output=True, text=True).stdout
    rss, pss = map(float, shown.split())
    print(
        f"a program with two workers: {few:.2f} s CPU, with four {many:.2f} s; RSS {rss:.0f} MB, PSS {pss:.0f} MB each"
    )
    say("a further worker", (many - few) / 2, WORKER_CEILING, "s")


def bench_study(folder: Path, rounds: int, *, quick: bool) -> None:
    """Part 5, the demo's study. The results hold the processor time of each task."""
    small = SMALL[:3] if quick else []
    around = []
    for number in range(rounds):
        out = folder / f"workers-{number}"
        two = "executor={call: processes, kwargs: {workers: 2}}"
        whole = cost_of(["-m", "efface", "all", str(ROOT / "configs" / "digits.yml"), f"out={out}", two, *small])[0]
        rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
        around.append(whole - sum(row["cpu_seconds"] for row in rows))
    say("the demo with two workers, beside its tasks", statistics.median(around), STUDY_CEILING, "s")


def synthetic(folder: Path, count: int) -> Study:
    """A study of about `count` tasks: ten rankings, twenty fractions, as many trainings of each as it takes."""
    methods = [{"name": f"m{i}", "method": "centre", "kwargs": {"sigma": 0.1 + i / 10}} for i in range(METHODS - 1)]
    tree = {
        "out": str(folder),
        "data": {"call": "patches", "kwargs": {"n_train": 48, "n_test": 24, "size": 16}},
        "model": {"call": "resnet8", "kwargs": {"num_classes": 4}},
        "fit": {"epochs": 1},
        "attribution_methods": [{"name": "random", "method": "random"}, *methods],
        "metrics": ["roar"],
        "fractions": [i / (FRACTIONS + 1) for i in range(1, FRACTIONS + 1)],
        "repeats": max(1, count // (METHODS * FRACTIONS)),
        "executor": "serial",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yml").write_text(yaml.safe_dump(tree))
    return check(tree, folder / "study.yml")


def write_results(run: Run, plan: Plan) -> None:
    """A made-up result of each task, written as `measure` writes it, but without a wait for the disk."""
    values = np.random.default_rng(0)
    with mock.patch("os.fsync"):
        for task in plan.tasks:
            right = values.random(24)
            score = Score({"accuracy": right < values.random(), "probability": right, "logit": right})
            row = {
                "key": task.key,
                "method": task.view and task.view.name,
                "probe": {"probe": type(task.probe).__name__.lower()},
            }
            run.results.append(row | {"seconds": 1.0}, score)


def timed(work: Callable[[], object]) -> float:
    """CPU seconds of a piece of work in this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def quiet(work: Callable[[], object]) -> None:
    """Do it without its lines."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        work()


def say(what: str, found: float, ceiling: float, unit: str) -> None:
    """A figure and whether it keeps its goal."""
    kept = "kept" if found <= ceiling else "MISSED"
    print(f"  {what}: {found:.2f} {unit} (goal {ceiling:g} {unit}, {kept})".replace("  (", " ("))


if __name__ == "__main__":
    main()
