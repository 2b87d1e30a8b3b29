"""Attribution methods, metrics and fractions of an old configuration."""

import re
from typing import Any

from efface.base.shown import shown
from efface.plug import words
from efface.study.convert.old import LERF, Line, Old

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
_GRAD_CAM = re.compile(r"src\..*compute_gradcam|src\..*gradcam\.\w+")
_OWN = (
    "Your own code: Python must find it where you run efface. It is called with one image at a time, as there; the "
    "image is in [0, 1], and the network normalises it."
)


def methods_of(old: Old) -> list[dict[str, Any]]:
    """Return the key `attribution_methods`, with a random control at its head.

    The entries of all sections are one list. An entry that stands in two sections is one.
    """
    entries: dict[str, dict[str, Any]] = {}
    for section in ("extract_cams", "retrain_cls", LERF):
        key = f"{section}.attribution_methods"
        if not old.has(key):
            continue
        listed = old.get(key)
        if not isinstance(listed, list) or not listed:
            old.wrong(key, "a list of entries with name, method and kwargs")
        elif section == "retrain_cls" and listed == old.get("extract_cams.attribution_methods"):
            old.became(
                key, "attribution_methods", "It is that of extract_cams; one list serves all stages.", again=True
            )
        else:
            _add(old, key, listed, entries)
    name = "random" if "random" not in entries else "random_control"
    return [{"name": name, "method": "random"}, *entries.values()] if entries else []


def _add(old: Old, key: str, listed: list[Any], entries: dict[str, dict[str, Any]]) -> None:
    """Add the entries of a section to those of the sections before."""
    before, here = set(entries), set[str]()
    for number, entry in enumerate(listed):
        name = entry.get("name") if isinstance(entry, dict) else None
        where = f"{key}.{name or number}"
        if not isinstance(entry, dict) or not isinstance(name, str) or not isinstance(entry.get("method"), str):
            old.problem(where, f"is {shown(entry)}; expected name, method and kwargs")
            continue
        if name in here:
            old.problem(where, "the name stands twice; give each method a name of its own")
        here.add(name)
        if name in before:
            old.lines.append(Line(where, entry, "attribution_methods", "It is that of extract_cams.", again=True))
            continue
        entries[name] = _entry(old, where, entry)


def _entry(old: Old, where: str, entry: dict[str, Any]) -> dict[str, Any]:
    name, path, kwargs = entry["name"], entry["method"], entry.get("kwargs") or {}
    allowed = name if _NAME.fullmatch(name) else re.sub(r"[^A-Za-z0-9_.+-]", "_", name).lstrip("_.+-") or "method"
    renamed = (
        "" if allowed == name else f" Its name is now {allowed}: names here have letters, digits and _ . + - only."
    )
    for other in entry.keys() - {"name", "method", "kwargs"}:
        old.lines.append(Line(f"{where}.{other}", entry[other], "", "unknown key, which the reference system ignores"))
    if not isinstance(kwargs, dict):
        old.problem(f"{where}.kwargs", f"is {shown(kwargs)}; expected keys and values")
        kwargs = {}
    if _GRAD_CAM.fullmatch(path):
        return {"name": allowed, **_grad_cam(old, where, entry, kwargs, renamed)}
    word = path.rpartition(".")[2].removeprefix("compute_")
    near = f" efface has a method {word} of its own." if word in words.index("method") else ""
    old.lines.append(Line(where, entry, f"method: {path}, batched: false", f"{_OWN}{near}{renamed}"))
    return {"name": allowed, "method": path, "batched": False, **({"kwargs": kwargs} if kwargs else {})}


def _grad_cam(old: Old, where: str, entry: dict[str, Any], kwargs: dict[str, Any], renamed: str) -> dict[str, Any]:
    layer = kwargs.get("saliency_layer")
    said = f"method: grad_cam, layer: {layer}" if isinstance(layer, str) else "method: grad_cam"
    none = "" if isinstance(layer, str) else " efface finds the last convolutional layer."
    old.lines.append(Line(where, entry, said, f"TorchRay is not needed.{none}{renamed}"))
    for other in kwargs.keys() - {"saliency_layer"}:
        old.lines.append(Line(f"{where}.kwargs.{other}", kwargs[other], "", "their Grad-CAM has no such setting"))
    return {"method": "grad_cam"} | ({"kwargs": {"layer": layer}} if isinstance(layer, str) else {})


def metrics_of(old: Old) -> list[str]:
    """Return the key `metrics`."""
    if LERF in old.tree:
        return ["lerf", "morf"]
    if not old.get("retrain_cls"):
        return []
    value = old.get("retrain_cls.metrics")
    several = value if isinstance(value, list) else [value]
    found = [name for name in ("roar", "kar") if name in several]
    if not found or len(found) < len(several):
        old.wrong("retrain_cls.metrics", "roar or kar (the reference system takes any other word for kar)")
        return []
    why = "The reference system takes a list for kar; the study measures all that it names." * isinstance(value, list)
    old.became("retrain_cls.metrics", f"metrics: {', '.join(found)}", why)
    return found


def fractions_of(old: Old) -> list[float]:
    """Return the key `fractions`: percentiles as parts of 1, in order and each once."""
    section = LERF if LERF in old.tree else "retrain_cls"
    key = f"{section}.percentiles"
    if not old.get(section):
        return []
    values = old.get(key)
    numbers = values if isinstance(values, list) else []
    good = [value for value in numbers if isinstance(value, int | float) and not isinstance(value, bool)]
    if not good or len(good) < len(numbers) or not all(0 <= value <= 100 for value in good):
        old.wrong(key, "a list of numbers from 0 to 100")
        return []
    fractions = sorted({value / 100 for value in good} - {0.0})
    zero = " Fraction 0 is always measured and removes nothing; theirs removes all pixels at 0." if 0 in good else ""
    old.became(key, f"fractions: {fractions}", f"Parts of 1 instead of percent.{zero}")
    return fractions
