"""Sentences of the page about the study itself: how it was made, what it compares, and which images it shows."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from efface.plug import words as short_words
from efface.report.facts import Facts
from efface.report.formats import duration, listed
from efface.report.pictured import Pictured
from efface.report.table import HOW, Kind, Panel

_HOW = {
    "unit": "the unit is",
    "explain": "the explained class is",
    "imputer": "the fill is",
    "ties": "ties are",
    "count": "the number of removed units is",
}
_SAID = {
    "floor(fraction * units + 1e-6)": "the fraction of the units, rounded down",
    "true": "the true one",
    "predicted": "the predicted one",
}
_FROM_PYTHON = "efface_given."


def made(facts: Facts) -> list[str]:
    """Return when, with what and on what a study was made, and how long it took."""
    origin, parts = facts.origin, []
    parts += [origin.date] if origin.date else []
    parts += [f"efface {facts.versions['efface']}"] if "efface" in facts.versions else []
    parts += [f"commit {origin.commit}"] if origin.commit else []
    parts += [f"seed {origin.seed}"] if origin.seed is not None else []
    parts.append(facts.device)
    parts.append(f"{duration(sum(facts.seconds.values()))} of work by all workers")
    return parts


def compared(firsts: Sequence[Panel], facts: Facts, kind: Kind, controls: Collection[str]) -> str:
    """Return how many methods, controls and metrics a page has, and how many samples."""
    judged = [panel for panel in firsts if kind == "network" or panel.family != "network"]
    names = dict.fromkeys(row.method for panel in judged for row in panel.rows)
    own = [name for name in names if name in controls]
    words = [_count(len(names) - len(own), kind)] + ([_count(len(own), "control")] if own else [])
    words.append(_count(len(judged), "metric"))
    if describing := [panel for panel in judged if panel.direction == "none"]:
        words[-1] += f" ({len(describing)} only describe{'s' * (len(describing) == 1)})"
    samples = max((row.area.n for panel in judged if panel.sample == "images" for row in panel.rows), default=0)
    words += [f"up to {_count(samples, 'test image')}"] if samples else []
    if any(panel.sample == "repeats" for panel in judged) and facts.origin.repeats:
        words.append(f"{_count(facts.origin.repeats, 'training')} of each point")
    return ", ".join(words)


def how(settings: Mapping[str, str]) -> str:
    """Return the settings that the numbers of a metric depend on, in one line. Settings that are none are left out."""
    given = [
        f"{_HOW[setting]} {plain(settings[setting])}" for setting in HOW if settings.get(setting, "none") != "none"
    ]
    return f"In these numbers, {listed(given)}." if given else ""


def plain(text: str) -> str:
    """Return a setting without the paths of efface's own functions, and without formulas."""
    if text in _SAID:
        return _SAID[text]
    return re.sub(r"\befface(?:\.\w+)+", lambda path: short_words.name_of(path[0]).rpartition(".")[2] or path[0], text)


def chosen(gallery: Pictured) -> str:
    """Return how many images of a gallery were chosen for each reason, and which of many channels are shown."""
    channels = gallery.channels
    shown = {1: "", 2: " Of the 2 channels, the first is shown.", 3: ""}.get(
        channels, f" Of the {channels} channels, the first three are shown as red, green and blue."
    )
    reasons = Counter(why for why in gallery.why if why)
    counted = [f"{count} {why if count == 1 else why.replace('case', 'cases')}" for why, count in reasons.items()]
    return (f"The images are chosen by a rule: {listed(counted)}." if reasons else "") + shown


def from_python(model: str) -> bool:
    """Return whether a network was handed over in Python, so that no command makes the study again."""
    return model.startswith(_FROM_PYTHON)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' if number != 1 else ''}"
