"""Cautions about degenerate maps. The page shows them before the scores."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from efface.report.answer import Best
from efface.report.facts import Facts
from efface.report.formats import listed, percent
from efface.report.words import leaks, may_gain

SHARES = {
    "nonfinite": "not finite",
    "constant_of_all": "constant",
    "levels": "distinct values / units",
    "tied_share": "tied units",
    "alike": "same for several images",
    "blind": "same for another class",
}
"""The columns of the table, by the name of the share. `levels` should be high, the others low."""
_NEGLIGIBLE = {"nonfinite": 0.0, "constant_of_all": 0.0, "tied_share": 0.5, "alike": 0.1, "blind": 0.01}
_SAYS = {
    "nonfinite": "{} of its maps hold values that are not finite, so their ranks mean nothing",
    "constant_of_all": "{} of its maps are constant, so their ranking is random",
    "tied_share": "{} of the units have the same value as another unit of their map, so much of the ranking is random",
    "alike": "{} of its maps are equal up to scale: they do not depend on the image",
    "blind": "{} of its maps are the same for another class: they do not depend on the class",
}


def cautions(degenerate: Mapping[str, Mapping[str, float]], controls: Collection[str] = ()) -> dict[str, list[str]]:
    """Return the cautions for each method. Methods without a caution are left out.

    Controls never depend on the class, so no caution says that of them.

    degenerate: by method, the mean share of each kind, NaN where it is not known.
    controls: methods that are controls.
    """
    by_method = {}
    for method, shares in degenerate.items():
        kinds = [kind for kind, edge in _NEGLIGIBLE.items() if shares.get(kind, np.nan) > edge]
        lines = [_SAYS[kind].format(share(shares[kind])) for kind in kinds if kind != "blind" or method not in controls]
        if lines:
            by_method[method] = lines
    return by_method


def first_cautions(facts: Facts, bests: Sequence[Best], degenerate: Mapping[str, Sequence[str]]) -> list[str]:
    """Return what a reader must know before the numbers, what matters most first.

    degenerate: the cautions about the maps of each method, which are told here for the best methods alone.
    """
    lines = of_study(facts)
    ahead = {best.panel.metric: best.leader for best in bests if best.leader is not None and not _tied(best)}
    blind = {metric: leader.method for metric, leader in ahead.items() if leader.is_blind}
    gamed = {metric: leader.method for metric, leader in ahead.items() if leader.is_optimised}
    leaking = [best.panel.metric for best in bests if leaks(best.panel)]
    gaining = [best.panel.metric for best in bests if may_gain(best.panel, [each.panel for each in bests])]
    gains = f", and better on {listed(gaining)}" if gaining else ""
    if leaking:
        lines.append(
            f"On {listed(leaking)}, the outline of the erased units may tell the class to the retrained network, so "
            f"methods may look worse there than they are{gains}."
        )
    if blind:
        lines.append(
            f"On {listed([*blind])}, a control is ahead of all methods ({_once(blind)}). Its maps do not depend on the "
            "network, so being first there needs no knowledge of the network."
        )
    if gamed:
        lines.append(
            f"On {listed([*gamed])}, a control is ahead of all methods ({_once(gamed)}). Its maps are optimised on the "
            "network's response to erased images alone, so the metric can be gamed."
        )
    leaders = dict.fromkeys(_maps_of(best) for best in bests if best.leader is not None and not best.leader.is_control)
    lines += [of_maps(name, degenerate[name]) for name in leaders if name in degenerate]
    lines += _of_code(facts.origin.commit)
    return list(dict.fromkeys(lines))


def _once(names: Mapping[str, str]) -> str:
    return listed(list(dict.fromkeys(names.values())))


def _maps_of(best: Best) -> str:
    """Return the name of the maps that are best on a metric: of a network, the metric's name has their method."""
    assert best.leader is not None
    method = best.panel.metric.partition(" · ")[2] if best.panel.kind == "network" else ""
    return f"{best.leader.method} · {method}" if method else best.leader.method


def _sentence(text: str) -> str:
    """Return a caution with a full stop. Its first word may be a name, so it keeps its letters."""
    return text if text.endswith((".", "!", "?", ")")) else f"{text}."


def _of_code(commit: str) -> list[str]:
    """Return what to know of the code that made the results. commit: one or several, as a list in words."""
    if "dirty" in commit:
        return [f"The code had changes that were not committed ({commit}), so no commit gives exactly these results."]
    if " and " in commit:
        return [f"The results were made by several versions of the code ({commit})."]
    return []


def of_maps(method: str, faults: Sequence[str]) -> str:
    """Return the faults of a method's maps in one sentence."""
    return f"{method}: {'; '.join(faults)}."


def _tied(best: Best) -> bool:
    """Return whether a method that is no control is not told apart from the best."""
    rows = (best.panel.row(name) for name in best.together)
    return any(row is not None and not row.is_control for row in rows)


def of_study(facts: Facts) -> list[str]:
    """Return the cautions about the whole study, which stand in full above all numbers."""
    weak = weak_network(facts.accuracy, facts.chance)
    return list(dict.fromkeys([*([weak] if weak else []), *map(_sentence, facts.warnings)]))


def weak_network(accuracy: float, chance: float) -> str:
    """Return a sentence if a network is nearer to chance than to three quarters of the way; "" if it is not."""
    if np.isnan(accuracy) or np.isnan(chance) or accuracy >= chance + (1 - chance) / 4:
        return ""
    return (
        f"The network classifies only {percent(accuracy)} of the test images correctly, and chance is "
        f"{percent(chance)}. Maps of a network that has learnt little explain little."
    )


def share(value: float | None) -> str:
    """Format a share in percent. "?" stands for an unknown share."""
    return "?" if value is None or np.isnan(value) else "all" if value == 1 else f"{100 * value:.3g} %"
