"""The non-linearity of a network, by name."""

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import nn

from efface.base.shown import shown

Nonlinearity = Literal["softplus", "relu"]


def nonlinearity(name: Nonlinearity, beta: float = 10.0) -> Callable[[], nn.Module]:
    """Return a function that creates the module. Each place has its own module, so hooks see each use once.

    name: softplus, log(1 + exp(beta z)) / beta, which PyTorch replaces by z for beta z > 20; or relu.
    beta: steepness of the softplus, above 0.
    """
    if not beta > 0:
        raise ValueError(f"beta is {beta}, expected a steepness above 0; 10 in Srinivas & Fleuret 2021")
    match name:
        case "softplus":
            return partial(nn.Softplus, beta=beta)
        case "relu":
            return nn.ReLU
    raise ValueError(f"activation is {shown(name)}; expected softplus or relu")
