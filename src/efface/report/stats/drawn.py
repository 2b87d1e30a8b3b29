"""Several draws of a stochastic method: one curve, and the variance that lies between the draws."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from efface.report.stats.curve import Curve, areas, draw_areas, measure_of
from efface.report.stats.interval import Interval
from efface.report.stats.skewed import Estimate


@dataclass(frozen=True)
class CombinedDraws:
    """Several draws of one stochastic method, as one curve.

    curve: mean over the draws, sample by sample.
    between: standard deviation of the mean area between draws, the typical change if the maps were extracted again.
        NaN for one draw.
    draws: number of draws.
    """

    curve: Curve
    between: float
    draws: int


def combine(draws: Sequence[Curve], method: str) -> CombinedDraws:
    """Combine the draws of a stochastic method into one curve: the mean over draws for each sample.

    A value is NaN if it is NaN in any draw. The interval of the combined curve is over its samples and the draws.

    draws: a curve for each draw, all on the same samples.
    method: name of the combined curve.
    """
    if not draws:
        raise ValueError(f"{method}: no draws to combine, expected at least one curve")
    first = draws[0]
    for curve in draws:
        if measure_of(curve) != measure_of(first) or curve.pairs != first.pairs:
            raise ValueError(
                f"{method}: draws {first.method} and {curve.method} were measured on different things or samples; "
                "measure every draw with one metric on one set of samples"
            )
        if curve.values.shape != first.values.shape:
            raise ValueError(
                f"{method}: draw {curve.method} has {len(curve.values)} samples, {first.method} has "
                f"{len(first.values)}; measure every draw on the same ones"
            )
    if len(draws) == 1:
        return CombinedDraws(replace(first, method=method, draw_of=""), np.nan, 1)
    by_draw = np.stack([curve.values.astype(np.float64) for curve in draws])
    known = [curve.images for curve in draws if curve.images is not None]
    images = (
        np.mean(known, axis=0) if len(known) == len(draws) and len({of_draw.shape for of_draw in known}) == 1 else None
    )
    values = by_draw.mean(axis=0)
    drawn = np.stack([areas(curve) for curve in draws])
    whole = drawn[:, ~np.isnan(drawn).any(axis=0)]
    between = float(whole.mean(axis=1).std(ddof=1)) if whole.size else np.nan
    curve = replace(first, method=method, values=values, draw_of="", by_draw=by_draw, images=images)
    return CombinedDraws(curve, between, len(draws))


def draw_variance(curve: Curve) -> tuple[float, ...]:
    """Return the variance that the draws of the maps add to the mean area, and its degrees of freedom; () for none."""
    by_draw = draw_areas(curve)
    if by_draw is None:
        return ()
    whole = by_draw[:, ~np.isnan(by_draw).any(axis=0)]
    draws, n = whole.shape
    if n < 2:
        return ()
    residual = whole - whole.mean(axis=0) - whole.mean(axis=1, keepdims=True) + whole.mean()
    twice = float((residual**2).sum()) / ((draws - 1) * (n - 1)) / (draws * n)
    return max(0.0, float(whole.mean(axis=1).var(ddof=1)) / draws - twice), draws - 1.0


def widened(one: Estimate, more: tuple[float, ...], level: float) -> Estimate:
    """Return an estimate with the variance of draws added. more: pairs of variance and degrees of freedom."""
    variance = sum(more[::2])
    mean, std, low, high, n = one.interval
    if not variance or np.isnan(low) or n < 2:
        return one
    from scipy.special import stdtr, stdtrit

    usual = float(stdtrit(n - 1, (1 + level) / 2))
    before = ((high - low) / (2 * usual)) ** 2
    whole = before + variance
    parts = before**2 / (n - 1) + sum(v**2 / f for v, f in zip(more[::2], more[1::2], strict=True))
    freedom = whole**2 / parts
    factor = (whole / before) ** 0.5 * float(stdtrit(freedom, (1 + level) / 2)) / usual if before > 0 else np.inf
    wide = Interval(mean, std, mean - (mean - low) * factor, mean + (high - mean) * factor, n)
    p = one.p
    if not np.isnan(p):
        t = float(stdtrit(n - 1, max(p, 1e-300) / 2)) * (before / whole) ** 0.5
        p = max(p, float(2 * stdtr(freedom, t)))
    return Estimate(wide, p, one.by)
