"""Captum through the adapter: equal to Captum called directly, and to our own method where there is one."""

import sys
import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from captum import attr
from captum._utils.models.linear_model import SkLearnLasso
from torch import nn

from efface.base.draws import seeded
from efface.methods import cam, captum, gradient, occlusion, smooth
from efface.models.preact import preact_resnet
from efface.models.resnet import resnet8
from efface.plug.facts import fact
from small.batches import with_seeds
from small.messages import names, words
from small.networks import drawn_network, state_of
from small.tiers import first_short

N, SIZE = 3, 8
inputs = partial(with_seeds, "captum", count=N)


class Plain(nn.Module):
    """Modules alone, each of a kind that Captum's LRP knows."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Linear(45, 4)

    def forward(self, images):
        return self.last(self.pool(self.relu(self.conv(images))).flatten(1))


def grid(cells):
    lines = torch.arange(SIZE) * cells // SIZE
    return (lines[:, None] * cells + lines)[None, None]


def enlarged(small):
    return F.interpolate(small.sum(1, keepdim=True), size=(SIZE, SIZE), mode="bilinear", align_corners=False)[:, 0]


def shades(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None, None, None].expand(-1, 3, SIZE, SIZE)


# settings through the adapter -> what Captum's own classes are called with
STEADY = {
    "Saliency": ({"attribute": {"abs": False}}, {"abs": False}),
    "InputXGradient": ({}, {}),
    "GuidedBackprop": ({}, {}),
    "Deconvolution": ({}, {}),
    "IntegratedGradients": ({"attribute": {"n_steps": 7, "baselines": 0.3}}, {"n_steps": 7, "baselines": 0.3}),
    "DeepLift": ({"attribute": {"baselines": [0.1, 0.2, 0.3]}}, None),
    "DeepLiftShap": ({"attribute": {"baselines": [0.0, 0.4, 1.0]}}, {"baselines": shades(0.0, 0.4, 1.0)}),
    "FeatureAblation": ({"attribute": {"baselines": 0.5}}, {"baselines": 0.5}),
    "Occlusion": (
        {"attribute": {"sliding_window_shapes": [3, 3, 2], "strides": [3, 2, 2]}},
        {"sliding_window_shapes": (3, 3, 2), "strides": (3, 2, 2)},
    ),
    "ShapleyValues": ({"cells": 2}, {"feature_mask": grid(2)}),
    "LRP": ({}, {}),
}
LAYERS = {
    "LayerGradCam": ({}, {}),
    "LayerActivation": ({}, None),
    "LayerGradientXActivation": ({}, {}),
    "LayerConductance": ({"attribute": {"n_steps": 7}}, {"n_steps": 7}),
    "InternalInfluence": ({"attribute": {"n_steps": 7}}, {"n_steps": 7}),
    "LayerIntegratedGradients": ({"attribute": {"n_steps": 7}}, {"n_steps": 7}),
    "LayerDeepLift": ({"attribute": {"baselines": 0.5}}, {"baselines": 0.5}),
    "LayerDeepLiftShap": ({"attribute": {"baselines": [0.0, 1.0, 0.5]}}, {"baselines": shades(0.0, 1.0, 0.5)}),
    "LayerFeatureAblation": ({}, {}),
    "LayerLRP": ({"layer": "conv"}, {}),
    "GuidedGradCam": ({}, {}),
}
DRAWN = {
    "GradientShap": {"attribute": {"baselines": [0.0, 1.0], "n_samples": 3, "stdevs": 0.1}},
    "Lime": {"cells": 3, "attribute": {"n_samples": 8}},
    "KernelShap": {"cells": 3, "attribute": {"n_samples": 12}},
    "ShapleyValueSampling": {"cells": 3, "attribute": {"n_samples": 2, "baselines": 0.5}},
    "NoiseTunnel": {"around": "IntegratedGradients", "attribute": {"nt_samples": 3, "stdevs": 0.1, "n_steps": 4}},
    "LayerGradientShap": {"attribute": {"baselines": [0.0, 1.0], "n_samples": 3}},
}
ALL = {name: settings for name, (settings, _) in (STEADY | LAYERS).items()} | DRAWN
every_class = pytest.mark.parametrize("algorithm", ALL)


def explain(algorithm, model=None, batch=None, **settings):
    images, targets, seeds = batch or inputs()
    whole = ALL[algorithm] | {"seeds": seeds} | settings
    return captum.attribute(model or drawn_network(Plain), images, targets, algorithm=algorithm, **whole)


def directly(explainer, *arguments, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return explainer.attribute(*arguments, **settings).detach()


# What it computes


@pytest.mark.parametrize("algorithm", STEADY)
def test_maps_are_captums(algorithm):
    model, (images, targets, _) = drawn_network(Plain), inputs()
    settings = STEADY[algorithm][1]
    if settings is None:
        settings = {"baselines": torch.tensor([0.1, 0.2, 0.3]).double()[None, :, None, None].expand_as(images[:1])}
    expected = directly(getattr(attr, algorithm)(model), images, target=targets, **settings)
    found = explain(algorithm, model)
    if "cells" in STEADY[algorithm][0]:
        expected = expected[:, 0]
    torch.testing.assert_close(found, expected.to(found.dtype), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("algorithm", LAYERS)
@pytest.mark.parametrize("layer", ["conv", None])
def test_maps_of_a_layer_are_captums_enlarged(algorithm, layer):
    model, (images, targets, _) = drawn_network(Plain), inputs()
    if algorithm == "LayerLRP" and layer is None:
        with pytest.raises(ValueError, match=words("captum's LayerLRP efface.methods.zennit.attribute")):
            explain(algorithm, model, layer=layer)
        return
    module = model.conv if layer else model.relu  # the last feature map but pooling
    settings = LAYERS[algorithm][1]
    asked = {} if settings is None else {"target": targets, **settings}
    expected = directly(getattr(attr, algorithm)(model, module), images, **asked)
    found = explain(algorithm, model, layer=layer)
    expected = expected if algorithm == "GuidedGradCam" else enlarged(expected)
    torch.testing.assert_close(found, expected.to(found.dtype), rtol=1e-5, atol=1e-7)


def test_maps_are_our_own_where_we_have_the_method(tiny):
    model, (images, targets, _) = tiny(seed=3).double(), inputs()
    same = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-8)
    same(explain("Saliency", model), gradient.gradient(model, images, targets))
    same(explain("InputXGradient", model), gradient.input_x_gradient(model, images, targets))
    relu = explain("LayerGradCam", model, attribute={"relu_attributions": True})
    same(relu, cam.grad_cam(model, images, targets))
    window = {"sliding_window_shapes": 3, "strides": (3, 2, 2), "baselines": 0.5}
    hidden = explain("Occlusion", model, attribute=window)
    same(hidden, occlusion.occlusion(model, images, targets, patch=3, stride=2)[:, None].expand_as(hidden))
    base = partial(captum.attribute, algorithm="InputXGradient")
    noise = 0.1 * torch.randn(2, N, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    settings = {"samples": 2, "noise": noise}
    smoothed = smooth.smooth_grad(model, images, targets, base=base, **settings)
    same(smoothed, smooth.smooth_grad(model, images, targets, base=gradient.input_x_gradient, **settings))


@pytest.mark.parametrize("algorithm", ["Lime", "KernelShap", "ShapleyValueSampling"])
def test_drawn_maps_are_captums_of_that_seed(algorithm):
    model, (images, targets, seeds) = drawn_network(Plain), inputs()
    settings = {"feature_mask": grid(3)} | ALL[algorithm]["attribute"]
    found = explain(algorithm, model)
    for i in range(N):
        with seeded(int(seeds[i])):
            expected = directly(getattr(attr, algorithm)(model), images[i : i + 1], target=targets[i], **settings)
        torch.testing.assert_close(found[i], expected[0, 0].to(found.dtype), rtol=1e-5, atol=1e-7)


def test_drawn_samples_are_captums_one_by_one():
    model, (images, targets, seeds) = drawn_network(Plain), inputs()
    settings = {"baselines": shades(0.0, 1.0), "n_samples": 1, "stdevs": 0.1}
    shap, tunnel = attr.GradientShap(model), attr.NoiseTunnel(attr.IntegratedGradients(model))
    asked = DRAWN["NoiseTunnel"]["attribute"] | {"nt_samples_batch_size": 1}
    for i in range(N):
        image = images[i : i + 1]
        with seeded(int(seeds[i])):
            expected = sum(directly(shap, image, target=targets[i], **settings) for _ in range(3)) / 3
        torch.testing.assert_close(explain("GradientShap", model)[i], expected[0])
        with seeded(int(seeds[i])):
            expected = directly(tunnel, image, target=targets[i], **asked)
        torch.testing.assert_close(explain("NoiseTunnel", model)[i], expected[0], rtol=1e-5, atol=1e-7)


def test_gradient_shap_tends_to_the_rise_of_the_logit():
    model, (images, targets, _) = drawn_network(Plain), inputs()
    found = explain("GradientShap", model, attribute={"n_samples": 80})  # from black
    with torch.no_grad():
        rise = (model(images) - model(torch.zeros_like(images))).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(found.sum((1, 2, 3)), rise, rtol=0.1, atol=0.02)


@pytest.mark.parametrize(
    "build", [resnet8, partial(preact_resnet, blocks=[2, 1], widths=[4, 6])], ids=["resnet8", "preact"]
)
def test_deep_lift_is_complete_on_our_residual_networks(build):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(num_classes=4, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.2)).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 5.0, 20.0)
    images, targets, _ = inputs()
    maps = captum.attribute(model, images, targets, algorithm="DeepLift", attribute={"baselines": 0.5})
    with torch.no_grad():
        rise = model.eval()(images) - model(torch.full_like(images, 0.5))
    torch.testing.assert_close(maps.sum((1, 2, 3)), rise.gather(1, targets[:, None])[:, 0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("score", ["logit", "log_probability", "probability", "loss"])
def test_what_is_explained_is_said_by_of(score):
    model, (images, targets, _) = drawn_network(Plain), inputs()
    expected = gradient.gradient(model, images, targets, score=score)
    torch.testing.assert_close(explain("Saliency", model, score=score), expected)


@pytest.mark.parametrize(
    "settings", [{"algorithm": "KernelShap", "cells": 2}, {"algorithm": "NoiseTunnel", "around": "Saliency"}]
)
def test_check_doubts_no_class_whose_settings_deep_lift_does_not_have(settings):
    doubts = fact(captum.attribute, "doubts")
    assert doubts(Plain(), *inputs()[:2], torch.zeros(N, SIZE, SIZE), **settings) == []


class Mixed(nn.Module):
    """A network with one step that DeepLift may have no rule for, between its convolution and its linear layer."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self.step, self.act, self.norm = step, nn.ReLU(), nn.LayerNorm(SIZE)
        self.attention, self.recurrent = (
            nn.MultiheadAttention(SIZE, 1, batch_first=True),
            nn.LSTM(SIZE, SIZE, batch_first=True),
        )
        self.conv, self.fc = nn.Conv2d(3, 2, 3, padding=1), nn.Linear(2 * SIZE * SIZE, 4)

    def forward(self, images):
        found = 3 * self.conv(images)
        rows = found.flatten(1, 2)
        steps = {
            "relu": lambda: self.act(found),
            "clamp": lambda: found.clamp(0, 0.5),
            "maximum": lambda: torch.maximum(found, found.flip(1)),
            "product": lambda: found * found.flip(1),
            "LayerNorm": lambda: self.norm(found),
            "attention": lambda: self.attention(rows, rows, rows, need_weights=False)[0],
            "LSTM": lambda: self.recurrent(rows)[0],
        }
        return self.fc(steps[self.step]().flatten(1))


@pytest.mark.parametrize("algorithm", ["DeepLift", "DeepLiftShap", "LayerDeepLift", "LayerDeepLiftShap"])
@pytest.mark.parametrize("step", ["relu", "clamp", "maximum", "product", "LayerNorm", "attention", "LSTM"])
def test_check_doubts_maps_of_deep_lift_that_do_not_sum_to_the_change(algorithm, step):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Mixed(step).double().eval()
    settings = {"algorithm": algorithm}
    settings |= {"layer": "conv"} if algorithm.startswith("Layer") else {}
    settings |= {"attribute": {"baselines": [0.0, 0.5]}} if algorithm.endswith("Shap") else {}
    images, targets, _ = inputs()
    maps = captum.attribute(model, images[:2], targets[:2], **settings)
    found = fact(captum.attribute, "doubts")(model, images[:2], targets[:2], maps, **settings)
    assert [names(each, f"map of {algorithm} misses") for each in found] == ([] if step == "relu" else [True])


@pytest.mark.parametrize("algorithm", ["IntegratedGradients", "DeepLift", "ShapleyValues", "LayerGradCam"])
def test_weights_of_the_classes_are_explained(algorithm):
    model, (images, _, seeds) = drawn_network(Plain), inputs()
    weights = torch.tensor([[1.0, -0.5, 0.0, 0.0]], dtype=torch.float64).repeat(N, 1)
    first, second = (explain(algorithm, model, (images, torch.full((N,), k), seeds)) for k in (0, 1))
    found = explain(algorithm, model, (images, weights, seeds))
    torch.testing.assert_close(found, first - 0.5 * second, rtol=1e-5, atol=1e-7)


def test_object_is_made_by_a_call():
    lasso = {"call": "captum._utils.models.linear_model.SkLearnLasso", "kwargs": {"alpha": 1e-4}}
    found = explain("Lime", init={"interpretable_model": lasso})
    torch.testing.assert_close(found, explain("Lime", init={"interpretable_model": SkLearnLasso(alpha=1e-4)}))
    assert not torch.allclose(found, explain("Lime"))


def test_tensors_of_a_row_for_each_image_go_with_the_images():
    model, (images, targets, _) = drawn_network(Plain), inputs()
    own = torch.rand(images.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = directly(attr.IntegratedGradients(model), images, baselines=own, target=targets)
    found = explain("IntegratedGradients", model, attribute={"baselines": own}, max_batch=2)
    torch.testing.assert_close(found, expected)
    several = explain("DeepLiftShap", model, attribute={"baselines": own})  # as many, but a distribution
    torch.testing.assert_close(
        several[:1], explain("DeepLiftShap", model, inputs(count=1), attribute={"baselines": own})
    )


# Budget, batch, traces


@every_class
@pytest.mark.parametrize("max_batch", first_short(1, [7, 1]))
def test_batch_and_budget_change_nothing(algorithm, max_batch):
    model, passed, (images, targets, seeds) = drawn_network(Plain), [], inputs()
    whole = explain(algorithm, model)
    model.register_forward_hook(lambda module, arguments, output: passed.append(len(output)))
    torch.testing.assert_close(explain(algorithm, model, max_batch=max_batch), whole, rtol=1e-5, atol=1e-7)
    least = (
        4 if "DeepLiftShap" in algorithm else 2 if algorithm in ("DeepLift", "LayerDeepLift", "LayerConductance") else 1
    )
    assert max(passed) <= max(max_batch, least)
    single = explain(algorithm, model, (images[1:2], targets[1:2], seeds[1:2]), max_batch=max_batch)
    torch.testing.assert_close(single, whole[1:2], rtol=1e-5, atol=1e-7)


@every_class
def test_nothing_is_left_behind(algorithm):
    model, batch = drawn_network(Plain).train(), inputs()
    model.last.bias.requires_grad_(False)
    batch[0].requires_grad_()
    model.conv.register_forward_hook(lambda *_: None)
    before, state = state_of(model), torch.random.get_rng_state()
    explain(algorithm, model, batch)
    assert state_of(model) == before
    assert batch[0].requires_grad
    assert batch[0].grad is None
    assert torch.equal(torch.random.get_rng_state(), state)


@every_class
@pytest.mark.parametrize("calls", first_short(1, [1, 0, 2]))
def test_nothing_is_left_behind_an_exception(algorithm, calls):
    model, passed = drawn_network(Plain).train(), []

    def fail(module, arguments):
        passed.append(module)
        if len(passed) > calls:
            raise RuntimeError("out of memory")

    model.last.register_forward_pre_hook(fail)
    before = state_of(model)
    try:
        explain(algorithm, model)
    except RuntimeError as error:
        assert str(error) == "out of memory"  # noqa: PT017  one without enough passes does not fail
    assert state_of(model) == before


def test_inference_mode_of_the_caller_is_no_obstacle():
    model = drawn_network(Plain)
    expected = explain("IntegratedGradients", model)
    with torch.inference_mode():
        torch.testing.assert_close(explain("IntegratedGradients", model), expected)


# Refusals


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"algorithm": "Deeplift"}, "captum.attr Deeplift DeepLift"),
        ({"algorithm": "os"}, "captum.attr os"),
        ({"algorithm": "NeuronGradient"}, "NeuronGradient neuron class"),
        ({"algorithm": "FeaturePermutation"}, "FeaturePermutation batch"),
        ({"algorithm": "LLMAttribution"}, "language"),
        ({"algorithm": "NoiseTunnel"}, "around None NoiseTunnel Saliency"),
        ({"algorithm": "NoiseTunnel", "around": "Salience"}, "Salience Saliency"),
        ({"algorithm": "Saliency", "around": "DeepLift"}, "around DeepLift Saliency"),
        ({"algorithm": "Saliency", "layer": "conv"}, "layer conv Saliency"),
        ({"algorithm": "Saliency", "cells": 3}, "cells 3 Saliency"),
        ({"algorithm": "Lime"}, "Lime cells"),
        ({"algorithm": "ShapleyValues", "cells": 4}, "cells 4 ShapleyValues 3"),
        ({"algorithm": "DeepLift", "score": "loss"}, "loss DeepLift logit"),
        ({"algorithm": "DeepLiftShap"}, "DeepLiftShap attribute baselines"),
        ({"algorithm": "Saliency", "attribute": {"abc": 1}}, "attribute Saliency abc abs"),
        ({"algorithm": "DeepLift", "init": {"epsilon": 1}}, "init DeepLift epsilon eps"),
        (
            {"algorithm": "IntegratedGradients", "attribute": {"internal_batch_size": 4}},
            "attribute internal_batch_size max_batch",
        ),
    ],
)
def test_settings_that_cannot_be_right_are_refused_before_any_image(settings, said):
    with pytest.raises(ValueError, match=words(said)):
        captum.check_attribute(**settings)
    images, targets, seeds = inputs()
    with pytest.raises(ValueError, match=words(said)):
        captum.attribute(drawn_network(Plain), images, targets, seeds=seeds, **settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"algorithm": "Lime", "cells": 9}, "cells.*9.*8"),
        ({"algorithm": "DeepLift", "attribute": {"baselines": [0.0, 1.0]}}, "number"),
        ({"algorithm": "DeepLiftShap", "attribute": {"baselines": [0.0]}}, "baselines.*1.*2"),
        ({"algorithm": "LayerGradCam", "layer": "cnv"}, "conv"),
        (
            {"algorithm": "LayerGradCam", "layer": "last"},
            r"\(3, 1\)|\(3, 4\)|n c h w",
        ),
        ({"algorithm": "Saliency", "max_batch": 0}, "max_batch.*0"),
        ({"algorithm": "Lime", "cells": 3, "seeds": None}, "Lime.*seeds"),
        ({"algorithm": "GradientShap", "attribute": {"baselines": 0.0, "n_samples": 0}}, "n_samples.*0"),
    ],
)
def test_settings_that_do_not_fit_the_images_are_refused(settings, said):
    images, targets, seeds = inputs()
    with pytest.raises(ValueError, match=said):
        captum.attribute(drawn_network(Plain), images, targets, **{"seeds": seeds} | settings)


class Functional(Plain):
    def forward(self, images):
        return self.last(self.pool(torch.relu(self.conv(images))).flatten(1))


class Reused(Plain):
    def forward(self, images):
        return self.last(self.relu(self.pool(self.relu(self.conv(images)))).flatten(1))


class Normalised(Plain):
    def __init__(self):
        super().__init__()
        self.normalise = nn.Identity()

    def forward(self, images):
        return super().forward(self.normalise(images))


@pytest.mark.parametrize(
    "algorithm", ["DeepLift", "DeepLiftShap", "GuidedBackprop", "Deconvolution", "GuidedGradCam", "LRP"]
)
def test_functions_that_hooks_pass_over_are_refused(algorithm):
    with pytest.raises(ValueError, match=words(f"{algorithm} relu Functional")):
        explain(algorithm, Functional().double())


def test_activation_that_captum_does_not_know_is_refused():
    model = Plain().double()
    model.relu = nn.GELU()
    with pytest.raises(ValueError, match=words("gelu relu GELU")):
        explain("DeepLift", model)


def test_reused_module_is_refused():
    said = "DeepLift once relu"
    with pytest.raises(ValueError, match=words(said)):
        explain("DeepLift", Reused().double())


def test_module_without_a_rule_is_named():
    said = "LRP Identity rule normalise efface.methods.zennit.attribute"
    with pytest.raises(ValueError, match=words(said)):
        explain("LRP", Normalised().double())


def test_sum_that_captum_would_count_twice_is_refused(tiny):
    with pytest.raises(ValueError, match=words("LRP twice Tiny")):
        explain("LRP", tiny(seed=3).double())


def test_command_that_installs_captum_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ValueError, match=words("Captum pip install efface[captum]")):
        captum.check_attribute(algorithm="DeepLift")
