"""Checks of claims while a study is read: every metric, variant, method and point of a claim must exist."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from efface.study.metric_entry import MetricEntry
from efface.study.schema import Claim, Side

ACCURACY = "accuracy"
"""The metric of the network itself. A claim may name it although no study lists it."""


class VariantNames(NamedTuple):
    """The metrics of a variant, its rows of the report and its fractions."""

    metrics: Sequence[MetricEntry]
    rows: Sequence[str]
    fractions: Sequence[float]


def unfounded(claims: Sequence[Claim], by_variant: Mapping[str, VariantNames]) -> Iterator[str]:
    """Yield a message for everything that a claim names and the study does not have.

    by_variant: the content of each variant, by its name; "" is the name where a study has no variants.
    """
    for claim in claims:
        for problem in dict.fromkeys(_problems(claim, by_variant)):
            yield f"claims.{claim.says}: {problem}"


def listed_points(entry: MetricEntry, fractions: Sequence[float]) -> tuple[float, ...] | None:
    """Return the points of a metric's curve, ascending; None where the images decide them."""
    own = entry.kwargs.fractions
    if entry.kwargs.log_points is not None:
        return None
    if entry.formula.points_for is not None:
        return None if own is None else tuple(sorted(set(own)))
    return tuple(sorted({0.0, *(own or entry.paper.fractions or fractions)}))


def place(claim: Claim, points: Sequence[float]) -> int | None:
    """Return the index of the point that a claim is about; None if the claim is about none of these points."""
    return next((i for i, at in enumerate(points) if claim.at is not None and abs(at - claim.at) < 1e-9), None)


def no_point(claim: Claim, points: Sequence[float]) -> str:
    """Return a message if the point of a claim is no point of its metric, else ""."""
    if claim.at is None or place(claim, points) is not None:
        return ""
    return f"{claim.metric} has no point {claim.at:g}; it has {', '.join(f'{at:g}' for at in points)}"


def _problems(claim: Claim, by_variant: Mapping[str, VariantNames]) -> Iterator[str]:
    sides = [(word, side) for word, side in (("more", claim.more), ("less", claim.less)) if isinstance(side, Side)]
    if not sides:
        yield "both sides are numbers; give 'more' or 'less' a variant or a method"
    metrics = list(
        dict.fromkeys([ACCURACY, *(metric.name for names in by_variant.values() for metric in names.metrics)])
    )
    if claim.metric not in metrics:
        yield f"there is no metric '{claim.metric}'; there are {', '.join(metrics)}"
    variants = [name for name in by_variant if name]
    for word, side in sides:
        if side.variant and side.variant not in variants:
            yield f"there is no variant '{side.variant}'; there are {', '.join(variants) or 'none'}"
        elif variants and not side.variant:
            yield f"{word}: the variant is missing; give one of {', '.join(variants)}"
        else:
            yield from _missing(claim, word, side, by_variant[side.variant], known=claim.metric in metrics)


def _missing(claim: Claim, word: str, side: Side, names: VariantNames, *, known: bool) -> Iterator[str]:
    """Yield a message for everything that one side names and its variant does not have.

    known: True if any variant measures the metric.
    """
    owner = f"variant '{side.variant}'" if side.variant else "the study"
    if side.method and side.method not in names.rows:
        of = f" in {owner}" if side.variant else ""
        yield f"there is no method '{side.method}'{of}; there are {', '.join(names.rows)}"
    entry = next((metric for metric in names.metrics if metric.name == claim.metric), None)
    if entry is None and claim.metric != ACCURACY:
        if known:
            measured = ", ".join(metric.name for metric in names.metrics) or "nothing"
            yield f"{owner} does not measure '{claim.metric}', it measures {measured}"
        return
    of_network = entry is None or entry.formula.subject == "network"
    if of_network and side.method:
        yield f"{word}: '{claim.metric}' measures the network, not a map; drop 'method'"
    if not of_network and not side.method and len(names.rows) > 1:
        yield (
            f"{word}: the method is missing, and '{claim.metric}' is measured for each method; give one of "
            f"{', '.join(names.rows)}"
        )
    scores = [ACCURACY] if entry is None else list(entry.direction)
    if claim.score and claim.score not in scores:
        close = difflib.get_close_matches(claim.score, scores, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"it has {', '.join(scores)}"
        yield f"'{claim.metric}' has no score '{claim.score}'; {hint}"
    points = (0.0,) if entry is None else listed_points(entry, names.fractions)
    if points is not None and (problem := no_point(claim, points)):
        yield problem
