"""What is known of plug-ins, as plain values: from their docstrings, signatures and facts, and from a trial.

`listed` reads docstrings as text, so no torch is imported. `described` imports the plug-in.
"""

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from efface.plug import docstrings, words

KINDS = {
    "methods": "method",
    "metrics": "metric",
    "models": "model",
    "data": "data",
    "fills": "imputer",
    "post": "post",
    "units": "unit",
    "executors": "executor",
    "attacks": "attack",
    "augmentations": "augmentation",
    "regularizers": "regularizer",
    "presets": "preset",
}
"""The kinds of plug-ins by the words of `efface list`."""
SHOWN_AS = {kind: word for word, kind in KINDS.items()}
_OF_ONE_IMAGE = ("model", "image", "label")
"""The positional arguments of a method that takes one image at a time."""
_HANDED = {
    "method": ("seeds", "max_batch", "masks", "classes_of"),
    "imputer": ("mean", "seeds", "training"),
    "unit": ("token_size",),
    "executor": ("progress",),
    "attack": ("seeds",),
    "regularizer": ("seeds",),
}
"""Keywords that efface passes, so that they are no settings of a study."""
_READ = {
    "imputer": ("is_flat", "is_averaged", "drops_tokens"),
    "regularizer": ("cost", "estimates_hessian"),
    "data": ("is_synthetic",),
}
"""The facts that each kind may state."""


def listed(kind: str) -> list[dict[str, str]]:
    """Return the plug-ins of a kind: name, first sentence, source and dotted path of each.

    kind: a word of `KINDS`.
    """
    found = []
    for name, path in words.index(KINDS[kind]).items():
        text = docstrings.docstring(path)
        says, source = docstrings.first_sentence(text), docstrings.said(text, "Source")
        found.append({"name": name, "says": says, "source": source, "path": path})
    return found


def paths_of(name: str) -> list[tuple[str, str]]:
    """Return the kind and the path of each plug-in of efface with this short word.

    The kind of a dotted path of your own is "".

    ValueError: there is none. The message names the nearest words.
    """
    if "." in name:
        path = words.expand("method", name)  # an old path becomes the present one
        kind, _, _ = words.name_of(path).partition(".")
        return [(kind, path)]
    found = [(kind, words.index(kind)[name]) for kind in words.KINDS if name in words.index(kind)]
    if not found:
        every = sorted({word for kind in words.KINDS for word in words.index(kind)})
        near = difflib.get_close_matches(name, every, n=4)
        hint = f"did you mean {' or '.join(near)}?" if near else "efface list methods, metrics, ... lists them"
        raise ValueError(f"there is no plug-in '{name}'; {hint} Your own function has a dotted path: my_maps.mine")
    return found


def described(kind: str, path: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of one plug-in. ValueError: the path leads nowhere, or the settings are wrong.

    kind: its kind; "" to find it out by the signature. kwargs: settings with which it is tried.
    """
    from efface.plug.call import resolve

    target = resolve(path)
    kind = kind or kind_of(target)
    text = docstrings.docstring(path) or inspect.getdoc(target) or ""
    found: dict[str, Any] = {
        "name": words.word_of(path) or path,
        "kind": kind,
        "path": path,
        "says": " ".join(docstrings.first_line(text).split()),
    }
    found |= {word.lower(): docstrings.said(text, word) for word in ("Formula", "Source", "Differs")}
    found["settings"] = list(settings(kind, target, text))
    found["facts"] = {name: getattr(target, name) for name in _READ.get(kind, ()) if hasattr(target, name)}
    return found | _measured(kind, path, target, dict(kwargs))


def _measured(kind: str, path: str, target: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    if kind == "method":
        from efface.commands.trials import method_facts

        return method_facts(path, kwargs, batched="image" not in _needed(target)[1:2])
    if kind == "metric":
        from efface.commands.trials import metric_facts

        return metric_facts(path, kwargs)
    if kwargs:
        raise ValueError(
            f"{path} is tried with no settings, found {', '.join(kwargs)}; only methods and metrics are tried"
        )
    return {}


def kind_of(target: Any) -> str:
    """Return the kind that the positional arguments of a function fit; "" for none."""
    from efface.metrics import Metric

    if isinstance(target, Metric):
        return "metric"
    called = target.__call__ if inspect.isclass(target) and callable(target) else target
    try:
        gives = inspect.signature(called).return_annotation
    except (ValueError, TypeError):
        return ""
    if gives is Metric:
        return "metric"
    names = _needed(called)
    if names == _OF_ONE_IMAGE:
        return "method"
    for kind, positional in words.POSITIONAL.items():
        if positional and names == positional:
            return kind
    return {"Module": "model", "dict": "data"}.get(str(getattr(gives, "__name__", "")), "")


def _needed(called: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the positional arguments without a default."""
    if inspect.isclass(called):
        called = called.__call__
    given = (each for each in inspect.signature(called).parameters.values() if each.name != "self")
    return tuple(
        each.name
        for each in given
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) and each.default is each.empty
    )


def settings(kind: str, target: Any, text: str) -> Iterator[dict[str, Any]]:
    """Yield the settings of a plug-in as a study writes them: name, default, whether it is needed, and its meaning."""
    if not callable(target):
        return
    handed = {"self", *_HANDED.get(kind, ()), *words.POSITIONAL.get(kind, ())}
    handed |= set(_OF_ONE_IMAGE) if kind == "method" else set()
    meanings = docstrings.meanings(text)
    for each in inspect.signature(target).parameters.values():
        if each.name in handed or each.kind is each.VAR_POSITIONAL:
            continue
        needed = each.default is each.empty and each.kind is not each.VAR_KEYWORD
        name = f"**{each.name}" if each.kind is each.VAR_KEYWORD else each.name
        means = meanings.get(each.name) or _meaning_nearby(target, each.name)
        yield {"name": name, "needed": needed, "default": None if needed else plain(each.default), "means": means}


def _meaning_nearby(target: Any, name: str) -> str:
    """Return what the file of a function of efface says of a setting that several of its functions share."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(target)) or ""
    except TypeError:
        return ""
    texts = docstrings.around(file) if "/efface/" in file.replace("\\", "/") else []
    return next((found for text in texts if (found := docstrings.meanings(text).get(name))), "")


def plain(value: Any) -> Any:
    """Return a default as a study writes it: a function by its word or path."""
    if value is inspect.Parameter.empty:
        return None
    if callable(value) and hasattr(value, "__qualname__"):
        path = f"{value.__module__}.{value.__qualname__}"
        return words.word_of(path) or path
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | dict | None) else str(value)


def in_a_study(found: Mapping[str, Any], kwargs: Mapping[str, Any]) -> str:
    """Return the line of a study that uses the plug-in."""
    import yaml

    given: Sequence[str] = [each["name"] for each in found["settings"] if each["needed"] and each["name"] not in kwargs]
    sets = dict(kwargs) | dict.fromkeys(given, "...")
    name, kind = found["name"], found["kind"]
    call: Any = {"call": name} | ({"kwargs": sets} if sets else {})
    if kind == "method":
        entry = {"name": name.rpartition(".")[2], "method": name} | ({"kwargs": sets} if sets else {})
        entry |= {} if found.get("batched", True) else {"batched": False}
        entry |= {"outputs": found["outputs"]} if found.get("outputs") else {}
        tree: Any = {"attribution_methods": [entry]}
    elif kind == "metric":
        own = {"metric": name} if "." in name else {}
        entry = {"name": name.rpartition(".")[2]} | own | ({"kwargs": sets} if sets else {})
        tree = {"metrics": [entry if len(entry) > 1 else name]}
    else:
        of_fit = {"regularizer": "regularizers", "attack": "attack", "augmentation": "augment", "preset": "preset"}
        one = call if sets else name
        one = call | {"weight": "..."} if kind == "regularizer" else one
        listed_one = [one] if kind in ("post", "augmentation", "regularizer") else one
        tree = {"fit": {of_fit[kind]: listed_one}} if kind in of_fit else {kind: listed_one}
    return str(yaml.safe_dump(tree, default_flow_style=True, width=1000, sort_keys=False)).strip()[1:-1]
