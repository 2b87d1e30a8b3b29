"""What a study claims, and what its numbers say to it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from efface.entries import Claim, Side
from efface.stats import Curve, Interval, areas, mean_intervals, shared

VERDICTS = ("shown", "not shown", "opposite", "one sample", "not measured")


class Judged(NamedTuple):
    """A claim and its verdict.

    told: metric, sides and difference in words. more, less: means of the two sides. difference: paired, with its
    interval. verdict: shown or opposite where the interval leaves out 0.
    """

    says: str
    source: str
    published: str
    told: str
    more: float
    less: float
    difference: Interval
    verdict: str


def judge(claims: Sequence[Claim], found: Mapping[tuple[str, str, str], Mapping[str, Curve]]) -> tuple[Judged, ...]:
    """Each claim against the curves, by metric, score and method, then by variant (`""` where there are none)."""
    return tuple(_judged(claim, found) for claim in claims)


def _judged(claim: Claim, found: Mapping[tuple[str, str, str], Mapping[str, Curve]]) -> Judged:
    scores = [score for metric, score, _ in found if metric == claim.metric]
    score = claim.score or (scores[0] if scores else "")
    curves = _comparable([_curve(side, claim, score, found) for side in (claim.more, claim.less)], claim)
    sides = [_samples(*each, claim) for each in zip((claim.more, claim.less), curves, strict=True)]
    nothing = Interval(np.nan, np.nan, np.nan, np.nan, 0)
    names = f"{_named(claim.more)} against {_named(claim.less)}"
    at = "" if claim.at is None else f" at {claim.at:g}"
    what = f"{claim.metric}, {score.replace('_', ' ')}{at}: {names}"
    told = claim.says, claim.source, claim.published
    if any(side is None for side in sides):
        return Judged(*told, f"{what}: not measured", np.nan, np.nan, nothing, "not measured")
    more, less = (side for side in sides if side is not None)
    rows = sorted(set(more[0]) & set(less[0])) if more[0] and less[0] else more[0] or less[0]
    ours = [_at(side, rows) for side in (more, less)]
    over = more[2] or less[2]
    if any(np.isnan(each).all() for each in ours):
        return Judged(*told, f"{what}: no value", np.nan, np.nan, nothing, "not measured")
    difference = mean_intervals((ours[0] - ours[1])[:, None], "images" if over == "images" else "repeats")[0]
    high, low = (float(np.nanmean(each)) for each in ours)
    verdict = _verdict(difference)
    interval = f" [{difference.low:+.3f}, {difference.high:+.3f}]" if difference.n > 1 else ""
    of = f"n = {difference.n} {over}"
    text = f"{what}: {high:.3f} and {low:.3f}, difference {difference.mean:+.3f}{interval}, {of}"
    return Judged(*told, text, high, low, difference, verdict)


_Samples = tuple[tuple[int, ...], np.ndarray, str]
"""Names of the samples, their values, and what they are; a number has no names."""


def _curve(
    side: Side | float, claim: Claim, score: str, found: Mapping[tuple[str, str, str], Mapping[str, Curve]]
) -> Curve | None:
    if not isinstance(side, Side):
        return None
    methods = [method for metric, of, method in found if (metric, of) == (claim.metric, score)]
    method = side.method or (methods[0] if len(methods) == 1 else "")
    return found.get((claim.metric, score, method), {}).get(side.variant)


def _comparable(curves: list[Curve | None], claim: Claim) -> list[Curve | None]:
    """Two curves at the points that both have, for a claim on all of them."""
    one, two = curves
    if one is None or two is None or claim.at is not None or one.at != two.at:
        return curves
    return list(shared(one, two))


def _samples(side: Side | float, curve: Curve | None, claim: Claim) -> _Samples | None:
    if not isinstance(side, Side):
        return (), np.array([float(side)]), ""
    if curve is None:
        return None
    values = areas(curve)
    if claim.at is not None:
        if any(abs(at - claim.at) < 1e-9 for at in curve.empty):
            return curve.pairs, np.full(len(values), np.nan), curve.over
        near = [i for i, at in enumerate(curve.at) if abs(at - claim.at) < 1e-9]
        if not near:
            raise ValueError(f"claims.{claim.says}: {claim.metric} has no point {claim.at:g}; it has {curve.at}")
        values = curve.values[:, near[0]].astype(np.float64)
    return curve.pairs, values, curve.over


def _at(side: _Samples, rows: Sequence[int]) -> np.ndarray:
    names, values, _ = side
    if not names:
        return np.full(len(rows), values[0])
    where = {name: i for i, name in enumerate(names)}
    return values[[where[row] for row in rows]]


def _verdict(difference: Interval) -> str:
    if difference.n < 2:
        return "one sample" if difference.n else "not measured"
    if difference.low > 0:
        return "shown"
    return "opposite" if difference.high < 0 else "not shown"


def _named(side: Side | float) -> str:
    if not isinstance(side, Side):
        return f"{side:g}"
    return " ".join(each for each in (side.variant, side.method) if each) or "the network"
