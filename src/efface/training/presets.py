"""Presets of `fit`: functions from a recipe of training to keys that a study leaves open."""

import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import BaseModel

from efface.plug.call import Call, bound
from efface.plug.field import Word

Recipe = Mapping[str, Any]
"""Keys of `fit` with their values, as a study writes them."""
EPOCHS = 10
"""Epochs of the recipe that a preset starts from if the study gives none."""
_ONE_CYCLE = "torch.optim.lr_scheduler.OneCycleLR"
_USUAL = Call(call="torch.optim.Adam", kwargs={"lr": 1e-3})


def short(recipe: Recipe, *, share: float = 0.4) -> Recipe:
    """Fewer epochs under the one-cycle policy, for a first look at the order of methods.

    epochs: `share` of the recipe's epochs, rounded up; of 10 epochs if the recipe has none.
    schedule: the learning rate rises to its maximum in the first 30 % of the steps, and falls to nearly 0 after it.
    The maximum is that of the recipe's own OneCycleLR, or ten times the learning rate of its optimizer.
    precision: bf16 where the processor computes in bf16, and where the recipe has no regularisers, which need fp32.

    share: part of the epochs, in (0, 1]. The cost of a training is nearly proportional to it.

    Source: Smith & Topin 2018, section 3 (arXiv:1708.07120).
    Differs: they find the maximum by a test of many learning rates. The loop is that of torch, with its defaults.
    """
    fast = computes_in_bf16() and not recipe.get("regularizers")
    return {
        "epochs": math.ceil(share * (recipe.get("epochs") or EPOCHS)),
        "schedule": _one_cycle(recipe),
        "schedule_each": "step",
    } | ({"precision": "bf16"} if fast else {})


def check_short(share: float = 0.4) -> None:
    """Raise ValueError if the share is not in (0, 1]."""
    if not 0 < share <= 1:
        raise ValueError(f"short: share is {share}; expected a number above 0 and at most 1")


def computes_in_bf16() -> bool:
    """Return whether the device that `auto` takes has instructions for bf16: a GPU, else the processor."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # noqa: SLF001


def _one_cycle(recipe: Recipe) -> Recipe:
    schedule, optimizer = recipe.get("schedule"), Call.model_validate(recipe.get("optimizer") or _USUAL)
    if schedule and (own := Call.model_validate(schedule)).call == _ONE_CYCLE:
        return own.model_dump()
    known = inspect.signature(optimizer.resolve()).parameters
    rate = optimizer.kwargs.get("lr", known["lr"].default if "lr" in known else None)
    if not isinstance(rate, int | float):
        raise ValueError(f"optimizer {optimizer.call} states no learning rate; give optimizer.kwargs.lr as a number")
    cycles = {} if {"momentum", "betas"} & {*known} else {"cycle_momentum": False}
    return {"call": _ONE_CYCLE, "kwargs": {"max_lr": 10 * rate} | cycles}


class _Preset(BaseModel):
    preset: Annotated[Call, Word("preset"), bound("recipe")]


@dataclass(frozen=True)
class Layer:
    """Keys of a training with a preset among them, and the recipe that the preset starts from.

    own: keys that win over the preset. recipe: further keys, under `own`.
    """

    own: Recipe
    recipe: Recipe

    def filled(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return all keys with their values.

        keys: those that a training has. ValueError: the preset is unknown, fails, or returns other keys.
        """
        preset = _Preset.model_validate(self.own).preset
        start = {name: value for name, value in {**self.recipe, **self.own}.items() if name != "preset"}
        try:
            found = preset(start)
        except Exception as error:
            what = error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise ValueError(f"preset: {preset.call} fails on this recipe: {what}") from error
        known = [name for name in keys if name != "preset"]
        if not isinstance(found, Mapping) or not {*found} <= {*known}:
            what = f"'{', '.join(map(str, found))}'" if isinstance(found, Mapping) else f"a {type(found).__name__}"
            raise ValueError(f"preset: {preset.call} returns {what}; expected a dict with keys of: {', '.join(known)}")
        return {**start, **found, **self.own}
