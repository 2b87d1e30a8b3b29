"""Points on a path at which gradients are computed, and the weights of these points."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from torch import Tensor

from efface.base.shown import shown
from efface.models.memory import at_least_one

Rule = Literal["midpoint", "gauss_legendre", "trapezoid", "left", "right", "closed", "interior"]
"""The m points of a path from 0, the reference, to 1, the image. The weights are 1/m unless stated.

midpoint: 1/2m, 3/2m, ... ; the error falls fourfold when m doubles, if the network is smooth along the path.
gauss_legendre: nodes and weights of this rule; the fewest points for a smooth network.
trapezoid: 0, 1/(m-1), ..., 1, with weights 1/(m-1), and half of it at both ends. Error as for midpoint.
left: 0, 1/m, ..., (m-1)/m. The error halves when m doubles.
right: 1/m, ..., 1. Error as for left.
closed: the trapezoid's points with weights 1/m; only the image if m is 1. Error as for left.
interior: 1/m, ..., (m-1)/m, one point less. The weights sum to 1 - 1/m, and maps keep this factor. Error as for left.
"""
Line = Sequence[float] | Float[Tensor, " p"]
"""Numbers along one path."""
Alphas = Line | Float[Tensor, "n r p"]
"""Points of a path: the same for all paths, or one row for each image and reference."""
_ENDS = ("trapezoid", "interior")  # rules that need at least two points


@dataclass(frozen=True)
class Grid:
    """Points of one path, or of the path of each image and reference.

    alphas: positions of the points, 0 the reference and 1 the image; the same for every path, or one row for each path.
    weights: weights of the points.
    """

    alphas: tuple[float, ...] | Float[Tensor, "n r p"]
    weights: tuple[float, ...]

    def alpha(self, block: slice, reference: int, step: int) -> float | Float[Tensor, "n 1 1 1"]:
        """Return the position of the point with this number on the paths of a block of images."""
        if isinstance(self.alphas, Tensor):
            return self.alphas[block, reference, step, None, None, None]
        return self.alphas[step]

    @property
    def ends_at_image(self) -> bool:
        """Return True if the last point of every path is the image itself, for any reference."""
        return isinstance(self.alphas, tuple) and self.alphas[-1] == 1


def grid_of(rule: Rule, steps: int, alphas: Alphas | None = None, weights: Line | None = None) -> Grid:
    """Return the grid of a rule, or of given points; without given weights, these points have equal weights."""
    if alphas is None:
        if weights is not None:
            raise ValueError("weights are given, but no alphas; expected both: pass alphas, or use a rule")
        return Grid(*points_and_weights(rule, steps))
    if isinstance(alphas, Tensor) and alphas.ndim == 3:
        at_least_one("the number of alphas", alphas.shape[2])
        _check_range(float(alphas.min()), float(alphas.max()))
        return Grid(alphas.detach(), (1 / alphas.shape[2],) * alphas.shape[2])
    points = _numbers(alphas)
    at_least_one("the number of alphas", len(points))
    _check_range(min(points), max(points))
    counts = (1 / len(points),) * len(points) if weights is None else _numbers(weights)
    if len(counts) != len(points):
        raise ValueError(f"weights has {len(counts)} numbers; expected {len(points)}, one for each of the alphas")
    return Grid(points, counts)


def points_and_weights(rule: str, steps: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the points of a rule in [0, 1], and the weight of each point."""
    at_least_one("steps", steps)
    if rule in _ENDS and steps == 1:
        raise ValueError(f"steps is 1; rule {shown(rule)} needs at least 2: raise it, or choose rule 'midpoint'")
    closed = tuple(j / (steps - 1) for j in range(steps)) if steps > 1 else (1.0,)
    weights = (1 / steps,) * steps
    match rule:
        case "midpoint":
            points = tuple((j + 0.5) / steps for j in range(steps))
        case "gauss_legendre":
            nodes, sizes = np.polynomial.legendre.leggauss(steps)  # on [-1, 1]
            points, weights = tuple(((nodes + 1) / 2).tolist()), tuple((sizes / 2).tolist())
        case "trapezoid":
            points = closed
            weights = tuple((0.5 if j in (0, steps - 1) else 1.0) / (steps - 1) for j in range(steps))
        case "left":
            points = tuple(j / steps for j in range(steps))
        case "right":
            points = tuple((j + 1) / steps for j in range(steps))
        case "closed":
            points = closed
        case "interior":
            points, weights = tuple(j / steps for j in range(1, steps)), weights[1:]
        case _:
            raise ValueError(f"rule is {shown(rule)}; expected {', '.join(get_args(Rule))}")
    return points, weights


def _numbers(line: Line) -> tuple[float, ...]:
    return tuple(float(number) for number in line)


def _check_range(low: float, high: float) -> None:
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"alphas go from {low:g} to {high:g}; expected points in [0, 1]: 0 is the reference, 1 the image"
        )
