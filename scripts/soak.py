"""Disturbs efface in many ways, and counts what is lost, wrong in silence, unclear, or without an end.

    python scripts/soak.py [kill] [damage] [studies] [methods] [hostile] --count 40 --seed 0 --out FOLDER [--quick]

- kill: a run is killed at random moments, by four signals, and run again until it ends. All numbers must be equal.
- damage: one file of a finished run is damaged, then `all` runs again. The numbers are equal, or the file is named.
- studies: `check` reads study files that somebody got wrong. Each is right, or refused with its file and key.
- methods: a method misbehaves beside honest ones. Theirs must be the numbers of a study without it.
- hostile: folders of somebody else, with links, odd files, pickles and foreign modules. Nothing of them is executed.

Without the name of a part all parts run. `--count` is for each part; without it, 40 kills, and each kind of the others
once. `--quick` takes a few cases of each part: about a minute on one core. Without it: about half an hour.
The exit status is 1 if an outcome is bad. FOLDER gets a table for each part, and keeps the folders of bad cases.
Linux alone: processes are read from /proc.
"""

import argparse
import importlib
import random
import shutil
import sys
import tempfile
from pathlib import Path

from soaking.runs import warm
from soaking.table import Setting

PARTS = ("kill", "damage", "studies", "methods", "hostile")
QUICK = {"kill": 2, "damage": 2, "studies": 12, "methods": 3, "hostile": 2}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--count", type=int, help="cases of each part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="default: a temporary folder, which is removed")
    parser.add_argument(
        "--ceiling", type=float, default=20, help="seconds beyond an undisturbed command that are a hang (default: 20)"
    )
    parser.add_argument("--quick", action="store_true", help="a few cases of each part")
    options = parser.parse_args()
    if unknown := [each for each in options.parts if each not in PARTS]:
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    out = (options.out or Path(tempfile.mkdtemp(prefix="soak-"))).resolve()
    warm()
    bad = 0
    for part in options.parts or PARTS:
        count = QUICK[part] if options.quick else options.count
        folder = out / part
        folder.mkdir(parents=True, exist_ok=True)
        setting = Setting(count, random.Random(options.seed), folder, options.ceiling)  # noqa: S311  no secret
        table = getattr(importlib.import_module(f"soaking.{part}"), part)(setting)
        (out / f"{part}.txt").write_text(table.text() + "\n")
        print(table.text(), flush=True)
        bad += table.bad
    if options.out is None:
        shutil.rmtree(out, ignore_errors=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
