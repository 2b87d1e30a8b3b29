"""Where methods are better than the reference, over all metrics of a page, in sentences."""

from collections.abc import Sequence

from efface.report.formats import listed
from efface.report.table import Panel

_NAMED = 6
"""Largest number of metrics that a sentence names."""
_TESTED = ("better", "same", "worse")


def headline(panels: Sequence[Panel]) -> list[str]:
    """Return which metrics are not finished, and where methods beat the reference. panels: one for each metric."""
    compared = [
        panel for panel in panels if any(row.verdict in (*_TESTED, "undecided", "single") for row in panel.rows)
    ]
    known = {panel.reference for panel in compared}
    known |= {row.method for panel in compared for row in panel.rows if row.is_control}
    own = {panel.metric: [row for row in panel.rows if row.method not in known] for panel in compared}
    failed = {metric: {row.method for row in rows if row.curve.failed} for metric, rows in own.items()}
    methods = dict.fromkeys(row.method for rows in own.values() for row in rows if not row.curve.failed)
    if not methods:
        alone = any(row.verdict == "alone" for panel in panels for row in panel.rows)
        return ["No control was measured, so the distance from chance is unknown."] * alone
    opened = [panel.metric for panel in panels if panel.unfinished]
    lines = []
    if opened:
        lines.append(
            f"The results are not final: values of {listed(opened)} are missing. The next sentences are about what is "
            "measured so far."
        )
    tested = [panel for panel in compared if any(row.verdict in _TESTED for row in panel.rows)]
    kind, against = compared[0].kind, compared[0].reference
    if not tested:
        if kind == "network" and any(row.verdict == "single" for panel in compared for row in panel.rows):
            return [*lines, f"No comparison with {against} was tested."]
        return [*lines, f"No comparison with {against} could be tested, because there are too few samples."]
    won = {panel.metric: [name for name in methods if panel.verdict(name) == "better"] for panel in tested}
    tried = {metric: [name for name in methods if name not in failed[metric]] for metric in won}
    all_of = [metric for metric, names in won.items() if names and names == tried[metric]]
    none_of = [metric for metric, names in won.items() if not names]
    some_of = [metric for metric in won if metric not in (*all_of, *none_of)]
    if all_of:
        if any(failed[metric] for metric in all_of):
            every = f"All {kind}s that did not fail are"
        else:
            every = f"All {len(methods)} {kind}s are" if len(methods) > 2 else " and ".join(methods)
            every += {1: " is", 2: " are"}.get(len(methods), "")
        lines.append(f"{every} shown to be better than {against} on {_of_metrics(all_of)}.")
    if len(some_of) == 1:
        names, others = won[some_of[0]], tried[some_of[0]]
        verb = "is" if len(names) == 1 else "are"
        lines.append(
            f"On {some_of[0]}, {len(names)} of {len(others)} {kind}s {verb} better than {against}: {listed(names)}."
        )
    elif some_of:
        lines.append(f"On {_of_metrics(some_of)}, some {kind}s are better than {against}, and others are not.")
    if none_of:
        lines.append(f"No {kind} is shown to be better than {against} on {_of_metrics(none_of)}.")
    return lines


def _of_metrics(metrics: Sequence[str]) -> str:
    return listed(metrics) if len(metrics) <= _NAMED else f"{len(metrics)} metrics"
