"""Tests and intervals of bounded means that hold at every moment at which a study may stop, by betting.

A player bets against the hypothesis that the mean is m, image after image, and each bet knows only the images before
it. If the hypothesis is true, the player's wealth exceeds 1 / alpha with probability at most alpha, at whatever moment
one looks (Ville's inequality). This holds for every number of images and every distribution within the bounds.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

_CAP = 0.95
"""Largest share of the wealth that one image can cost."""
AIM = 1e-3
"""The p value for which the bets are made. Any choice is valid; bets for a smaller one are larger."""
HORIZONS = (1 / 8, 1 / 2)
"""Parts of the planned images at which a bet is to reach `AIM`. Each gets the same part of the wealth."""
_STEPS = 14  # bisections of an interval's end, which is then too far out by at most 6e-5 of the range


class _Bets(NamedTuple):
    """Values in [0, 1], 1/2 in place of missing ones, and the size of the bet on each."""

    values: Float[np.ndarray, "images columns"]
    known: Bool[np.ndarray, "images columns"]
    sizes: tuple[Float[np.ndarray, "images columns"], ...]


def anytime_p(differences: Float[np.ndarray, "images columns"], planned: int) -> Float[np.ndarray, " columns"]:
    """Return a p value of the hypothesis that the mean difference is 0, for each column. More images only lower it.

    differences: between -1 and 1, in the order in which the images were measured; NaN for an image without a value.
    planned: largest number of images that the study may use.

    Source: Waudby-Smith & Ramdas 2024, Estimating means of bounded random variables by betting (JRSS B 86), section 4:
    the hedged capital process, here with bets for two horizons.
    """
    bets = _bets((differences + 1) / 2, planned)
    most = [_wealth(bets, np.full(differences.shape[1], 0.5), sign) for sign in (1, -1)]
    return np.minimum(1.0, np.exp(-np.maximum(*most)))


def anytime_interval(
    values: Float[np.ndarray, "images columns"], planned: int, level: float = 0.95
) -> tuple[Float[np.ndarray, " columns"], Float[np.ndarray, " columns"]]:
    """Return both ends of the interval of each column's mean. It holds at every moment at once.

    The wealth against a mean m falls with m for a player who bets on more, and rises for one who bets on less. So each
    end is found by bisection.

    values: between 0 and 1, in the order in which the images were measured; NaN for an image without a value.
    planned: largest number of images that the study may use.
    level: probability that the interval covers the true mean at all moments, in (0, 1).

    Source: as `anytime_p`, theorem 3.
    """
    bets, limit = _bets(values, planned), -np.log(1 - level)
    columns = values.shape[1]
    ends = []
    for sign, outer in ((1, 0.0), (-1, 1.0)):
        refused, kept = np.full(columns, outer), np.full(columns, 1 - outer)
        for _ in range(_STEPS):
            middle = (refused + kept) / 2
            beaten = _wealth(bets, middle, sign) >= limit
            refused, kept = np.where(beaten, middle, refused), np.where(beaten, kept, middle)
        ends.append(refused)
    return np.minimum(*ends), np.maximum(*ends)


def _bets(values: np.ndarray, planned: int) -> _Bets:
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.5)
    count = known.cumsum(axis=0)
    mean = (0.5 + (filled * known).cumsum(axis=0)) / (count + 1)
    squares = (((filled - mean) ** 2) * known).cumsum(axis=0)
    before = np.zeros_like(squares)
    before[1:] = squares[:-1]
    earlier = np.zeros_like(count)
    earlier[1:] = count[:-1]
    variance = (1 / 16 + before) / (earlier + 1)
    goal = 2 * np.log(1 / AIM)
    return _Bets(filled, known, tuple(np.sqrt(goal / (max(1.0, part * planned) * variance)) for part in HORIZONS))


def _wealth(bets: _Bets, mean: Float[np.ndarray, " columns"], sign: int) -> Float[np.ndarray, " columns"]:
    """Return the logarithm of the most that a player has had who bets on more (1) or less (-1) than `mean`.

    The player starts with half of the wealth, for there is one on each side.
    """
    room = mean if sign > 0 else 1 - mean
    largest = _CAP / np.maximum(room, 1e-12)
    apart = np.where(bets.known, sign * (bets.values - mean), 0.0)
    grown = [np.log1p(np.minimum(size, largest) * apart).cumsum(axis=0) for size in bets.sizes]
    together = np.logaddexp.reduce(grown, axis=0) - np.log(len(grown))
    return np.asarray(np.maximum(together.max(axis=0, initial=0.0), 0.0) - np.log(2))
