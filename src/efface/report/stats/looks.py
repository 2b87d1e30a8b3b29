"""A test that is repeated while the images grow in number: how often one of its looks finds something by chance.

The z values of growing samples are correlated: those of m and n > m images with sqrt(m / n). So the smallest p value of
k looks falls below p with a probability between p and k times p, which follows from an integral for each look.
Source: Armitage, McPherson & Rowe 1969 (JRSS A 132), equal boundaries of Pocock 1977 (Biometrika 64).
"""

from functools import lru_cache
from itertools import pairwise

import numpy as np
from jaxtyping import Float

_HIGHEST, _STEP, _NODES = 12.0, 0.05, 48
"""The integrals are worked out for |z| up to 12, which is p = 1e-33."""

Table = tuple[Float[np.ndarray, " z"], Float[np.ndarray, " z"]]


def of_any_look(p: Float[np.ndarray, " n"], after: tuple[int, ...]) -> Float[np.ndarray, " n"]:
    """Return the probability that the smallest p value of all looks is at most `p`, if there is no difference.

    p: two-sided p values; NaN stays NaN.
    after: numbers of images at the looks, ascending.
    """
    from scipy.special import ndtri

    p = np.asarray(p, dtype=np.float64)
    z = -ndtri(np.maximum(p, 1e-300) / 2)
    zs, logs = _table(after)
    known = np.exp(np.interp(z, zs, logs))
    return np.where(z > zs[-1], np.minimum(1.0, len(after) * p), known)


def of_one_look(p: float, after: tuple[int, ...]) -> float:
    """Return the p value of one look whose probability at any look is `p`: the inverse of `of_any_look`."""
    from scipy.special import ndtr

    zs, logs = _table(after)
    return float(2 * ndtr(-np.interp(-np.log(p), -logs, zs)))


@lru_cache(maxsize=16)
def _table(after: tuple[int, ...]) -> Table:
    """Return |z| and the logarithm of the probability that any look has as much.

    Each look adds the probability that it is the first one. `density` is that of the sum of all images so far, on nodes
    between the boundaries, if no look before has reached them.
    """
    from scipy.special import ndtr

    zs = np.arange(0, _HIGHEST + _STEP, _STEP)[:, None]
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    times = np.array(after, dtype=np.float64) / after[-1]
    total = 2 * ndtr(-zs[:, 0])
    spread = times[0] ** 0.5
    places = zs * spread * nodes
    density = np.exp(-0.5 * (places / spread) ** 2) / (spread * (2 * np.pi) ** 0.5)
    for before, time in pairwise(times):
        mass = density * (zs * before**0.5 * weights)
        step, edge = (time - before) ** 0.5, zs * time**0.5
        total += (mass * (ndtr((places - edge) / step) + ndtr((-places - edge) / step))).sum(axis=1)
        further = edge * nodes
        apart = (further[:, :, None] - places[:, None, :]) / step
        density = np.einsum("zyx,zx->zy", np.exp(-0.5 * apart**2), mass) / (step * (2 * np.pi) ** 0.5)
        places = further
    return zs[:, 0], np.log(np.minimum(1.0, total))
