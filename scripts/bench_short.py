"""Does the short recipe of retraining rank methods as the full recipe does?

    python scripts/bench_short.py --out FOLDER [--data digits patches] [--cifar PATH] [--repeats 3] [--quick]

For each data set, two studies train the networks of ROAR and KAR again: with the recipe of its file in `configs`, and
with `refit.preset: short` of the same recipe. Network and maps are the same, so only the retraining differs. `--cifar`
adds 10,000 training and 2,000 test images of CIFAR-10 with ROAR alone. PATH is a tree `train/CLASS/*` and
`test/CLASS/*`.

Both are retrained `--repeats` times, and the full recipe as often again with other seeds. Kendall's tau compares the
orders of the methods by the mean area of their curves, `random` among them:

- `short, full`: three trainings of the short recipe with the other three of the full one. Interval and exact test are
  over methods, as on the page.
- `full, full`: three trainings of the full recipe with its other three: what other seeds alone change.
- `mean of all`: the mean tau over all choices of three of the six full trainings.

A cost is the CPU seconds of a training and its test, the median over the trainings. A second call with the same `--out`
goes on. The trainings take about 400 CPU seconds on the digits, 800 on the patches, and 3,000 on CIFAR-10 (estimated).
"""

import argparse
import statistics
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from efface.report.stats.agreement import Ranking, ranking, ranking_agreement
from efface.stages.measure import measure
from efface.stages.run.curves import PlannedRun, planned_run
from efface.stages.run.runs import runs_of
from efface.study.study import check
from efface.study.yaml_file import load

CONFIGS = Path(__file__).parents[1] / "configs"
METHODS = {
    "random": {},
    "gradient": {},
    "input_x_gradient": {},
    "integrated_gradients": {"steps": 16},
    "smooth_grad_squared": {"samples": 8},
    "grad_cam": {},
    "sobel": {},
}
SIZES: dict[str, dict[str, Any]] = {
    "digits": {"metrics": ["roar", "kar"], "fractions": [0.1, 0.3, 0.5, 0.7, 0.9]},
    "patches": {"metrics": ["roar"], "fractions": [0.5]},
    "cifar10_quick": {"metrics": ["roar"], "fractions": [0.5]},
}
Tree = dict[str, Any]


class Measured(NamedTuple):
    """What a study of one recipe gave: a ranking for each metric, and facts of its trainings."""

    rankings: dict[str, Ranking]
    accuracy: float
    epochs: int
    steps: int
    seconds: float
    trainings: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--data", nargs="*", choices=("digits", "patches"), default=["digits", "patches"])
    parser.add_argument("--cifar", type=Path, help="folder of CIFAR-10 as files, with train/CLASS and test/CLASS")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--fractions", type=float, nargs="+", help="in place of those of each data set")
    parser.add_argument("--quick", action="store_true", help="few images, one epoch, one fraction")
    options = parser.parse_args()
    studies = {name: study_of(name) for name in options.data}
    if options.cifar:
        studies["cifar10"] = study_of("cifar10_quick")
        kwargs = {"root": str(options.cifar), "size": 32, "resize": None, "limit": 10000, "test_limit": 2000}
        studies["cifar10"]["data"] = {"call": "image_folder", "kwargs": kwargs}
    for name, tree in studies.items():
        tree |= {"out": str(options.out / name)} | ({"fractions": options.fractions} if options.fractions else {})
        report(name, quick(tree) if options.quick else tree, options.repeats)


def study_of(name: str) -> Tree:
    """The data, network and recipe of a file in `configs`, with the methods and metrics of this script."""
    tree = {key: value for key, value in load(CONFIGS / f"{name}.yml").items() if key in ("data", "model", "fit")}
    tree |= {"attribution_methods": [{"name": each, "method": each, "kwargs": METHODS[each]} for each in METHODS]}
    tree |= {"explain": "predicted", "post": ["absolute", "channel_sum"]}
    return tree | SIZES[name]


def quick(tree: Tree) -> Tree:
    """The smallest size of a study."""
    data = {"call": "digits", "kwargs": {"limit": 96}}
    return tree | {"data": data, "fit": tree["fit"] | {"epochs": 2}, "fractions": [0.5], "executor": "serial"}


def report(name: str, tree: Tree, repeats: int) -> None:
    """Run both recipes on a data set, and print what they cost and how they rank the methods."""
    short = measured(tree | {"refit": {"preset": "short"}, "repeats": repeats})
    full = measured(tree | {"repeats": 2 * repeats})
    print(f"## {name}\n\n| recipe | epochs | steps | CPU s a training | trainings | accuracy at 0 % |")
    print("|---|---|---|---|---|---|")
    for recipe, found in {"full": full, "short": short}.items():
        print(
            f"| {recipe} | {found.epochs} | {found.steps} | {found.seconds:.2f} | {found.trainings} | "
            f"{found.accuracy:.3f} |"
        )
    first, other = range(repeats), range(repeats, 2 * repeats)
    for metric, own in short.rankings.items():
        whole = full.rankings[metric]
        choices = [*combinations(range(2 * repeats), repeats)]
        print(f"\n| {metric} | tau | 95 % interval | p | mean of all |\n|---|---|---|---|---|")
        pairs = [(each, [at for at in range(2 * repeats) if at not in each]) for each in choices]
        print_tau("short, full", own, part(whole, other), [tau(own, part(whole, each)) for each in choices])
        print_tau(
            "full, full",
            part(whole, first),
            part(whole, other),
            [tau(part(whole, one), part(whole, two)) for one, two in pairs],
        )
        print_tau("short, all full", own, whole, [])
        print(f"\n| {metric}: mean area | {' | '.join(own.methods)} |\n|---|{'---|' * len(own.methods)}")
        for recipe, of_metric in {"full": whole, "short": own}.items():
            print(f"| {recipe} | {' | '.join(f'{area:.3f}' for area in of_metric.areas.mean(axis=0))} |")
    print(flush=True)


def measured(tree: Tree) -> Measured:
    """Run the study, or what is left of it, and read its results."""
    study = check(tree, Path("bench_short.py"))
    if failures := measure(study):
        raise SystemExit("\n".join(failures))
    run = planned_run(runs_of(study)[0])
    assert run.run.refit is not None
    fit, images = run.run.refit, len(run.run.data["train"].training)
    curves = {entry.name: [each for each in run.curves if each.metric == entry.name] for entry in study.metrics}
    whole = np.mean([curve.values[:, 0].mean() for curve in next(iter(curves.values()))])
    seconds = seconds_of(run)
    return Measured(
        {name: ranking(each) for name, each in curves.items()},
        float(whole),
        fit.epochs,
        fit.epochs * -(-images // fit.batch_size),
        statistics.median(seconds),
        len(seconds),
    )


def seconds_of(run: PlannedRun) -> list[float]:
    """The CPU seconds of each training of the plan."""
    keys = {task.key for task in run.plan.tasks if not task.probe.needs.network}
    return [float(run.run.results.records[key]["cpu_seconds"]) for key in keys]


def part(whole: Ranking, repeats: Sequence[int]) -> Ranking:
    """The ranking by some of the trainings."""
    return whole._replace(areas=whole.areas[list(repeats)])


def tau(one: Ranking, other: Ranking) -> float:
    return ranking_agreement(one, other).value


def print_tau(what: str, one: Ranking, other: Ranking, every: Sequence[float]) -> None:
    found = ranking_agreement(one, other)
    mean = f"{statistics.fmean(every):.2f} ({min(every):.2f} to {max(every):.2f})" if every else "-"
    print(f"| {what} | {found.value:.2f} | [{found.low:.2f}, {found.high:.2f}] | {found.p:.4f} | {mean} |")


if __name__ == "__main__":
    main()
