"""Patterns: estimates against brute force, the way back unrolled by hand, and the papers' synthetic experiments."""

import copy
import itertools
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from efface.base import draws
from efface.base.types import Split
from efface.methods.backprop import guided_backprop
from efface.methods.cam import grad_cam
from efface.methods.gradient import gradient, input_x_gradient
from efface.methods.path import ExpectedGradients, integrated_gradients
from efface.methods.pattern import PatternAttribution, PatternGuided, PatternGuidedIG, PatternNet
from efface.methods.pattern.fit import Estimate, estimate_patterns
from efface.methods.pattern.network import folded_with_layers
from efface.methods.smooth import smooth_grad, smooth_grad_family
from efface.models import resnet
from efface.models.preact import preact_resnet
from small.batches import images_and_classes, noise_split
from small.messages import words
from small.networks import state_of

ESTIMATORS = ("two_component", "positive", "linear")
METHODS = {
    "net": PatternNet,
    "attribution": PatternAttribution,
    "guided_ig": partial(PatternGuidedIG, steps=3),
    "guided": PatternGuided,
    "guided_backprop": partial(PatternGuided, method=guided_backprop),
    "smooth_grad": partial(PatternGuided, method=partial(smooth_grad, samples=3)),
    "on_pattern_net": partial(PatternGuided, back="pattern_net"),
}
WITHIN = {
    "expected_gradients": partial(PatternGuided, method=partial(ExpectedGradients, samples=3, steps=2)),
    "expected_gradients_on_pattern_net": partial(PatternGuided, method=ExpectedGradients, back="pattern_net"),
}
"""Those whose method learns, too."""
CHECKED = "Type-check error"  # a wrong word is refused by the signature already, where that is checked
every_method = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
every_learner = pytest.mark.parametrize("make", (METHODS | WITHIN).values(), ids=METHODS | WITHIN)


class Net(nn.Module):
    """Convolutions of every kind, BatchNorm, a ReLU in place and others as told, pooling, a sum."""

    def __init__(self, rectify=F.relu):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(6), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(6, 6, 3, padding="same", dilation=2, groups=2, padding_mode="reflect")
        self.conv3 = nn.Conv2d(6, 4, (2, 1), padding=(1, 0))
        self.side = nn.Conv2d(6, 4, 1)
        self.hidden, self.head = nn.Linear(4, 5), nn.Linear(5, 4)
        self.rectify = rectify

    def forward(self, images):
        x = self.relu(self.bn1(self.conv1(images - 0.4)))
        x = self.rectify(self.conv2(x))
        x = F.max_pool2d(self.conv3(x), (2, 1), 1) + self.side(x)
        return self.head(F.dropout(self.rectify(self.hidden(self.relu(x).mean((2, 3)))), 0.5, self.training))


RECTIFIED = {"conv1": True, "conv2": True, "conv3": False, "side": False, "hidden": True, "head": False}


def drawn(model, seed=0):
    """Weights and BatchNorm statistics from the seed."""
    torch.manual_seed(seed)
    for each in model.modules():
        if isinstance(each, (nn.Conv2d, nn.Linear)):
            each.reset_parameters()
        if isinstance(each, nn.BatchNorm2d) and each.track_running_stats:
            nn.init.uniform_(each.running_mean, -0.2, 0.2)
            nn.init.uniform_(each.running_var, 0.5, 1.5)
            nn.init.uniform_(each.weight, 0.5, 1.5)
            nn.init.uniform_(each.bias, -0.5, 0.5)
    return model.double()


def net(rectify=F.relu):
    return drawn(Net(rectify))


def fitted(make, model, **settings):
    method = make(pool=20, places=4, **settings)
    method.fit(model, noise_split(40, seed=2), seed=0, max_batch=8)
    return method


def explain(method, model, images, targets, **settings):
    seeds = {"seeds": draws.seeds_of("test", torch.arange(len(images)))} if isinstance(method, PatternGuided) else {}
    return method(model, images, targets, **seeds, **settings)


def scaled(maps):
    return maps / maps.abs().amax((1, 2, 3), keepdim=True)


# Estimates


def brute_force(weight, x, y, estimator):
    """One unit: samples x inputs, its responses."""
    counts = np.full(len(y), True) if estimator == "linear" else y > 0
    if not counts.any():
        return np.zeros_like(weight)
    level = y[counts].mean() if estimator == "positive" else y.mean()
    found = (x[counts] * y[counts, None]).mean(0) - x[counts].mean(0) * level
    return found / (weight * found).sum()


def samples_of(layer, x):
    """What each place of the layer's output sees, unit by unit: a list of (samples, inputs)."""
    if isinstance(layer, nn.Linear):
        return [x.numpy()] * layer.out_features
    if layer.padding == "same":
        border = [side for axis in (1, 0) for side in [layer.dilation[axis] * (layer.kernel_size[axis] - 1) // 2] * 2]
    else:
        border = [side for axis in (1, 0) for side in [layer.padding[axis]] * 2]
    x = F.pad(x, border, layer.padding_mode.replace("zeros", "constant"))
    per_group = layer.out_channels // layer.groups
    found = []
    for part in x.chunk(layer.groups, 1):
        patches = F.unfold(part, layer.kernel_size, layer.dilation, 0, layer.stride)
        found += [patches.transpose(1, 2).flatten(0, 1).numpy()] * per_group
    return found


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("rectify", [F.relu, torch.relu_, nn.ReLU()], ids=["function", "in place", "module"])
def test_patterns_equal_brute_force_on_patches(estimator, rectify):
    model, (images, _) = net(rectify), images_and_classes(7, 9)
    found = estimate(model, images, estimator)
    plain, _ = folded_with_layers(model.eval(), images)
    seen = {}
    for name in RECTIFIED:
        keep = lambda layer, inputs, output, name=name: seen.update({name: (inputs[0].clone(), output.clone())})  # noqa: E731
        plain.get_submodule(name).register_forward_hook(keep)
    with torch.no_grad():
        plain(images)
    assert list(found) == list(RECTIFIED)
    for name, (x, y) in seen.items():
        layer = plain.get_submodule(name)
        responses = y.transpose(0, 1).flatten(1).numpy()
        weights = layer.weight.detach().flatten(1).numpy()
        expected = [
            brute_force(weights[unit], samples, responses[unit], estimator if RECTIFIED[name] else "linear")
            for unit, samples in enumerate(samples_of(layer, x))
        ]
        np.testing.assert_allclose(found[name].flatten(1).numpy(), np.stack(expected), rtol=1e-8, err_msg=name)
        product, alive = (weights * found[name].flatten(1).numpy()).sum(1), np.any(expected, 1)
        np.testing.assert_allclose(product, alive.astype(float), atol=1e-9, err_msg=name)
        assert alive.sum() >= 2, name  # the others never answer


def estimate(model, images, estimator="two_component", places=10_000, max_batch=256):
    seeds = draws.seeds_of("test", torch.arange(len(images)))
    return estimate_patterns(
        model, lambda block: images[block], seeds, Estimate(estimator, 1, places), max_batch=max_batch
    )


@pytest.mark.parametrize("places", [10_000, 3])
def test_patterns_do_not_depend_on_the_row_budget(places):
    model, (images, _) = net(), images_and_classes(7, 9)
    whole = estimate(model, images, places=places)
    for max_batch in (1, 3):
        found = estimate(model, images, places=places, max_batch=max_batch)
        for name, pattern in whole.items():
            torch.testing.assert_close(found[name], pattern, rtol=1e-6, atol=1e-9)


def test_places_are_drawn_by_the_seed_of_the_image():
    model, (images, _) = net(), images_and_classes(7, 9)
    few, seeds = estimate(model, images, places=3), draws.seeds_of("other", torch.arange(7))
    other = estimate_patterns(model, lambda block: images[block], seeds, Estimate("two_component", 1, 3))
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    seeds = draws.seeds_of("test", order)
    shuffled = estimate_patterns(model, lambda block: images[order][block], seeds, Estimate("two_component", 1, 3))
    for name in ("conv1", "conv2", "hidden"):
        torch.testing.assert_close(few[name], shuffled[name])
        assert torch.allclose(few[name], other[name]) == (name == "hidden")  # a linear layer has one place


def test_small_pieces_change_nothing(monkeypatch):
    model, (images, _) = net(), images_and_classes(7, 9)
    whole = estimate(model, images)
    monkeypatch.setattr("efface.methods.pattern.fit.NUMBERS_AT_ONCE", 200)
    for name, pattern in estimate(model, images).items():
        torch.testing.assert_close(pattern, whole[name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_units_that_say_nothing_have_pattern_zero(dtype):
    """Never active; always the same; and one whose signal is orthogonal to its weights."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 0, 0], [0, 0, 1.0], [1.0, 1.0, 1.0], [1.0, 0, 0]]))
        model[1].bias.copy_(torch.tensor([-9.0, 0.3, 0.0, 0.0]))
    images = torch.rand(500, 3, 1, 1, dtype=dtype, generator=torch.Generator().manual_seed(0))
    images[:, 2] = 0.1
    images[:, 1] = 1 - images[:, 0] + 1e-5 * images[:, 1]  # the third unit answers the rest of this alone
    for estimator in ("linear", "positive"):
        first, _ = estimate(model.to(dtype), images, estimator).values()
        assert first[:3].eq(0).all() if estimator == "positive" else first[1:3].eq(0).all()
        assert first[3, 0] == pytest.approx(1.0)
        assert first[3, 1] == pytest.approx(-1.0, abs=1e-4)
    assert first.isfinite().all()


def test_module_that_runs_twice_has_one_pattern_from_both():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn, self.head = nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3), nn.Linear(3, 4)

        def forward(self, images):
            x = torch.relu(self.bn(self.conv(images)))
            return self.head(torch.relu(self.bn(self.conv(x))).mean((2, 3)))

    model, (images, _) = drawn(Twice()).eval(), images_and_classes()
    conv = fuse_conv_bn_eval(model.conv, model.bn)
    with torch.no_grad():
        x = torch.cat([images, torch.relu(conv(images))])
        weight, responses = conv.weight.flatten(1).numpy(), conv(x).transpose(0, 1).flatten(1).numpy()
    samples = x.transpose(0, 1).flatten(1).T.numpy()
    expected = [brute_force(weight[unit], samples, responses[unit], "two_component") for unit in range(3)]
    np.testing.assert_allclose(estimate(model, images)["conv"].flatten(1).numpy(), np.stack(expected), rtol=1e-8)


class Mixer(nn.Module):
    """Layers for each place: linear ones on the last axis (n h w c, n t c), or convolutions of 1 x 1 (n c h w)."""

    def __init__(self, axes):
        super().__init__()
        self.axes, self.patches, self.head = axes, nn.Conv2d(3, 4, 3, 3), nn.Linear(3, 4)
        self.wide, self.narrow = (nn.Conv2d(*io, 1) if axes == "n c h w" else nn.Linear(*io) for io in ((4, 6), (6, 3)))

    def forward(self, images):
        x = self.patches(images)
        x = x.movedim(1, 3) if self.axes == "n h w c" else x.flatten(2).mT if self.axes == "n t c" else x
        x = self.narrow(torch.relu(self.wide(x)))
        return self.head(x.mean((2, 3) if self.axes == "n c h w" else [*range(1, x.ndim - 1)]))


@pytest.mark.parametrize("places", [10_000, 3])
@pytest.mark.parametrize("axes", ["n h w c", "n t c"])
def test_linear_layers_on_the_last_axis_have_the_patterns_and_maps_of_convolutions(axes, places):
    images, targets = images_and_classes(5, 9)
    model, same = drawn(Mixer(axes)).double().eval(), Mixer("n c h w").double().eval()
    for name, value in same.named_parameters():
        value.data = model.get_parameter(name).data.view_as(value)
    found, expected = (estimate(each, images, places=places) for each in (model, same))
    for name, pattern in expected.items():
        torch.testing.assert_close(found[name], pattern.view_as(found[name]))
    for make in (PatternNet, PatternAttribution):
        maps = make()(model, images, targets, patterns=found)
        torch.testing.assert_close(maps, make()(same, images, targets, patterns=expected))


# The way back


def test_way_back_unrolled_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(5, 4),
    )  # fmt: skip
    model, (images, targets) = drawn(model).eval(), images_and_classes(4, 12)
    patterns = {name: torch.randn_like(model[int(name)].weight.detach()) for name in ("0", "3", "8")}
    with torch.no_grad():
        before1 = model[0](images)
        pooled, switches = F.max_pool2d(before1.relu(), 2, return_indices=True)
        before2 = model[3](pooled)
        logits = model(images)
    for make, attributes in ((PatternAttribution, True), (PatternNet, False)):
        away = {n: p * model[int(n)].weight.detach() if attributes else p for n, p in patterns.items()}
        back = logits.gather(1, targets[:, None]) * away["8"][targets]
        back = back[:, :, None, None] / before2[0, 0].numel() * (before2 > 0)
        back = torch.nn.grad.conv2d_input(pooled.shape, away["3"], back, stride=2)
        back = F.max_unpool2d(back, switches, 2, output_size=before1.shape[2:]) * (before1 > 0)
        back = torch.nn.grad.conv2d_input(images.shape, away["0"], back, padding=1)
        found = make()(model, images, targets, patterns=patterns)
        assert back.abs().max() > 0
        torch.testing.assert_close(found, back if attributes else scaled(back))


def unscaled():
    """A network some of whose BatchNorms follow no layer; a value's pattern there is 1 / weight, so they only shift."""
    model = drawn(preact_resnet(blocks=[2, 1], widths=[4, 6], num_classes=4))
    for name, each in model.named_modules():
        if name.endswith(("bn1", "bn")):
            each.weight.data = (each.running_var + each.eps).sqrt()
    return model


@pytest.mark.parametrize(
    "make",
    [net, partial(lambda: drawn(resnet.resnet8(num_classes=4))), unscaled],
    ids=["net", "resnet8", "preact"],
)
def test_patterns_that_undo_themselves_leave_the_gradient(make):
    """w * 1 is w; and w in place of a is w."""
    model, (images, targets) = make(), images_and_classes()
    plain, names = folded_with_layers(model, images)
    weights = {name: plain.get_submodule(name).weight.detach() for name in names}
    ones = {name: torch.ones_like(weight) for name, weight in weights.items()}
    expected = gradient(model, images, targets)
    with torch.no_grad():
        logits = model.eval()(images).gather(1, targets[:, None])[:, :, None, None]
    torch.testing.assert_close(PatternAttribution()(model, images, targets, patterns=ones), logits * expected)
    torch.testing.assert_close(PatternAttribution(start="one")(model, images, targets, patterns=ones), expected)
    torch.testing.assert_close(PatternNet(start="one")(model, images, targets, patterns=weights), scaled(expected))


def test_a_layer_before_a_batchnorm_that_stays_is_not_rectified():
    model, (images, targets) = drawn(preact_resnet(blocks=[2, 1], widths=[4, 6], num_classes=4)), images_and_classes()
    _, names = folded_with_layers(model, images)
    assert {"conv1", "layer1.1.conv1", "layer2.0.shortcut.0", "linear"} <= {*names}
    assert [name for name, rectified in names.items() if rectified] == [
        f"layer{block}.conv1" for block in ("1.0", "1.1", "2.0")
    ]
    found = PatternAttribution()(model, images, targets, patterns=estimate(model, images))
    assert found.isfinite().all()
    assert found.flatten(1).abs().sum(1).min() > 0


def test_starts():
    model, (images, _) = net(), images_and_classes()
    patterns = estimate(model, images)
    from_one = PatternAttribution(start="one")
    maps = torch.stack([from_one(model, images, torch.full((5,), k), patterns=patterns) for k in range(4)], 1)
    with torch.no_grad():
        logits = model.eval()(images)
    p, targets = logits.softmax(1), torch.arange(5) % 4
    own = F.one_hot(targets, 4).double()
    for start, seed in (
        ("one", own),
        ("logit", own * logits),
        ("softmax", (p * own).sum(1, keepdim=True) ** 2 * (own - p)),
    ):
        expected = torch.einsum("nk,nkchw->nchw", seed, maps)
        found = PatternAttribution(start=start)(model, images, targets, patterns=patterns)
        torch.testing.assert_close(found, expected)
    weights = torch.randn(5, 4, dtype=torch.float64)
    found = PatternAttribution()(model, images, weights, patterns=patterns)
    torch.testing.assert_close(found, torch.einsum("nk,nkchw->nchw", weights * logits, maps))


def test_batchnorm_folded_is_batchnorm_folded_by_torch():
    model, (images, targets) = net().eval(), images_and_classes()
    fused = copy.deepcopy(model)
    fused.conv1, fused.bn1 = fuse_conv_bn_eval(fused.conv1, fused.bn1), nn.Identity()
    found, expected = estimate(model, images), estimate(fused, images)
    for name, pattern in expected.items():
        torch.testing.assert_close(found[name], pattern)
    for make in (PatternNet, PatternAttribution):
        one, other = (make()(each, images, targets, patterns=found) for each in (model, fused))
        torch.testing.assert_close(one, other)


class Before(nn.Module):
    """BatchNorm ahead of the convolution, as in DenseNet."""

    def __init__(self):
        super().__init__()
        self.bn, self.conv, self.head = nn.BatchNorm2d(3), nn.Conv2d(3, 5, 3), nn.Linear(5, 4)

    def forward(self, images):
        return self.head(torch.relu(self.conv(torch.relu(self.bn(images)))).mean((2, 3)))


def test_batchnorm_by_itself_is_a_layer_of_one_input():
    """As the convolution of 1 x 1 that it equals, one group a channel, whose patterns are estimated."""
    model, (images, targets) = drawn(Before()).eval(), images_and_classes()
    with torch.no_grad():
        model.bn.weight[1] *= -1
        model.bn.weight[2] = 0
    same = copy.deepcopy(model)
    same.bn = fuse_conv_bn_eval(drawn(nn.Conv2d(3, 3, 1, groups=3, bias=False)).eval(), model.bn)
    with torch.no_grad():
        scale = model.bn.weight * (model.bn.running_var + model.bn.eps).rsqrt()
        same.bn.weight.copy_(scale[:, None, None, None])
        same.bn.bias.copy_(model.bn.bias - model.bn.running_mean * scale)
    own, others = estimate(model, images), estimate(same, images)
    assert list(own) == ["conv", "head"]
    for make in (PatternNet, PatternAttribution):
        found = make()(model, images, targets, patterns=own)
        torch.testing.assert_close(found, make()(same, images, targets, patterns=others))
        assert found[:, 2].eq(0).all()
        assert found[:, :2].abs().max() > 0


def test_pattern_guided_ig_is_the_attribution_along_the_line_times_the_way():
    model, (images, targets) = net(), images_and_classes()
    patterns = estimate(model, images)
    expected = torch.zeros_like(images)
    for alpha in (0.25, 0.5, 0.75, 1.0):
        point = 0.2 + alpha * (images - 0.2)
        expected += PatternAttribution()(model, point, targets, patterns=patterns) / 4
    method = PatternGuidedIG(steps=4, rule="right", baseline=0.2)
    torch.testing.assert_close(method(model, images, targets, patterns=patterns), (images - 0.2) * expected)


def test_any_gradient_method_runs_along_patterns():
    model, (images, targets) = net(), images_and_classes()
    patterns = estimate(model, images)
    along = PatternAttribution(start="one")

    def run(method, **settings):
        return PatternGuided(method=method, **settings)(
            model, images, targets, patterns=patterns, seeds=torch.arange(len(images)), max_batch=4
        )

    torch.testing.assert_close(run(gradient), along(model, images, targets, patterns=patterns))
    torch.testing.assert_close(run(input_x_gradient), images * along(model, images, targets, patterns=patterns))
    torch.testing.assert_close(
        run(integrated_gradients, start="logit"), PatternGuidedIG(steps=50)(model, images, targets, patterns=patterns)
    )
    torch.testing.assert_close(
        run(gradient, back="pattern_net"), PatternNet(start="one")(model, images, targets, patterns=patterns)
    )
    noise = 0.1 * torch.randn(3, *images.shape, dtype=torch.float64)
    noisy = torch.stack([along(model, images + each, targets, patterns=patterns) for each in noise])
    torch.testing.assert_close(run(partial(smooth_grad, samples=3, noise=noise)), noisy.mean(0))
    family = run(partial(smooth_grad_family, samples=3, noise=noise))
    torch.testing.assert_close(family["var_grad"], noisy.var(0, correction=0))
    family = run(partial(smooth_grad_family, samples=3, noise=noise.double()), back="pattern_net")
    assert all(torch.equal(maps.abs().amax((1, 2, 3)), torch.ones(5).double()) for maps in family.values())
    cam = run(partial(grad_cam, layer="conv2"))
    assert cam.shape == (5, 8, 8)
    assert not torch.allclose(cam, grad_cam(model, images, targets, layer="conv2"))


def test_expected_gradients_along_patterns_are_the_mean_over_references_and_points():
    """Way to each reference times the gradient along patterns at each point of it, written out."""
    model, (images, targets) = net(), images_and_classes()
    patterns, along = estimate(model, images), PatternAttribution(start="one")
    generator = torch.Generator().manual_seed(5)
    references = torch.rand(3, *images.shape, generator=generator, dtype=torch.float64).transpose(0, 1)
    alphas = torch.rand(5, 3, 2, generator=generator, dtype=torch.float64)
    expected = torch.zeros_like(images)
    for n, r, p in itertools.product(range(5), range(3), range(2)):
        way = images[n] - references[n, r]
        point = references[n, r] + alphas[n, r, p] * way
        expected[n] += way * along(model, point[None], targets[n : n + 1], patterns=patterns)[0] / 6
    method = PatternGuided(method=partial(ExpectedGradients(), references=references, alphas=alphas))
    torch.testing.assert_close(method(model, images, targets, patterns=patterns), expected)
    assert not torch.allclose(
        expected, ExpectedGradients()(model, images, targets, references=references, alphas=alphas)
    )


def test_expected_gradients_along_patterns_draw_the_learnt_images_and_points_by_seed():
    model, (images, targets) = net(), images_and_classes()
    method = fitted(partial(PatternGuided, method=partial(ExpectedGradients, samples=2, pool=7)), model)
    kept, seeds = method.learnt[".method.images"].double() / 255, draws.seeds_of("test", torch.arange(5))
    assert len(kept) == 7
    chosen = draws.keys(draws.fold(seeds, 0), 7).argsort(dim=1, stable=True)[:, :2]
    alphas = draws.uniform(draws.fold(seeds, 1), (2, 1)).double()
    along = fitted(PatternAttribution, model, start="one")
    expected = torch.zeros_like(images)
    for number in range(2):
        way = images - kept[chosen[:, number]]
        expected += way * along(model, images - way * (1 - alphas[:, number, :, None, None]), targets) / 2
    torch.testing.assert_close(explain(method, model, images, targets), expected)


def test_one_black_reference_and_the_points_of_a_line_give_pattern_guided_ig():
    model, (images, targets) = net(), images_and_classes()
    patterns, points = estimate(model, images), (torch.arange(6, dtype=torch.float64) + 0.5) / 6
    black = torch.zeros_like(images)[:, None]
    inner = partial(ExpectedGradients(), references=black, alphas=points.expand(5, 1, 6))
    for start in ("logit", "one", "softmax"):
        found = PatternGuided(method=inner, start=start)(model, images, targets, patterns=patterns)
        expected = PatternGuidedIG(steps=6, start=start)(model, images, targets, patterns=patterns)
        torch.testing.assert_close(found, expected)


def test_what_the_method_within_learnt_lies_beside_the_patterns_and_is_read_back():
    model, (images, targets) = net(), images_and_classes()
    make = partial(PatternGuided, method=partial(ExpectedGradients, samples=3, pool=6))
    method, patterns = fitted(make, model), fitted(PatternAttribution, model)
    alone = ExpectedGradients(pool=6)
    alone.fit(model, noise_split(40, seed=2), seed=0, max_batch=8)
    assert {*method.learnt} == {*patterns.learnt, ".method.images", ".method.rows"}
    assert torch.equal(method.learnt[".method.images"], alone.learnt["images"])
    assert all(torch.equal(method.learnt[name], pattern) for name, pattern in patterns.learnt.items())
    fresh = make(pool=20, places=4)
    fresh.learnt = dict(method.learnt)
    expected = explain(method, model, images, targets)
    torch.testing.assert_close(explain(fresh, model, images, targets), expected)
    method.method.fit(model, noise_split(40, seed=2), seed=7, max_batch=8)  # by somebody else
    torch.testing.assert_close(explain(method, model, images, targets), expected)


def test_pattern_guided_backprop_is_positive_at_the_relus():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 4)).double()
    images, targets = images_and_classes(h=2)
    patterns = {name: torch.randn_like(model[int(name)].weight.detach()) for name in ("1", "3")}
    away = {name: pattern * model[int(name)].weight.detach() for name, pattern in patterns.items()}
    with torch.no_grad():
        back = away["3"][targets].relu() * (model[1](images.flatten(1)) > 0)
    found = PatternGuided(method=guided_backprop)(model, images, targets, patterns=patterns)
    torch.testing.assert_close(found.flatten(1), back @ away["1"])


# What holds for each


@every_learner
def test_batch_row_budget_and_autograd_mode_change_nothing(make):
    model, (images, targets) = net(nn.ReLU()), images_and_classes()
    method, passed = fitted(make, model), []
    whole = explain(method, model, images, targets)
    assert whole.shape == images.shape
    assert whole.abs().amax((1, 2, 3)).gt(0).all()
    model.register_forward_hook(lambda module, arguments, output: passed.append(len(output)))
    for max_batch in (1, 3):
        torch.testing.assert_close(explain(method, model, images, targets, max_batch=max_batch), whole)
        assert max(passed) <= max_batch
    first = explain(method, model, images[:1], targets[:1])
    torch.testing.assert_close(first, whole[:1])
    with torch.inference_mode():
        torch.testing.assert_close(explain(method, model, images_and_classes()[0], targets), whole)


@every_learner
def test_model_is_as_before_also_after_an_exception(make):
    model, (images, targets) = net(nn.ReLU()), images_and_classes()
    model.train()
    model.head.weight.grad = torch.ones_like(model.head.weight)
    model.head.bias.requires_grad_(False)
    before, values = state_of(model), {name: value.clone() for name, value in model.state_dict().items()}
    method = fitted(make, model)
    explain(method, model, images, targets)

    def check():
        assert state_of(model) == before
        assert [p.requires_grad for p in model.parameters()].count(False) == 1
        assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
        assert model.head.weight.grad.eq(1).all()

    check()
    with pytest.raises(RuntimeError):
        explain(method, model, images[:, :2], targets)
    check()
    learnt = method.learnt
    with pytest.raises(RuntimeError):
        method.fit(
            model, Split(noise_split(40, seed=2).images[:, :2], noise_split(40, seed=2).targets), seed=0, max_batch=8
        )
    check()
    assert method.learnt is learnt


@every_method
def test_fit_is_shared_by_all_with_the_same_settings(make):
    model = net()
    method = fitted(make, model)
    other = PatternAttribution(pool=20, places=4)
    assert method.learnt_from() == other.learnt_from()
    assert method.learnt_from() != PatternAttribution(pool=20, places=4, estimator="linear").learnt_from()
    other.fit(model, noise_split(40, seed=2), seed=0, max_batch=3)
    assert method.learnt.keys() == other.learnt.keys()
    for name, pattern in method.learnt.items():
        torch.testing.assert_close(other.learnt[name], pattern, rtol=1e-6, atol=1e-9)
        assert pattern.device.type == "cpu"


def test_fit_reads_a_pool_of_training_rows_by_seed():
    class Watched:
        def __init__(self, images):
            self.images, self.shape, self.read = images, tuple(images.shape), []

        def take(self, rows):
            self.read += rows.tolist()
            return self.images[rows]

    def fit(seed):
        held = torch.arange(0, 40, 2)
        split = noise_split(40, seed=2, validation=held)
        watched = Watched(split.images)
        method = PatternAttribution(pool=9, places=4)
        method.fit(net(), Split(watched, split.targets, validation=held), seed=seed, max_batch=4)
        return sorted(set(watched.read)), method.learnt["conv1"]

    rows, learnt = fit(0)
    assert len(rows) == 9
    assert all(row % 2 for row in rows)
    again, other = fit(0), fit(1)
    assert rows == again[0]
    assert torch.equal(learnt, again[1])
    assert rows != other[0]
    chosen = torch.tensor(rows)
    images = noise_split(40, seed=2).images[chosen].double().div(255)
    seeds = draws.seeds_of("patterns 0", chosen)
    expected = estimate_patterns(net(), lambda block: images[block], seeds, Estimate("two_component", 9, 4))
    torch.testing.assert_close(learnt, expected["conv1"])


def test_float32_network_gets_float32_patterns_and_maps():
    model = net()
    expected = fitted(PatternAttribution, model)(model, *images_and_classes())
    small = copy.deepcopy(model).float()
    for make in (PatternAttribution, PatternNet):
        method = fitted(make, small)
        assert all(pattern.dtype == torch.float32 for pattern in method.learnt.values())
        found = method(small, images_and_classes()[0].float(), images_and_classes()[1])
        assert found.dtype == torch.float32
    found = fitted(PatternAttribution, small)(small, images_and_classes()[0].float(), images_and_classes()[1])
    torch.testing.assert_close(found, expected.float(), rtol=1e-3, atol=1e-4)


def test_deep_pattern_net_stays_within_float32():
    layers = [layer for _ in range(8) for layer in (nn.Conv2d(3, 3, 1), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(12, 4))
    images, targets = images_and_classes(h=2)
    with torch.no_grad():
        patterns = {
            n: torch.full_like(p, 1e8) for n, p in ((n[:-7], p) for n, p in model.named_parameters()) if p.ndim > 1
        }
        for layer in layers[::2]:
            nn.init.constant_(layer.weight, 0.3)
    found = PatternNet()(model, images.float(), targets, patterns=patterns)
    assert found.isfinite().all()
    assert found.abs().amax((1, 2, 3)).eq(1).all()


# Refusals


class Standardised(nn.Conv2d):
    """A layer with a forward of its own."""

    def forward(self, x):
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


class Leaks(nn.Module):
    """What stands before the BatchNorm is used past it."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4)

    def forward(self, images):
        x = self.conv(images)
        return self.head((x + self.bn(x)).mean((2, 3)))


def weights_of(model):
    layers = {name: each for name, each in model.named_modules() if isinstance(each, (nn.Conv2d, nn.Linear))}
    return {name: layer.weight.detach() for name, layer in layers.items()}


def sequential(*layers):
    return lambda: drawn(nn.Sequential(nn.Conv2d(3, 4, 3), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()))


class TokensFirst(nn.Module):
    """It has as many tokens as there are images."""

    def __init__(self):
        super().__init__()
        self.patches, self.linear, self.head = nn.Conv2d(3, 4, 4, 4), nn.Linear(4, 5), nn.Linear(5, 4)

    def forward(self, images):
        return self.head(torch.relu(self.linear(self.patches(images).flatten(2).permute(2, 0, 1))).mean(0))


class Windows(TokensFirst):
    def forward(self, images):
        rows = self.patches(images).flatten(2).mT.flatten(0, 1)
        return self.head(torch.relu(self.linear(rows)).unflatten(0, (len(images), -1)).mean(1))


def test_layers_without_a_row_for_each_image_are_refused_with_the_reason():
    images, _ = images_and_classes(4)
    for make, why in (
        (TokensFirst, "second axis is that of the images"),
        (Windows, "first axis is not that of"),
    ):
        with pytest.raises(ValueError, match=rf"layer 'linear': its {why}.* such as lrp"):
            estimate(drawn(make()), images)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (sequential(nn.GroupNorm(2, 4)), "patterns 1 GroupNorm"),
        (sequential(nn.GELU()), "1 GELU"),
        (sequential(nn.BatchNorm2d(4, track_running_stats=False)), "1 BatchNorm2d"),
        (sequential(nn.ConvTranspose2d(4, 4, 3)), "1 ConvTranspose2d"),
        (sequential(Standardised(4, 4, 3)), "1 Standardised"),
        (lambda: drawn(nn.Conv2d(3, 4, 3)), "Conv2d 1 (1, 4, 6, 6)"),
        (
            lambda: drawn(Leaks()),
            "Leaks logits",
        ),
    ],
)
def test_network_without_patterns_is_refused_by_name(make, said):
    model, (images, targets) = make(), images_and_classes()
    with pytest.raises(ValueError, match=words(said)):
        estimate(model, images)
    with pytest.raises(ValueError, match=words(said)):
        PatternAttribution()(model, images, targets, patterns=weights_of(model))


def test_foreign_patterns_are_refused():
    model, (images, targets) = net(), images_and_classes()
    patterns = estimate(model, images)
    for changed, said in (
        ({name: pattern for name, pattern in patterns.items() if name != "side"}, "none side"),
        (patterns | {"conv9": patterns["side"]}, "conv9"),
        (patterns | {"side": patterns["conv3"]}, "side (4, 6, 2, 1) (4, 6, 1, 1)"),
    ):
        with pytest.raises(ValueError, match=words(said)):
            PatternAttribution()(model, images, targets, patterns=changed)


@every_learner
def test_unfitted_and_impossible_settings_are_refused(make):
    model, (images, targets) = net(), images_and_classes()
    model.rectify, method = nn.ReLU(), make()
    with pytest.raises(ValueError, match=words(f"{type(method).__name__} fit patterns")):
        explain(method, model, images, targets)
    for settings, said in (
        ({"pool": 0}, "pool.*0"),
        ({"places": 0}, "places.*0"),
        ({"estimator": "lineal"}, f"estimator.*lineal.*two_component|{CHECKED}"),
        ({"start": "two"}, f"start.*two.*softmax|{CHECKED}"),
    ):
        with pytest.raises((ValueError, TypeError), match=said):
            make(**settings)
    with pytest.raises(ValueError, match=words("max_batch 0")):
        explain(fitted(make, model), model, images, targets, max_batch=0)


def test_impossible_settings_of_one_method_are_refused():
    with pytest.raises((ValueError, TypeError), match=f"back.*forth.*pattern_attribution|{CHECKED}"):
        PatternGuided(back="forth")
    with pytest.raises((ValueError, TypeError), match=words("steps 0")):
        PatternGuidedIG(steps=0)


# The papers' synthetic experiments


def toy(first, bias, second, shift):
    """Two inputs, one hidden unit."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 1)).double()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), (first, bias, second, shift), strict=True):
            parameter.copy_(torch.tensor(value, dtype=torch.float64).view_as(parameter))
    return model


def column(x):
    return torch.from_numpy(x).reshape(-1, 2, 1, 1)


def signal_and_distractor():
    z = np.arange(-2, 2, 0.01)
    noise = np.random.RandomState(42).normal(0, 0.3, len(z))
    return z, column(np.stack([z + noise, noise], 1))


def mean_absolute(maps):
    return maps.abs().mean((0, 2, 3)).tolist()


def test_saturating_network_gives_the_papers_numbers():
    """f = min(z, 1), z the signal in x: integrated gradients keep the noise, PatternAttribution stops at saturation."""
    model, (z, images) = toy([-1, 1], 1, -1, 1), signal_and_distractor()
    targets, flat = torch.zeros(len(z), dtype=torch.int64), torch.from_numpy(z > 1 - 1e-9)
    patterns = {"1": torch.tensor([[-1.00329617, -0.00329617]]).double(), "3": torch.tensor([[-1.0]]).double()}
    line = {"steps": 100, "rule": "right"}
    ig = integrated_gradients(model, images, targets, **line)
    pa = PatternAttribution()(model, images, targets, patterns=patterns)
    pgig = PatternGuidedIG(**line, start="one")(model, images, targets, patterns=patterns)
    assert mean_absolute(ig) == pytest.approx([0.908237, 0.210561], abs=1e-6)
    assert mean_absolute(pa) == pytest.approx([0.628314, 0.002064], abs=1e-6)
    assert mean_absolute(pgig) == pytest.approx([0.911231, 0.000694], abs=1e-6)
    assert [float(maps[:, 1].abs().max()) for maps in (ig, pa, pgig)] == pytest.approx(
        [1.155819, 0.006592, 0.003810], abs=1e-6
    )
    assert mean_absolute(ig[flat])[1] == pytest.approx(0.14234, abs=1e-5)
    assert mean_absolute(pgig[flat])[1] == pytest.approx(0.000469, abs=1e-6)
    assert int(flat.sum()) == 100
    assert pa[flat].eq(0).all()
    firsts = torch.cat([maps[0].flatten() for maps in (images, ig, pa, pgig)]).tolist()
    assert firsts == pytest.approx(
        [-1.85098575, 0.14901425, -1.85098575, -0.14901425, -2.00659235, 0.00659235, -1.85708692, -0.00049118], abs=1e-7
    )


def test_own_estimates_on_the_same_data():
    """Equation 7; the published pattern comes from a product taken between samples by mistake."""
    z, images = signal_and_distractor()
    x, rectifies = images.flatten(1).numpy(), np.array([-1.0, 1.0])
    saturating = estimate(toy([-1, 1], 1, -1, 1), images)
    expected = brute_force(rectifies, x, 1 - z, "two_component")
    assert saturating["1"].flatten().tolist() == pytest.approx(expected.tolist(), rel=1e-9)
    assert saturating["1"].flatten().tolist() == pytest.approx([-1.01620905, -0.01620905], abs=1e-7)
    assert saturating["3"].item() == pytest.approx(-1)
    linear = estimate(toy([1, -1], 0, 1, 0), images)["1"]
    assert linear.flatten().tolist() == pytest.approx([1.01835493, 0.01835493], abs=1e-8)


def test_pattern_attribution_depends_on_the_implementation():
    """ReLU(ReLU(w.x) - 1) is ReLU(w.x - 1); each has its own estimate from the same 5,000 points."""
    generator = np.random.RandomState(42)
    first = generator.normal(0, 0.7, 5000)
    second = np.where(generator.rand(5000) > 0.5, first, -first)
    images, point, target = (
        column(np.stack([first, second], 1)),
        torch.full((1, 2, 1, 1), 3.0).double(),
        torch.tensor([0]),
    )
    for model, expected in (
        (nn.Sequential(*toy([1, 2], 0, 1, -1), nn.ReLU()), [1.6342603, 6.3657397]),
        (toy([1, 2], -1, 1, 0), [2.09187018, 5.90812982]),
    ):
        assert model(point).item() == pytest.approx(8)
        plain = integrated_gradients(model, point, target, steps=100, rule="right")
        assert plain.flatten().tolist() == pytest.approx([2.67, 5.34])
        patterns = estimate(model, images)
        found = PatternAttribution()(model, point, target, patterns=patterns)
        assert found.flatten().tolist() == pytest.approx(expected, abs=1e-4)
        along = PatternGuidedIG(steps=100, rule="right")(model, point, target, patterns=patterns)
        assert float(along[0, 1] / along[0, 0]) == pytest.approx(expected[1] / expected[0], rel=1e-6)
