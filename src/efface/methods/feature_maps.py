"""The output of a layer in a pass of the network, and the gradients that reach it."""

from collections.abc import Iterator
from contextlib import contextmanager

from jaxtyping import Float
from torch import Tensor, nn

from efface.models.evaluation import evaluating_fast
from efface.models.fast_copy import answers_as_before
from efface.models.layers import find_layer, last_convolution
from efface.models.scores import logits_of
from efface.types import Images

Features = Float[Tensor, "n channels y x"]


@contextmanager
def looking_at(model: nn.Module, images: Images, layer: str | None) -> Iterator[tuple[nn.Module, nn.Module, str]]:
    """Within: a network that answers as the model does, its module to look at, and that module's name."""
    module = last_convolution(model, images[:1]) if layer is None else find_layer(model, layer)
    name = next(name for name, each in model.named_modules() if each is module)
    with evaluating_fast(model, images) as network:
        same = network is not model and answers_as_before(network, name)
        yield (network, network.get_submodule(name), name) if same else (model, module, name)


def features_of(model: nn.Module, images: Images, module: nn.Module, name: str) -> Features:
    """The layer's output for the images."""
    with cut_at(module, name) as leaves:
        logits_of(model, images)
    if not leaves:
        raise ValueError(f"layer {name!r} has no part in the logits; expected a layer on the way to them")
    return leaves[-1].detach()


@contextmanager
def cut_at(module: nn.Module, name: str) -> Iterator[list[Tensor]]:
    """Within: the autograd graph of a pass begins at the layer's output, which the list keeps for each run."""
    leaves: list[Tensor] = []

    def cut(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"layer {name!r} returns {found}; expected n c h w: name a convolutional layer or leave `layer` out"
            )
        leaf = output.detach().requires_grad_()
        leaves.append(leaf)
        return leaf.clone()  # what follows may work in place, which a leaf forbids

    handle = module.register_forward_hook(cut)
    try:
        yield leaves
    finally:
        handle.remove()
