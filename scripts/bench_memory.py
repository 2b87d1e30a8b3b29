"""Runs a study's stage and prints the most memory that all its processes held together.

    python scripts/bench_memory.py [STUDY] [key=value ...] [--stage all]

Memory is the proportional set size (a page that n processes share counts 1/n in each), summed over all processes of
the stage and sampled from /proc, so Linux alone. The run goes to a temporary folder unless out=... says where: a stage
that is done already would need next to nothing. Without a STUDY: configs/digits.yml, cut short to about a minute.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

DIGITS = Path(__file__).parents[1] / "configs" / "digits.yml"
SHORT = ["fit.epochs=2", "metrics=[morf, roar]", "fractions=[0.5]", "repeats=1"]
TARGET = 4e9  # bytes; for a study of all of CIFAR-10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", type=Path, help="a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the study, as efface takes them")
    parser.add_argument("--stage", default="all", help="stage of efface (default: all)")
    parser.add_argument("--every", type=float, default=0.5, help="seconds between two samples (default: 0.5)")
    arguments = parser.parse_args()
    study, overrides = arguments.study or DIGITS, arguments.overrides or ([] if arguments.study else SHORT)
    with tempfile.TemporaryDirectory() as folder:
        if not any(each.startswith("out=") for each in overrides):
            overrides = [*overrides, f"out={folder}/run"]
        program = "from efface.__main__ import main; raise SystemExit(main())"
        command = [sys.executable, "-c", program, arguments.stage, str(study), *overrides]
        return measured(command, arguments.every)


def measured(command: list[str], every: float) -> int:
    """Runs the command to its end; prints the highest sum, how many processes it was of, and when."""
    started, most, processes, at, samples = time.monotonic(), 0, 0, 0.0, 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stopped, it takes the stage along
    child = subprocess.Popen(command, start_new_session=True, stdout=sys.stderr)
    try:
        while child.poll() is None:
            held = [memory(process) for process in session(child.pid)]
            samples += 1
            if sum(held) > most:
                most, processes, at = sum(held), sum(each > 0 for each in held), time.monotonic() - started
            time.sleep(every)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        child.wait()
    seconds = time.monotonic() - started
    print(f"{'most memory':<14}{'processes':>10}{'at':>9}{'of':>9}{'samples':>9}   target")
    print(f"{most / 1e9:>8.2f} GB   {processes:>10}{at:>7.0f} s{seconds:>7.0f} s{samples:>9}   < {TARGET / 1e9:.0f} GB")
    return child.returncode


def session(leader: int) -> list[Path]:
    """The processes of the session that the stage leads, its workers and their children among them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(int(process.name)) == leader:
                found.append(process)
    return found


def memory(process: Path) -> int:
    """Proportional set size in bytes; 0 for a process that has just ended."""
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for line in (process / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    sys.exit(main())
