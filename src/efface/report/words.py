"""What the numbers say, in sentences: nothing here that the panels do not show."""

from collections.abc import Sequence

import numpy as np

from efface.report.stats import Interval
from efface.report.table import Panel, Row

VERDICTS = {
    "better": "better",
    "same": "no different",
    "worse": "worse",
    "undecided": "undecided: no spread",
    "control": "the control",
    "described": "described, not judged",
    "single": "one sample: no interval",
    "alone": "no control",
    "missing": "not run yet",
    "undefined": "no value",
}


def about(panel: Panel) -> str:
    """What the metric erases, and which direction is good."""
    default = (
        "A network is trained anew for each point."
        if panel.sample == "repeats"
        else "The given network is asked again."
    )
    says = panel.rows[0].curve.caption if panel.rows else ""
    good = (
        "It describes and does not judge."
        if panel.direction == "none"
        else f"{panel.direction.capitalize()} is better."
    )
    return f"{says or default} {good}"


def headline(panels: Sequence[Panel]) -> list[str]:
    """Who survives, over the panels given: one for each metric."""
    judged = [
        panel for panel in panels if any(row.verdict in ("better", "same", "worse", "undecided") for row in panel.rows)
    ]
    known = {panel.reference for panel in judged}
    known |= {row.method for panel in judged for row in panel.rows if row.is_control}
    methods = dict.fromkeys(row.method for panel in judged for row in panel.rows if row.method not in known)
    if not methods:
        return []
    against, kind = judged[0].reference, f"{judged[0].kind}s"
    wins = {name: sum(panel.verdict(name) == "better" for panel in judged) for name in methods}
    best = max(wins.values())
    top = [name for name, won in wins.items() if won == best]
    never = [name for name, won in wins.items() if not won]
    where = f"all {len(judged)} metrics" if len(judged) > 1 else judged[0].metric
    if best == len(judged):
        said = [f"Better than {against} on {where}: {len(top)} of {len(wins)} {kind} ({listed(top)})."]
    else:
        said = [f"No {kind[:-1]} is better than {against} on {where}."]
        said += [f"Most often better: {listed(top)}, on {best} of {len(judged)}."] if best else []
    if best and never:
        said.append(f"Not shown to be better on any: {listed(never)}.")
    leaking = [panel.metric for panel in judged if leaks(panel)]
    if leaking:
        said.append(f"On {listed(leaking)}, the outline of what is erased may speak for the class (†).")
    return said


def findings(panel: Panel, panels: Sequence[Panel]) -> list[str]:
    """What this panel shows, and where it must not be trusted; other panels serve as witnesses."""
    verdicts = {kind: [row for row in panel.rows if row.verdict == kind] for kind in VERDICTS}
    said = []
    if not panel.reference and panel.direction != "none" and panel.family != "network":
        said.append(
            "No random control was measured here, so nothing tells how far these curves are from chance: add "
            "{name: random, method: efface.methods.control.random} to attribution_methods and measure again."
        )
    if verdicts["better"]:
        most = max(verdicts["better"], key=lambda row: abs(row.difference.mean))
        change = f"{panel.stands}, {number(most.difference.mean, panel.score, signed=True)}"
        said.append(
            f"Better than {panel.reference}: {_names(verdicts['better'])}; the most in {change}, is {most.method}'s."
        )
    if verdicts["same"]:
        said.append(f"Not told apart from {panel.reference} (the interval includes 0): {_names(verdicts['same'])}.")
    if leaks(panel):
        said += _leak(panel, verdicts["worse"], panels)
    elif verdicts["worse"]:
        said.append(f"Worse than {panel.reference}: {_names(verdicts['worse'])}.")
    if verdicts["undecided"]:
        who = _names(verdicts["undecided"])
        said.append(f"All {panel.sample} have one difference, so there is no spread to test against: {who}.")
    if any(row.area.n == 1 for row in panel.rows):
        remedy = "set repeats to 3 or more" if panel.sample == "repeats" else "take more images"
        said.append(f"Where there is one of the {panel.sample} only, there is no interval and no verdict: {remedy}.")
    if panel.unfinished:
        said.append(f"Not run to the end yet: {listed(panel.unfinished)}.")
    return said + gaps(panel) + [_fewer(row, panel) for row in panel.rows if row.lacking]


def gaps(panel: Panel) -> list[str]:
    """Where the metric was measured and no method has a value, in sentences."""
    said = []
    if panel.empty:
        where = listed([point(at, panel.axis) for at in panel.empty], len(panel.empty))
        what = "value" if panel.stands == "value" else f"curve, {panel.stands}"
        said.append(f"{panel.metric} has no value at {where} for any method: left out of {what} and verdict.")
    if panel.rows and not panel.unfinished and not any(cell.n for row in panel.rows for cell in row.cells):
        said.append(
            f"{panel.metric} was measured and has no value for any method on any of the {panel.sample}: its settings "
            "may not suit the images, such as fewer units than it needs."
        )
    return said


def _fewer(row: Row, panel: Panel) -> str:
    """What a row's numbers are of that has no value at some points."""
    where = listed([point(at, panel.axis) for at in row.lacking], len(row.lacking))
    apart = f"its difference to {panel.reference} is over those that both have, and " if row.difference.n else ""
    judged = f", {apart}it gets no rank" if panel.direction != "none" else ""
    return f"{row.method} has no value at {where}: its {panel.stands} is over the points that it has{judged}."


def leaks(panel: Panel) -> bool:
    """Whether methods stay above chance where networks are retrained on what the maps leave: a suspicion of leakage."""
    retrained = panel.sample == "repeats" and panel.direction == "lower" and panel.family in ("", "retraining")
    return (
        retrained and panel.kind == "method" and panel.by_chance and any(row.verdict == "worse" for row in panel.rows)
    )


def number(value: float, score: str = "", *, signed: bool = False) -> str:
    """Three decimals, fewer for large values; a minus sign that lines up."""
    if np.isnan(value):
        return "?"
    decimals = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    text = f"{value:{'+' if signed else ''}.{decimals}f}".replace("-", "\N{MINUS SIGN}")
    return text + (" %" if score == "relative_change" else "")


def two_digits(value: float) -> str:
    """A number from -1 to 1 with its sign, where there is room for little."""
    return "?" if np.isnan(value) else f"{round(value, 2) + 0.0:+.2f}".replace("-", "\N{MINUS SIGN}")


def plus_minus(cell: Interval, score: str = "", nothing: str = VERDICTS["missing"]) -> str:
    """Mean and half-width of the interval, or its ends where it is lopsided; the mean alone where there is none.

    nothing: said where there is no mean either.
    """
    if cell.n == 0:
        return nothing
    if cell.n == 1:
        return number(cell.mean, score)
    below, above = number(cell.mean - cell.low), number(cell.high - cell.mean)
    told = f"± {below}" if below == above else f"[{number(cell.low)}, {number(cell.high)}]"
    return f"{number(cell.mean)} {told}" + (" %" if score == "relative_change" else "")


def between(cell: Interval, score: str = "") -> str:
    """The mean with its interval in brackets; "" where there is nothing."""
    if cell.n == 0:
        return ""
    mean = number(cell.mean, score, signed=True)
    return mean if cell.n == 1 else f"{mean} [{number(cell.low, signed=True)}, {number(cell.high, signed=True)}]"


def point(at: float, axis: str = "fraction removed") -> str:
    """A point of an axis as a heading: 0.1 of a fraction or share is "10 %"."""
    return percent(at) if is_share(axis) else f"{at:.4g}"


def is_share(axis: str) -> bool:
    """Whether what an axis counts is a part of a whole."""
    return axis.startswith(("fraction", "share"))


def percent(fraction: float) -> str:
    """A fraction in percent."""
    return f"{100 * fraction:.4g} %"


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names as a phrase, the first `most` of them."""
    names = [*names[:most], f"{len(names) - most} more"] if len(names) > most + 1 else list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _names(rows: Sequence[Row]) -> str:
    return listed([row.method for row in rows])


def _leak(panel: Panel, worse: list[Row], panels: Sequence[Panel]) -> list[str]:
    caution = (
        f"By itself this does not say that these maps are worse than {panel.reference}: the outline of what a map "
        "removes can tell the class to the network retrained on it (mask leakage), and "
        f"{panel.reference}'s outline tells nothing."
    )
    control = "KAR can gain from the same outline; a network trained on the masks alone would measure it."
    return [_above(panel, worse), caution, _witness(worse, panels), control]


def _above(panel: Panel, worse: list[Row]) -> str:
    """The fraction where all of them are furthest above the reference, or, if nowhere all are, where one is."""
    means = np.array([[cell.mean for cell in row.cells] for row in worse])
    random = np.array([[cell.mean for cell in row.cells] for row in panel.rows if row.method == panel.reference])[0]
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
    ends = dict.fromkeys(number(float(end), panel.score) for end in (values.min(), values.max()))
    means_are = f"{' to '.join(ends)} against {number(random[at])}"
    return f"At {removed} removed, {who} {verb} above {panel.reference} ({means_are})."


def _witness(worse: list[Row], panels: Sequence[Panel]) -> str:
    """What the metric without retraining that likes them best says of the same methods."""
    names = [row.method for row in worse]
    erasing = [panel for panel in panels if panel.family in ("", "erasure")]
    frozen = [panel for panel in erasing if panel.sample == "images" and panel.reference]
    if not frozen:
        return "Look at MoRF, where no network is trained on the masks, before calling them worse."
    against = {panel.metric: panel.reference for panel in frozen}
    found = {panel.metric: [name for name in names if panel.verdict(name) == "better"] for panel in reversed(frozen)}
    metric = max(reversed(found), key=lambda name: len(found[name]))
    if not found[metric]:
        return f"The metrics that train no network on the masks find none of them better than {against[metric]} either."
    whom = listed(found[metric]) if len(found[metric]) < len(names) else "it" if len(names) == 1 else "all of them"
    return f"{metric}, where no network is trained on the masks, finds {whom} better than {against[metric]}."
