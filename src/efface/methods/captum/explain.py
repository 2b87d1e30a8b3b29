"""Captum's classes as one method: run block by block, by the images' seeds, and turned into maps."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efface.draws import seeded
from efface.methods.adapters import untouched
from efface.methods.captum.hooks import check_hooks
from efface.methods.captum.plan import Plan, Settings, planned
from efface.methods.captum.settings import of_block, settings_of
from efface.models.evaluation import evaluating
from efface.models.layers import find_layer, last_convolution
from efface.models.memory import at_least_one, blocks
from efface.models.scores import target_scores
from efface.types import Images, Maps, Seeds, Target, TargetScore

_ITS = ("more than once", "no rule defined", "relevance_output")  # words of errors that Captum's own classes raise


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
    """Maps of one of Captum's attribution classes, with Captum's defaults where nothing is set: signed where it signs.

    A class that explains a layer gives the sum over the layer's channels, enlarged bilinearly to the image
    (align_corners=False). One that draws at random (GradientShap, NoiseTunnel, Lime, KernelShap, ShapleyValueSampling)
    is run one image at a time from that image's seed, and samples that Captum would pass together go one by one,
    for its draws depend on how many they are: so batch and budget change nothing, but a GPU idles.

    algorithm: name of the class, such as DeepLift; not one that explains a neuron or mixes the images of a batch.
    layer: name of the module to explain, for classes that want one; the last convolutional feature map by default.
    around: for NoiseTunnel, the class whose maps it averages; `init` is then the inner one's, `attribute` for both.
    cells: for classes of feature masks (Lime, KernelShap, FeatureAblation, Shapley values): squares of a grid of
        `cells` x `cells` are hidden whole, and the maps are n h w. Without, each value is a feature of its own.
    init, attribute: settings of the class's constructor and of its `attribute`, by Captum's names. Lists become tuples;
        {call, kwargs} is called for an object, such as captum._utils.models.linear_model.SkLearnLasso. `baselines` is
        a number, one a channel, or for a distribution (DeepLiftShap, GradientShap) a list of such, in [0, 1]; black by
        default. `sliding_window_shapes` may be one number. A tensor of as many rows as images goes with the images.
    score: score of the target class to explain: logit, log_probability, probability or loss (cross entropy).
    seeds: one integer per image, for classes that draw.
    max_batch: images in one pass; becomes Captum's internal_batch_size and perturbations_per_eval. What one image needs
        at once (2 rows for DeepLift and LayerConductance, 4 for DeepLiftShap) is passed in any case.

    Source: Kokhlikyan et al. 2020 (arXiv:2009.07896), and the paper of each class.
    Differs: draws are as said; the network is left as it was also where Captum leaves traces on it (LRP).
    """
    at_least_one("max_batch", max_batch)
    plan = planned(algorithm, around, init, attribute, layer=layer, cells=cells, score=score)
    if plan.draws and seeds is None:
        raise ValueError(f"captum.attribute: {algorithm} draws at random; expected seeds, one integer an image")
    images, maps = images.detach(), []
    settings = settings_of(plan, images)
    together = 1 if plan.draws else max(1, max_batch // plan.least(settings))
    with untouched(model), evaluating(model), _quiet():
        again = check_hooks(plan, model, images[:1])
        module = None
        if plan.wants_layer:
            module = last_convolution(model, images[:1]) if layer is None else find_layer(model, layer)
        explainer = plan.made(_Score(model, score), module)
        for block in blocks(len(images), together):
            points = images[block].clone().requires_grad_()  # else Captum sets it, and warns
            asked = {"inputs": points, "additional_forward_args": (targets[block].clone(),)}
            own = of_block(plan, settings, block, len(images))
            with seeded(int(seeds[block.start])) if plan.draws and seeds is not None else nullcontext():
                found = _called(
                    plan, model, explainer, asked, own | plan.limits(len(points), max_batch, own), max_batch, again
                )
            maps.append(_map(plan, found, images[block]))
    return torch.cat(maps)


def check_attribute(
    *,
    algorithm: str,
    layer: str | None = None,
    around: str | None = None,
    cells: int | None = None,
    init: Settings = None,
    attribute: Settings = None,
    score: TargetScore = "logit",
) -> None:
    """Refuse settings of `attribute` that no network and no image could make right; imports Captum."""
    planned(algorithm, around, init, attribute, layer=layer, cells=cells, score=score)


class _Score(nn.Module):
    """The network with the number to explain as its only output: Captum expands the targets with the images."""

    def __init__(self, model: nn.Module, score: TargetScore) -> None:
        super().__init__()
        self.model, self.score = model, score

    def forward(self, images: Images, targets: Target) -> Tensor:
        return target_scores(self.model, images, targets, self.score)


def _called(
    plan: Plan,
    model: nn.Module,
    explainer: Any,
    asked: dict[str, Any],
    own: dict[str, Any],
    max_batch: int,
    again: list[str],
) -> Tensor:
    """again: names of modules that run more than once, for the error."""
    total: Any = 0
    try:
        for share, part in _pieces(plan, own, max_batch):
            found = explainer.attribute(**asked, **own | part)
            if not isinstance(found, Tensor):
                raise ValueError(f"captum's {plan.name} returned a {type(found).__name__}; expected one tensor")
            total = total + share * found.detach()
    except (AssertionError, AttributeError, NotImplementedError, RuntimeError, TypeError) as error:
        if not isinstance(error, AssertionError | NotImplementedError) and not any(word in str(error) for word in _ITS):
            raise  # the network's own
        kinds = [name for name, each in model.named_modules() if name and str(type(each)) in str(error)]
        kinds = kinds or (again if "more than once" in str(error) else [])
        where = f" (here {', '.join(kinds[:4])})" if kinds else ""
        other = "; efface.methods.zennit.attribute knows more of LRP" if "LRP" in plan.name else ""
        raise ValueError(f"captum's {plan.name} cannot explain this network: {error}{where}{other}") from error
    return total


def _pieces(plan: Plan, own: dict[str, Any], max_batch: int) -> list[tuple[float, dict[str, Any]]]:
    """Calls whose weighted sum is the map, where Captum itself would pass everything at once.

    DeepLiftShap wants two images to compare with at least: one that is left over is given twice.
    """
    if plan.outer is plan.inner and plan.name.endswith("GradientShap"):
        samples = int(own.get("n_samples", 5))  # Captum's default
        at_least_one("n_samples", samples)
        return [(1 / samples, {"n_samples": 1})] * samples
    if plan.outer is plan.inner and plan.name.endswith("DeepLiftShap"):
        count = len(own["baselines"])
        parts = own["baselines"].split(max(2, max_batch // 2))
        return [(len(part) / count, {"baselines": part.repeat(2 // len(part) or 1, 1, 1, 1)}) for part in parts]
    return [(1.0, {})]


def _map(plan: Plan, found: Tensor, images: Images) -> Maps:
    if plan.explains_layer:
        if found.ndim != 4:
            raise ValueError(
                f"captum's {plan.name} returned shape {tuple(found.shape)}; expected n c h w: "
                "name a convolutional `layer`"
            )
        small = found.sum(1, keepdim=True)
        found = F.interpolate(small, size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    elif found.shape != images.shape:
        raise ValueError(
            f"captum's {plan.name} returned shape {tuple(found.shape)}; expected the images' {tuple(images.shape)}"
        )
    elif plan.cells is not None:
        found = found[:, 0]  # every channel has the square's number
    return found.to(images.dtype)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Captum's notes that it sets hooks and takes them off."""
    with warnings.catch_warnings():
        for text in ("Setting backward hooks on ReLU", "Setting forward, backward hooks and attributes"):
            warnings.filterwarnings("ignore", message=text)
        yield
