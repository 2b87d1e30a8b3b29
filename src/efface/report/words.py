"""Sentences about the numbers of the panels. They state only what the panels show."""

from collections.abc import Sequence

import numpy as np

from efface.report.formats import listed, number, point
from efface.report.noted import notes
from efface.report.stats.skewed import By
from efface.report.table import ALPHA, Panel, Row

VERDICTS = {
    "better": "better",
    "same": "no different",
    "worse": "worse",
    "undecided": "no test holds",
    "control": "the reference",
    "described": "described, not judged",
    "single": "one sample: no verdict",
    "alone": "no control",
    "missing": "not run yet",
    "failed": "failed",
    "undefined": "no value",
}

REASONS: dict[By, str] = {  # why a difference has no test
    "none": "three trainings or more are needed",
    "few": "too few samples differ, so the spread is unknown",
    "skewed": "the score is too skewed for so few images; take 50 or more",
}

TESTS: dict[By, str] = {  # by what an interval was made
    "hall": "Student's t with a correction for skewness",
    "student": "Student's t",
    "wilson": "Wilson's method",
    "tango": "Tango's method",
    "crossed": "the variance of both trainings and images",
    "betting": "betting, which holds whenever the study stops",
    "spent": "Student's t, with the level divided among the rounds",
    "few": "",
    "skewed": "Student's t with a correction for skewness",
    "none": "",
}


def reason(by: By) -> str:
    """Return why a difference has no test."""
    return REASONS.get(by, "no test holds")


def interval_sentence(by: By) -> str:
    """Return by what an interval was made, or why there is none."""
    if TESTS[by]:
        return f"The interval is made by {TESTS[by]}."
    return "There is no interval, because too few samples differ." if by == "few" else "There is no interval."


def intervals_sentences(panel: Panel) -> list[str]:
    """Return what the numbers of a figure are, and how their intervals are made."""
    n = max((row.area.n for row in panel.rows), default=0)
    has = [row for row in panel.rows if not np.isnan([cell.low for cell in (*row.intervals, row.area)]).all()]
    if not has:
        return [f"The values are means over {panel.over} (n = {n}). There is no interval."]
    lines = [f"The values are means over {panel.over} (n = {n}), with 95 % intervals."]
    by = dict.fromkeys(TESTS[row.by] for row in has if TESTS[row.by])
    lines += [f"The intervals are made by {'; or by '.join(by)}."] if by else []
    if panel.sample == "repeats" and "images" not in panel.over:
        lines.append(
            "The values of single test images are not known, so the intervals leave out what other test images would "
            "change."
        )
    if panel.fixed:
        where = listed([point(at, panel.axis) for at in panel.fixed])
        whose = f"every {panel.kind} and every {'image' if panel.sample == 'images' else 'training'}"
        lines.append(f"There is no interval at {where}, because the value there is the same for {whose}.")
    return lines


def about(panel: Panel) -> str:
    """Return what the metric erases, and which direction is good."""
    default = (
        "A new network is trained for each point."
        if panel.sample == "repeats"
        else "The given network is scored again."
    )
    says = panel.rows[0].curve.caption if panel.rows else ""
    good = (
        "The metric describes the maps; no direction is better."
        if panel.direction == "none"
        else f"{panel.direction.capitalize()} is better."
    )
    return f"{says or default} {good}"


def findings(panel: Panel, panels: Sequence[Panel]) -> list[str]:
    """Return what a panel shows, and its cautions. Other panels are used as a second opinion."""
    verdicts = {kind: [row for row in panel.rows if row.verdict == kind] for kind in VERDICTS}
    lines = []
    if any(row.is_control and row.curve.failed for row in panel.rows) and not panel.reference:
        lines.append("The reference failed, so nothing is compared with it.")
    elif not panel.reference and panel.direction != "none" and panel.family != "network":
        lines.append(
            "No random control was measured, so the distance of these curves from chance is unknown. Add "
            "{name: random, method: random} to attribution_methods and measure again."
        )
    if verdicts["better"]:
        most = max(verdicts["better"], key=lambda row: abs(row.difference.mean))
        gain = number(abs(most.difference.mean), panel.value_unit, signed=True)
        lines.append(
            f"{_are(verdicts['better'])} better than {panel.reference}. "
            f"The largest gain in the {panel.stands} is {gain}, that of {most.method}."
        )
    if verdicts["same"]:
        lines.append(
            f"{_are(verdicts['same'])} not told apart from {panel.reference}: the corrected p is {ALPHA:g} or more."
        )
    if leaks(panel) and panel.by_chance:
        lines += _leak(panel, verdicts["worse"], panels)
    elif leaks(panel):
        ahead = _names([row for row in verdicts["better"] if row.is_blind])
        lines.append(
            f"{ahead} is better than {panel.reference}, although its maps do not depend on the network. The outline of "
            "the erased pixels can reveal the class to the retrained network (mask leakage)."
        )
    elif verdicts["worse"]:
        lines.append(f"{_are(verdicts['worse'])} worse than {panel.reference}.")
    lines += _gamed(panel)
    lines += _untested(panel, verdicts["undecided"], verdicts["single"])
    if panel.unfinished:
        lines.append(f"Values are still missing for {listed(panel.unfinished)}.")
        if panel.direction != "none":
            lines.append(f"The {panel.kind}s get ranks when all values of {panel.metric} are measured.")
    fewer = [_fewer(row, panel) for row in panel.rows if row.lacking]
    return [*lines, *_disagreements(panel), *notes([panel]), *gap_sentences(panel), *fewer]


def _disagreements(panel: Panel) -> list[str]:
    """Return why a verdict and the interval of the difference seem to disagree."""
    excludes = [
        row for row in panel.rows if row.difference.n > 1 and not row.difference.low <= 0 <= row.difference.high
    ]
    known = [row for row in excludes if not np.isnan(row.difference.low) and row.verdict == "same"]
    includes = [
        row
        for row in panel.rows
        if row.verdict in ("better", "worse") and row.difference.low <= 0 <= row.difference.high
    ]
    lines = []
    if known:
        lines.append(
            f"The interval of the difference of {_names(known)} excludes 0, but the verdict is “no different”. The "
            f"interval is for this comparison alone. The verdict allows for all {panel.corrected} comparisons."
        )
    if includes:
        lines.append(
            f"The interval of the difference of {_names(includes)} includes 0, although the verdict is not “no "
            "different”. The interval allows for skewed values in another way than the test."
        )
    return lines


def _untested(panel: Panel, undecided: list[Row], single: list[Row]) -> list[str]:
    """Return why some rows have no verdict."""
    by_reason = {row.tested: [other for other in undecided if other.tested == row.tested] for row in undecided}
    lines = [f"There is no verdict on {_names(rows)}: {reason(tested)}." for tested, rows in by_reason.items()]
    if any(row.area.n == 1 for row in panel.rows):
        remedy = "set repeats to 3 or more" if panel.sample == "repeats" else "take more images"
        lines.append(f"With a single one of the {panel.sample} there is no interval and no verdict: {remedy}.")
    elif single:
        lines.append(
            "Each network was trained once, so there is no verdict: other trainings may differ more. Give the "
            "studies seeds: [0, 1, 2] or more."
        )
    return lines


def gap_sentences(panel: Panel) -> list[str]:
    """Return sentences on points, or whole metrics, at which no method has a value."""
    lines = []
    if panel.empty:
        where = listed([point(at, panel.axis) for at in panel.empty], len(panel.empty))
        what = "value" if panel.stands == "value" else f"curve, {panel.stands}"
        lines.append(
            f"{panel.metric} has no value at {where} for any method. Such points are left out of {what} and verdict."
        )
    failed = any(row.curve.failed for row in panel.rows)
    if (
        panel.rows
        and not panel.unfinished
        and not failed
        and not any(cell.n for row in panel.rows for cell in row.intervals)
    ):
        lines.append(
            f"{panel.metric} was measured, but no method has a value on any of the {panel.sample}. Its settings may "
            "not suit the images: for example, an image may have too few units."
        )
    return lines


def _fewer(row: Row, panel: Panel) -> str:
    """Return a sentence on a row that has no value at some points."""
    where = listed([point(at, panel.axis) for at in row.lacking], len(row.lacking))
    apart = [f"difference to {panel.reference}"] if row.difference.n else []
    parts = [*apart, "rank"] if panel.direction != "none" else []
    verb = "use" if len(parts) > 1 else "uses"
    paired = f" Its {' and its '.join(parts)} {verb} the points that both have." if parts else ""
    return f"{row.method} has no value at {where}. Its {panel.stands} uses its other points.{paired}"


def leaks(panel: Panel) -> bool:
    """Return whether methods are worse than chance in a retrained metric, which suggests mask leakage.

    If the methods are compared with one of them, it is whether a control is better than this one.
    """
    retrained = panel.sample == "repeats" and panel.direction == "lower" and panel.family in ("", "retraining")
    if not retrained or panel.kind != "method":
        return False
    if panel.by_chance:
        return any(row.verdict == "worse" for row in panel.rows)
    return any(row.is_blind and row.verdict == "better" for row in panel.rows)


def _gamed(panel: Panel) -> list[str]:
    """Return a sentence if the best mean is that of a control whose maps are optimised on what metrics measure."""
    best = panel.rows[0]
    if panel.direction == "none" or not best.area.n or not best.is_optimised:
        return []
    why = "Its maps are optimised on the network's response to erased images alone"
    return [f"{best.method} has the best mean. {why}, so {panel.metric} can be gamed."]


def _names(rows: Sequence[Row]) -> str:
    return listed([row.method for row in rows])


def _are(rows: Sequence[Row]) -> str:
    return f"{_names(rows)} {'is' if len(rows) == 1 else 'are'}"


def may_gain(panel: Panel, panels: Sequence[Panel]) -> bool:
    """Return whether methods may look better in a retrained metric than they are, as the outline tells the class."""
    is_retrained = panel.sample == "repeats" and panel.family in ("", "retraining") and panel.direction == "higher"
    return is_retrained and panel.kind == "method" and any(leaks(other) for other in panels)


def _leak(panel: Panel, worse: list[Row], panels: Sequence[Panel]) -> list[str]:
    caution = (
        f"This alone does not show that these maps are worse than {panel.reference}. The outline of the erased pixels "
        "can reveal the class to the retrained network (mask leakage). The outline of random pixels reveals nothing."
    )
    control = "KAR can gain from the same outline. A network trained on the masks alone would measure this effect."
    return [_above(panel, worse), caution, _witness(worse, panels), control]


def _above(panel: Panel, worse: list[Row]) -> str:
    """Return a sentence on the fraction at which these methods are furthest above the reference."""
    means = np.array([[cell.mean for cell in row.intervals] for row in worse])
    random = np.array([[cell.mean for cell in row.intervals] for row in panel.rows if row.method == panel.reference])[0]
    gaps = np.nan_to_num(means - random, nan=-np.inf)
    at = int(gaps.min(axis=0).argmax())
    if gaps[:, at].min() > 0:
        methods = {row.method for row in panel.rows if not row.is_control}
        whole = len(methods) > 1 and methods <= {row.method for row in worse}
        who, verb = "every method" if whole else _names(worse), "stays" if whole or len(worse) == 1 else "stay"
        values = means[:, at]
    else:
        line, at = (int(i) for i in np.unravel_index(gaps.argmax(), gaps.shape))
        who, verb, values = worse[line].method, "stays", means[line : line + 1, at]
    removed = "half" if panel.fractions[at] == 0.5 else point(panel.fractions[at], panel.axis)
    ends = dict.fromkeys(number(float(end), panel.value_unit) for end in (values.min(), values.max()))
    means_are = f"{' to '.join(ends)} against {number(random[at])}"
    return f"At {removed} removed, {who} {verb} above {panel.reference} ({means_are})."


def _witness(worse: list[Row], panels: Sequence[Panel]) -> str:
    """Return what metrics without retraining find for the same methods. The most favourable metric is named."""
    names = [row.method for row in worse]
    erasing = [panel for panel in panels if panel.family in ("", "erasure")]
    frozen = [panel for panel in erasing if panel.sample == "images" and panel.reference]
    if not frozen:
        return "Look at MoRF before you call them worse: no network is trained on the masks there."
    against = {panel.metric: panel.reference for panel in frozen}
    better = {panel.metric: [name for name in names if panel.verdict(name) == "better"] for panel in reversed(frozen)}
    metric = max(reversed(better), key=lambda name: len(better[name]))
    if not better[metric]:
        return f"The metrics without retraining find none of them better than {against[metric]} either."
    whom = listed(better[metric]) if len(better[metric]) < len(names) else "it" if len(names) == 1 else "all of them"
    return f"{metric}, which trains no network on the masks, finds {whom} better than {against[metric]}."
