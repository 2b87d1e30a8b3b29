"""`metrics: recommended`: a short list of metrics that guard one another, each with its reason.

The list holds two opposite orders of erasing, a sanity check that sees the weights of the network, and one that sees
the class. A study that trains also has two retrained metrics. docs/choosing.md has the same list.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

WORD = "recommended"
_POINTS = {"points": 2}  # half of the layers, and all: each point runs every method again on the test images
ERASING = {
    "morf": "erases the most relevant units first. The network must lose its class early. Fine maps are favoured.",
    "lerf": "erases the least relevant units first. The network must keep its class long. Coarse maps are favoured.",
    "srg": "is lerf less morf, so the damage that the fill does in both orders cancels. It favours neither.",
}
"""Metrics of every study, with the reason for each."""
SANITY = {
    "randomisation": "redraws layers and runs methods again. A map that stays alike does not depend on the weights.",
    "random_logit": "compares with the maps of another class. A map that stays alike does not depend on the class.",
}
"""Metrics of studies whose methods can all be called, with the reason for each."""
RETRAINED = {
    "roar": "trains new networks without the most relevant units, so that erased images are not strange to them.",
    "kar": "trains new networks without the least relevant units. It is the opposite order of roar.",
}
"""Metrics of studies that train, with the reason for each."""
CAUTION = (
    "roar and kar train a network for each point, repeat and method. The outline of what is erased may tell a new "
    "network the class. Then roar stays high even for a true map, and kar is helped. mask_leak measures how much, at "
    "the cost of as many trainings as roar."
)
NO_METHOD = (
    "randomisation and random_logit are left out: they run the methods again, and maps of a file have no method."
)
_KWARGS = {"randomisation": _POINTS}


def expanded(tree: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the tree of a study with the list in the place of the word `recommended`.

    `metrics` is the word, or a list that holds it. A metric that the list of the study names itself keeps its settings.
    """
    metrics = tree.get("metrics")
    given = [metrics] if metrics == WORD else metrics
    if not isinstance(given, list | tuple) or not any(map(_is_word, given)):
        return dict(tree)
    own = [entry for entry in given if not _is_word(entry)]
    named = {entry.get("name") if isinstance(entry, Mapping) else entry for entry in own}
    short = [_entry(name) for name in reasons(tree) if name not in named]
    at = next(i for i, entry in enumerate(given) if _is_word(entry))
    return dict(tree) | {"metrics": [*own[:at], *short, *own[at:]]}


def reasons(tree: Mapping[Any, Any]) -> dict[str, str]:
    """Return the metrics that are recommended for the tree of a study, with the reason for each."""
    trains = bool(tree.get("fit") or tree.get("refit"))
    return ERASING | ({} if _has_file(tree) else SANITY) | (RETRAINED if trains else {})


def said(tree: Mapping[Any, Any]) -> Iterator[str]:
    """Yield sentences on the list, if all metrics of the list are in the study with the settings of the list.

    tree: a resolved study, as plain values.
    """
    short = reasons(tree)
    found = {entry["name"]: entry for entry in tree.get("metrics", ())}
    if any(found.get(name) is None or not _is_as_recommended(found[name]) for name in short):
        return
    yield f"{WORD} stands for {', '.join(short)}"
    for name, reason in short.items():
        settings = "".join(f" ({key}: {value})" for key, value in _KWARGS.get(name, {}).items())
        yield f"{name}{settings} {reason}"
    if _has_file(tree):
        yield NO_METHOD
    if "roar" in short:
        yield CAUTION


def _is_word(entry: Any) -> bool:
    return entry in (WORD, {"name": WORD})


def _entry(name: str) -> str | dict[str, Any]:
    return {"name": name, "kwargs": dict(_KWARGS[name])} if name in _KWARGS else name


def _is_as_recommended(entry: Mapping[str, Any]) -> bool:
    """Return whether an entry of a resolved study has no other settings than the list gives it."""
    given = {key: value for key, value in (entry.get("kwargs") or {}).items() if value is not None}
    return given == _KWARGS.get(entry["name"], {}) and not entry.get("metric") and not entry.get("judge_by")


def _has_file(tree: Mapping[Any, Any]) -> bool:
    """Return whether an entry of the study has maps that were made elsewhere."""
    entries: Sequence[Any] = tree.get("attribution_methods") or ()
    return any(isinstance(entry, Mapping) and entry.get("file") for entry in entries)
