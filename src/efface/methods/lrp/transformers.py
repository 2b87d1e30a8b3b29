"""Relevance for transformers: CP-LRP, AttnLRP and GIM."""

from torch import nn

from efface.base.types import Images, Target, TargetScore
from efface.methods.lrp.explain import relevance
from efface.methods.lrp.rules import ATTN_LRP, CP_LRP, GIM, with_gamma


def cp_lrp(
    model: nn.Module, images: Images, targets: Target, *, score: TargetScore = "logit", max_batch: int = 256
) -> Images:
    """Relevance that passes attention through the values alone, signed: one forward and one backward pass per image.

    Formula: map = x * g. The gradient g is that of a network whose attention weights and standard deviations of
    LayerNorms are constants, and whose activations are a(x) = x * constant a(x) / x.

    Relevance is conserved: without biases, its sum over the tokens and channels of any block is the logit. Each bias,
    position embedding and class token keeps its share. The map is the relevance at the input of the first layer, after
    the normalisation. Convolutional networks work too.

    score: score of the target class to explain: logit, log_probability, probability or loss (cross entropy).
    max_batch: most images in one pass, at least 1. It limits the memory and changes no map.

    Source: Ali et al. 2022, section 3 (arXiv:2202.07304).
    Differs: the map is at the image and not at the tokens. A product of two activations that are neither attention nor
        gate gives each factor half.
    """
    return relevance("cp_lrp", model, images, targets, CP_LRP, score=score, max_batch=max_batch)


def attn_lrp(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    linear_gamma: float = 0.0,
    conv_gamma: float = 0.0,
    score: TargetScore = "logit",
    max_batch: int = 256,
) -> Images:
    """Relevance that passes attention through queries, keys and values, signed: one forward and one backward pass.

    Formula: map = x * g. The gradient g is that of `cp_lrp`, but each matrix product of attention gives both factors
    half, and the softmax has its own gradient. So queries and keys take a quarter, and values half.

    With both gammas at 0, the maps of a vision transformer are noisy. The gamma rule makes them smoother. The paper
    searches its numbers for each network: 0.1, 0.25 and 100 for convolutions; 0, 0.01, 0.05, 0.1 and 1 for linear
    layers. With a gamma above 0, each such layer runs two to four times in the forward and the backward pass.

    Without biases, relevance is conserved everywhere but in the softmax, which keeps a part, as a bias would.

    linear_gamma: gamma of linear layers, from 0: how much contributions of the output's sign are raised.
    conv_gamma: gamma of convolutions, from 0.
    score: score of the target class to explain: logit, log_probability, probability or loss (cross entropy).
    max_batch: most images in one pass, at least 1. It limits the memory and changes no map.

    Source: Achtibat et al. 2024, section 3 (arXiv:2402.05602).
    Differs: LayerNorm keeps the gradient of its mean. The output of a sigmoid that gates features takes none.
    """
    rules = with_gamma(ATTN_LRP, linear_gamma, conv_gamma)
    return relevance("attn_lrp", model, images, targets, rules, score=score, max_batch=max_batch)


def check_attn_lrp(*, linear_gamma: float = 0.0, conv_gamma: float = 0.0) -> None:
    """Raise ValueError for settings of `attn_lrp` that are wrong for every network and image."""
    with_gamma(ATTN_LRP, linear_gamma, conv_gamma)


def gim(
    model: nn.Module, images: Images, targets: Target, *, score: TargetScore = "logit", max_batch: int = 256
) -> Images:
    """Image times a gradient in which attention hides less, signed: one forward and one backward pass per image.

    Formula: map = x * g. The gradient g is that of a network whose standard deviations of LayerNorms are constants and
    in which each factor of a product of activations takes half. The gradient of the softmax is s * (g - sum of s g)
    with s = softmax(scores / 2). Activations keep their gradient.

    The map is at the input of the first layer, after the normalisation.

    score: score of the target class to explain: logit, log_probability, probability or loss (cross entropy).
    max_batch: most images in one pass, at least 1. It limits the memory and changes no map.

    Source: Edin et al. 2025, section 4 (arXiv:2505.17630).
    Differs: the map is at the image and not at the tokens.
    """
    return relevance("gim", model, images, targets, GIM, score=score, max_batch=max_batch)
