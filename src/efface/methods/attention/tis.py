"""Transformer input sampling (TIS): the score of an image with only some of its tokens, averaged over masks."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from efface.base.types import Images, Seeds, Target, TargetScore
from efface.methods.path.clusters import k_means
from efface.models.attention_blocks import Block, blocks_of, tokens_in
from efface.models.evaluation import evaluating
from efface.models.fewer_tokens import check_fewer_tokens, fewer_tokens
from efface.models.memory import at_least_one, blocks
from efface.models.scores import logits_of, scores_of


def tis(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    seeds: Seeds | None = None,
    samples: int = 1024,
    visible: float = 0.5,
    score: TargetScore = "probability",
    max_batch: int = 256,
) -> Float[Tensor, "n h w"]:
    """Mean score of the image with a part of its tokens, weighted by the tokens that stay: never negative.

    Formula: map = sum over m of s_m M_m / sum over m of M_m, enlarged, with s_m the score of the network when it gets
        only the patch tokens that mask M_m shows.

    The other tokens are dropped after the position embedding, so that nothing stands in their place. Prefix tokens
    always stay. The masks follow the image: every channel of the tokens of every block is a point, k-means joins these
    points, and each centre shows the patches of its largest values. It costs a forward pass with fewer tokens for each
    mask, and a few passes for the masks. A patch that no mask shows is 0. With score="logit" or "log_probability" the
    map has both signs.

    seeds: one integer per image, for the starts of k-means. An image's masks depend only on its seed, not on the batch.
    samples: masks per image, at least 1; fewer where there are fewer different channels.
    visible: fraction of the patch tokens that stay, above 0 and at most 1, rounded down, but at least one token.
    score: score of the target class: logit, log_probability, probability or loss (cross entropy). If `targets` are
        weights of the classes, it must be logit.
    max_batch: most masks in one pass, at least 1. It limits the memory and changes maps by rounding only.

    Source: Englebert et al. 2023, Explaining through transformer input sampling (ICCV workshops).
    Differs: k-means is scikit-learn's, the best of 3 starts. No scaling to [0, 1].
    """
    at_least_one("samples", samples)
    if not 0 < visible <= 1:
        raise ValueError(f"visible is {visible}; expected above 0 and at most 1, the fraction of tokens that stay")
    if seeds is None:
        raise ValueError("seeds are missing; expected one integer per image, for the starts of k-means: pass seeds")
    images = images.detach()
    modules = blocks_of(model, images)
    check_fewer_tokens(model, images[:1])
    maps = []
    with evaluating(model), torch.no_grad():
        for row in range(len(images)):  # alone, so that rounding in a batch cannot change a cluster
            image, aim = images[row : row + 1], targets[row : row + 1]
            channels = _channels(model, image, modules)
            with fewer_tokens(model, image) as only:
                masks = _shown(channels[:, only.grid.prefix :], samples, visible, int(seeds[row])).to(image.device)
                scores = []
                for some in blocks(len(masks), max_batch):
                    count = some.stop - some.start
                    logits = only(image.expand(count, -1, -1, -1), masks[some])
                    scores.append(scores_of(logits, aim.repeat(count, *(1,) * (aim.ndim - 1)), score))
            shown = masks.to(image.dtype)
            small = torch.cat(scores) @ shown / shown.sum(0).clamp(min=1)
            maps.append(small.view(1, only.grid.rows, only.grid.columns))
    large = F.interpolate(torch.cat(maps)[:, None], size=images.shape[2:], mode="bilinear", align_corners=False)
    return large.squeeze(1)


def _channels(model: nn.Module, image: Images, modules: list[Block]) -> Float[Tensor, "points t"]:
    """Return each channel of the tokens of every block. It costs one forward pass."""
    found: list[Any] = []
    names = dict.fromkeys(module.name for module in modules)
    handles = [
        model.get_submodule(name).register_forward_hook(lambda _module, _given, output: found.append(output))
        for name in names
    ]
    try:
        logits_of(model, image)
    finally:
        for handle in handles:
            handle.remove()
    tokens = [each for output in found if (each := tokens_in(output)) is not None]
    return torch.cat(tokens, 2)[0].T


def _shown(
    channels: Float[Tensor, "points patches"], samples: int, visible: float, seed: int
) -> Bool[Tensor, "m patches"]:
    """Return the patches that each mask shows: those of the largest values of a centre of the channels."""
    centres, _, _ = k_means(channels.float().cpu(), samples, seed)
    count = max(1, int(visible * channels.shape[1]))
    return torch.zeros(centres.shape, dtype=torch.bool).scatter_(1, centres.topk(count).indices, value=True)
