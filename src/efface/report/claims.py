"""Verdicts on the claims of a study, from its numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from efface.report.stats import NOTHING, Curve, Estimate, Interval, areas, at_points, differences, shared
from efface.report.table import ALPHA
from efface.report.words import REASONS
from efface.study.claims import no_point, place
from efface.study.schema import Claim, Side

VERDICTS = ("shown", "not shown", "opposite", "no verdict", "not measured")


class Answer(NamedTuple):
    """A claim and its verdict.

    says: the sentence of the claim.
    source: publication of the claim.
    published: figures of that publication.
    message: metric, sides and difference in words, or the reason why there is no difference.
    more: mean of the side `more`, over the samples that both sides have.
    less: mean of the side `less`, over the same samples.
    difference: paired difference with its interval.
    verdict: one of `VERDICTS`; "shown" or "opposite" if the difference is told apart from 0 at 5 %. The claims of a
        study are not corrected for one another. "no verdict": there are numbers, but no test holds; `message` says why.
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
    claims: Sequence[Claim], merged: Mapping[tuple[str, str, str], Mapping[str, Curve]]
) -> tuple[Answer, ...]:
    """Return the answer to each claim.

    claims: the claims of the study.
    merged: curves by metric, score and method, then by variant; "" is the variant in a study without variants.
    """
    return tuple(_answer(claim, merged) for claim in claims)


def _answer(claim: Claim, merged: Mapping[tuple[str, str, str], Mapping[str, Curve]]) -> Answer:
    scores = [score for metric, score, _ in merged if metric == claim.metric]
    score = claim.score or (scores[0] if scores else "")
    curves = _comparable([_curve(side, claim, score, merged) for side in (claim.more, claim.less)], claim)
    sides = [_at_point(*pair, claim) for pair in zip((claim.more, claim.less), curves, strict=True)]
    names = f"{_named(claim.more)} against {_named(claim.less)}"
    at = "" if claim.at is None else f" at {claim.at:g}"
    what = f"{claim.metric}, {score.replace('_', ' ')}{at}: {names}"
    if why := "; ".join(dict.fromkeys(side for side in sides if isinstance(side, str))):
        return _nothing(claim, f"{what}: not measured: {why}")
    more, less = (side for side in sides if not isinstance(side, str))
    estimate, high, low = _difference(more, less)
    found_n = estimate.interval.n
    if not found_n:
        return _nothing(claim, f"{what}: not measured: no sample has a value on both sides")
    known = next(side for side in (more, less) if isinstance(side, Curve))
    one_each = _one_network_each(claim, known)
    verdict = "no verdict" if one_each or np.isnan(estimate.p) else _verdict(estimate)
    difference = estimate.interval
    interval = f" [{difference.low:+.3f}, {difference.high:+.3f}]" if not np.isnan(difference.low) else ""
    text = f"{what}: {high:.3f} and {low:.3f}, difference {difference.mean:+.3f}{interval}, n = {found_n} "
    text += f"{'images' if known.sample == 'images' else known.trained}; {_scope(known, one_each=one_each)}"
    if verdict == "no verdict":
        text += f"; no verdict: {_ONE_EACH if one_each else REASONS[estimate.by]}"
    return Answer(claim.says, claim.source, claim.published, text, high, low, difference, verdict)


_ONE_EACH = "each side is one training of its network, and other trainings may differ more; give the study seeds"


def _one_network_each(claim: Claim, curve: Curve) -> bool:
    """Return whether the claim compares two networks of which each was trained once."""
    variants = {side.variant for side in (claim.more, claim.less) if isinstance(side, Side)}
    return len(variants) > 1 and curve.trained != "networks"


def _scope(curve: Curve, *, one_each: bool) -> str:
    """Return in words over what a difference generalises."""
    if curve.trained == "networks":
        return "it holds for networks trained like these" + (
            " and images like these" if curve.images is not None else ""
        )
    if one_each:
        return "it holds for these two networks alone"
    if curve.sample == "repeats":
        return (
            "it holds for this network, and for retrainings"
            + (" and images" if curve.images is not None else "")
            + " like these"
        )
    return "it holds for this network, and for images like these"


def _difference(more: Curve | float, less: Curve | float) -> tuple[Estimate, float, float]:
    """Return the difference of two sides with its test, and the mean of each side over the samples of both."""
    one, other = (side if isinstance(side, Curve) else None for side in (more, less))
    if one is not None and other is not None:
        rows = sorted(set(one.pairs) & set(other.pairs))
        values = [areas(side)[[side.pairs.index(row) for row in rows]] for side in (one, other)]
        both = ~np.isnan(values[0] - values[1])
        if not both.any():
            return Estimate(NOTHING, np.nan, "none"), np.nan, np.nan
        high, low = (float(of_side[both].mean()) for of_side in values)
        return differences([(one, other)])[0], high, low
    known = one if one is not None else other
    assert known is not None
    constant = less if isinstance(less, float | int) else more
    assert isinstance(constant, float | int)
    level = replace(
        known,
        values=np.full_like(known.values, constant, dtype=np.float64),
        images=None if known.images is None else np.full_like(known.images, constant, dtype=np.float64),
        by_draw=None,
        bounds=None,
    )
    own = areas(known)
    if np.isnan(own).all():
        return Estimate(NOTHING, np.nan, "none"), np.nan, np.nan
    mean = float(np.nanmean(own))
    pair = (replace(known, bounds=None), level)
    estimate = differences([pair if one is not None else pair[::-1]])[0]
    return estimate, *((mean, float(constant)) if one is not None else (float(constant), mean))


def _nothing(claim: Claim, message: str) -> Answer:
    return Answer(claim.says, claim.source, claim.published, message, np.nan, np.nan, NOTHING, "not measured")


def _curve(
    side: Side | float, claim: Claim, score: str, merged: Mapping[tuple[str, str, str], Mapping[str, Curve]]
) -> Curve | str | None:
    """Return the curve of a side, or the reason why there is none; None for a number."""
    if not isinstance(side, Side):
        return None
    curves = {method: named for (metric, of, method), named in merged.items() if (metric, of) == (claim.metric, score)}
    if not curves:
        scores = [of for metric, of, _ in merged if metric == claim.metric]
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


def _at_point(side: Side | float, curve: Curve | str | None, claim: Claim) -> Curve | float | str:
    """Return the curve of a side at the claim's point, a number, or the reason why there is none."""
    if not isinstance(side, Side):
        return float(side)
    if isinstance(curve, str):
        return curve
    assert curve is not None
    if claim.at is None:
        return curve
    at = place(claim, curve.at)
    if at is None:
        gone = any(abs(point - claim.at) < 1e-9 for point in curve.empty)
        return f"nothing has a value at {claim.at:g}" if gone else no_point(claim, curve.at)
    return at_points(curve, [curve.at[at]])


def _verdict(estimate: Estimate) -> str:
    if estimate.p >= ALPHA:
        return "not shown"
    return "shown" if estimate.interval.mean > 0 else "opposite"


def _named(side: Side | float) -> str:
    if not isinstance(side, Side):
        return f"{side:g}"
    return " ".join(name for name in (side.variant, side.method) if name) or "the network"
