"""The command: `python -m numerics [--write] [NAME ...]` compares golden outputs, or writes their files anew."""

import argparse
import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).parent.parent)  # the folder of the tests, not this one

import torch  # noqa: E402  after the path is set

from numerics import compare, names, write  # noqa: E402


def main() -> int:
    """Compare or write; how long each kind took."""
    parser = argparse.ArgumentParser(prog="python -m numerics")
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--write", action="store_true", help="write the golden files anew")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--times", action="store_true", help="print how long each name takes")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    listed = given.names or names()
    wrong = write(listed) if given.write else []
    for name in () if given.write else listed:
        start = time.process_time()
        wrong += compare([name])
        if given.times:
            print(f"{time.process_time() - start:6.2f} s  {name}")
    print("\n".join(wrong) if wrong else "written" if given.write else "all as they were")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
