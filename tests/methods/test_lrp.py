"""Relevance propagation of efface's own on convolutional networks: zennit's numbers, conservation, refusals."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import _get_current_function_mode_stack
from zennit import composites, rules, types
from zennit.layer import Sum

from efface.methods.gradient import input_x_gradient
from efface.methods.lrp import check_lrp, lrp
from efface.methods.lrp.linear import Convolution, LinearMap
from efface.methods.zennit import explain
from efface.methods.zennit.rules import RuleSet
from efface.models.normalise import Normalise
from small.batches import images_and_classes, normal_numbers, uniform_images
from small.messages import words
from small.networks import seeded, state_of, with_drawn_norms

N = 3
NORMAL = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
EXACT = [(types.BatchNorm, rules.Epsilon(1e-12)), (Sum, rules.Norm(1e-12)), (types.AvgPool, rules.Norm(1e-12))]
"""Rules of zennit without the rounding that a stabiliser adds, and the epsilon rule for a BatchNorm on its own."""
SETS = {
    "epsilon_plus": "EpsilonPlus",
    "epsilon_plus_flat": "EpsilonPlusFlat",
    "epsilon_alpha2_beta1": "EpsilonAlpha2Beta1",
    "epsilon_alpha2_beta1_flat": "EpsilonAlpha2Beta1Flat",
    "epsilon_gamma_box": "EpsilonGammaBox",
}


class Residual(nn.Module):
    """As a ResNet: BatchNorm after each convolution, a sum in place, a shortcut with a stride."""

    def __init__(self):
        super().__init__()
        self.normalise = Normalise(*NORMAL)
        self.stem, self.norm = nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.inner, self.inner_norm = nn.Conv2d(5, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6)
        self.short, self.short_norm = nn.Conv2d(5, 6, 1, stride=2, bias=False), nn.BatchNorm2d(6)
        self.relu, self.pool = nn.ReLU(inplace=True), nn.MaxPool2d(2)
        self.fc = nn.Linear(6, 4)

    def forward(self, images):
        x = self.pool(self.relu(self.norm(self.stem(self.normalise(images)))))
        out = self.inner_norm(self.inner(x))
        out += self.short_norm(self.short(x))
        return self.fc(self.relu(out).mean((2, 3)))


class Dense(nn.Module):
    """As a DenseNet: channels side by side, a BatchNorm before a ReLU and before a convolution."""

    def __init__(self):
        super().__init__()
        self.normalise = Normalise(*NORMAL)
        self.stem, self.norm0 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.norm1, self.conv1 = nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3, padding=1)
        self.last, self.pool = nn.BatchNorm2d(6), nn.AvgPool2d(2)
        self.fc = nn.Linear(6 * 16, 4)

    def forward(self, images):
        x = torch.relu(self.norm0(self.stem(self.normalise(images))))
        new = self.conv2(torch.relu(self.norm2(self.conv1(torch.relu(self.norm1(x))))))
        x = self.pool(torch.relu(self.last(torch.cat([x, new], 1))))
        return self.fc(x.flatten(1))


def plain():
    """As VGG."""
    return nn.Sequential(
        *(Normalise(*NORMAL), nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Conv2d(6, 4, 3, padding=2, dilation=2, groups=2), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(64, 7), nn.ReLU(inplace=True), nn.Linear(7, 4)),
    )


FAMILIES = {"residual": Residual, "dense": Dense, "plain": plain}
every_family = pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)


def drawn(make, seed=0):
    return seeded(lambda: with_drawn_norms(make()), seed).double().eval()


def by_zennit(monkeypatch, composite, model, images, targets, **settings):
    """Relevance by zennit, with the same rules, from the logit on."""
    made = RuleSet(partial(composite, layer_map=EXACT), "auto", settings)
    monkeypatch.setattr(explain, "rule_set", lambda *_: made)
    start = model(images).gather(1, targets[:, None]).detach()
    return explain.attribute(model, images, targets) * start[:, :, None, None]


def close(found, expected, tolerance=1e-7):
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * expected.abs().max().item())


# Against zennit


@every_family
@pytest.mark.parametrize("name", SETS)
def test_sets_of_rules_have_zennits_numbers(make, name, monkeypatch):
    model, (images, targets) = drawn(make), images_and_classes(N)
    expected = by_zennit(monkeypatch, getattr(composites, SETS[name]), model, images, targets)
    close(lrp(model, images, targets, rules=name), expected)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"linear": "gamma", "gamma": 0.3}, rules.Gamma(0.3)),
        ({"linear": "alpha_beta", "alpha": 3.0}, rules.AlphaBeta(3.0, 2.0)),
        ({"linear": "z_plus"}, rules.ZPlus()),
        ({"linear": "epsilon", "epsilon": 0.2}, rules.Epsilon(0.2)),
    ],
    ids=["gamma", "alpha_beta", "z_plus", "epsilon"],
)
@pytest.mark.parametrize(
    ("first", "first_rule"),
    [(None, None), ("w_square", rules.WSquare()), ("flat", rules.Flat()), ("z_box", rules.ZBox(-4.0, 4.0))],
)
def test_rules_of_linear_layers_have_zennits_numbers_for_inputs_of_both_signs(settings, rule, first, first_rule):
    linear = [nn.Linear(48, 20), nn.Tanh(), nn.Linear(20, 10), nn.Tanh(), nn.Linear(10, 4)]
    model = seeded(lambda: nn.Sequential(nn.Flatten(), *linear), 0).double()
    images, targets = normal_numbers(N, 3, 4, 4, dtype=torch.float64), torch.arange(N)
    layer_map = [(nn.Tanh, rules.Pass()), (nn.Linear, rule)]
    composite = composites.LayerMapComposite(layer_map)
    if first_rule is not None:
        composite = composites.SpecialFirstLayerMapComposite(layer_map, first_map=[(nn.Linear, first_rule)])
    points = images.clone().requires_grad_()
    with composite.context(model) as ruled:
        scores = ruled(points).gather(1, targets[:, None])
        (relevance,) = torch.autograd.grad(scores.sum(), points)
    expected = relevance * scores.detach()[:, :, None, None]
    close(lrp(model, images, targets, first=first, low=-4.0, high=4.0, **settings), expected, 1e-11)


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.tanh = nn.Conv2d(3, 4, (5, 3), padding="same"), nn.Tanh()
        self.up = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1)
        self.norm, self.line = nn.BatchNorm2d(6), nn.Conv1d(6, 3, 2, dilation=3)
        self.fc = nn.Linear(3, 4)

    def forward(self, images):
        x = torch.relu(self.norm(self.up(self.tanh(self.first(images)))))
        return self.fc(torch.relu(self.line(x.flatten(2))).mean(2))


@pytest.mark.parametrize("name", ["epsilon_plus", "epsilon_alpha2_beta1", "epsilon_gamma_box"])
def test_convolutions_of_every_kind_have_zennits_numbers(name, monkeypatch):
    model, (images, targets) = drawn(Convolutions), images_and_classes(N)
    expected = by_zennit(monkeypatch, getattr(composites, SETS[name]), model, images, targets)
    close(lrp(model, images, targets, rules=name), expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(4, 6),
        lambda: nn.Conv2d(4, 6, 3, groups=2, bias=False),
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2),
    ],
)
def test_a_layer_is_merged_with_what_follows_it(make):
    module = seeded(make, 0).double()
    x = normal_numbers(2, 4, dtype=torch.float64) if isinstance(module, nn.Linear) else uniform_images(2, 5, channels=4)
    scale, shift = normal_numbers(2, 6, dtype=torch.float64)
    settings = None
    if not isinstance(module, nn.Linear):
        transposed = isinstance(module, nn.ConvTranspose2d)
        settings = Convolution(list(module.stride), [0, 0], [1, 1], transposed, [0, 0], 2)
    layer, axes = LinearMap(module.weight, module.bias, settings), (1, 6, *(1,) * (x.ndim - 2))
    expected = module(x) * scale.reshape(axes) + shift.reshape(axes)
    torch.testing.assert_close(layer.merged(scale, shift)(x), expected, rtol=1e-12, atol=1e-12)


# What must hold


@every_family
def test_with_epsilon_0_relevance_of_a_relu_network_is_input_times_gradient(make):
    model, (images, targets) = drawn(make), images_and_classes(N)
    model_of_normal = nn.Sequential(*list(model)[1:]) if isinstance(model, nn.Sequential) else model
    if model_of_normal is model:
        images, model.normalise = model.normalise(images), nn.Identity()
    else:
        images = model[0](images)
    expected = input_x_gradient(model_of_normal, images, targets)
    close(lrp(model_of_normal, images, targets, rules="epsilon", epsilon=0.0), expected, 1e-12)


@pytest.mark.parametrize("name", ["epsilon", "gamma", "epsilon_plus", "epsilon_plus_flat", "epsilon_gamma_box"])
def test_without_biases_the_map_sums_to_the_logit(name):
    model, (images, targets) = drawn(Residual), images_and_classes(N)
    for module in model.modules():
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
    maps = lrp(model, images, targets, rules=name)
    scores = model(images).gather(1, targets[:, None]).squeeze(1).detach()
    torch.testing.assert_close(maps.sum((1, 2, 3)), scores, rtol=1e-3, atol=0)


@every_family
def test_a_batch_has_the_maps_of_its_images_in_any_blocks(make):
    model, (images, targets) = drawn(make), images_and_classes(5)
    together = lrp(model, images, targets, rules="epsilon_gamma_box")
    close(lrp(model, images, targets, rules="epsilon_gamma_box", max_batch=2), together, 1e-12)
    alone = [lrp(model, images[[i]], targets[[i]], rules="epsilon_gamma_box") for i in range(5)]
    close(torch.cat(alone), together, 1e-12)


def test_weights_of_classes_give_the_weighted_sum_of_the_maps():
    model, images = drawn(Residual), uniform_images(N)
    weights = normal_numbers(N, 4, dtype=torch.float64)
    each = torch.stack([lrp(model, images, torch.full((N,), k)) for k in range(4)], 1)
    close(lrp(model, images, weights), (weights[:, :, None, None, None] * each).sum(1), 1e-12)


def test_relevance_of_a_score_starts_at_the_logits_times_its_gradient():
    model, (images, targets) = drawn(plain), images_and_classes(N)
    logits = model(images).detach().requires_grad_()
    probability = logits.softmax(1).gather(1, targets[:, None])
    (slopes,) = torch.autograd.grad(probability.sum(), logits)
    close(lrp(model, images, targets, score="probability"), lrp(model, images, slopes), 1e-12)


class Functional(Residual):
    """The same network in other words of torch: functions, keywords, operators, nothing in place."""

    def forward(self, images):
        x = (images - self.normalise.mean).div(self.normalise.std)
        norm = self.norm
        x = F.conv2d(x, bias=None, padding=(1, 1), weight=self.stem.weight)
        x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        x = F.max_pool2d(x.clamp(min=0), 2)
        out = torch.add(self.inner_norm(self.inner(x)), self.short_norm(self.short(x)))
        pooled = F.adaptive_avg_pool2d(F.relu(input=out), 1)[:, :, 0, 0]
        return torch.addmm(self.fc.bias, pooled, self.fc.weight.T)


@pytest.mark.parametrize("settings", [{}, {"linear": "gamma", "conv": "alpha_beta"}, {"rules": "epsilon_plus_flat"}])
def test_modules_and_functions_have_the_same_maps(settings):
    model, other, (images, targets) = drawn(Residual), drawn(Functional), images_and_classes(N)
    close(lrp(other, images, targets, **settings), lrp(model, images, targets, **settings), 1e-12)


def test_a_linear_map_has_the_same_map_as_layer_and_as_product():
    class Products(nn.Module):
        def __init__(self, way):
            super().__init__()
            self.first, self.last, self.way = nn.Linear(192, 5, bias=False), nn.Linear(5, 4, bias=False), way

        def forward(self, images):
            x, weight = images.flatten(1), self.first.weight
            match self.way:
                case "left":
                    x = (weight @ x.T).T
                case "right":
                    x = torch.mm(x, weight.T)
                case "layer":
                    x = self.first(x)
            return self.last(x.relu())

    images, targets = images_and_classes(N)
    maps = [lrp(drawn(partial(Products, way)), images, targets, linear="gamma") for way in ("left", "right", "layer")]
    close(maps[0], maps[2], 1e-12)
    close(maps[1], maps[2], 1e-12)


class Gated(nn.Module):
    """Squeeze and excitation: a gate multiplies the features."""

    def __init__(self, gated):
        super().__init__()
        self.stem, self.squeeze, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.Linear(4, 4)
        self.gated = gated

    def forward(self, images):
        x = F.silu(self.stem(images))
        gate = torch.sigmoid(self.squeeze(x.mean((2, 3))))
        gate = self.given if self.gated is None else gate
        return self.fc((x * gate[:, :, None, None]).mean((2, 3)))


def test_a_gate_counts_as_a_weight():
    model, (images, targets) = drawn(partial(Gated, True)), images_and_classes(N)
    features = F.silu(model.stem(images))
    model.given = torch.sigmoid(model.squeeze(features.mean((2, 3)))).detach()
    found = lrp(model, images, targets)
    model.gated = None
    close(found, lrp(model, images, targets), 1e-12)


# What is refused


class Odd(nn.Module):
    def __init__(self, odd):
        super().__init__()
        self.stem, self.odd, self.fc = nn.Conv2d(3, 4, 3), odd, nn.Linear(4, 4)

    def forward(self, images):
        return self.fc(self.odd(self.stem(images)).mean((2, 3)))


class Operation(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (torch.exp, "Exp"),
        (lambda x: x.cumprod(1), "Cumprod"),
        (lambda x: torch.softmax(x, 1), "softmax weights"),
        (lambda x: 1 / (2 + x), "Reciprocal"),
        (lambda x: torch.lerp(x, x.flip(1), x.sin()), "Lerp"),
    ],
)
def test_an_operation_without_a_rule_is_refused_with_its_module(function, named):
    model, (images, targets) = drawn(lambda: Odd(Operation(function))), images_and_classes(N)
    with pytest.raises(ValueError, match=words(f"'odd' (Operation) {named} lrp rule")):
        lrp(model, images, targets)


def test_a_function_with_a_backward_pass_of_its_own_is_refused():
    model, (images, targets) = drawn(lambda: Odd(Operation(Doubled.apply))), images_and_classes(N)
    with pytest.raises(ValueError, match=words("lrp: Odd Doubled rule")):
        lrp(model, images, targets)


def test_an_operation_that_takes_no_relevance_may_be_any():
    function = lambda x: x / (1 + x.exp().sum(1, keepdim=True))  # noqa: E731  the divisor takes none
    model, (images, targets) = drawn(lambda: Odd(Operation(function))), images_and_classes(N)
    assert lrp(model, images, targets).abs().sum() > 0


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_linear_map_that_its_rule_does_not_reach_is_refused(kind):
    weight = normal_numbers(4, 4, dtype=torch.float64)
    odd = Operation(lambda x: torch.einsum("nchw,dc->ndhw", x, weight))
    model, (images, targets) = drawn(lambda: Odd(odd)), images_and_classes(N)
    with pytest.raises(ValueError, match=words("'odd' (Operation) Bmm")):
        lrp(model, images, targets, **{kind: "gamma"})
    assert lrp(model, images, targets, rules="epsilon", epsilon=0.0).isfinite().all()


def test_a_batchnorm_that_looks_at_the_batch_is_refused():
    model, (images, targets) = Odd(nn.BatchNorm2d(4, track_running_stats=False)).double(), images_and_classes(N)
    with pytest.raises(ValueError, match=words("BatchNorm batch running")):
        lrp(model, images, targets)


def test_a_rule_for_the_first_layer_needs_a_layer_that_reads_the_image():
    class Late(Odd):
        def forward(self, images):
            return super().forward(F.avg_pool2d(images, 2))

    model, (images, targets) = drawn(lambda: Late(nn.ReLU())), images_and_classes(N)
    with pytest.raises(ValueError, match=words("flat first layer image")):
        lrp(model, images, targets, rules="epsilon_plus_flat")
    assert lrp(model, images, targets).shape == images.shape


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"rules": "epsilon_pluss"}, "epsilon_pluss epsilon_plus"),
        ({"conv": "flat"}, "conv 'flat' first"),
        ({"linear": "w_squared"}, "linear 'w_squared' gamma"),
        ({"first": "box"}, "first 'box' z_box"),
        ({"gamma": -1.0}, "gamma -1 0"),
        ({"epsilon": float("nan")}, "epsilon nan"),
        ({"alpha": 0.5}, "alpha 0.5 1"),
        ({"low": 1.0}, "low high"),
    ],
)
def test_wrong_settings_are_named(settings, named):
    with pytest.raises(ValueError, match=words(named)):
        check_lrp(**settings)


# What is left behind


@pytest.mark.parametrize("fails", [False, True])
def test_network_and_torch_are_as_before(fails):
    model, (images, targets) = drawn(Residual).train(), images_and_classes(N)
    model.inner.eval()
    if fails:
        model.fc.register_forward_hook(lambda *_: 1 / 0)
    before, stack = state_of(model, images), len(_get_current_function_mode_stack())
    try:
        lrp(model, images, targets, rules="epsilon_plus_flat")
        assert not fails
    except ZeroDivisionError:
        assert fails
    assert state_of(model, images) == before
    assert len(_get_current_function_mode_stack()) == stack
