"""Class activation maps: a layer's channels weighted by what they mean to the target class."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from efface.layers import find_layer, last_convolution
from efface.methods.passes import blocks, evaluating, target_scores
from efface.types import Images, Targets


def grad_cam(
    model: nn.Module, images: Images, targets: Targets, *, layer: str | None = None, rows: int = 256
) -> Float[Tensor, "n h w"]:
    """Channels of a layer, weighted by their mean gradient, summed, ReLU'd and brought to image size: never negative.

    One forward pass an image, and a backward pass from the logit down to the layer only.

    layer: name of a module with an n c h w output, as the network names it; of a module that runs several times in a
        pass, the last run counts. By default the last convolutional feature map.
    rows: images in one pass, at least 1; bounds the memory, changes no map.

    Source: Selvaraju et al. 2017, section 3 (arXiv:1610.02391).
    Differs: nothing; enlarged bilinearly with pixel centres as the grid (align_corners=False).
    """
    module = last_convolution(model, images[:1]) if layer is None else find_layer(model, layer)
    name = next((name for name, each in model.named_modules() if each is module), layer)
    maps = []
    with evaluating(model), _cut_at(module, name) as leaves:
        for block in blocks(len(images), rows):
            leaves.clear()
            logits = target_scores(model, images[block].detach(), targets[block])
            if not logits.requires_grad:  # the layer did not run, or nothing of it reached the logits
                raise ValueError(f"layer {name!r} has no part in the logits; expected a layer on the way to them")
            features = leaves[-1]
            (gradients,) = torch.autograd.grad(logits.sum(), features)
            weighted = gradients.mean((2, 3), keepdim=True) * features.detach()
            maps.append(weighted.sum(1, keepdim=True).relu())
        small = torch.cat(maps)
    return F.interpolate(small, size=images.shape[2:], mode="bilinear", align_corners=False).squeeze(1)


@contextmanager
def _cut_at(module: nn.Module, name: str | None) -> Iterator[list[Tensor]]:
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
