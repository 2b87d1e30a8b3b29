"""Output of a layer in a forward pass, and the gradients that reach this layer."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from efface.base.types import Images
from efface.models.evaluation import evaluating_fast
from efface.models.fast_copy import answers_as_before
from efface.models.layers import feature_layer
from efface.models.scores import logits_of

Features = Float[Tensor, "n channels y x"]


@contextmanager
def looking_at(model: nn.Module, images: Images, layer: str | None) -> Iterator[tuple[nn.Module, nn.Module, str]]:
    """Yield a network with the same outputs as the model, its module for `layer`, and the name of that layer.

    The network is a faster copy where a copy exists and contains that layer with the same outputs; else the model. The
    module returns n c h w: it is the layer, or an identity that the layer's output passes through.
    layer: name of the layer; without one, that of the last features.
    """
    found = feature_layer(model, images, layer)
    with evaluating_fast(model, images) as fast:
        network = fast if fast is not model and answers_as_before(fast, found.name) else model
        with found.laid_out(network) as module:
            yield network, module, found.name


def layer_said(model: nn.Module, images: Images, *, layer: str | None = None, **_: Any) -> str:
    """Return which layer a method with this setting looks at, and how it is laid out, in words."""
    return str(feature_layer(model, images, layer))


def features_of(model: nn.Module, images: Images, module: nn.Module, name: str) -> Features:
    """Return the layer's output for the images. It costs one forward pass."""
    with cut_at(module, name) as leaves:
        logits_of(model, images)
    if not leaves:
        raise ValueError(f"layer {name!r} has no part in the logits; expected one that the logits depend on")
    return widened(leaves[-1])


def widened(values: Tensor) -> Tensor:
    """Return the values without their graph; those in half precision as float32, for sums over places and channels."""
    return values.detach().float() if values.dtype.itemsize < 4 else values.detach()


@contextmanager
def cut_at(module: nn.Module, name: str) -> Iterator[list[Tensor]]:
    """Start the autograd graph of a pass at the layer's output, inside the `with` block.

    The list that is yielded collects this output once for each run of the layer.
    """
    leaves: list[Tensor] = []

    def cut(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            returned = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"layer {name!r} returns {returned}; expected n c h w: name a convolutional layer or leave `layer` out"
            )
        leaf = output.detach().requires_grad_()
        leaves.append(leaf)
        return leaf.clone()  # later modules may work in place, which torch forbids on a leaf

    handle = module.register_forward_hook(cut)
    try:
        yield leaves
    finally:
        handle.remove()
