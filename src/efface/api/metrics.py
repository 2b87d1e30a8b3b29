"""Metrics as Python hands them over: names, entries of a study, metrics of efface, functions."""

from collections.abc import Mapping
from typing import Any

from efface.metrics.formula import Better, Metric
from efface.metrics.shared import of_function
from efface.plug.given import give

OneMetric = Any
"""A name, an entry of a study, a `Metric`, or a function. Anything else is refused with a sentence."""
Metrics = Any
"""One metric, a list of metrics, or a dict from names to metrics."""

_OF_FUNCTION = f"{of_function.__name__}.of_function"
_ENTRY = ("name", "metric", "kwargs", "judge_by", "across")


def metric(
    what: OneMetric,
    name: str | None = None,
    *,
    better: Better | None = None,
    judge_by: str | None = None,
    across: Mapping[str, list[Any]] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Return a metric with its settings, for `metrics` of `efface.evaluate`. It is an entry of a study.

    what: a short word such as "insertion", a dotted path, an `efface.Metric`, or a function (model, images, targets,
        maps) -> n numbers. The function is given images n c h w in [0, 1], the explained classes n, and the maps after
        `post`. NaN marks an image without a value.
    name: name of the metric in tables; default: the word, or the function's name.
    better: for a function: "higher" (default), "lower", or "none" if its value only describes.
    judge_by: score that verdicts and ranks use; default: the metric's first.
    across: lists of values of settings, such as {"imputer": ["channel_mean", "blur"]}. The metric is measured at each
        combination, and the page says how alike its orders of the methods are.
    settings: settings of the metric, and of the study for this metric alone: `imputer`, `fractions`, `unit`, `post`,
        `repeats`; and `log_points`.

    ValueError: a name is missing, or `better` is given for something else than a function.
    """
    if isinstance(what, Mapping):
        if unknown := [key for key in what if key not in _ENTRY]:
            raise ValueError(f"metric: unknown key '{unknown[0]}'; an entry has {', '.join(_ENTRY)}")
        entry = dict(what)
        own = entry.get("metric")
        if own is not None and not isinstance(own, str):
            entry |= {"metric": metric(own, entry.get("name"))["metric"]}
    elif isinstance(what, str):
        path = {"metric": what} if name not in (None, what) else {}
        entry = {"name": name or (what.rpartition(".")[2] if "." in what else what), **path}
        if "." in what:
            entry["metric"] = what
    else:
        entry = _of_object(what, name, better)
    if better is not None and (isinstance(what, str | Mapping | Metric)):
        raise ValueError("metric: better is the direction of a function's value; other metrics have their own")
    entry["name"] = name or entry["name"]
    kwargs = {**entry.get("kwargs", {}), **settings}
    more = {"kwargs": kwargs, "judge_by": judge_by, "across": across and dict(across)}
    return entry | {key: value for key, value in more.items() if value}


def metric_entries(metrics: Metrics) -> list[Any]:
    """Return the entries of a study for these metrics. A dict has the names of its keys, unless it is an entry."""
    if isinstance(metrics, str | Metric) or callable(metrics):
        return [metric(metrics)]
    if isinstance(metrics, Mapping):
        if "name" in metrics and isinstance(metrics["name"], str):
            return [metric(metrics)]
        return [metric(what, name) for name, what in metrics.items()]
    return [metric(one) for one in metrics]


def _of_object(what: Any, name: str | None, better: Better | None) -> dict[str, Any]:
    """Return the entry of a metric or a function in memory."""
    if not isinstance(what, Metric) and not callable(what):
        raise ValueError(
            f"metric: {name or what!r} is of type {type(what).__name__}; expected a name, an entry, an efface.Metric "
            "or a function (model, images, targets, maps) -> numbers"
        )
    own = name or getattr(what, "__name__", None)
    if own in (None, "<lambda>"):
        raise ValueError(
            f"metric: {'a lambda' if own else f'a {type(what).__name__}'} has no name; give one, as in "
            'metrics={"mine": ...} or efface.metric(..., name="mine")'
        )
    if isinstance(what, Metric):
        return {"name": own, "metric": give("metric", str(own), what)}
    path = give("function", str(own), what)
    return {"name": own, "metric": _OF_FUNCTION, "kwargs": {"function": path, "better": better or "higher"}}
