"""A method in the gradient's place, at each point of a path or each noisy copy."""

from typing import Any

import torch
from torch import Tensor, nn

from efface.methods.gradients import Gradient
from efface.methods.nested import ready
from efface.plug.accepts import accepts, offer
from efface.types import Images, Method, Seeds, Target, TargetScore


def as_gradient(base: Method, score: TargetScore, max_batch: int, drawn: list[Seeds]) -> Gradient:
    """The method as a gradient of points.

    score: handed on unless it is logit: else the base keeps its own, which the study may have set.
    drawn: the seeds of the points of each pass, in their order; emptied by the pass. None where there are none.
    """
    base = ready("base", base)
    if score != "logit" and not accepts(base, "score"):
        raise ValueError(
            f"score is {score!r}, but the base leaves no keyword `score` open; expected score='logit': set what it "
            "explains in the base itself"
        )

    def stands(model: nn.Module, points: Images, targets: Target) -> Images:
        offered: dict[str, Any] = {"max_batch": max_batch} | ({} if score == "logit" else {"score": score})
        if drawn:
            offered["seeds"] = torch.cat(drawn)
            drawn.clear()
        found = offer(base, model, points, targets, **offered)
        if not isinstance(found, Tensor) or found.shape != points.shape:
            returned = f"maps of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"base returned {returned} for images of shape {tuple(points.shape)}; expected the images' shape, as a "
                "gradient has it: choose a base of one map that keeps the channels"
            )
        return found.detach()

    return stands
