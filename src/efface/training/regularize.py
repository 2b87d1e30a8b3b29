"""Regularisers: terms of a training's loss that change the properties of the network's input gradient.

Each is a function `(network, images, targets, outputs, *, settings) -> Term`. `outputs` are the logits of these images,
which require a gradient. f is the logit of the true class, before softmax. Nothing is detached, so the weights learn
through every pass and both derivatives. A noisy image may leave [0, 1]. Its forward pass runs in the network's own
mode: in training, a BatchNorm uses the statistics of the noisy batch and updates its running ones with them. `PRESETS`
holds the published weights and settings.

A second derivative, or a difference of two passes, magnifies rounding. All terms therefore refuse autocast, and weights
or images coarser than float32. Terms that compare two passes also refuse TF32, dropout, and a network whose second
pass of the same images differs. That test costs one forward pass, once.

Source: Srinivas & Fleuret 2021 (arXiv:2006.09128), and its released code.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.base import draws
from efface.base.shown import shown
from efface.base.types import Images, Seeds, Targets
from efface.plug.facts import states
from efface.plug.shared_settings import with_settings_of

Estimator = Literal["one_sided", "antithetic"]
Logits = Float[Tensor, "n k"]
Noise = Float[Tensor, "s n c h w"]


@dataclass(frozen=True)
class Term:
    """A term of the loss: its value, differentiable in the weights, and further named values for curves."""

    value: Float[Tensor, ""]
    parts: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)


PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "score_matching": {
        "paper": {"weight": 1e-3, "samples": 1, "sigma": 0.01, "stability": 1e-3},
        "code": {"weight": 1e-5, "samples": 1, "sigma": 0.01, "stability": 1e-3},
    },
    "anti_score_matching": {
        "paper": {"weight": 1e-4, "samples": 1, "sigma": 0.001, "threshold": 1e3},
        "code": {"weight": 1e-5, "samples": 1, "sigma": 0.001, "threshold": 1e4},
    },
    "gradient_norm": {"paper": {"weight": 1e-3}, "code": {"weight": 1e-5}},
}
"""Weights and settings of the published trainings. The paper states no noise: samples and sigma are the code's."""


def hessian_traces(
    network: nn.Module,
    images: Images,
    targets: Targets,
    outputs: Logits,
    *,
    samples: int,
    sigma: float,
    estimator: Estimator = "one_sided",
    seeds: Seeds | None = None,
    noise: Noise | None = None,
) -> Float[Tensor, " n"]:
    """Return estimates of the trace of f's Hessian at each image, from forward passes alone.

    The settings are those of `score_matching`.
    """
    clean, total = _own(outputs, targets), torch.zeros_like(outputs[:, 0])
    for normal in _noise(images, samples, seeds, noise):
        step = sigma * normal
        there = _own(network(images + step), targets) - clean
        if estimator == "antithetic":
            there = (there + _own(network(images - step), targets) - clean) / 2
        total = total + there
    return total * (2 / (samples * sigma**2))


@states(cost=10.0, estimates_hessian=True)
@with_settings_of(hessian_traces)
def score_matching(
    network: nn.Module,
    images: Images,
    targets: Targets,
    outputs: Logits,
    *,
    samples: int = 10,
    sigma: float = 0.01,
    stability: float = 0.0,
    **estimate: Any,
) -> Term:
    """Score matching of exp f: mean trace of f's Hessian, half the mean squared norm of its gradient, a stability term.

    Formula: mean(h) + mean(|g|^2) / 2 + stability * mean(h^2); h estimates an image's trace, g is its gradient. The
    Hessian of a network of ReLUs is 0 almost everywhere, so use softplus. The estimate from one sample has a standard
    deviation of 2 |g| / sigma. With sigma 0.01 and stability 0.001 the stability term is, on average, 40 |g|^2 plus the
    square of the trace: it mainly penalises the gradient.

    samples: noisy images for each image, at least 1. Each costs a forward pass (antithetic: two) and its backward pass.
    sigma: standard deviation of the noise in units of [0, 1], above 0. The difference of two logits is multiplied by
        2 / sigma^2, with its float32 rounding: below 0.001 rounding dominates.
    stability: weight of the squared trace, at least 0.
    estimator: one_sided, 2 (f(x + v) - f(x)) / sigma^2; antithetic, (f(x + v) + f(x - v) - 2 f(x)) / sigma^2, with the
        same mean and without the gradient's share of the spread.
    seeds: one for each image.
    noise: standard normal draws to use instead of the seeds.

    Source: Srinivas & Fleuret 2021, equation 4 (arXiv:2006.09128).
    Differs: the antithetic estimator is ours, and no default.
    """
    check_score_matching(samples=samples, sigma=sigma, stability=stability, estimator=estimate["estimator"])
    _refuse("score_matching", network, images, outputs)
    traces = hessian_traces(network, images, targets, outputs, samples=samples, sigma=sigma, **estimate)
    norms = squared_gradients(images, targets, outputs)
    value = traces.mean() + norms.mean() / 2
    if stability > 0:
        value = value + stability * traces.square().mean()
    parts = {"trace": traces.mean(), "squared_trace": traces.square().mean(), "squared_gradient": norms.mean()}
    return Term(value, {name: part.detach() for name, part in parts.items()})


@states(cost=3.0, estimates_hessian=True)
@with_settings_of(hessian_traces)
def anti_score_matching(
    network: nn.Module,
    images: Images,
    targets: Targets,
    outputs: Logits,
    *,
    samples: int = 1,
    sigma: float = 0.01,
    threshold: float = 1e4,
    **estimate: Any,
) -> Term:
    """The opposite of score matching: minus the mean trace of f's Hessian, with a cap on the trace of each image.

    It makes exp f a worse model of the images, and does not penalise the norm of the gradient. With the one-sided
    estimator the capped number is noisy, so the term also rewards less noise, which is a smaller gradient.

    samples, sigma, estimator, seeds, noise: as in `score_matching`.
    threshold: cap of the trace of an image, any number.

    Source: Srinivas & Fleuret 2021, section 5 (arXiv:2006.09128).
    Differs: the antithetic estimator is ours, and no default. The curve `trace` is not cut off at the threshold.
    """
    check_anti_score_matching(samples=samples, sigma=sigma, threshold=threshold, estimator=estimate["estimator"])
    _refuse("anti_score_matching", network, images, outputs)
    traces = hessian_traces(network, images, targets, outputs, samples=samples, sigma=sigma, **estimate)
    parts = {"trace": traces.mean().detach(), "cut_off": (traces.detach() > threshold).to(traces).mean()}
    return Term(-traces.clamp(max=threshold).mean(), parts)


@states(cost=6.0)
def gradient_norm(network: nn.Module, images: Images, targets: Targets, outputs: Logits) -> Term:
    """Half the mean squared norm of f's gradient. It costs a backward pass, and a second one through it.

    Source: Srinivas & Fleuret 2021, section 5 (arXiv:2006.09128).
    """
    _refuse("gradient_norm", network, images, outputs, compares=False)
    norms = squared_gradients(images, targets, outputs)
    return Term(norms.mean() / 2, {"squared_gradient": norms.mean().detach()})


def squared_gradients(images: Images, targets: Targets, outputs: Logits) -> Float[Tensor, " n"]:
    """Return the squared norm of each image's gradient of f, differentiable in the weights.

    With a BatchNorm in training mode, the gradient of an image is that of the sum of f over the whole batch.
    """
    if not images.requires_grad:
        raise ValueError(
            "regularize: the images require no gradient, so the outputs have no gradient at them; call "
            "images.requires_grad_() before outputs = network(images)"
        )
    (gradient,) = torch.autograd.grad(_own(outputs, targets).sum(), images, create_graph=True)
    return gradient.flatten(1).square().sum(1)


def check_score_matching(
    samples: int = 10, sigma: float = 0.01, stability: float = 0.0, estimator: str = "one_sided"
) -> None:
    """Raise ValueError if a setting is outside its range."""
    _check("score_matching", samples, sigma, estimator)
    if not 0 <= stability < math.inf:
        raise ValueError(f"score_matching: stability is {stability}; expected a number not below 0")


def check_anti_score_matching(
    samples: int = 1, sigma: float = 0.01, threshold: float = 1e4, estimator: str = "one_sided"
) -> None:
    """Raise ValueError if a setting is outside its range."""
    _check("anti_score_matching", samples, sigma, estimator)
    if math.isnan(threshold):
        raise ValueError("anti_score_matching: threshold is nan; expected a number")


def _check(name: str, samples: int, sigma: float, estimator: str) -> None:
    if samples < 1:
        raise ValueError(f"{name}: samples is {samples}; expected a whole number of at least 1")
    if not 0 < sigma < math.inf:
        raise ValueError(f"{name}: sigma is {sigma}; expected a number above 0, such as 0.01")
    if estimator not in get_args(Estimator):
        raise ValueError(f"{name}: estimator is {shown(estimator)}; expected {' or '.join(get_args(Estimator))}")


def _refuse(name: str, network: nn.Module, images: Images, outputs: Logits, *, compares: bool = True) -> None:
    """Raise ValueError if rounding or other noise would dominate the term. compares: the term compares two passes."""
    if torch.is_autocast_enabled(images.device.type):
        raise ValueError(
            f"{name}: called under autocast, but a difference of logits over sigma^2 magnifies its rounding ten "
            "thousandfold; expected float32 (or float64) passes: set fit.precision to fp32"
        )
    coarse = {tensor.dtype for tensor in (images, outputs, *network.parameters()) if tensor.dtype in _COARSE}
    if coarse:
        raise ValueError(
            f"{name}: {type(network).__name__} computes in {', '.join(sorted(map(str, coarse)))}, but a second "
            "derivative magnifies rounding; expected float32 (or float64) images and weights: call network.float()"
        )
    if not compares:
        return
    if rounds_to_tf32(images.device):
        raise ValueError(
            f"{name}: torch may round to TF32 on this device, and a difference of logits over sigma^2 magnifies that; "
            "expected full float32: set torch.backends.cudnn.allow_tf32 = False and "
            "torch.backends.cuda.matmul.allow_tf32 = False before outputs = network(images)"
        )
    dropping = any(
        isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p > 0  # noqa: SLF001  the public classes' base
        for module in network.modules()
    )
    if dropping:
        raise ValueError(
            f"{name}: {type(network).__name__} has dropout, which differs between two passes, and their difference is "
            "divided by sigma^2; use a network without dropout (p = 0), or gradient_norm"
        )
    modes = [module.training for module in network.modules()]
    if _STEADY.get(network) != modes:
        _refuse_noise(name, network, images, outputs)
        _STEADY[network] = modes


_COARSE = (torch.float16, torch.bfloat16)
_STEADY: "WeakKeyDictionary[nn.Module, list[bool]]" = WeakKeyDictionary()
"""Modes in which two passes of a network gave the same output."""


def rounds_to_tf32(device: torch.device) -> bool:
    """Return whether torch may compute float32 convolutions or products in TF32, with 10 bits after the point."""
    return device.type == "cuda" and (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)


def _refuse_noise(name: str, network: nn.Module, images: Images, outputs: Logits) -> None:
    """Raise ValueError for noise of any kind, found by a second pass of the same images, once for each mode."""
    # the pass restores running statistics and random numbers
    buffers = {key: buffer.clone() for key, buffer in network.named_buffers()}
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        before = _random_state(images.device)
        again = torch.func.functional_call(network, buffers, (images.detach(),))
        drawn = any(not torch.equal(*both) for both in zip(before, _random_state(images.device), strict=True))
    apart = (again - outputs.detach()).abs().amax()
    if drawn or apart > _SAME * outputs.detach().abs().amax():
        fault = "draws random numbers" if drawn else f"gives other logits the second time, by {apart:.3g}"
        raise ValueError(
            f"{name}: {type(network).__name__} {fault} in a pass, but two passes of an image must be the same, since "
            "their difference is divided by sigma^2; use a network without noise (dropout, stochastic depth), pass "
            "outputs = network(images) of these images, or use gradient_norm"
        )


_SAME = 1e-3  # of the largest logit: rounding differs by 1e-6 between kernels, noise that matters by more


def _random_state(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _own(outputs: Logits, targets: Targets) -> Float[Tensor, " n"]:
    return outputs.gather(1, targets[:, None])[:, 0]


def _noise(images: Images, samples: int, seeds: Seeds | None, noise: Noise | None) -> Iterator[Images]:
    if noise is not None:
        if len(noise) != samples:
            raise ValueError(f"regularize: noise has {len(noise)} draws an image, but samples is {samples}; give equal")
        yield from noise
        return
    if seeds is None:
        raise ValueError("regularize: seeds are missing; expected one integer an image: pass seeds, or noise")
    for number in range(samples):
        yield draws.normal(draws.fold(seeds.to(images.device), number), tuple(images.shape[1:])).to(images)
