"""Which metrics rank the exact map first, on networks whose weights are set by hand: the table in docs/metrics.md.

    python scripts/known_truth.py [key=value ...] [--study configs/designed.yml]

It measures every variant of the study in a temporary folder, and writes the table between its markers on the page.
Each cell says `first`, or which row is best, and by which number. It takes two minutes on one core.

A row is better than the exact map if its mean is, on the images on which both have a value, by more than a thousandth
of the span of all rows.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from describe_methods import fill, markdown

from efface.report.stats import Curve
from efface.stages.measure import measure
from efface.stages.run.curves import planned_run
from efface.stages.run.provenance import surroundings
from efface.stages.run.run import Run
from efface.study import study as config

ROOT = Path(__file__).parents[1]
STUDY, PAGE = ROOT / "configs" / "designed.yml", ROOT / "docs" / "metrics.md"
EXACT = "exact_map"
TIED = 1e-3  # of the span of all rows


class Standing(NamedTuple):
    """How the exact map stands on a metric: first, or behind the best row, whose mean is of the images of both."""

    is_first: bool
    exact: float
    best: float
    name: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="set a key of the study")
    parser.add_argument("--study", type=Path, default=STUDY, help="a study with a row exact_map in each variant")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = standings(options.study, options.overrides)
    made = surroundings(torch.device("cpu"))
    called = " ".join(["python scripts/known_truth.py", *options.overrides])
    origin = f"`{called}`; {made['device']}, torch {made['versions']['torch']}, {time.strftime('%Y-%m-%d')}."
    fill("known truth", f"{table(found)}\n\n{origin}", PAGE)


def standings(study: Path, overrides: Sequence[str] = ()) -> dict[str, dict[str, Standing]]:
    """Measure a study and return how the exact map stands, by metric and variant."""
    found: dict[str, dict[str, Standing]] = {}
    with tempfile.TemporaryDirectory(prefix="known-truth-") as folder:
        whole = config.read(study, ["executor=serial", *overrides, f"out={folder}"])
        for variant, (part, *_) in whole.parts().items():
            if failures := measure(part):
                raise SystemExit("\n".join(failures))
            rows: dict[str, list[Curve]] = {}
            firsts: dict[str, str] = {}
            for curve in planned_run(Run(part)).curves:
                if curve.score == firsts.setdefault(curve.metric, curve.score):
                    rows.setdefault(curve.metric, []).append(curve)
            for metric, curves in rows.items():
                if curves[0].direction != "none" and (one := standing(curves)):
                    found.setdefault(metric, {})[variant] = one
    return found


def standing(curves: Sequence[Curve]) -> Standing | None:
    """Return how the exact map stands among the curves of a metric; None if it has no value on any image."""
    sign = 1 if curves[0].direction == "higher" else -1
    exact = next(curve.area_of_each for curve in curves if curve.method == EXACT)
    means, gains = {}, {}
    for curve in curves:
        own = curve.area_of_each
        both = np.isfinite(own) & np.isfinite(exact)
        if both.any():
            means[curve.method] = float(own[both].mean()), float(exact[both].mean())
            gains[curve.method] = sign * (means[curve.method][0] - means[curve.method][1])
    if not gains:
        return None
    name = max(gains, key=lambda each: gains[each])
    is_first = gains[name] <= TIED * (max(gains.values()) - min(gains.values()))
    return Standing(is_first, means[name][1], means[name][0], name)


def table(found: dict[str, dict[str, Standing]]) -> str:
    """Return the standings as a table of metrics and networks."""
    networks = list(dict.fromkeys(variant for of_metric in found.values() for variant in of_metric))
    rows = [
        (f"`{metric}`", *(_cell(of_metric.get(network)) for network in networks)) for metric, of_metric in found.items()
    ]
    return markdown(("metric", *networks), rows)


def _cell(one: Standing | None) -> str:
    if one is None:
        return "no value"
    return "first" if one.is_first else f"`{one.name}` {one.best:.3g}, exact {one.exact:.3g}"


if __name__ == "__main__":
    main()
