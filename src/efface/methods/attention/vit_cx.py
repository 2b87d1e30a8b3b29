"""ViT-CX: how the score falls when all but the places of a group of token features are hidden."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images, Seeds, Target, TargetScore
from efface.methods.noise import needed
from efface.models.attended import attended
from efface.models.attention_blocks import blocks_of, tokens_in
from efface.models.evaluation import evaluating
from efface.models.layers import find_layer
from efface.models.memory import at_once, blocks
from efface.models.scores import logits_of, target_scores
from efface.models.tokens import TokenGrid
from efface.plug.facts import states

Masks = Float[Tensor, "m h w"]
Fewer = Float[Tensor, "fewer h w"]


def layer_said(model: nn.Module, images: Images, *, layer: str | None = None, **_: Any) -> str:
    """Return where the tokens of the masks are read, and how they lie, in words."""
    where = f"before {blocks_of(model, images[:1])[-1].reader}" if layer is None else layer
    return f"{where}, n x tokens x channels, {attended(model, images).grid}"


@states(looks_at=layer_said)
def vit_cx(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    seeds: Seeds | None = None,
    layer: str | None = None,
    distance: float = 0.1,
    noise: float = 0.1,
    value: float = 0.0,
    score: TargetScore = "probability",
    max_batch: int = 256,
) -> Float[Tensor, "n h w"]:
    """Mean effect of masks that are made of the last block's token features, weighted by each mask, signed.

    Formula: map = sum over m of s_m M_m / sum over m of M_m, with s_m = f(x M_m + (value + e) (1 - M_m))
        - f(x + e (1 - M_m)) + f(x), f the score, and e normal noise of standard deviation `noise`, another one for each
        mask.

    Each channel of the tokens is a mask: scaled to [0, 1] over the patches and enlarged bilinearly to the image. Alike
    masks are joined (agglomerative clustering, complete linkage, cosine distance), and the sum of a cluster is scaled
    to [0, 1] again. It costs two forward passes for each cluster, and two more. The paper counts 60 to 150 clusters for
    a ViT-B. A pixel that no mask shows is 0.

    seeds: one integer per image, needed unless `noise` is 0. An image's noise depends only on its seed, not on the
        batch.
    layer: name of a module that returns tokens n t c; by default those that the last attention reads, which are the
        output of `norm1` of the last block.
    distance: cosine distance from which on masks are not joined, above 0 and at most 1. A larger one makes fewer
        clusters, and costs less.
    noise: standard deviation of the noise in hidden pixels, at least 0, on the scale of images in [0, 1].
    value: value of a hidden pixel before the noise, in [0, 1].
    score: score of the target class: logit, log_probability, probability or loss (cross entropy). If `targets` are
        weights of the classes, it must be logit.
    max_batch: most images in one pass, at least 1. It limits the memory and changes maps by rounding only.

    Source: Xie et al., IJCAI 2023, ViT-CX: causal explanation of vision transformers (arXiv:2211.03064).
    Differs: pixels are hidden in [0, 1], before the network's normalisation; theirs after it, where 0 is the mean
        colour and the noise a quarter as large. Channels are scaled before they are enlarged.
    """
    if not 0 < distance <= 1:
        raise ValueError(f"distance is {distance}; expected above 0 and at most 1, a cosine distance")
    if noise < 0:
        raise ValueError(f"noise is {noise}; expected at least 0, a standard deviation on the scale of [0, 1]")
    own = needed(seeds, images, "noise=0.0") if noise else torch.zeros(len(images), dtype=torch.int64)
    images, grid = images.detach(), attended(model, images).grid
    maps = []
    with evaluating(model), torch.no_grad():
        for row in range(len(images)):  # alone, so that rounding in a batch cannot join other masks
            image, aim = images[row : row + 1], targets[row : row + 1]
            masks = _joined(_masks(_tokens(model, image, layer, grid), grid, image), distance)
            whole = target_scores(model, image, aim, score)
            total = torch.zeros_like(image[0, 0])
            for some in blocks(len(masks), at_once(image, max_batch)):
                part = masks[some, None]
                drawn = [draws.normal(draws.fold(own[row : row + 1], number), tuple(image.shape[1:]))
                         for number in range(some.start, some.stop)]  # fmt: skip
                hidden = noise * torch.cat(drawn).to(image) * (1 - part)
                aims = aim.repeat(len(part), *(1,) * (aim.ndim - 1))
                seen = target_scores(model, image * part + value * (1 - part) + hidden, aims, score)
                effect = seen - target_scores(model, image + hidden, aims, score) + whole
                total += torch.einsum("m,mhw->hw", effect, masks[some])
            shown = masks.sum(0)
            maps.append(torch.where(shown > 0, total / shown.clamp(min=torch.finfo(shown.dtype).tiny), 0.0))
    return torch.stack(maps)


def _tokens(model: nn.Module, image: Images, layer: str | None, grid: TokenGrid) -> Float[Tensor, "1 t width"]:
    """Return the tokens of the layer, or those that the last attention reads. It costs one forward pass."""
    found: list[Any] = []
    if layer is None:
        reader = blocks_of(model, image)[-1].reader
        handle = model.get_submodule(reader).register_forward_pre_hook(lambda _, given: found.append(given))
    else:
        module = find_layer(model, layer)
        handle = module.register_forward_hook(lambda _module, _given, output: found.append(output))
    try:
        logits_of(model, image)
    finally:
        handle.remove()
    tokens = tokens_in(found[-1]) if found else None
    if tokens is None or tokens.shape[1] != grid.total:
        where = f"layer {layer!r}" if layer is not None else "the last attention"
        raise ValueError(f"{where} has no tokens n x {grid.total} x channels; name a layer of a block")
    return tokens.float() if tokens.dtype.itemsize < 4 else tokens


def _masks(tokens: Float[Tensor, "1 t width"], grid: TokenGrid, image: Images) -> Masks:
    """Return each channel scaled to [0, 1] over the patches and enlarged; channels without contrast are left out."""
    small = _scaled(grid.laid_out(tokens)[0])
    return F.interpolate(small[None], size=image.shape[2:], mode="bilinear", align_corners=False)[0].to(image.dtype)


def _joined(masks: Masks, distance: float) -> Fewer:
    """Return the sums of alike masks, scaled to [0, 1]."""
    if not len(masks):
        return masks
    flat = F.normalize(masks.flatten(1))
    labels = _clusters((1 - flat @ flat.T).clamp(min=0), distance).to(masks.device)
    return _scaled(masks.new_zeros(int(labels.max()) + 1, *masks.shape[1:]).index_add_(0, labels, masks))


def _scaled(masks: Masks) -> Fewer:
    """Return the masks that have contrast, scaled to [0, 1]."""
    low, high = masks.amin((1, 2), keepdim=True), masks.amax((1, 2), keepdim=True)
    has_contrast = (high > low).flatten()
    return ((masks - low) / (high - low))[has_contrast]


def _clusters(distances: Float[Tensor, "m m"], distance: float) -> Int[Tensor, " m"]:
    """Return the number of the cluster of each mask; clusters are numbered in the order of their first masks."""
    from sklearn.cluster import AgglomerativeClustering

    if len(distances) == 1:
        return torch.zeros(1, dtype=torch.int64)
    fitted = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="complete", distance_threshold=distance
    ).fit(distances.double().cpu().numpy())
    labels, count = torch.from_numpy(fitted.labels_).long(), len(distances)
    first = torch.full((fitted.n_clusters_,), count).scatter_reduce_(0, labels, torch.arange(count), "amin")
    return first.argsort().argsort()[labels]
