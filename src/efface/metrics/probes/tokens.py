"""Scores of the given network without the tokens of removed patches: the fill `efface.impute.drop_tokens`."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from efface.base.types import Images, StoredImages
from efface.erase.masking import to_float
from efface.metrics.probes.case import Case
from efface.metrics.probes.description import fields_of, text
from efface.metrics.probes.erasure import Erasure, erased_batches
from efface.models.evaluation import evaluating, evaluating_fast
from efface.models.fewer_tokens import fewer_tokens
from efface.models.memory import at_once, with_smaller_batches
from efface.models.tokens import TokenGrid
from efface.plug.call import Call
from efface.plug.facts import fact
from efface.store.arrays import read_rows

_UNIT = "efface.erase.units.token"
_WHOLE = Call(call="efface.impute.channel_mean")


def drops_tokens(imputer: Call) -> bool:
    """Return whether a fill drops tokens inside the network in place of filling pixels."""
    return bool(fact(imputer.resolve(), "drops_tokens"))


def unfit_to_drop(probe: Any, unit: object) -> Iterator[str]:
    """Yield a sentence if the fill of a probe drops tokens, but the probe or the unit cannot do that.

    unit: unit of the metric. A probe that removes nothing, or everything, has none of its own.
    """
    imputer = fields_of(probe).get("imputer") if dataclasses.is_dataclass(probe) else None
    if not isinstance(imputer, Call) or not drops_tokens(imputer):
        return
    who, fill = f"the probe {type(probe).__name__}", imputer.call.rpartition(".")[2]
    able = getattr(probe, "can_drop_tokens", False)
    if not able:
        does = "trains a network on filled images" if not probe.needs.network else "reads filled images"
        yield f"its fill {fill} drops tokens of the given network, but {who} {does}; give this metric another imputer"
    elif able != "cells" and (not isinstance(unit, Call) or unit.call != _UNIT):
        yield f"its fill {fill} drops whole tokens, but its unit is {text(unit)}; set unit: token"


def check_emptied(network: nn.Module, images: Images) -> None:
    """Raise ValueError if the network has no logits without any patch token."""
    with evaluating(network), torch.no_grad(), fewer_tokens(network, images) as only:
        only(images, torch.zeros(len(images), only.grid.rows * only.grid.columns).bool().to(images.device))


def token_logits(case: Case, erasure: Erasure) -> Float[Tensor, "n k"]:
    """Return the logits for the test images without the tokens of the removed patches, float32 on the CPU.

    Batches are smaller if memory runs out.
    """
    every, images = case.test_rows, case.data["test"].images
    first = to_float(read_rows(images, every[:1]).to(case.device))
    whole, seen = Erasure("most_first", 0.0, _WHOLE), dataclasses.replace(erasure, shown="mask")

    def answers(max_batch: int) -> Tensor:
        size = at_once(first, max_batch)
        pairs = (erased_batches(case, "test", what, width=0, whole=False)(every, size, 0) for what in (whole, seen))
        found = []
        with evaluating_fast(case.network, first) as fast, fewer_tokens(fast, first) as only, torch.inference_mode():
            for stored, shown in zip(*pairs, strict=True):
                kept = _kept(shown, erasure, only.grid)
                found.append(only(to_float(stored.to(case.device)), kept).float().cpu())
                case.advance(float(len(stored)))
        return torch.cat(found)

    return with_smaller_batches(answers, case.max_batch)


def _kept(shown: StoredImages, erasure: Erasure, grid: TokenGrid) -> Bool[Tensor, "n patches"]:
    """Return which patches stay. shown: white where the image stays.

    ValueError: what is removed are not the network's patches.
    """
    if erasure.fraction in (0, 1):
        stays = torch.full((len(shown), grid.rows, grid.columns), erasure.fraction == 0, device=shown.device)
        return stays.flatten(1)
    size = erasure.unit.kwargs.get("token_size") if isinstance(erasure.unit, Call) else None
    if size is None or not isinstance(erasure.unit, Call) or erasure.unit.call != _UNIT:
        raise ValueError(f"drop_tokens removes whole tokens, but the unit is {text(erasure.unit)}; set unit: token")
    kept = shown[:, 0, :: size[0], :: size[1]] > 0
    if kept.shape[1:] != (grid.rows, grid.columns):
        raise ValueError(
            f"unit token makes {kept.shape[1]} x {kept.shape[2]} patches of {size[0]} x {size[1]} pixels, but the "
            f"network has {grid.rows} x {grid.columns}; take another imputer than drop_tokens"
        )
    return kept.flatten(1)
