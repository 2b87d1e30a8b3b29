"""A metric at several settings: an entry with `across` stands for one entry at each combination of the settings."""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from efface.base.shown import shown
from efface.plug.words import word_of
from efface.study.metric_entry import MetricEntry
from efface.study.schema import MOST

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_NOT_OF_A_NAME = re.compile(r"[^A-Za-z0-9_.-]+")


def combined(tree: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the tree of a study with an entry at each combination in the place of each entry with `across`.

    The entries are called NAME+VALUE+VALUE. Each has the key `setting_of`, with the name of the entry it comes from.

    ValueError: `across` has no lists of values, gives a setting twice, or stands for too many entries.
    """
    metrics = tree.get("metrics")
    if not isinstance(metrics, list | tuple):
        return dict(tree)
    return dict(tree) | {"metrics": [one for entry in metrics for one in _entries(entry)]}


def of_settings(name: str, metrics: Iterable[MetricEntry]) -> list[str]:
    """Return the names of the entries that a metric with `across` stands for, and of the entry of this very name."""
    return [entry.name for entry in metrics if name in (entry.name, entry.setting_of)] or [name]


def _entries(entry: Any) -> Iterator[Any]:
    """Yield the entries that an entry stands for."""
    if not isinstance(entry, Mapping) or entry.get("across") is None:
        yield entry
        return
    name, kwargs = entry.get("name"), entry.get("kwargs") or {}
    if not isinstance(name, str) or not isinstance(kwargs, Mapping):  # the check of the entry reports it
        yield entry
        return
    lists = _lists(f"metrics.{name}.across", entry["across"], kwargs)
    own = {key: value for key, value in entry.items() if key != "across"}
    labels = {setting: _labels(values) for setting, values in lists.items()}
    for places in itertools.product(*(range(len(values)) for values in lists.values())):
        chosen = dict(zip(lists, places, strict=True))
        yield own | {
            "name": "+".join([name, *(labels[setting][place] for setting, place in chosen.items())]),
            "metric": entry.get("metric") or name,
            "kwargs": {**kwargs, **{setting: lists[setting][place] for setting, place in chosen.items()}},
            "setting_of": name,
        }


def _lists(where: str, across: Any, kwargs: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    """Return the values of each setting. ValueError: they are no lists of values, or another key gives the setting."""
    example = "such as {imputer: [channel_mean, blur]}"
    if not isinstance(across, Mapping) or not across:
        raise ValueError(f"{where}: found {shown(across)}; expected a list of values for each setting, {example}")
    count = 1
    for setting, values in across.items():
        if not isinstance(values, list | tuple) or not values:
            raise ValueError(f"{where}.{setting}: found {shown(values)}; expected a list of values, {example}")
        if setting in kwargs:
            raise ValueError(f"{where}.{setting}: kwargs has this setting too; give it in one of the two")
        same = [_plain(value) for value in values]
        if doubled := [value for place, value in enumerate(values) if same[place] in same[:place]]:
            raise ValueError(f"{where}.{setting}: {shown(doubled[0])} stands twice; give each value once")
        count *= len(values)
    if not 1 < count <= MOST:
        raise ValueError(f"{where}: stands for {count:,} settings; expected 2 to {MOST:,}")
    return dict(across)


def _plain(value: Any) -> Any:
    """Return the value with the short word of each of efface's own paths, and a call without settings as its path."""
    if isinstance(value, str):
        return word_of(value) or value
    if isinstance(value, Mapping):
        plain = {key: _plain(one) for key, one in value.items() if key != "kwargs" or one}
        return plain["call"] if set(plain) == {"call"} else plain
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _labels(values: Sequence[Any]) -> list[str]:
    """Return a short label of each value. Equal labels get the number of their place."""
    labels = [_label(value) for value in values]
    return [label if labels.count(label) == 1 else f"{label}.{place}" for place, label in enumerate(labels, 1)]


def _label(value: Any) -> str:
    """Return the value in the letters of a name: a call by the last word of its path and by its settings."""
    if isinstance(value, Mapping) and "call" in value:
        kwargs = value.get("kwargs")
        own = kwargs.values() if isinstance(kwargs, Mapping) else ()
        return "-".join(map(_label, (value["call"], *own)))
    if isinstance(value, list | tuple):
        return "-".join(map(_label, value)) or "none"
    if isinstance(value, int | float):
        return str(value).replace("e+", "e")
    text = str(value)
    word = text.rpartition(".")[2] if _PATH.fullmatch(text) else text
    return _NOT_OF_A_NAME.sub("-", word).strip("-") or "value"
