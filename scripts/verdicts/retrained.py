"""Retrained scores: false differences among methods that are equal, made up and from real trainings; and power."""

import functools
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from efface.report import between
from efface.report.panels import panels
from efface.report.stats import Curve, compare_methods, min_p
from efface.report.stats.means import summaries
from efface.stages.page.folders import kept_folder
from verdicts.line import frozen, head, line, share, trained

METHODS = 10
ROOT = Path(__file__).parent.parent.parent
WORLDS: dict[str, tuple[float, float, float]] = {
    # for each method and image, in logits: spread of the images; spread of half of the trainings, and of the others
    "trainings vary little": (0.0, 0.05, 0.05),
    "trainings vary much": (0.0, 0.3, 0.3),
    "half of the methods vary four times as much": (0.0, 0.1, 0.4),
    "methods differ on single images": (0.5, 0.2, 0.2),
}


def simulated(runs: int, generator: np.random.Generator, *, quick: bool = False) -> None:
    """Print false differences among ten equal methods whose scores are made up."""
    head("world", "trainings", "images", "interval of a mean covers", "a pair: p < .05", "any pair of 45: corrected")
    for name, (method, *trainings) in WORLDS.items():
        for repeats in (3,) if quick else (2, 3, 5, 8):
            for images in (100,) if quick else (100, 360, 2000):
                base = generator.normal(1.5, 1.5, 20_000)
                spreads = np.repeat(trainings, METHODS // 2)
                drawn = functools.partial(_drawn, generator, base, method, spreads, repeats, images)
                line(name, repeats, images, *_judged(drawn, max(10, runs // 5), _truth(base, method, spreads)))


def _drawn(
    generator: np.random.Generator, base: np.ndarray, method: float, spreads: np.ndarray, repeats: int, images: int
) -> list[Curve]:
    """Return the curves of ten methods of equal expected accuracy. base: logits of the images."""
    logit = generator.choice(base, (1, 1, images)) + generator.normal(0, method, (METHODS, 1, images))
    logit = logit + spreads[:, None, None] * generator.normal(size=(METHODS, repeats, 1))
    right = generator.random((METHODS, repeats, images)) < 1 / (1 + np.exp(-logit))
    return [trained(each * 1.0, f"m{i}") for i, each in enumerate(right)]


def _truth(base: np.ndarray, method: float, spreads: np.ndarray) -> np.ndarray:
    """Return the expected accuracy of each method, by Gauss-Hermite quadrature over its spreads."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(21)
    wide = np.sqrt(method**2 + spreads**2)
    logit = base[None, :, None] + wide[:, None, None] * nodes
    return np.asarray((1 / (1 + np.exp(-logit)) @ weights).mean(axis=1) / weights.sum())


def _judged(drawn: Callable[[], Sequence[Curve]], runs: int, truth: np.ndarray | None) -> list[str]:
    covered: list[bool] = []
    pairs: list[bool] = []
    families: list[bool] = []
    for _ in range(runs):
        curves = drawn()
        if truth is not None:
            areas = [each.area for each in summaries(curves)]
            covered += [a.low <= t <= a.high for a, t in zip(areas, truth, strict=True) if not np.isnan(a.low)]
        found = compare_methods(curves)
        pairs += [each.p < 0.05 for each in found if not np.isnan(each.p)]
        families.append(any(each.p_corrected < 0.05 for each in found))
    if not pairs:
        return ["no interval", "no verdict", "no verdict"]
    return [share(covered) if covered else "-", share(pairs), share(families)]


def make_pool(folder: Path, *, quick: bool = False) -> None:
    """Run the study of the pool: ten draws of `random`, 40 trainings of each at each fraction of the digits' ROAR."""
    draws, repeats, fractions = (3, 4, [0.5]) if quick else (10, 40, [0.1, 0.3, 0.5, 0.7, 0.9])
    changes = [
        f"out={folder}",
        f"attribution_methods=[{{name: random, method: random, draws: {draws}}}]",
        "controls=null",
        "metrics=[roar]",
        f"repeats={repeats}",
        f"fractions={fractions}",
        *(["fit.epochs=1"] if quick else []),
    ]
    command = [sys.executable, "-m", "efface", "all", str(ROOT / "configs" / "digits.yml"), *changes]
    subprocess.run(command, check=True, cwd=ROOT)


def pool(folder: Path, runs: int, generator: np.random.Generator) -> None:
    """Print false differences among real random controls, resampled from the pool."""
    (record,) = next(iter(kept_folder(folder)[0].values()))
    curves = [each for each in record.curves if each.metric == "roar"]
    trainings, images = len(curves[0].values), curves[0].images.shape[2]  # type: ignore[union-attr]
    print(f"{len(curves)} random controls with {trainings} trainings each, {images} test images\n")
    head("trainings", "interval of a mean covers", "a pair: p < .05", "any pair: corrected")
    for repeats in (2, 3, 5, 8):
        if repeats > trainings:
            continue

        drawn = functools.partial(_resampled, generator, curves, repeats)
        line(repeats, *_judged(drawn, runs, None))


def _resampled(generator: np.random.Generator, curves: Sequence[Curve], repeats: int) -> list[Curve]:
    """Return the curves of so many of their trainings, drawn without replacement."""
    some = generator.permutation(len(curves[0].values))[:repeats]
    pairs = tuple(range(repeats))
    return [
        replace(
            each,
            draw_of="",
            values=each.values[some],
            images=None if each.images is None else each.images[some],
            pairs=pairs,
        )
        for each in curves
    ]


def power(runs: int, generator: np.random.Generator, *, quick: bool = False) -> None:
    """Print how often a true difference of one standard deviation is found, beside an oracle with the same correction.

    Ten methods, of which the last differs from the others. The oracle knows the variance of each mean difference.
    The second oracle knows that all methods vary alike from training to training, but has to learn how much.
    """
    head("scores", "samples", "found", "by the oracle", "ratio", "by the second oracle", "ratio")
    for n in (20,) if quick else (20, 30, 50):
        found, oracle = [], []
        for _ in range(max(10, runs // 5)):
            values = generator.normal(size=(METHODS, n))
            values[-1] += 2**0.5  # one standard deviation of a difference
            found += _found([frozen(each, f"m{i}") for i, each in enumerate(values)])
            oracle += _oracle(values.mean(axis=1), (2 / n) ** 0.5, values)
        line("images, normal", n, share(found), share(oracle), _ratio(found, oracle), "-", "-")
    for repeats in (3,) if quick else (3, 5, 8):
        found, oracle, second = [], [], []
        for _ in range(max(10, runs // 5)):
            means = 0.5 + 0.02 * generator.normal(size=(METHODS, repeats))
            means[-1] += 0.02 * 2**0.5
            curves = [trained(each[:, None], f"m{i}") for i, each in enumerate(means)]
            found += _found([replace(each, images=None, bounds=None) for each in curves])
            oracle += _oracle(means.mean(axis=1), 0.02 * (2 / repeats) ** 0.5, None)
            learnt = float(means.var(axis=1, ddof=1).mean()) ** 0.5
            second += _oracle(means.mean(axis=1), learnt * (2 / repeats) ** 0.5, None, METHODS * (repeats - 1))
        ratios = [_ratio(found, each) for each in (oracle, second)]
        line("trainings, normal", repeats, share(found), share(oracle), ratios[0], share(second), ratios[1])


def _found(curves: Sequence[Curve]) -> list[bool]:
    (found,) = between.pairs(panels(curves))
    last = f"m{METHODS - 1}"
    return [each.p_corrected < 0.05 for names, each in found.found.items() if last in names]


def _oracle(means: np.ndarray, error: float, values: np.ndarray | None, freedom: float = np.inf) -> list[bool]:
    """Return whether each difference to the last method is found by somebody who knows its standard error.

    freedom: degrees of freedom of this knowledge.
    """
    from scipy.special import stdtr

    pairs = [(i, j) for i in range(METHODS) for j in range(i + 1, METHODS)]
    p = np.array([2 * stdtr(freedom, -abs(means[i] - means[j]) / error) for i, j in pairs])
    columns = np.empty((0, 0)) if values is None else np.stack([values[i] - values[j] for i, j in pairs], axis=1)
    tests = () if values is None else tuple(range(len(pairs)))
    corrected = min_p(p, columns, tests, np.zeros(len(tests), dtype=bool))
    return [each < 0.05 for each, (_, j) in zip(corrected, pairs, strict=True) if j == METHODS - 1]


def _ratio(found: list[bool], oracle: list[bool]) -> str:
    return f"{float(np.mean(found)) / max(float(np.mean(oracle)), 1e-9):.2f}"
