"""Captum's classes as one method: run block by block, with the images' seeds, and turned into maps."""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efface.base.draws import seeded
from efface.base.types import Images, Maps, Seeds, Target, TargetScore
from efface.methods.adapters import untouched
from efface.methods.captum.hooks import check_hooks
from efface.methods.captum.plan import CaptumMethod, Settings, captum_method
from efface.methods.captum.settings import of_block, settings_of
from efface.models.evaluation import evaluating
from efface.models.layers import feature_layer
from efface.models.memory import at_least_one, blocks
from efface.models.scores import target_scores
from efface.plug.facts import states
from efface.plug.shared_settings import with_settings_of

_ITS = ("more than once", "no rule defined", "relevance_output")  # words in errors that Captum's own classes raise


GAP = 0.02
"""Part of the score's change from the baseline that a map of DeepLift may miss without a doubt."""


def convergence_gap(
    model: nn.Module,
    images: Images,
    targets: Target,
    maps: Maps,
    *,
    algorithm: str,
    layer: str | None = None,
    init: Settings = None,
    attribute: Settings = None,
    score: TargetScore = "logit",
    **_: Any,
) -> list[str]:
    """Return a doubt if a map of DeepLift does not sum to the score's change from the baseline.

    DeepLift promises this sum, and DeepLiftShap its mean over the baselines; the classes of layers promise it for the
    values of the layer. It fails where the network computes something that the rule does not know: clamp,
    maximum, products, LayerNorm, attention, recurrent layers.
    """
    if algorithm.removeprefix("Layer") not in ("DeepLift", "DeepLiftShap"):
        return []
    plan = captum_method(algorithm, None, init, attribute, layer=layer, cells=None, score=score)
    settings = settings_of(plan, images)
    baselines = settings.get("baselines", torch.zeros_like(images[:1]))
    expanded = [one.expand_as(images).contiguous() for one in (baselines.split(1) if plan.compares else [baselines])]
    with torch.no_grad(), evaluating(model):
        before = torch.stack([target_scores(model, one, targets, score) for one in expanded]).mean(0)
        change = target_scores(model, images, targets, score) - before
    summed = (_layer_values(plan, model, images, targets, layer, score) if plan.explains_layer else maps).flatten(1)
    gap = ((summed.to(change).sum(1) - change).abs() / change.abs().clamp(min=1e-6)).max()
    if gap <= GAP:
        return []
    said = (
        f"the map of {algorithm} misses {100 * gap:.0f} % of the score's change from the baseline, which it should "
        "sum to: the network computes something that DeepLift has no rule for (such as clamp, maximum, products or "
        "LayerNorm)"
    )
    return [said]


def _layer_values(
    plan: CaptumMethod, model: nn.Module, images: Images, targets: Target, layer: str | None, score: TargetScore
) -> Tensor:
    """Return the map of a class that explains a layer before its channels are summed and enlarged."""
    with untouched(model), evaluating(model), _quiet(), feature_layer(model, images, layer).laid_out(model) as module:
        explainer = plan.made(_Score(model, score), module)
        asked = {"inputs": images.clone().requires_grad_(), "additional_forward_args": (targets.clone(),)}
        values: Tensor = explainer.attribute(**asked, **settings_of(plan, images))
    return values.detach()


def _layer(
    method: CaptumMethod, model: nn.Module, images: Images, layer: str | None
) -> AbstractContextManager[nn.Module | None]:
    """Return a context with the module that a class of layers explains, whose output is n c h w; None for others."""
    return feature_layer(model, images, layer).laid_out(model) if method.wants_layer else nullcontext()


def layer_said(model: nn.Module, images: Images, *, algorithm: str, around: str | None = None, **settings: Any) -> str:
    """Return which layer a class of layers explains, and how it is laid out, in words; "" for other classes."""
    named = {name: settings.get(name) for name in ("init", "attribute", "layer", "cells")}
    plan = captum_method(algorithm, around, **named, score=settings.get("score", "logit"))
    return str(feature_layer(model, images, named["layer"])) if plan.wants_layer else ""


@states(doubts=convergence_gap, looks_at=layer_said)
def attribute(
    model: nn.Module,
    images: Images,
    targets: Target,
    *,
    algorithm: str,
    layer: str | None = None,
    around: str | None = None,
    cells: int | None = None,
    init: Settings = None,
    attribute: Settings = None,
    score: TargetScore = "logit",
    seeds: Seeds | None = None,
    max_batch: int = 256,
) -> Maps:
    """Maps of one of Captum's attribution classes, with Captum's defaults; signed if the maps of the class are signed.

    For a class that explains a layer, the map is the sum over the layer's channels, enlarged bilinearly to the image
    (align_corners=False).

    Some classes draw at random: GradientShap, NoiseTunnel, Lime, KernelShap, ShapleyValueSampling. They run one image
    at a time with that image's seed. Samples that Captum would pass together run one by one, because Captum's draws
    depend on their number. So batch and `max_batch` do not change a map, but a GPU is not fully used.

    algorithm: name of the class, such as DeepLift. Classes that explain a neuron or mix the images of a batch are not
        allowed.
    layer: name of the module to explain, for classes that explain a layer; by default that of the last features, see
        `efface.methods.cam`. Tokens, and features with channels last, are laid out as n c h w.
    around: for NoiseTunnel, the class whose maps it averages. Then `init` holds settings of this inner class, and
        `attribute` settings of both.
    cells: for classes with feature masks (Lime, KernelShap, FeatureAblation, Shapley values). Each square of a grid of
        `cells` x `cells` is one feature, and the maps are n h w. Without `cells`, each value of the image is a feature.
    init: settings of the class's constructor, by Captum's names. Lists become tuples. {call, kwargs} is called to make
        an object, such as captum._utils.models.linear_model.SkLearnLasso.
    attribute: settings of the class's `attribute`, in the same form. `baselines` is a number, or one per channel, in
        [0, 1]; black by default. For a distribution (DeepLiftShap, GradientShap) it is a list of these.
        `sliding_window_shapes` may be one number. A tensor with one row per image is split like the images.
    score: score of the target class to explain: logit, log_probability, probability or loss (cross entropy).
    seeds: one integer per image, for classes that draw.
    max_batch: most images in one pass; passed on as Captum's internal_batch_size and perturbations_per_eval. One image
        needs at least 2 rows for DeepLift and LayerConductance, and 4 for DeepLiftShap; these rows run in any case.

    Source: Kokhlikyan et al. 2020 (arXiv:2009.07896), and the paper of each class.
    Differs: random draws, as described. The network is restored also where Captum leaves changes on it (LRP).
    """
    at_least_one("max_batch", max_batch)
    method = captum_method(algorithm, around, init, attribute, layer=layer, cells=cells, score=score)
    if method.draws and seeds is None:
        raise ValueError(f"captum.attribute: {algorithm} draws at random; expected seeds, one integer an image")
    images, maps = images.detach(), []
    settings = settings_of(method, images)
    together = 1 if method.draws else max(1, max_batch // method.least(settings))
    with untouched(model), evaluating(model), _quiet(), ExitStack() as held:
        again = check_hooks(method, model, images[:1])
        explainer = method.made(_Score(model, score), held.enter_context(_layer(method, model, images, layer)))
        for block in blocks(len(images), together):
            points = images[block].clone().requires_grad_()  # otherwise Captum sets the flag and warns
            asked = {"inputs": points, "additional_forward_args": (targets[block].clone(),)}
            own = of_block(method, settings, block, len(images))
            with seeded(int(seeds[block.start])) if method.draws and seeds is not None else nullcontext():
                block_maps = _called(
                    method, model, explainer, asked, own | method.limits(len(points), max_batch, own), max_batch, again
                )
            maps.append(_map(method, block_maps, images[block]))
    return torch.cat(maps)


@with_settings_of(attribute, but=("seeds", "max_batch"))
def check_attribute(**settings: Any) -> None:
    """Raise ValueError for settings of `attribute` that are wrong for every network and image; imports Captum."""
    captum_method(**settings)


class _Score(nn.Module):
    """The network with the score to explain as its only output, so that Captum repeats targets and images together."""

    def __init__(self, model: nn.Module, score: TargetScore) -> None:
        super().__init__()
        self.model, self.score = model, score

    def forward(self, images: Images, targets: Target) -> Tensor:
        return target_scores(self.model, images, targets, self.score)


def _called(
    method: CaptumMethod,
    model: nn.Module,
    explainer: Any,
    asked: dict[str, Any],
    own: dict[str, Any],
    max_batch: int,
    again: list[str],
) -> Tensor:
    """Return the maps of one block, as the explainer computes them.

    again: names of modules that run more than once, for the error message.
    """
    total: Any = 0
    try:
        for share, part in _pieces(method, own, max_batch):
            maps = explainer.attribute(**asked, **own | part)
            if not isinstance(maps, Tensor):
                raise ValueError(f"captum's {method.name} returned a {type(maps).__name__}; expected one tensor")
            total = total + share * maps.detach()
    except torch.OutOfMemoryError:
        raise
    except (AssertionError, AttributeError, NotImplementedError, RuntimeError, TypeError) as error:
        if not isinstance(error, AssertionError | NotImplementedError) and not any(word in str(error) for word in _ITS):
            raise  # an error of the network itself
        kinds = [name for name, module in model.named_modules() if name and str(type(module)) in str(error)]
        kinds = kinds or (again if "more than once" in str(error) else [])
        where = f" (here {', '.join(kinds[:4])})" if kinds else ""
        other = "; efface.methods.zennit.attribute has more rules for LRP" if "LRP" in method.name else ""
        raise ValueError(f"captum's {method.name} cannot explain this network: {error}{where}{other}") from error
    return total


def _pieces(method: CaptumMethod, own: dict[str, Any], max_batch: int) -> list[tuple[float, dict[str, Any]]]:
    """Return (weight, settings) of the calls whose weighted sum is the map; Captum would run all of them in one pass.

    DeepLiftShap needs at least two images to compare with. A single remaining image is therefore passed twice.
    """
    if method.outer is method.inner and method.name.endswith("GradientShap"):
        samples = int(own.get("n_samples", 5))  # Captum's default
        at_least_one("n_samples", samples)
        return [(1 / samples, {"n_samples": 1})] * samples
    if method.outer is method.inner and method.name.endswith("DeepLiftShap"):
        count = len(own["baselines"])
        parts = own["baselines"].split(max(2, max_batch // 2))
        return [(len(part) / count, {"baselines": part.repeat(2 // len(part) or 1, 1, 1, 1)}) for part in parts]
    return [(1.0, {})]


def _map(method: CaptumMethod, maps: Tensor, images: Images) -> Maps:
    if method.explains_layer:
        if maps.ndim != 4:
            raise ValueError(
                f"captum's {method.name} returned shape {tuple(maps.shape)}; expected n c h w: "
                "name a convolutional `layer`"
            )
        small = maps.sum(1, keepdim=True)
        maps = F.interpolate(small, size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    elif maps.shape != images.shape:
        raise ValueError(
            f"captum's {method.name} returned shape {tuple(maps.shape)}; expected the images' {tuple(images.shape)}"
        )
    elif method.cells is not None:
        maps = maps[:, 0]  # every channel has the value of the square
    return maps.to(images.dtype)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Captum's warnings about setting and removing hooks, inside the `with` block."""
    with warnings.catch_warnings():
        for text in ("Setting backward hooks on ReLU", "Setting forward, backward hooks and attributes"):
            warnings.filterwarnings("ignore", message=text)
        yield
