"""Agreement of unrelated and of related metrics, and of images."""

import numpy as np

from efface.report.stats import Agreement, image_agreement, metric_agreement
from verdicts.line import frozen, head, line, share

ORDERS = {"shuffled ranks": np.inf, "weak order": 1.0, "clear order": 0.3, "very clear order": 0.1}
"""Spread of the scores around equally spaced means from 0 to 1."""


def agreement(runs: int, generator: np.random.Generator, *, quick: bool = False) -> None:
    """Print how often the interval of tau and of alpha covers, and how often unrelated rankings are called related."""
    head("tau of two metrics over methods", "methods", "interval covers", "p < .05")
    for n in (3, 5) if quick else (3, 5, 8, 15):
        for correlation in (0.0, 0.5, 0.9):
            truth = 2 / np.pi * np.arcsin(correlation)
            found = []
            for _ in range(runs):
                one = generator.normal(size=n)
                other = correlation * one + (1 - correlation**2) ** 0.5 * generator.normal(size=n)
                sides = [
                    [frozen(np.full(3, value), f"m{i}", name) for i, value in enumerate(side)]
                    for name, side in (("one", one), ("other", other))
                ]
                found.append(metric_agreement(sides[0], sides[1]))
            known = [each for each in found if not np.isnan(each.low)]
            covered = share([each.low <= truth <= each.high for each in known]) if known else "no interval"
            line(f"true tau {truth:.2f}", n, covered, share([each.p < 0.05 for each in found]))
    print()
    head("alpha over images", "methods", "images", "interval covers", "p < .05")
    for methods in (4,) if quick else (4, 8, 15):
        for images in (20,) if quick else (20, 50, 128):
            for what, spread in ORDERS.items():

                def drawn(count: int, methods: int = methods, spread: float = spread) -> np.ndarray:
                    noise = generator.normal(size=(count, methods))
                    return noise if np.isinf(spread) else np.linspace(0, 1, methods) + spread * noise

                truth = 0.0 if np.isinf(spread) else _alpha(drawn(2_000 if quick else 20_000)).value
                found = [_alpha(drawn(images)) for _ in range(max(20, runs // 2))]
                covered = share([each.low <= truth <= each.high for each in found])
                line(f"{what} ({truth:.2f})", methods, images, covered, share([each.p < 0.05 for each in found]))


def _alpha(values: np.ndarray) -> Agreement:
    return image_agreement([frozen(column, f"m{i}") for i, column in enumerate(values.T)])
