"""The answer of a page: for each metric the best method and those that are not told apart from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from efface.report.between import Pairs
from efface.report.cells import cell
from efface.report.formats import listed
from efface.report.table import Kind, Panel, Row

_NAMED = 6
"""Largest number of metrics that a sentence names."""
_WITH_GAINS = 4
"""Largest number of methods, with controls and the reference, whose gains stand in the answer."""


class Best(NamedTuple):
    """The best method of a metric by its first score.

    panel: the panel.
    leader: row with the best mean; None if the metric has none: it describes, is unfinished, or has no value.
    together: methods that are not told apart from the leader, best mean first. No pair with it has a smaller
        corrected p than 0.05.
    verdict: the leader's verdict against the reference.
    untested: True if there are other methods, but no pair with the leader could be tested.
    """

    panel: Panel
    leader: Row | None
    together: tuple[str, ...]
    untested: bool

    @property
    def is_judged(self) -> bool:
        """True if a test compares the leader with another method."""
        return self.leader is not None and not self.untested and len(self.panel.rows) > 1

    @property
    def first(self) -> tuple[str, ...]:
        """Names of the leader and of all that are not told apart from it."""
        return () if self.leader is None else (self.leader.method, *self.together)


@dataclass(frozen=True)
class Overall:
    """How often each method is first, which is the best or not told apart from the best.

    of: number of metrics that have a best method. times: for each method on how many of them it is first, most often
    first; with equal numbers, the better mean rank first. alone: for each method, on how many it alone is first.
    """

    of: int
    times: Mapping[str, int]
    alone: Mapping[str, int]

    @property
    def top(self) -> tuple[str, ...]:
        """Methods that are first most often."""
        most = max(self.times.values(), default=0)
        return tuple(name for name, count in self.times.items() if count == most and most)


class Against(NamedTuple):
    """How all methods stand to a reference of one's own on a metric: names by verdict on them, best mean first.

    gains: whether the gain and its interval stand behind each name, because there are few.
    """

    metric: str
    better: tuple[str, ...]
    same: tuple[str, ...]
    worse: tuple[str, ...]
    untested: tuple[str, ...]
    gains: bool


def bests(compared: Sequence[Pairs]) -> list[Best]:
    """Return the best method of each metric that judges methods."""
    return [_best(one) for one in compared if one.panel.direction != "none"]


def overall(found: Sequence[Best]) -> Overall:
    """Return how often each method is first, over the metrics that have a best method."""
    judged = [best for best in found if best.is_judged]
    methods = dict.fromkeys(
        row.method for best in judged for row in best.panel.rows if row.area.n and not row.curve.failed
    )
    times = {name: sum(name in best.first for best in judged) for name in methods}
    alone = {name: sum(best.first == (name,) for best in judged) for name in methods}
    places = {name: [_place(best.panel, name) for best in judged if best.panel.row(name)] for name in methods}
    ordered = sorted(methods, key=lambda name: (-times[name], sum(places[name]) / len(places[name])))
    return Overall(len(judged), {name: times[name] for name in ordered}, alone)


def overall_sentences(found: Sequence[Best], kind: Kind = "method") -> list[str]:
    """Return which method is the best, in sentences. If this is not known, they say so, and why."""
    whole = overall(found)
    if whole.of > 1:
        return [_overall_sentence(whole, kind)]
    if whole.of == 1:
        return [_of_one_metric(next(best for best in found if best.is_judged), kind)]
    return _nothing_judged(found, kind)


def _overall_sentence(whole: Overall, kind: Kind) -> str:
    most = whole.times[whole.top[0]]
    every = "both metrics" if whole.of == 2 else f"all {whole.of} metrics"
    where = f"on {every}" if most == whole.of else f"on {most} of {whole.of} metrics"
    if len(whole.top) > 1 and most == 1:
        return f"The metrics disagree: no {kind} is among the best on more than one of the {whole.of} metrics."
    if len(whole.top) > 1:
        return f"There is no clear winner: {listed(whole.top)} are each among the best {where}."
    (name,) = whole.top
    second = [other for other in whole.times if other != name]
    most_next = whole.times[second[0]] if second else 0
    said = f"{name} is among the best {where}"
    if most_next:
        next_ones = [other for other in second if whole.times[other] == most_next]
        said += f", {listed(next_ones, 3)} on {most_next}"
    return f"{said}." if most == whole.of else f"There is no clear winner: {said}."


def controls_sentences(found: Sequence[Best]) -> list[str]:
    """Return where a control is not told apart from the best method, so that to be the best shows little."""
    by_metric = {}
    for best in (best for best in found if best.is_judged):
        rows = [row for row in best.panel.rows if row.method in best.first]
        names = [row.method for row in rows if row.is_blind]
        if names and len(names) < len(rows):
            by_metric[best.panel.metric] = names
    if not by_metric:
        return []
    where = listed(list(by_metric)) if len(by_metric) <= _NAMED else f"{len(by_metric)} metrics"
    names = list(dict.fromkeys(name for several in by_metric.values() for name in several))
    return [
        f"On {where}, a control is among the best as well ({listed(names)}).",
        "So being among the best there needs no knowledge of the network.",
    ]


def _of_one_metric(best: Best, kind: Kind) -> str:
    name, metric = best.first[0], best.panel.metric
    if not best.together:
        return f"On {metric}, {name} is shown to be better than every other {kind}."
    verb = "is" if len(best.together) == 1 else "are"
    return f"On {metric}, {name} has the best mean, but {listed(best.together)} {verb} not told apart from it."


def _nothing_judged(found: Sequence[Best], kind: Kind) -> list[str]:
    """Return why no method is called the best."""
    unknown = f"So this page cannot say which {kind} is best."
    if not found:
        return [f"No metric of this page judges the {kind}s. {unknown}"]
    known = [best for best in found if best.leader is not None]
    if not known:
        unfinished = any(best.panel.unfinished for best in found)
        why = f"No metric is measured for all {kind}s yet." if unfinished else "No metric has a value."
        return [f"{why} {unknown}"]
    names = list(dict.fromkeys(row.method for best in known for row in best.panel.rows))
    if len(names) == 1:
        return [f"{names[0]} is the only {kind} here, so there is no other to compare it with."]
    if kind == "network" and any(row.curve.trained != "networks" for best in known for row in best.panel.rows):
        why = "Each network was trained once, and other trainings of it may differ more."
        return [f"{why} {unknown} The numbers below hold for these trainings alone."]
    fewest = max(row.area.n for best in known for row in best.panel.rows)
    samples = listed(list(dict.fromkeys("images" if best.panel.sample == "images" else "trainings" for best in known)))
    few = f"the {samples} are too few" if fewest > 1 else f"there is a single one of the {samples}"
    return [f"No difference between the {kind}s was tested, because {few}. {unknown}"]


def against_own(panels: Sequence[Panel], reference: str) -> list[Against]:
    """Return how all methods stand to the reference, if it is a method and no control. panels: one for each metric."""
    found = []
    for panel in panels:
        own = panel.row(reference)
        if panel.reference != reference or own is None or own.is_control or panel.direction == "none":
            continue
        gains = len(panel.rows) <= _WITH_GAINS
        by = {
            word: tuple(
                _with_gain(row, panel) if gains else row.method
                for row in panel.rows
                if row.verdict in verdicts and row is not own
            )
            for word, verdicts in (
                ("better", ("better",)),
                ("same", ("same",)),
                ("worse", ("worse",)),
                ("untested", ("undecided", "single", "missing", "failed", "undefined")),
            )
        }
        found.append(Against(panel.metric, by["better"], by["same"], by["worse"], by["untested"], gains))
    return found


def _with_gain(row: Row, panel: Panel) -> str:
    """Return a method with its gain over the reference, where it has one, and the interval of the gain."""
    known = cell(row, panel)
    return " ".join(part for part in (row.method, known.shown, known.interval) if part) if known.gain.n else row.method


def is_ahead(best: Best) -> str:
    """Return in words whether the best method of a metric is shown to be ahead of all others."""
    if best.leader is None:
        if best.panel.unfinished:
            return "not measured to the end"
        return "all failed" if all(row.curve.failed for row in best.panel.rows) else "no value"
    if len(best.panel.rows) == 1:
        return "there is no other"
    if best.untested:
        return "not tested: too few samples"
    return "no: tied with " + _counted(len(best.together)) if best.together else "yes: ahead of all others"


def against_chance(best: Best) -> str:
    """Return in words how the best method of a metric stands to the reference."""
    if best.leader is None:
        return ""
    if best.leader.method == best.panel.reference:
        return "it is the reference itself"
    words = {"better": "yes", "same": "no: not told apart", "worse": "no: worse", "alone": "no control was measured"}
    said = words.get(best.leader.verdict, "not tested")
    return f"{said}; it is a control itself" if best.leader.is_control else said


def _counted(others: int) -> str:
    return "1 other" if others == 1 else f"{others} others"


def _best(compared: Pairs) -> Best:
    panel = compared.panel
    rows = [row for row in panel.rows if row.area.n and not row.lacking and not row.curve.failed]
    if panel.unfinished or not rows:
        return Best(panel, None, (), untested=False)
    leader = next((row for row in rows if row.area.mean == rows[0].area.mean and not row.is_control), rows[0])
    with_leader = [one for names, one in compared.found.items() if leader.method in names]
    tested = [one for one in with_leader if one.p == one.p]
    others = [row for row in rows if row is not leader]
    together = tuple(row.method for row in others if not compared.better(leader.method, row.method))
    return Best(panel, leader, together, untested=len(rows) > 1 and not tested)


def _place(panel: Panel, method: str) -> float:
    """Return the share of the panel's methods with a better mean."""
    names = [row.method for row in panel.rows if row.area.n]
    return names.index(method) / len(names) if method in names else 1.0
