"""Messages about errors in a study: where the error is, what was found, what to do."""

import contextlib
import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from efface.base.shown import key_shown, shown
from efface.plug import moved
from efface.plug.call import Call
from efface.study.across import combined
from efface.study.metric_entry import MetricEntry, MetricSettings
from efface.study.network_entry import SecondNetwork, Tokens
from efface.study.recommended_metrics import expanded
from efface.study.schema import Claim, Decide, MethodEntry, Visualize
from efface.training.generate import Sampling
from efface.training.loop import Stop, TrainingSettings
from efface.training.settings import Regularizer

_PLAIN = {
    "path_type": "expected a path, such as runs/mine; put a name of digits in quotes",
    "string_pattern_mismatch": "expected letters from a to z, digits, and . _ + - behind the first sign",
}
"""What is said of a kind of error in place of the words of the library that finds it."""


def faults(error: ValidationError, tree: Mapping[str, Any], study: type[BaseModel]) -> list[str]:
    """Return a line for each problem of a study. Its place is that in the study with all its metrics.

    error: all problems. tree: what was read. study: the model of the whole study.
    """
    with contextlib.suppress(ValueError):  # then this is the problem, and it names its place itself
        tree = combined(expanded(tree))
    return list(dict.fromkeys(line for fault in error.errors() for line in explain(fault, tree, study)))


def explain(error: Any, tree: Any, study: type[BaseModel]) -> list[str]:
    """Return the lines that describe one problem to the user: where, what was found, what to do.

    error: one of pydantic's. tree: what was read. study: the model of the whole study.
    """
    if error["type"] == "too_short" and error["input"]:  # entries with errors are reported as wrong, not as missing
        return []
    names: list[tuple[Any, Any]] = []
    for part in error["loc"]:
        if isinstance(part, str) and part[:9] in ("function-", "union_tag"):
            continue
        parent = _named(tree, names)
        entry = parent[part] if isinstance(parent, list) and isinstance(part, int) and part < len(parent) else None
        names.append((entry.get("name", part) if isinstance(entry, dict) else part, part))
    where = ".".join(key_shown(str(name)) for name, _ in names)
    prefix = f"{where}: " if where else ""
    if error["type"] == "extra_forbidden":
        if old := moved.reference_place(str(names[-1][0])):
            return [f"{prefix}unknown key; {old}"]
        known = _known([str(part) for _, part in names[:-1]], study)
        close = difflib.get_close_matches(str(names[-1][0]), known, n=1)
        return [
            f"{prefix}unknown key; " + (f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known)}")
        ]
    if error["type"] == "missing":
        return [f"{prefix}the key is missing; add it"]
    if error["type"] in ("value_error", "assertion_error"):
        lines = str(error["ctx"]["error"]).splitlines()
        return [f"{where}.{line}" if line.startswith("kwargs.") else prefix + line for line in lines]
    given = error.get("input")
    what = shown(given) if not isinstance(given, dict | list) else f"a {type(given).__name__}"
    message = f"{error['msg'][0].lower()}{error['msg'][1:]}"
    message = _PLAIN.get(error["type"], message)
    if error["type"] == "model_type":
        examples = {"Decide": "{level: 0.05}", "TrainingSettings": "{epochs: 2, batch_size: 64}"}
        kind = error["ctx"]["class_name"]
        called = "expected a word, a dotted path, or {call: ..., kwargs: {...}}"
        message = called if kind == "Call" else f"expected settings, such as {examples.get(kind, 'key: value')}"
    return [f"{prefix}{message}, found {what}"]


def _named(tree: Any, names: list[tuple[Any, Any]]) -> Any:
    for _, part in names:
        try:
            tree = tree[part]
        except (KeyError, IndexError, TypeError):
            return None
    return tree


def _known(path: list[str], study: type[BaseModel]) -> list[str]:
    """Return the keys that are valid at this place."""
    models: dict[str, type[BaseModel]] = {
        "fit": TrainingSettings,
        "refit": TrainingSettings,
        "stop": Stop,
        "regularizers": Regularizer,
        "second_network": SecondNetwork,
        "tokens": Tokens,
        "claims": Claim,
        "attribution_methods": MethodEntry,
        "metrics": MetricEntry,
        "kwargs": MetricSettings,
        "samples": Sampling,
        "decide": Decide,
        "visualize": Visualize,
    }
    words = [part for part in path if not part.isdigit()]
    if not words:
        return list(study.model_fields)
    return list(models.get(words[-1], Call).model_fields)
