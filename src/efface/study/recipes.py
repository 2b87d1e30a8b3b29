"""What a preset of a training starts from, where this stands elsewhere in the study than the preset itself.

Keys beside a preset win over it. `fit` is the recipe for a preset of `refit` and of the second network. What the study
says in the same place is the recipe for a preset that a variant or the command line sets.
"""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from efface.training.presets import Layer
from efface.training.settings import TrainingSettings

_PLACES = ("fit", "refit", "second_network.fit")
_OF_FIT_ALONE = ("preset", "attack", "regularizers")


def fill_changed(tree: dict[str, Any], changed: Iterable[str]) -> None:
    """Fill in each preset that changes of a study set. The other changes win over it.

    tree: the study with its changes; it is changed in place. changed: keys of the changes, such as fit.preset.
    """
    changed = list(changed)
    for place in (each for each in _PLACES if f"{each}.preset" in changed):
        *above, last = place.split(".")
        parent = tree[above[0]] if above else tree
        names = {key.removeprefix(f"{place}.").split(".")[0] for key in changed if key.startswith(f"{place}.")}
        if not {*parent[last]} <= names:
            parent[last] = _filled({name: parent[last][name] for name in names}, parent[last])


def with_recipes(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the study with `fit` as the recipe for a preset of `refit` and of the second network's `fit`."""
    fit = tree.get("fit")
    if not isinstance(fit, Mapping):
        return dict(tree)
    recipe = {name: value for name, value in _filled(fit, {}).items() if name not in _OF_FIT_ALONE}

    def layered(holder: Mapping[str, Any], key: str) -> dict[str, Any]:
        own = holder.get(key)
        if not isinstance(own, Mapping) or own.get("preset") is None:
            return dict(holder)
        return {**holder, key: Layer(own, recipe)}

    second = tree.get("second_network")
    own_second = {"second_network": layered(second, "fit")} if isinstance(second, Mapping) else {}
    return layered(tree, "refit") | own_second


def _filled(own: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return all keys of a training. A wrong preset is left as it is: the study's own check refuses it."""
    if own.get("preset") is not None:
        with contextlib.suppress(ValueError):
            return Layer(own, recipe).filled(TrainingSettings.model_fields)
    return {**recipe, **own}
