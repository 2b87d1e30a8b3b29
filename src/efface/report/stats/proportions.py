"""Intervals of proportions that hold near 0 and 1: one proportion (Wilson), and paired differences (Tango)."""

from typing import Any

import numpy as np


def wilson(share: Any, n: Any, level: float = 0.95, quantile: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends of Wilson's interval of each proportion.

    It also holds for the mean of scores between 0 and 1, whose variance is never above that of a proportion. It is then
    too wide rather than too narrow.

    share: the proportion, or the mean; a number or an array.
    n: number of images.
    quantile: quantile that replaces the normal one of `level`.

    Source: Wilson 1927.
    """
    from scipy.special import ndtri

    z = float(ndtri((1 + level) / 2)) if quantile is None else quantile
    share, n = np.asarray(share, np.float64), np.asarray(n, np.float64)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(np.maximum(0, share * (1 - share)) / n + z * z / (4 * n * n))
    return np.asarray(np.maximum(0.0, middle - half)), np.asarray(np.minimum(1.0, middle + half))


def tango(up: Any, down: Any, n: Any, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends of Tango's score interval of each mean of paired differences between -1 and 1.

    For differences of classifications (-1, 0 and 1) it is exactly Tango's. Other differences count as parts of such
    images, whose variance is never smaller.

    up: sum of the positive differences; a number or an array.
    down: sum of the negative differences, without their sign.
    n: number of images.

    Source: Tango 1998 (Statistics in Medicine 17, 891), equation 9.
    """
    from scipy.special import ndtri

    z = float(ndtri((1 + level) / 2))
    up, down, n = np.broadcast_arrays(*(np.asarray(counts, np.float64) for counts in (up, down, n)))
    ends = []
    for outer in (-1.0, 1.0):
        inside, outside = (up - down) / n, np.full(up.shape, outer)
        for _ in range(50):
            middle = (inside + outside) / 2
            accepted = np.abs(_score(up, down, n, middle)) <= z
            inside, outside = np.where(accepted, middle, inside), np.where(accepted, outside, middle)
        ends.append(np.asarray((inside + outside) / 2))
    return ends[0], ends[1]


def mcnemar_z(up: Any, down: Any) -> np.ndarray:
    """Return Tango's statistic for a mean of 0, which is McNemar's. It is 0 if no image differs."""
    up, down = np.asarray(up, np.float64), np.asarray(down, np.float64)
    return np.asarray(np.divide(up - down, np.sqrt(up + down), out=np.zeros(up.shape), where=up + down > 0))


def _score(up: Any, down: Any, n: Any, delta: Any) -> np.ndarray:
    """Return the score statistic of the hypothesis that the mean difference is `delta`."""
    linear = -up - down + (2 * n - up + down) * delta
    root = np.sqrt(np.maximum(0, linear**2 + 8 * n * down * delta * (1 - delta)))
    share = (root - linear) / (4 * n)  # of the images that fall, under the hypothesis
    variance = n * (2 * share + delta * (1 - delta))
    off = up - down - n * delta
    exact = np.where(np.abs(off) <= 1e-9 * n, 0.0, np.copysign(np.inf, off))
    return np.asarray(np.where(variance > 1e-12 * n, off / np.sqrt(np.maximum(variance, 1e-300)), exact))
