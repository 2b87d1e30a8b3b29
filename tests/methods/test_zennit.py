"""zennit through the adapter: LRP by hand on small networks, relevance conserved on ours, zennit called directly."""

import sys

import pytest
import torch
from captum import attr
from torch import nn
from torchvision import models
from zennit.attribution import Gradient
from zennit.composites import EpsilonAlpha2Beta1, EpsilonPlusFlat
from zennit.torchvision import ResNetCanonizer

from efface.methods import gradient, zennit
from efface.models.normalise import Normalise
from efface.models.preact import preact_resnet
from efface.models.resnet import resnet8, resnet8_wide, resnet20
from small.batches import images_and_classes
from small.messages import words
from small.networks import state_of
from small.tiers import first_short

N = 3
NORMAL = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
TIGHT = {"epsilon": 1e-12, "stabilizer": 1e-12}


def drawn(network):
    """Weights and BatchNorm statistics from a seed, in float64."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 3.0),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.2, 0.2),
            ):
                tensor.uniform_(low, high, generator=generator)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, generator=generator)
    return network.double().eval()


def dense(layer, shape):
    """A layer's matrix and offset on flattened features of that shape."""
    with torch.no_grad():
        zero = layer(torch.zeros(1, *shape, dtype=torch.float64)).flatten()
        units = torch.eye(shape.numel(), dtype=torch.float64).reshape(-1, *shape)
        return layer(units).flatten(1) - zero, zero


def epsilon_rule(x, weight, bias, relevance, epsilon):
    z = x @ weight + bias
    return x * ((relevance / (z + epsilon * z.sign())) @ weight.T)


def plus_rule(x, weight, bias, relevance, epsilon):
    up, down = weight.clamp(min=0), weight.clamp(max=0)
    z = x.clamp(min=0) @ up + x.clamp(max=0) @ down + bias.clamp(min=0)
    share = relevance / (z + epsilon)
    return x.clamp(min=0) * (share @ up.T) + x.clamp(max=0) * (share @ down.T)


# By hand


@pytest.mark.parametrize("epsilon", [1e-6, 0.25])
def test_epsilon_rule_of_linear_layers_by_hand(epsilon):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(192, 7), nn.ReLU(), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 4)
    ).double()
    images, targets = images_and_classes(N)
    activations = [images.flatten(1)]
    layers = [model[1], model[3], model[5]]
    for layer in layers[:-1]:
        activations.append(layer(activations[-1]).relu())
    relevance = nn.functional.one_hot(targets, 4).double()
    for layer, x in zip(layers[::-1], activations[::-1], strict=True):
        relevance = epsilon_rule(x, layer.weight.T, layer.bias, relevance, epsilon)
    found = zennit.attribute(model, images, targets, settings={"epsilon": epsilon})
    torch.testing.assert_close(found.flatten(1), relevance.detach(), rtol=1e-10, atol=1e-14)


class Block(nn.Module):
    """A residual block between a normalisation and an average, both functions or both modules."""

    def __init__(self, functional):
        super().__init__()
        self.normalise = Normalise(**NORMAL)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.inner = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.last = nn.Linear(4, 4)
        self.functional = functional

    def forward(self, images):
        if self.functional:
            x = (images - self.normalise.mean) / self.normalise.std
            x = torch.relu(self.stem(x))
            out = self.norm(self.inner(x))
            out += x
            return self.last(torch.relu(out).mean((2, 3)))
        x = self.relu1(self.stem(self.normalise(images)))
        return self.last(self.pool(self.relu2(self.norm(self.inner(x)) + x)).flatten(1))


@pytest.mark.parametrize("functional", [False, True])
def test_residual_network_by_hand(functional):
    model, (images, targets) = drawn(Block(functional)), images_and_classes(N, 4)
    normal = model.normalise(images)
    stem = model.stem(normal)
    x = stem.relu()
    inner = model.norm(model.inner(x))
    top = (inner + x).relu()
    weight, bias = dense(lambda each: model.norm(model.inner(each)), x.shape[1:])
    first, offset = dense(model.stem, images.shape[1:])
    mean = top.mean((2, 3))

    relevance = nn.functional.one_hot(targets, 4).double()
    relevance = epsilon_rule(mean, model.last.weight.T, model.last.bias, relevance, 1e-6)
    relevance = top * (relevance / (mean + 1e-6))[:, :, None, None] / 16  # the average: by share in it
    total = inner + x
    share = relevance / (total + 1e-6 * total.sign())
    branch = plus_rule(x.flatten(1), weight, bias, (share * inner).flatten(1), 1e-6)
    relevance = (share * x).flatten(1) + branch
    relevance = plus_rule(normal.flatten(1), first, offset, relevance, 1e-6)
    found = zennit.attribute(model, images, targets)
    torch.testing.assert_close(found.flatten(1), relevance.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("low", [0.0, [0.1, 0.0, 0.2]])
def test_box_rule_has_the_pixels_bounds_behind_the_normalisation(low):
    torch.manual_seed(0)
    model = nn.Sequential(Normalise(**NORMAL), nn.Conv2d(3, 4, 8), nn.Flatten()).double()
    images, targets = images_and_classes(N)
    least = torch.tensor(low, dtype=torch.float64).reshape(1, -1, 1, 1).expand(1, 3, 8, 8)
    normal, least, most = (model[0](each) for each in (images, least, torch.full_like(images, 0.9)))
    weight = model[1].weight.detach()[targets]
    bias = model[1].bias.detach()[targets]
    parts = normal * weight - least * weight.clamp(min=0) - most * weight.clamp(max=0)
    # zennit leaves the bias's parts in the three terms: its own, less its positive, less its negative part are nought
    expected = parts / parts.sum((1, 2, 3), keepdim=True)
    found = zennit.attribute(
        model, images, targets, composite="EpsilonGammaBox", settings={"low": low, "high": 0.9, "stabilizer": 1e-12}
    )
    assert bias.abs().min() > 0
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)


# Conserved


NETWORKS = {
    "resnet8": lambda: resnet8(num_classes=4, **NORMAL),
    "resnet20": lambda: resnet20(num_classes=4, **NORMAL),
    "resnet8_wide": lambda: resnet8_wide(num_classes=4),
}
PUBLISHED = {  # the families, small
    "bottlenecks": lambda: models.resnet.ResNet(models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=4),
    "densenet": lambda: models.DenseNet(4, (2, 2), 8, num_classes=4),
    "squeezenet": lambda: models.squeezenet1_1(num_classes=4),
}


@pytest.mark.parametrize("network", first_short(2, NETWORKS))
@pytest.mark.parametrize(
    "composite",
    ["EpsilonPlus", "EpsilonAlpha2Beta1", "EpsilonPlusFlat", "EpsilonAlpha2Beta1Flat", "ExcitationBackprop"],
)
def test_relevance_is_conserved_on_our_networks(network, composite):
    model, (images, targets) = drawn(NETWORKS[network]()), images_and_classes(2)
    settings = {"zero_params": "bias"} | ({"stabilizer": 1e-12} if composite == "ExcitationBackprop" else TIGHT)
    for start in (targets, torch.tensor([[1.0, -0.5, 0.0, 0.25], [0.0, 2.0, 1.0, 0.0]], dtype=torch.float64)):
        maps = zennit.attribute(model, images, start, composite=composite, settings=settings)
        expected = start.sum(1) if start.is_floating_point() else torch.ones(2, dtype=torch.float64)
        torch.testing.assert_close(maps.sum((1, 2, 3)), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", first_short(1, PUBLISHED))
def test_relevance_is_conserved_on_torchvisions_networks(name):
    model, (images, _) = drawn(PUBLISHED[name]()), images_and_classes(1, 32)
    best = model(images).argmax(1)  # SqueezeNet rectifies its logits: one of 0 has nothing to pass on
    maps = zennit.attribute(model, images, best, settings={"zero_params": "bias"} | TIGHT)
    torch.testing.assert_close(maps.sum((1, 2, 3)), torch.ones(1, dtype=torch.float64), rtol=1e-4, atol=1e-4)


def test_relevance_is_conserved_where_batchnorms_stand_before_the_layers():
    """Wide, for a unit that no positive value reaches has nothing to pass on, whatever its BatchNorm adds."""
    model, (images, targets) = (
        drawn(preact_resnet(blocks=[2, 1], widths=[32, 40], num_classes=4, **NORMAL)),
        images_and_classes(N),
    )
    maps = zennit.attribute(model, images, targets, settings={"zero_params": "bias"} | TIGHT)
    torch.testing.assert_close(maps.sum((1, 2, 3)), torch.ones(N, dtype=torch.float64), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=words("layer1.0.bn1 BatchNorm2d ExcitationBackprop")):
        zennit.attribute(model, images, targets, composite="ExcitationBackprop")


# zennit itself


def test_maps_are_zennits_where_it_needs_no_help():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 4, 2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()
    ).double()
    images, targets = images_and_classes(N)
    start = nn.functional.one_hot(targets, 4).double()
    for made in (EpsilonAlpha2Beta1(), EpsilonPlusFlat()):
        with Gradient(model, made) as attributor:
            _, expected = attributor(images.clone(), start)
        for canonizer in ("auto", None):
            found = zennit.attribute(model, images, targets, composite=type(made).__name__, canonizer=canonizer)
            torch.testing.assert_close(found, expected)


def test_zennits_canonizer_gives_what_ours_gives():
    model, (images, targets) = (
        drawn(models.resnet.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=4)),
        images_and_classes(1),
    )
    start = nn.functional.one_hot(targets, 4).double()
    with Gradient(model, EpsilonAlpha2Beta1(canonizers=[ResNetCanonizer()])) as attributor:
        _, expected = attributor(images.clone(), start)
    for canonizer in ("auto", "ResNetCanonizer"):
        found = zennit.attribute(model, images, targets, composite="EpsilonAlpha2Beta1", canonizer=canonizer)
        error = (found - expected).abs().max() / expected.abs().max()
        assert error < 1e-3  # zennit leaves BatchNorm's eps of 1e-5 behind in each layer
        assert canonizer == "auto" or error < 1e-9


@pytest.mark.parametrize(
    ("composite", "oracle"), [("GuidedBackprop", "GuidedBackprop"), ("DeconvNet", "Deconvolution")]
)
@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
def test_changed_gradients_are_captums_in_the_images_own_units(composite, oracle):
    model, (images, targets) = drawn(resnet8(num_classes=4, **NORMAL)), images_and_classes(N)
    expected = getattr(attr, oracle)(model).attribute(images.clone().requires_grad_(), target=targets).detach()
    for canonizer in ("auto", None):
        found = zennit.attribute(model, images, targets, composite=composite, canonizer=canonizer)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


def test_smooth_relu_of_large_beta_is_the_gradient():
    model, (images, targets) = drawn(Block(functional=False)), images_and_classes(N)
    found = zennit.attribute(model, images, targets, composite="BetaSmooth", settings={"beta_smooth": 1e9})
    torch.testing.assert_close(found, gradient.gradient(model, images, targets))


# What holds for every method


@pytest.mark.parametrize("composite", ["EpsilonPlus", "EpsilonGammaBox", "GuidedBackprop"])
def test_budget_batch_and_weights(tiny, composite):
    model, (images, targets), passed = tiny(seed=3).double(), images_and_classes(N), []
    whole = zennit.attribute(model, images, targets, composite=composite)
    assert whole.shape == images.shape
    model.register_forward_hook(lambda module, arguments, output: passed.append(len(output)))
    for max_batch in (1, 2):
        found = zennit.attribute(model, images, targets, composite=composite, max_batch=max_batch)
        torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-12)
    assert max(passed) == 2
    single = zennit.attribute(model, images[1:2], targets[1:2], composite=composite)
    torch.testing.assert_close(single, whole[1:2], rtol=1e-9, atol=1e-12)
    weights = nn.functional.one_hot(targets, 4).double()
    other = zennit.attribute(model, images, (targets + 1) % 4, composite=composite)
    if composite != "GuidedBackprop":  # whose rule depends on the sign of what comes back
        found = zennit.attribute(model, images, weights - 0.5 * weights.roll(1, 1), composite=composite)
        torch.testing.assert_close(found, whole - 0.5 * other)
    with torch.inference_mode():
        torch.testing.assert_close(zennit.attribute(model, images, targets, composite=composite), whole)


@pytest.mark.parametrize("canonizer", ["auto", "ResNetCanonizer", "SequentialMergeBatchNorm", None])
@pytest.mark.parametrize("calls", first_short(2, [99, 1, 0, 2, 3]))
def test_nothing_is_left_behind_also_after_an_exception(canonizer, calls):
    model, (images, targets), passed = drawn(resnet8(num_classes=4)).train(), images_and_classes(N), []

    def fail(module, arguments):
        passed.append(module)
        if len(passed) > calls:
            raise RuntimeError("out of memory")

    model.linear.bias.requires_grad_(False)
    images.requires_grad_()
    model.layer3.register_forward_pre_hook(fail)
    before = state_of(model)
    try:
        zennit.attribute(model, images, targets, canonizer=canonizer, max_batch=2)
    except RuntimeError as error:
        assert str(error) == "out of memory"  # noqa: PT017  some canonizers make fewer passes
    else:
        assert calls >= 3
    assert state_of(model) == before
    assert images.grad is None


def test_broken_canonizer_leaves_nothing_behind():
    model = drawn(resnet8(num_classes=4))
    model.layer3[0].bn2.weight = None  # zennit merges those before it, and fails
    before = state_of(model)
    with pytest.raises(AttributeError):
        zennit.attribute(model, *images_and_classes(N), canonizer="SequentialMergeBatchNorm")
    assert state_of(model) == before
    assert zennit.attribute(model, *images_and_classes(N)).isfinite().all()  # ours leaves it to its rule


class Places(nn.Module):
    """Linear layers on the last axis, n h w c or n t c; of tokens with a BatchNorm, which is of the 16 tokens."""

    def __init__(self, axes, width):
        super().__init__()
        self.axes, self.patches, self.head = axes, nn.Conv2d(3, 4, 2, 2), nn.Linear(3, 4)
        self.wide, self.narrow, self.act = nn.Linear(4, width), nn.Linear(width, 3), nn.ReLU()
        self.norm = nn.BatchNorm1d(16, eps=0.0) if axes == "n t c" else nn.Identity()

    def forward(self, images):
        x = self.patches(images)
        x = x.movedim(1, 3) if self.axes == "n h w c" else x.flatten(2).mT
        x = self.narrow(self.act(self.norm(self.wide(x))))
        return self.head(x.mean([*range(1, x.ndim - 1)]))


@pytest.mark.parametrize("width", [6, 16])
@pytest.mark.parametrize("axes", ["n h w c", "n t c"])
def test_relevance_is_conserved_in_linear_layers_on_the_last_axis(axes, width):
    model, (images, targets) = drawn(Places(axes, width)), images_and_classes(N)
    maps = zennit.attribute(model, images, targets, settings={"zero_params": "bias"} | TIGHT)
    torch.testing.assert_close(maps.flatten(1).sum(1), torch.ones(N, dtype=maps.dtype))
    model.norm = nn.Identity()
    torch.testing.assert_close(
        zennit.attribute(model, images, targets, settings={"zero_params": "bias"} | TIGHT), maps, rtol=1e-6, atol=1e-9
    )


# Refusals


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"composite": "EpsilonPluss"}, "zennit EpsilonPluss EpsilonPlus"),
        ({"canonizer": "Resnet"}, "zennit Resnet ResNetCanonizer"),
        ({"settings": {"epsilom": 1}}, "settings EpsilonPlus epsilom"),
        ({"settings": {"canonizers": []}}, "settings EpsilonPlus canonizers"),
    ],
)
def test_settings_that_cannot_be_right_are_refused_before_any_image(settings, said):
    with pytest.raises(ValueError, match=words(said)):
        zennit.check_attribute(**settings)
    with pytest.raises(ValueError, match=words(said)):
        zennit.attribute(nn.Identity(), *images_and_classes(N), **settings)


class Gated(nn.Module):
    """Squeeze and excitation: features times features."""

    def __init__(self):
        super().__init__()
        self.conv, self.gate, self.last = nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Linear(4, 4)

    def forward(self, images):
        x = self.conv(images)
        return self.last((x * self.gate(x)).mean((2, 3)))


class Backwards(nn.Module):
    """Its first layer is the last that was registered."""

    def __init__(self):
        super().__init__()
        self.last, self.conv = nn.Linear(4, 4), nn.Conv2d(3, 4, 8)

    def forward(self, images):
        return self.last(self.conv(images).flatten(1))


class Shared(nn.Module):
    """A convolution whose answer goes another way, too, besides through BatchNorm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images):
        x = self.conv(images)
        return (self.norm(x) + x).mean((2, 3))


def functional():
    return Block(functional=True)


@pytest.mark.parametrize(
    ("network", "settings", "said"),
    [
        (Gated, {}, "Gated EpsilonPlus"),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 4, 8), nn.GroupNorm(2, 4), nn.Flatten()),
            {},
            "1 GroupNorm EpsilonPlus",
        ),
        (lambda: nn.Sequential(nn.Flatten(), nn.Softmax(1)), {}, "Sequential convolution linear"),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 4, 8), nn.Softmax(1), nn.Flatten()),
            {},
            "1 Softmax EpsilonPlus",
        ),
        (
            Backwards,
            {"composite": "EpsilonPlusFlat"},
            "last Linear conv Conv2d",
        ),
        (Shared, {}, "canonizer auto Shared logits"),
        (
            functional,
            {"composite": "GuidedBackprop"},
            "Block relu GuidedBackprop",
        ),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 4, 8), nn.GELU(), nn.Flatten()),
            {"composite": "GuidedBackprop"},
            "nn.ReLU Sequential GuidedBackprop",
        ),
        (
            lambda: resnet8(num_classes=4),
            {"composite": "EpsilonGammaBox", "settings": {"low": [0.0, 0.0]}},
            "settings low 2 3",
        ),
        (lambda: resnet8(num_classes=4), {"max_batch": 0}, "max_batch 0"),
    ],
)
def test_network_without_rules_is_refused(network, settings, said):
    model = drawn(network())
    before = state_of(model)
    with pytest.raises(ValueError, match=words(said)):
        zennit.attribute(model, *images_and_classes(N), **settings)
    assert state_of(model) == before


def test_command_that_installs_zennit_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "zennit", None)
    with pytest.raises(ValueError, match=words("zennit pip install efface[zennit]")):
        zennit.check_attribute()
