"""What difference a study can show: known before it starts, from its images, repeats, methods and metrics."""

import numpy as np

from efface.report.stats.betting import AIM, HORIZONS
from efface.report.stats.crossed import FEWEST, FEWEST_POOLED

POWER = 0.8
"""Probability with which a difference of the returned size is found."""


def shown_by_images(images: int, tests: int, level: float = 0.05) -> float:
    """Return the smallest difference of two methods' means that is found with probability `POWER`.

    It is in standard deviations of the paired differences between images.

    images: number of test images with a value.
    tests: number of comparisons that are corrected together.
    level: probability of any false difference among them.

    Source: Cohen 1988, chapter 2, for paired samples; the correction is Bonferroni's, the first step of Holm's.
    """
    from scipy.special import stdtrit

    if images < 2:
        return float("inf")
    return (
        float(sum(stdtrit(images - 1, probability) for probability in (1 - level / (2 * tests), POWER))) / images**0.5
    )


def shown_by_betting(images: int, tests: int, level: float = 0.05) -> float:
    """Return the same for a study in rounds that tests by betting, at best.

    It is what the bet for the longer horizon wins from a difference that it was made for. If the differences use only a
    small part of the range, or the images are few, bets are limited, and the true smallest difference is larger.

    images: largest number of images. tests, level: as for `shown_by_images`.
    """
    from scipy.special import ndtri

    goal = np.log(1 / AIM) / HORIZONS[-1]
    needed = np.log(2 * len(HORIZONS) * tests / level)
    return float((needed + goal) / (2 * goal) ** 0.5 + ndtri(POWER)) / images**0.5


def shown_by_repeats(repeats: int, methods: int, tests: int, level: float = 0.05) -> float:
    """Return the same for retrained scores, in standard deviations of a method's mean score between trainings.

    What other test images would change is left out, so the true smallest difference is larger. From three methods on,
    all of them tell how large the spread between trainings is.

    repeats: number of trainings of a point. Fewer than three have no test: infinite.
    methods: number of methods that are retrained.
    """
    from scipy.special import stdtrit

    if repeats < FEWEST:
        return float("inf")
    pooled = methods >= FEWEST_POOLED
    freedom = (repeats - 1) * (methods - 1 if pooled else 1)
    quantiles = (stdtrit(freedom, probability) for probability in (1 - level / (2 * tests), POWER))
    return float(sum(quantiles)) * (2 / repeats) ** 0.5
