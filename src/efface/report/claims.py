"""Verdicts on the claims of a study, from its numbers."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from efface.report.stats import Curve, Interval, areas, mean_intervals, shared
from efface.study.claims import no_point, place
from efface.study.schema import Claim, Side

VERDICTS = ("shown", "not shown", "opposite", "one sample", "not measured")


class Answer(NamedTuple):
    """A claim and its verdict.

    says: the sentence of the claim.
    source: publication of the claim.
    published: figures of that publication.
    message: metric, sides and difference in words, or the reason why there is no difference.
    more: mean of the side `more`, over the samples that both sides have.
    less: mean of the side `less`, over the same samples.
    difference: paired difference with its interval.
    verdict: one of `VERDICTS`; "shown" or "opposite" if the interval excludes 0.
    """

    says: str
    source: str
    published: str
    message: str
    more: float
    less: float
    difference: Interval
    verdict: str


def answer_claims(
    claims: Sequence[Claim], found: Mapping[tuple[str, str, str], Mapping[str, Curve]]
) -> tuple[Answer, ...]:
    """Return the answer to each claim.

    claims: the claims of the study.
    found: curves by metric, score and method, then by variant; "" is the variant in a study without variants.
    """
    return tuple(_answer(claim, found) for claim in claims)


def _answer(claim: Claim, found: Mapping[tuple[str, str, str], Mapping[str, Curve]]) -> Answer:
    scores = [score for metric, score, _ in found if metric == claim.metric]
    score = claim.score or (scores[0] if scores else "")
    curves = _comparable([_curve(side, claim, score, found) for side in (claim.more, claim.less)], claim)
    sides = [_samples(*each, claim) for each in zip((claim.more, claim.less), curves, strict=True)]
    names = f"{_named(claim.more)} against {_named(claim.less)}"
    at = "" if claim.at is None else f" at {claim.at:g}"
    what = f"{claim.metric}, {score.replace('_', ' ')}{at}: {names}"
    if why := "; ".join(dict.fromkeys(side for side in sides if isinstance(side, str))):
        return _nothing(claim, f"{what}: not measured: {why}")
    more, less = (side for side in sides if not isinstance(side, str))
    rows = sorted(set(more[0]) & set(less[0])) if more[0] and less[0] else more[0] or less[0]
    ours = [_at(side, rows) for side in (more, less)]
    both = ~np.isnan(ours[0] - ours[1])
    if not both.any():
        return _nothing(claim, f"{what}: not measured: no sample has a value on both sides")
    kind = more[2] or less[2]
    difference = mean_intervals((ours[0] - ours[1])[:, None], "images" if kind == "images" else "repeats")[0]
    high, low = (float(each[both].mean()) for each in ours)
    verdict = _verdict(difference)
    interval = f" [{difference.low:+.3f}, {difference.high:+.3f}]" if difference.n > 1 else ""
    of = f"n = {difference.n} {kind}"
    text = f"{what}: {high:.3f} and {low:.3f}, difference {difference.mean:+.3f}{interval}, {of}"
    return Answer(claim.says, claim.source, claim.published, text, high, low, difference, verdict)


def _nothing(claim: Claim, message: str) -> Answer:
    nothing = Interval(np.nan, np.nan, np.nan, np.nan, 0)
    return Answer(claim.says, claim.source, claim.published, message, np.nan, np.nan, nothing, "not measured")


_Samples = tuple[tuple[int, ...], np.ndarray, str]
"""Names of the samples, their values, and the kind of samples. A side that is a number has no names."""


def _curve(
    side: Side | float, claim: Claim, score: str, found: Mapping[tuple[str, str, str], Mapping[str, Curve]]
) -> Curve | str | None:
    """Return the curve of a side, or the reason why there is none; None for a number."""
    if not isinstance(side, Side):
        return None
    curves = {method: named for (metric, of, method), named in found.items() if (metric, of) == (claim.metric, score)}
    if not curves:
        scores = [of for metric, of, _ in found if metric == claim.metric]
        known = f"; it has {', '.join(dict.fromkeys(scores))}" if scores else ""
        return f"{claim.metric} has no score '{score}'{known}" if scores else f"there are no results of {claim.metric}"
    if not side.method and len(curves) > 1:
        return f"{claim.metric} is measured of several maps; name one of {', '.join(curves)}"
    curve = curves.get(side.method or next(iter(curves)), {}).get(side.variant)
    return f"there are no results of {_named(side)}" if curve is None else curve


def _comparable(curves: list[Curve | str | None], claim: Claim) -> list[Curve | str | None]:
    """Return the two curves at the points that both have, for a claim about whole curves."""
    one, two = curves
    if not isinstance(one, Curve) or not isinstance(two, Curve) or claim.at is not None or one.at != two.at:
        return curves
    return list(shared(one, two))


def _samples(side: Side | float, curve: Curve | str | None, claim: Claim) -> _Samples | str:
    """Return the samples of a side, or the reason why there are none."""
    if not isinstance(side, Side):
        return (), np.array([float(side)]), ""
    if isinstance(curve, str):
        return curve
    assert curve is not None
    values = areas(curve)
    if claim.at is not None:
        at = place(claim, curve.at)
        if at is None:
            gone = any(abs(each - claim.at) < 1e-9 for each in curve.empty)
            return f"nothing has a value at {claim.at:g}" if gone else no_point(claim, curve.at)
        values = curve.values[:, at].astype(np.float64)
    return curve.pairs, values, curve.sample


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
