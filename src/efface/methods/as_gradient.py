"""A method in the gradient's place, at each point of a path or each noisy copy."""

from typing import Any

import torch
from torch import Tensor, nn

from efface.methods.gradients import Gradient
from efface.methods.nested import ready
from efface.plug.accepts import accepts, offer
from efface.types import Explained, Images, Method, Of, Seeds


def stand_in(base: Method, of: Of, rows: int, drawn: list[Seeds]) -> Gradient:
    """The method as a gradient of points.

    of: handed on unless it is logit: else the base keeps its own, which the study may have set.
    drawn: the seeds of the points of each pass, in their order; emptied by the pass. None where there are none.
    """
    base = ready("base", base)
    if of != "logit" and not accepts(base, "of"):
        raise ValueError(
            f"of is {of!r}, but the base leaves no keyword `of` open; expected of='logit': set what it explains in "
            "the base itself"
        )

    def stands(model: nn.Module, points: Images, targets: Explained) -> Images:
        offered: dict[str, Any] = {"rows": rows} | ({} if of == "logit" else {"of": of})
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
