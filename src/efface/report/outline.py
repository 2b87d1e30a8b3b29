"""What a retrained score owes to the outline of the removed units, and what a blurred twin of the same map gets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from efface.report.cells import signed
from efface.report.formats import listed
from efface.report.panels import panels
from efface.report.stats import NOTHING, Curve, Estimate, Interval, differences, holm
from efface.report.table import ALPHA, Panel, Row
from efface.study.mask_controls import Outline

LEAK = "leak"
"""The score of `mask_leak` that is the accuracy above chance."""
_DIGITS = 10


@dataclass(frozen=True)
class Compared:
    """A gain over something, signed so that + is better, and its p value, corrected for the methods of the metric."""

    gain: Interval = NOTHING
    p: float = np.nan

    @property
    def verdict(self) -> Literal["better", "worse", "same", "undecided"]:
        """The verdict; `undecided` without a test."""
        if np.isnan(self.p):
            return "undecided"
        return "same" if self.p >= ALPHA else "better" if self.gain.mean > 0 else "worse"


@dataclass(frozen=True)
class Share:
    """One method on one retrained metric.

    row: its row. leak: mean accuracy above chance that its outline gives by itself; NaN if it is not measured.
    chance: number that random pixels with this outline are expected to get; n = 0 without it. over_chance: gain over
    that. twin: number of the blurred twin; n = 0 without one. over_map: gain of the twin over the map itself.
    against_random: whether the row is compared with these random pixels too.
    """

    row: Row
    leak: float
    chance: Interval
    over_chance: Compared
    twin: Interval
    over_map: Compared
    against_random: bool

    @property
    def by_outline(self) -> bool:
        """True if the method is better than random pixels, but not better than random pixels with this outline."""
        return self.against_random and self.row.verdict == "better" and self.over_chance.verdict in ("same", "worse")

    @property
    def held_back(self) -> bool:
        """True if the method is not better than random pixels, but better than random pixels with this outline."""
        return self.against_random and self.row.verdict in ("worse", "same") and self.over_chance.verdict == "better"


@dataclass(frozen=True)
class OutlineShares:
    """The methods on one retrained metric. random: the row of random pixels; "" if none is measured."""

    panel: Panel
    random: str
    shares: tuple[Share, ...]


def outline_shares(
    firsts: Sequence[Panel], curves: Sequence[Curve], twins: Sequence[Curve], outlines: Mapping[str, Outline]
) -> list[OutlineShares]:
    """Return what the outline explains of each retrained metric, and the blurred twins beside it.

    firsts: panels of the first scores. curves: all curves of the rows. twins: curves of blurred maps. outlines: where
    the outline of each metric is measured.

    Source: Song, Cha & Seo 2023 (arXiv:2304.13836): blurred maps know no more, and score better in ROAR.
    """
    asked = [panel for panel in firsts if panel.metric in outlines and panel.direction != "none"]
    return [_of_metric(panel, curves, twins, outlines[panel.metric]) for panel in asked]


def chance_with_outline(kept: Curve, leak: Curve, *, other: bool) -> Curve | None:
    """Return the curve that random pixels are expected to have if the network also sees an outline; None if unknown.

    Formula, for each training and test image: r + (1 - r) * leak. r is 1 if the network of the random pixels is right,
    else 0. So the outline turns a share of the wrong answers right, the one that it gets right above chance by itself.
    This holds if the two pieces of evidence are independent.

    kept: accuracy on images erased by random pixels. leak: accuracy above chance by a method's outline. other: True if
    the metric removes what the leak keeps, so that it needs the leak at 1 - x.
    """
    place = {round(at, _DIGITS): i for i, at in enumerate(leak.at)}
    if kept.images is None or leak.images is None:
        return None
    count = min(len(kept.values), len(leak.values))
    images, missing = kept.images[:count].astype(np.float64), set(kept.missing or ())
    for i, at in enumerate(kept.at):
        where = round(1 - at if other else at, _DIGITS)
        if where in (0.0, 1.0):  # everything or nothing is removed: there is no outline
            continue
        if where not in place:
            return None
        missing |= {at} if where in {round(each, _DIGITS) for each in leak.missing or ()} else set()
        images[:, i] += (1 - images[:, i]) * leak.images[:count, place[where]]
    return _with_images(kept, images, tuple(sorted(missing)))


def sentences(shares: OutlineShares) -> list[str]:
    """Return what the controls show of a metric, in sentences."""
    metric = shares.panel.metric
    gained = [one.row.method for one in shares.shares if one.by_outline]
    held = [one.row.method for one in shares.shares if one.held_back]
    ahead = [one.row.method for one in shares.shares if one.over_map.verdict == "better"]
    lines = []
    if gained:
        lines.append(
            f"On {metric}, {listed(gained)} {_are(gained)} better than {shares.random} only by the outline: random "
            "pixels with the same outline are expected to score as well."
        )
    if held:
        lines.append(
            f"On {metric}, the outline holds {listed(held)} back: {'they are' if len(held) > 1 else 'it is'} better "
            "than random pixels with the same outline."
        )
    if ahead:
        twins = f"twins of {listed(ahead)} are" if len(ahead) > 1 else f"twin of {ahead[0]} is"
        lines.append(
            f"On {metric}, the blurred {twins} better than the map itself. A blurred map knows no more, so this gain "
            "comes from the shape of what is removed."
        )
    return lines


def outline_table(several: Sequence[OutlineShares]) -> pd.DataFrame:
    """Return a line for each retrained metric and method. Gains are signed so that + is better."""
    columns = ["metric", "method", "value", "verdict", "leak", "random_with_outline"]
    columns += [f"{name}_over_random_with_outline" for name in ("gain", "low", "high", "p")]
    columns += ["by_outline", "twin", "twin_low", "twin_high"]
    columns += [f"twin_{name}_over_map" for name in ("gain", "low", "high", "p")]
    lines = [
        (
            *(shares.panel.metric, one.row.method, one.row.area.mean, one.row.verdict, one.leak, one.chance.mean),
            *(one.over_chance.gain.mean, one.over_chance.gain.low, one.over_chance.gain.high, one.over_chance.p),
            *(one.by_outline, one.twin.mean, one.twin.low, one.twin.high),
            *(one.over_map.gain.mean, one.over_map.gain.low, one.over_map.gain.high, one.over_map.p),
        )
        for shares in several
        for one in shares.shares
    ]
    return pd.DataFrame(lines, columns=columns)


def _of_metric(panel: Panel, curves: Sequence[Curve], twins: Sequence[Curve], outline: Outline) -> OutlineShares:
    rows = [row for row in panel.rows if not row.is_control]
    own = {row.method: row.curve for row in rows if not row.curve.failed and row.area.n}
    leaks = {each.method: each for each in curves if (each.metric, each.score, each.failed) == (outline.leak, LEAK, "")}
    measured = {row.method for row in panel.rows if not row.curve.failed}
    random = next((name for name in outline.random if name in measured), "")
    of_parts = [_of_row(curves, name, random) for name in (outline.kept or "", outline.removed or "")]
    chance = {
        name: made
        for name, curve in own.items()
        if name in leaks and (made := _chance(curve, of_parts, leaks[name])) is not None
    }
    blurred = {
        each.twin_of: each
        for each in twins
        if (each.metric, each.score) == (panel.metric, panel.score) and each.twin_of in own and not each.failed
    }
    over_chance = _compared(panel, {name: (own[name], chance[name]) for name in chance})
    over_map = _compared(panel, {name: (blurred[name], own[name]) for name in blurred})
    expected, of_twins = _areas(list(chance.values())), _areas(list(blurred.values()))
    return OutlineShares(
        panel,
        random,
        tuple(
            Share(
                row,
                _mean_leak(leaks.get(row.method)),
                expected.get(row.method, NOTHING),
                over_chance.get(row.method, Compared()),
                of_twins.get(f"{row.method}+blurred", NOTHING),
                over_map.get(row.method, Compared()),
                against_random=panel.reference == random,
            )
            for row in rows
        ),
    )


def _chance(own: Curve, parts: Sequence[Curve | None], leak: Curve) -> Curve | None:
    """Return the expected curve of random pixels with an outline: that of what is kept less that of what is removed.

    own: the curve of the method, whose name and metric the result has. parts: accuracy of random pixels without the
    least, and without its most relevant units; None for one that the metric does not use.
    """
    kept, removed = parts
    made = [
        None if part is None else chance_with_outline(part, leak, other=other)
        for part, other in ((kept, True), (removed, False))
    ]
    if [each is None for each in made] != [each is None for each in parts]:
        return None
    one, other = made
    if one is None or other is None:
        whole = one or other
        return None if whole is None else replace(whole, method=own.method, metric=own.metric, score=own.score)
    assert one.images is not None
    assert other.images is not None
    count = min(len(one.values), len(other.values))
    missing = tuple(sorted({*(one.missing or ()), *(other.missing or ())}))
    return _with_images(own, one.images[:count] - other.images[:count], missing)


def _with_images(curve: Curve, images: np.ndarray, missing: tuple[float, ...]) -> Curve:
    """Return the curve with other values of its images. They may lie outside the range of the score."""
    values, pairs = images.mean(axis=2), tuple(range(len(images)))
    return replace(curve, values=values, images=images, pairs=pairs, missing=missing, bounds=None, by_draw=None)


def _of_row(curves: Sequence[Curve], metric: str, row: str) -> Curve | None:
    """Return the accuracy of a row on a metric; None if there is none."""
    return next((each for each in curves if (each.metric, each.method) == (metric, row) and metric), None)


def _compared(panel: Panel, pairs: Mapping[str, tuple[Curve, Curve]]) -> dict[str, Compared]:
    """Return the gain of the first curve of each pair over the second."""
    alike = [tuple(replace(each, bounds=None) for each in pair) for pair in pairs.values()]
    estimates: tuple[Estimate, ...] = differences([(one, other) for one, other in alike])
    corrected = holm(np.array([each.p for each in estimates]))
    return {
        name: Compared(signed(estimate.interval, panel), float(p))
        for name, estimate, p in zip(pairs, estimates, corrected, strict=True)
    }


def _areas(curves: Sequence[Curve]) -> dict[str, Interval]:
    return {row.method: row.area for row in panels(curves)[0].rows} if curves else {}


def _mean_leak(leak: Curve | None) -> float:
    """Return the mean over the points at which a part is removed; NaN without one. Nothing and all have no outline."""
    if leak is None:
        return np.nan
    inside = leak.values[:, [0 < at < 1 for at in leak.at]]
    return float(np.nanmean(inside)) if not np.isnan(inside).all() else np.nan


def _are(methods: Sequence[str]) -> str:
    return "are" if len(methods) > 1 else "is"
