"""Studies that decide as they measure: how often a decision is wrong, and what part of the whole study they need."""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from efface.report.decided import decisions
from efface.report.stats import Curve, Looks, compare_methods
from efface.stages.page.folders import kept_folder
from efface.stages.run.points import FIRST_IMAGES, FIRST_REPEATS, MORE_IMAGES, MORE_REPEATS, growing
from verdicts.line import frozen, head, line, share, trained

ROOT = Path(__file__).parents[2]
METHODS, LEVEL = 6, 0.05
Cut = Callable[[str, int], Curve]
"""Function (method, number of samples) -> its curve with so many samples."""
Curves = Mapping[tuple[str, str], Curve]
"""Curve of the first score of each metric, by metric and method."""


def played(names: Sequence[str], cut: Cut, looks: Looks) -> tuple[dict[tuple[str, str], float], dict[str, int]]:
    """Return the decided pairs with their differences, and how many samples each method needed."""
    counts = dict.fromkeys(names, looks.after[0])
    decided: dict[tuple[str, str], float] = {}
    while True:
        curves = {name: cut(name, count) for name, count in counts.items()}
        found = decisions(list(curves.values()))
        for each in found:
            if each.p < LEVEL:
                means = [float(np.nanmean(curves[name].area_of_each)) for name in (each.first, each.second)]
                decided.setdefault((each.first, each.second), means[0] - means[1])
        going = {name for each in found if not each.p < LEVEL for name in (each.first, each.second)}
        going = {name for name in going if counts[name] < looks.after[-1]}
        if not going:
            return decided, counts
        for name in going:
            counts[name] = next(after for after in looks.after if after > counts[name])


def decide(runs: int, generator: np.random.Generator, *, quick: bool = False) -> None:
    """Print the share of studies with a wrong decision, and the cost, for ties and for true differences.

    Neighbouring methods differ by `apart` times the width of the whole study's 95 % interval of a difference.
    """
    head("scores", "samples", "apart", "studies with a wrong decision", "pairs decided", "cost")
    sizes = (60,) if quick else (128, 500, 2000)
    for rule in ("betting", "spending"):
        for n in sizes:
            for spread in (0.1, 0.25):
                for apart in (0, 2) if quick else (0, 1, 1.5, 2, 3, 4):
                    found = [_images(generator, n, rule, spread, apart) for _ in range(max(5, runs // 5))]
                    line(f"{rule}, spread {spread}", n, apart, *_summed(found))
    for repeats in (10,) if quick else (10, 20):
        for apart in (0, 2) if quick else (0, 1, 1.5, 2, 3, 4):
            found = [_trainings(generator, repeats, apart) for _ in range(max(5, runs // 5))]
            line(f"retrained, up to {repeats} times", repeats, apart, *_summed(found))


def _images(
    generator: np.random.Generator, n: int, rule: str, spread: float, apart: float
) -> tuple[bool, float, float]:
    """One study of scores between 0 and 1. spread: standard deviation of a difference between two methods."""
    width = 2 * 1.96 * spread / n**0.5
    place = apart * width * (np.arange(METHODS) - (METHODS - 1) / 2)
    common = generator.uniform(0.45, 0.55, n)
    own = generator.normal(0, spread / 2**0.5, (METHODS, n))
    scores = common + own + place[:, None]
    low, high = min(0.0, float(scores.min())), max(1.0, float(scores.max()))  # no score is cut off, so means are known
    names = [f"m{i}" for i in range(METHODS)]
    looks = Looks(growing(FIRST_IMAGES, n, MORE_IMAGES), "betting" if rule == "betting" else "spending", LEVEL)

    def cut(name: str, count: int) -> Curve:
        return frozen(scores[int(name[1:]), :count], name, looks=looks, bounds=(low, high))

    return _outcome(names, cut, looks, dict(zip(names, place, strict=True)))


def _trainings(generator: np.random.Generator, repeats: int, apart: float) -> tuple[bool, float, float]:
    """One study of retrained accuracies on 500 images, whose trainings vary by 0.01."""
    images, spread = 500, 0.01
    width = 2 * 1.96 * (2 * (spread**2 / repeats + 0.25 * 0.1 / images)) ** 0.5
    place = 0.6 + apart * width * (np.arange(METHODS) - (METHODS - 1) / 2)
    ease = generator.normal(0, 0.4, images)
    ease -= ease.mean()
    chance = place[:, None, None] + generator.normal(0, spread, (METHODS, repeats, 1)) + 0.2 * ease
    right = (generator.random(chance.shape) < chance) * 1.0
    names = [f"m{i}" for i in range(METHODS)]
    looks = Looks(growing(FIRST_REPEATS, repeats, MORE_REPEATS), "spending", LEVEL)

    def cut(name: str, count: int) -> Curve:
        return trained(right[int(name[1:]), :count], name, looks=looks)

    return _outcome(names, cut, looks, dict(zip(names, place, strict=True)))


def _outcome(names: Sequence[str], cut: Cut, looks: Looks, truth: Mapping[str, float]) -> tuple[bool, float, float]:
    decided, counts = played(names, cut, looks)
    wrong = any(found * (truth[one] - truth[two]) <= 0 for (one, two), found in decided.items())
    return (
        wrong,
        len(decided) / (len(names) * (len(names) - 1) / 2),
        sum(counts.values()) / (len(names) * looks.after[-1]),
    )


def _summed(found: Sequence[tuple[bool, float, float]]) -> list[str]:
    wrong, decided, cost = zip(*found, strict=True)
    return [share(wrong), f"{100 * np.mean(decided):.0f} %", f"{100 * np.mean(cost):.0f} %"]


ENTRIES = (
    "[{name: random, method: random}, {name: gradient, method: gradient}, {name: sobel, method: sobel}, "
    "{name: smooth_grad, method: smooth_grad, kwargs: {samples: 16}}, "
    "{name: grad_cam, method: grad_cam, kwargs: {layer: layer2}}]"
)


def digits(folder: Path, seeds: int, *, quick: bool = False) -> None:
    """Run the digits study with `decide` for several seeds, and whole, and print what differs."""
    run = ["metrics=[morf, lerf, srg]", *(["fit.epochs=1", "fractions=[0.5]"] if quick else []), "executor=serial"]
    _held_against_the_whole(folder, seeds, run, ("spending",) if quick else ("betting", "spending"))


def digits_roar(folder: Path, seeds: int, *, quick: bool = False) -> None:
    """Do the same for ROAR, with up to ten trainings for each method and fraction."""
    run = ["metrics=[roar]", "fractions=[0.5, 0.9]", "repeats=10"]
    run += ["fit.epochs=1", "fractions=[0.5]", "repeats=4"] if quick else []
    _held_against_the_whole(folder, seeds, run, ("spending",))


def _held_against_the_whole(folder: Path, seeds: int, changes: Sequence[str], rules: Sequence[str]) -> None:
    """Print a line for each seed and rule, and one for all seeds together.

    A method is clear on a metric if, in the whole study, its mean differs from that of each other method by more than
    the width of the interval of the difference. What the others use depends on how near they lie to one another.
    """
    head("seed", "rule", "pairs", "decided", "against the whole study", "used", "clear methods", "used by them")
    totals = {rule: np.zeros(8) for rule in rules}
    for seed in range(seeds):
        run = [f"seed={seed}", f"attribution_methods={ENTRIES}", "controls=null", *changes]
        whole = _areas(folder / f"whole-{seed}", run)
        for rule in rules:
            found = _areas(folder / f"{rule}-{seed}", [*run, f"decide={{by: {rule}}}"])
            totals[rule] += (counts := _counts(found, whole))
            line(seed, rule, *_in_words(counts))
    for rule in rules:
        line("all", rule, *_in_words(totals[rule]))


def _counts(found: Curves, whole: Curves) -> np.ndarray:
    """Return pairs, decided, against the whole study; samples used, of how many; the same and a count for the clear."""
    pairs = decisions(list(found.values()))
    sure = [each for each in pairs if each.p < LEVEL]
    against = sum(
        _mean(found, each.metric, each.first, each.second) * _mean(whole, each.metric, each.first, each.second) < 0
        for each in sure
    )
    clear = set(whole)
    for metric in {metric for metric, _ in whole}:
        for pair in compare_methods([curve for (of, _), curve in whole.items() if of == metric]):
            if not abs(pair.difference.mean) > pair.difference.high - pair.difference.low:
                clear -= {(metric, pair.first), (metric, pair.second)}
    samples = [sum(len(study[key].values) for key in keys) for keys in (whole, clear) for study in (found, whole)]
    return np.array([len(pairs), len(sure), against, *samples, len(clear)])


def _in_words(counts: np.ndarray) -> list[str]:
    pairs, decided, against, used, of, used_by_clear, of_clear, clear = (int(each) for each in counts)
    shares = [
        f"{100 * one / all_of:.0f} %" if all_of else "-" for one, all_of in ((used, of), (used_by_clear, of_clear))
    ]
    return [f"{pairs}", f"{decided}", f"{against}", shares[0], f"{clear}", shares[1]]


def _areas(out: Path, changes: Sequence[str]) -> dict[tuple[str, str], Curve]:
    """Run the digits study in a folder. Return the curves of the first score of each metric, by metric and method."""
    command = [sys.executable, "-m", "efface", "all", str(ROOT / "configs" / "digits.yml"), f"out={out}", *changes]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    (record,) = next(iter(kept_folder(out)[0].values()))
    found: dict[tuple[str, str], Curve] = {}
    for curve in record.curves:
        found.setdefault((curve.metric, curve.method), curve)
    return found


def _mean(curves: Curves, metric: str, one: str, other: str) -> float:
    """Return the mean difference of two methods over the images that both have."""
    first, second = curves[metric, one], curves[metric, other]
    rows = sorted({*first.pairs} & {*second.pairs})
    values = [curve.area_of_each[[curve.pairs.index(row) for row in rows]] for curve in (first, second)]
    return float(np.nanmean(values[0] - values[1]))
