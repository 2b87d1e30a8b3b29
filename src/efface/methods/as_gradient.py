"""An attribution method used in place of the gradient, at each point of a path or at each noisy copy."""

from typing import Any

import torch
from torch import Tensor, nn

from efface.base.shown import shown
from efface.base.types import Images, Method, Seeds, Target, TargetScore
from efface.methods.gradients import Gradient
from efface.methods.nested import ready
from efface.plug.accepts import accepts, offer


def as_gradient(base: Method, score: TargetScore, max_batch: int, drawn: list[Seeds]) -> Gradient:
    """Return a function that computes maps of the base method where a gradient is expected.

    base: the method; its maps must have the shape of the images.
    score: score to explain. Any other word than logit is passed to the base. With logit, the base keeps its own
        setting, which the study may have set.
    max_batch: most rows in one pass, passed to the base.
    drawn: seeds of the points in the next pass, in the order of the points. Each pass empties the list. Empty if the
        caller has no seeds.
    """
    base = ready("base", base)
    if score != "logit" and not accepts(base, "score"):
        raise ValueError(
            f"score is {shown(score)}, but the base leaves no keyword `score` open; expected score='logit': set the "
            "score in the base itself"
        )

    def stands(model: nn.Module, points: Images, targets: Target) -> Images:
        offered: dict[str, Any] = {"max_batch": max_batch} | ({} if score == "logit" else {"score": score})
        if drawn:
            offered["seeds"] = torch.cat(drawn)
            drawn.clear()
        maps = offer(base, model, points, targets, **offered)
        if not isinstance(maps, Tensor) or maps.shape != points.shape:
            returned = f"maps of shape {tuple(maps.shape)}" if isinstance(maps, Tensor) else type(maps).__name__
            raise ValueError(
                f"base returned {returned} for images of shape {tuple(points.shape)}; expected the images' shape, like "
                "a gradient: choose a base that returns one map and keeps the channels"
            )
        return maps.detach()

    return stands
