"""A layer of a network as a feature map n c h w, whatever the layout of its output."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.models.hook_watch import look_in
from efface.models.tokens import TokenGrid

Axes = Literal["n c h w", "n h w c", "n t c"]
"""Axes of a layer's output: a feature map, one with its channels last, or tokens."""
_IN_WORDS = {
    "n c h w": "n x channels x height x width",
    "n h w c": "n x height x width x channels",
    "n t c": "n x tokens x channels",
}


class FeatureLayer(NamedTuple):
    """A layer that a method looks at.

    module: the layer. name: its name in the network. axes: how its output is laid out. grid: how its tokens lie; None
    for a layer without tokens.
    """

    module: nn.Module
    name: str
    axes: Axes = "n c h w"
    grid: TokenGrid | None = None

    def __str__(self) -> str:
        return f"{self.name}, {_IN_WORDS[self.axes]}" + ("" if self.grid is None else f", {self.grid}")

    @contextmanager
    def laid_out(self, network: nn.Module) -> Iterator[nn.Module]:
        """Yield a module of the network whose output is the layer's output as n c h w, inside the `with` block.

        It is the layer itself if that returns n c h w. Else it is an identity that the layer's output passes through
        as n c h w. A hook on the identity may read this output or replace it; the network goes on with what the
        identity returns. Prefix tokens go around it. The hook on the layer is removed at the end of the block.

        network: the network of the layer, or a copy of it.
        """
        module = network.get_submodule(self.name)
        if self.axes == "n c h w":
            yield module
            return
        identity = nn.Identity()

        def through(_module: nn.Module, _inputs: Any, output: Any) -> Tensor:
            return self._back(identity(self.as_features(output)), output)

        handle = look_in(module, through)
        try:
            yield identity
        finally:
            handle.remove()

    def as_features(self, output: Any) -> Float[Tensor, "n c y x"]:
        """Return an output of the layer as n c h w, without prefix tokens. ValueError: it has another shape."""
        axes = 4 if self.grid is None else 3
        fits = isinstance(output, Tensor) and output.ndim == axes
        if not fits or (self.grid is not None and output.shape[1] != self.grid.total):
            returned = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"layer {self.name!r} returns {returned} in one pass and {_IN_WORDS[self.axes]} in another; expected "
                "one layout: name another layer"
            )
        if self.grid is not None:
            return self.grid.laid_out(output)
        features: Tensor = output
        return features if self.axes == "n c h w" else features.permute(0, 3, 1, 2)

    def _back(self, features: Float[Tensor, "n c y x"], output: Tensor) -> Tensor:
        if self.grid is None:
            return features.permute(0, 2, 3, 1)
        patches = features.flatten(2).transpose(1, 2)
        return torch.cat([output[:, : self.grid.prefix], patches], 1) if self.grid.prefix else patches
