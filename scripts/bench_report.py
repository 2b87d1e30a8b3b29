"""How long the page of a large study takes, and how large it is: made-up scores, nothing is measured.

    python scripts/bench_report.py [--methods 60] [--metrics 34] [--images 500] [--points 10] [--quick]

Prints CPU seconds of one thread for the page with its tables and figures, and the size of the page. A fifth of the
metrics is one number for each image, a fifth retrains three times, the others are curves with two scores.

`--quick` takes 6 methods, 5 metrics and 40 images. About 20 seconds without it.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from efface.report import page
from efface.report.facts import Facts
from efface.report.stats import Curve

SECONDS, MEGABYTES = 20.0, 8.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("methods", 60), ("metrics", 34), ("images", 500), ("points", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--quick", action="store_true", help="the smallest size")
    options = parser.parse_args()
    sizes = (6, 5, 40, 4) if options.quick else (options.methods, options.metrics, options.images, options.points)
    os.environ["OMP_NUM_THREADS"] = "1"
    curves = made_up(*sizes)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        path = page.write(Path(folder), curves, None, facts(), references=("random",))
        seconds, size = time.process_time() - start, path.stat().st_size / 1e6
    print(f"{sizes[0]} methods x {sizes[1]} metrics x {sizes[2]} images x {sizes[3]} points:")
    print(f"page in {seconds:.1f} s of CPU (goal {SECONDS:g}), {size:.1f} MB (goal {MEGABYTES:g})")


def made_up(methods: int, metrics: int, images: int, points: int) -> list[Curve]:
    """Return the curves of random scores in which methods differ a little."""
    generator = np.random.default_rng(1)
    names = ["random", *(f"method_{i}" for i in range(1, methods))]
    at = tuple(np.linspace(0, 0.9, points).round(4).tolist())
    base = generator.random((images, 1))
    found = []
    for metric in range(metrics):
        kind = metric % 5
        for i, name in enumerate(names):
            shift = 0.05 * i / len(names)
            how: dict[str, Any] = {
                "direction": "lower",
                "family": "erasure",
                "bounds": (0.0, 1.0),
                "control": name == "random",
            }
            what = (f"metric_{metric}", "probability", name)
            rows = tuple(range(images))
            if kind == 0:
                values = np.clip(base + shift + 0.1 * generator.normal(size=(images, 1)), 0, 1)
                found.append(Curve(*what, (0.0,), values, "images", pairs=rows, axis="", **how))
            elif kind == 1:
                right = (generator.random((3, points, images)) < 0.8 - shift).astype(np.float32)
                how |= {"family": "retraining", "images": right}
                found.append(Curve(*what, at, right.mean(axis=2), "repeats", pairs=(0, 1, 2), **how))
            else:
                values = np.clip(base - np.array(at) + shift + 0.1 * generator.normal(size=(images, points)), 0, 1)
                found.append(Curve(*what, at, values, "images", pairs=rows, **how))
                what = (what[0], "accuracy", name)
                found.append(Curve(*what, at, (values > 0.5) * 1.0, "images", pairs=rows, **how))
    return found


def facts() -> Facts:
    """Return the facts of a study that was not run."""
    return Facts(
        study="out: runs/made-up",
        name="made-up",
        versions={},
        device="none",
        seconds={},
        unfinished=(),
        data="made-up scores",
        network="none",
        warnings=(),
    )


if __name__ == "__main__":
    main()
