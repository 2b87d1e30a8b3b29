"""FullGrad: its parts sum to the logit on networks of every make, and its maps are what the formula says."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models import densenet, mobilenetv2, resnet, vgg
from torchvision.models.convnext import LayerNorm2d

from efface.methods import fullgrad, gradient
from efface.models.normalise import Normalise
from efface.models.preact import preact_resnet
from efface.models.resnet import resnet8
from small.batches import images_and_classes
from small.messages import words
from small.networks import state_of

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]
METHODS = {
    "full_grad": fullgrad.full_grad,
    "full_grad_plain": partial(fullgrad.full_grad, psi=False),
    "simple_full_grad": fullgrad.simple_full_grad,
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def flat_head(features):
    return nn.Flatten(), nn.Linear(features, 4)


def head(channels):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), *flat_head(channels))


class Small(nn.Module):
    """The network's own normalisation, BatchNorm, ReLUs in place, pooling, dropout and a sum in place."""

    def __init__(self):
        super().__init__()
        self.normalise = Normalise(MEAN, STD)
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.second = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6, affine=False))
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Sequential(nn.Dropout(0.5), head(6))

    def forward(self, images):
        features = self.first(self.normalise(images))
        out = self.second(features)
        out += features
        return self.last(self.pool(self.relu(out)))


class Again(nn.Module):
    """One stage run three times; with `copies`, three stages of the same weights."""

    def __init__(self, *, copies=False):
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 1)
        stage = nn.Sequential(nn.Conv2d(5, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(inplace=True))
        self.stages = nn.ModuleList([copy.deepcopy(stage) if copies else stage for _ in range(3)])
        self.head = head(5)

    def forward(self, images):
        features = self.stem(images)
        for stage in self.stages:
            features = stage(features)
        return self.head(features)


def around(*modules):
    """A module between two convolutions."""
    return nn.Sequential(nn.Conv2d(3, 6, 3), *modules, nn.Conv2d(6, 5, 1), nn.ReLU(), head(5))


class Blur(nn.Module):
    """Linear, not known by its type."""

    def forward(self, x):
        return F.conv2d(x, torch.full((x.shape[1], 1, 3, 3), 1 / 9).to(x), groups=x.shape[1])


class Sharpen(nn.Module):
    """Affine, with two inputs and a keyword, not known by its type."""

    def forward(self, x, y, scale=1.0):
        return x - scale * y.flip(2) + 0.3


class WithSharpen(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.sharpen, self.rest = nn.Conv2d(3, 6, 3), Sharpen(), nn.Sequential(nn.ReLU(), head(6))

    def forward(self, images):
        features = self.first(images)
        return self.rest(self.sharpen(features, features * 2, scale=0.7))


class LastAxis(nn.Module):
    """Layers that compute on the last axis, and the same ones for n c h w.

    axes: "n c h w", "n h w c", or "n t c" with a prefix token, which is the mean of the others.
    """

    def __init__(self, axes, side=8):
        super().__init__()
        self.axes, self.patches = axes, nn.Conv2d(3, 6, 32 // side, 32 // side)
        second = axes == "n c h w"
        self.norm = LayerNorm2d(6) if second else nn.LayerNorm(6)
        self.wide, self.narrow = ((nn.Conv2d(*ends, 1) if second else nn.Linear(*ends)) for ends in ((6, 10), (10, 5)))
        self.act, self.prepend, self.head = nn.GELU(), Prepend(), nn.Linear(5, 4)

    def forward(self, images):
        features = self.patches(images)
        if self.axes == "n h w c":
            features = features.movedim(1, 3)
        if self.axes == "n t c":
            features = self.prepend(features.flatten(2).mT)
        features = self.narrow(self.act(self.wide(self.norm(features))))
        return self.head(features.mean([axis for axis in range(1, features.ndim) if features.shape[axis] != 5]))


class Prepend(nn.Module):
    def forward(self, tokens):
        return torch.cat([tokens.mean(1, keepdim=True), tokens], 1)


COMPLETE = {
    "small": Small,
    "again": Again,
    "ours": partial(resnet8, num_classes=4, mean=MEAN, std=STD),
    "preact": partial(preact_resnet, blocks=[2, 1], widths=[4, 6], num_classes=4, mean=MEAN, std=STD),
    "resnet": lambda: resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=4),
    "vgg": lambda: nn.Sequential(vgg.make_layers([8, "M", 16, "M"], batch_norm=True), head(16)),
    "densenet": lambda: densenet.DenseNet(4, (2, 2), 8, num_classes=4),
    "squeezenet": lambda: torchvision.models.squeezenet1_1(num_classes=4),
    "mobilenet": lambda: mobilenetv2.MobileNetV2(num_classes=4, width_mult=0.25),
    "relu6": lambda: around(nn.ReLU6(inplace=True)),
    "blur": lambda: around(Blur()),
    "sharpen": WithSharpen,
    "padding": lambda: around(nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect"), nn.ConvTranspose2d(6, 6, 2)),
    "hardsigmoid": lambda: around(nn.Hardsigmoid(inplace=True)),
    "smooth": lambda: around(nn.SiLU(inplace=True), nn.GELU(), nn.Hardswish(), nn.Softplus(), nn.LogSigmoid()),
    "norms": lambda: around(nn.GroupNorm(2, 6), nn.InstanceNorm2d(6), nn.LocalResponseNorm(2), nn.Softmax2d()),
    "instance": lambda: around(nn.InstanceNorm2d(6, affine=True, track_running_stats=True)),
    "last_axis": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 4, 4), nn.Flatten(2), nn.Linear(64, 5), nn.LayerNorm(5), *flat_head(30)
    ),
    "channels_last": partial(LastAxis, "n h w c"),
    "tokens": partial(LastAxis, "n t c"),
}
"""Networks whose parts sum to the logit: all that is not a module in them is linear or a maximum."""


def make(kind, dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = kind()
        for module in made.modules():
            if getattr(module, "running_mean", None) is not None:
                nn.init.uniform_(module.running_mean, -0.2, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
            if getattr(module, "bias", None) is not None:
                nn.init.uniform_(module.bias, -0.3, 0.3)
                nn.init.normal_(module.weight, 0, max(0.2, (2 / module.weight[0].numel()) ** 0.5))
    return made.to(dtype).eval()


def logit(model, images, targets):
    with torch.no_grad():
        return model(images).gather(1, targets[:, None])[:, 0]


def total(parts):
    return sum(part.flatten(1).sum(1) for part in (parts.image, *parts.modules.values()))


# The parts


@pytest.mark.parametrize("name", COMPLETE)
def test_parts_sum_to_the_logit(name):
    model, (images, targets) = make(COMPLETE[name]), images_and_classes(3, 32)
    parts = fullgrad.full_grad_parts(model, images, targets)
    expected = logit(model, images, targets)
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(total(parts), expected, rtol=1e-10, atol=1e-10)
    assert parts.rest.abs().max() < 1e-10 * expected.abs().max()
    assert sum(part.abs().sum() for part in parts.modules.values()) > 1e-3


@pytest.mark.parametrize("name", ["small", "ours", "resnet"])
def test_parts_sum_to_the_logit_in_single_precision(name):
    model, (images, targets) = make(COMPLETE[name], torch.float32), images_and_classes(3, 32, dtype=torch.float32)
    parts = fullgrad.full_grad_parts(model, images, targets)
    torch.testing.assert_close(total(parts), logit(model, images, targets), rtol=1e-5, atol=1e-5)


def test_each_part_is_bias_times_gradient():
    model, (images, targets) = make(Small), images_and_classes(3)
    parts = fullgrad.full_grad_parts(model, images, targets)
    kept = {}

    def keep(name, module, inputs, output):
        kept[name] = output
        return output.clone()

    for name, module in model.named_modules():
        module.register_forward_hook(partial(keep, name))
    points = images.clone().requires_grad_()
    scores = model(points).gather(1, targets[:, None]).sum()

    norm, plain = model.first[1], model.second[1]
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    biases = {
        "normalise": -model.normalise.mean.flatten() / model.normalise.std.flatten(),
        "first.1": norm.bias - norm.running_mean * scale,
        "second.0": model.second[0].bias,
        "second.1": -plain.running_mean / (plain.running_var + plain.eps).sqrt(),
        "last.1.2": model.last[1][2].bias,
    }
    assert list(parts.modules) == list(biases)  # no convolution without a bias, no ReLU, no pooling
    gradients = torch.autograd.grad(scores, [points, *(kept[name] for name in biases)])
    torch.testing.assert_close(parts.image, (points * gradients[0]).detach())
    for (name, bias), slope in zip(biases.items(), gradients[1:], strict=True):
        expected = bias.detach().reshape(-1, *(1,) * (slope.ndim - 2)) * slope
        torch.testing.assert_close(parts.modules[name], expected)


def test_part_of_a_module_that_runs_again_is_the_sum_over_its_runs():
    images, targets = images_and_classes(3)
    shared, copies = make(Again), make(partial(Again, copies=True))
    for stage in copies.stages:
        stage.load_state_dict(shared.stages[0].state_dict())
    copies.stem.load_state_dict(shared.stem.state_dict())
    copies.head.load_state_dict(shared.head.state_dict())
    once = fullgrad.full_grad_parts(shared, images, targets)
    thrice = fullgrad.full_grad_parts(copies, images, targets)
    torch.testing.assert_close(once.image, thrice.image)
    for name in ("0", "1"):
        expected = sum(thrice.modules[f"stages.{run}.{name}"] for run in range(3))
        torch.testing.assert_close(once.modules[f"stages.0.{name}"], expected)
    assert list(once.modules) == ["stem", "stages.0.0", "stages.0.1", "head.2"]


def test_saturation_has_a_bias_and_a_linear_module_none():
    images, targets = images_and_classes(3)
    model = make(COMPLETE["relu6"])
    with torch.no_grad():
        model[0].bias[2] = 9.0
    part = fullgrad.full_grad_parts(model, images, targets).modules["1"]
    assert part[:, 2].any()
    assert not part[model[0](images) <= 6].any()
    blurred = make(COMPLETE["blur"], torch.float32)
    images, targets = images_and_classes(3, dtype=torch.float32)
    assert fullgrad.full_grad_parts(blurred, images, targets).modules["1"].eq(0).all()  # no rounding left to stretch


def test_what_happens_outside_modules_is_the_rest():
    class Product(nn.Module):
        """Of degree two: image times gradient is twice the logit."""

        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(3, 4, 3, bias=False)

        def forward(self, images):
            return (self.one(images) * self.other(images)).mean((2, 3))

    model, (images, targets) = make(Product), images_and_classes(3)
    parts = fullgrad.full_grad_parts(model, images, targets)
    assert parts.modules == {}
    torch.testing.assert_close(parts.rest, -logit(model, images, targets))


def test_weights_of_the_classes_are_taken_apart_as_well():
    model, (images, targets) = make(Small), images_and_classes(3)
    weights = F.one_hot(targets, 4) - 0.25
    parts = fullgrad.full_grad_parts(model, images, weights)
    torch.testing.assert_close(total(parts), (model(images) * weights).sum(1).detach())
    one_hot = fullgrad.full_grad(model, images, F.one_hot(targets, 4).double())
    torch.testing.assert_close(one_hot, fullgrad.full_grad(model, images, targets))


# The maps


def psi(part):
    """One image and one part at a time."""
    stretched = []
    for each in part:
        values = each.abs() - each.abs().min()
        stretched.append(values / values.max() if values.any() else values)
    return torch.stack(stretched)


def large(part, size):
    return F.interpolate(part, size=(size, size), mode="bilinear", align_corners=False).sum(1)


@pytest.mark.parametrize("kind", [Small, Again, COMPLETE["ours"]])
@pytest.mark.parametrize("score", ["logit", "probability"])
def test_full_grad_stretches_each_part_and_sums(kind, score):
    model, (images, targets) = make(kind), images_and_classes(3, 32)
    parts = fullgrad.full_grad_parts(model, images, targets, score=score)
    places = [parts.image, *(part for part in parts.modules.values() if part.ndim == 4)]
    assert len(places) >= 4
    assert len(places) == len(parts.modules)  # the linear layer's is not among them
    expected = sum(large(psi(part), 32) for part in places)
    torch.testing.assert_close(fullgrad.full_grad(model, images, targets, score=score), expected)
    plain = sum(large(part, 32) for part in places)
    torch.testing.assert_close(fullgrad.full_grad(model, images, targets, score=score, psi=False), plain)
    assert plain.min() < 0 < expected.min()


def test_simple_full_grad_has_gradients_alone():
    model, (images, targets) = make(Small), images_and_classes(3)
    parts = fullgrad.full_grad_parts(model, images, targets).modules
    slope = gradient.gradient(model, images, targets)
    kept = {}
    for name in ("first.1", "second.0"):  # what has a bias of its own and places
        module = model.get_submodule(name)
        module.register_forward_hook(
            lambda module, inputs, output, name=name: kept.update({name: output}) or output.clone()
        )
    scores = model(images.clone().requires_grad_()).gather(1, targets[:, None]).sum()
    gradients = torch.autograd.grad(scores, list(kept.values()))
    expected = sum(large(psi(part), 8) for part in (images * slope, *gradients))
    torch.testing.assert_close(fullgrad.simple_full_grad(model, images, targets), expected)
    assert set(parts) > set(kept)


def test_map_of_a_flat_part_is_finite():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), head(4)).double()
    images, targets = images_and_classes(3)
    with torch.no_grad():
        model[0].bias.fill_(0.0)
    assert fullgrad.full_grad(model, images * 0, targets).eq(0).all()


# As every method


@every_method
@pytest.mark.parametrize("kind", [Small, Again])
@pytest.mark.parametrize("max_batch", [1, 4])
def test_batch_and_row_budget_change_nothing(method, kind, max_batch):
    model, (images, targets) = make(kind), images_and_classes(5)
    singles = torch.cat([method(model, images[i : i + 1], targets[i : i + 1]) for i in range(5)])
    passed = []
    model.register_forward_hook(lambda module, inputs, output: passed.append(len(output)))
    torch.testing.assert_close(method(model, images, targets), singles, rtol=1e-9, atol=1e-12)
    passed.clear()
    torch.testing.assert_close(method(model, images, targets, max_batch=max_batch), singles, rtol=1e-9, atol=1e-12)
    assert max(passed) <= max_batch


def test_parts_do_not_depend_on_the_row_budget():
    model, (images, targets) = make(Small), images_and_classes(5)
    whole, rowwise = (fullgrad.full_grad_parts(model, images, targets, max_batch=max_batch) for max_batch in (256, 2))
    torch.testing.assert_close(whole._asdict(), rowwise._asdict(), rtol=1e-9, atol=1e-12)


@every_method
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_model_and_images_are_as_before(method, mode):
    model, (images, targets) = make(Small), images_and_classes(3)
    expected = method(model, images, targets)
    model.train()
    model.first[1].eval()
    model.last[1][2].bias.requires_grad_(False)
    images.requires_grad_()
    before, values = state_of(model), images.detach().clone()
    with mode():
        found = method(model, images, targets)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
    assert state_of(model) == before
    assert torch.equal(images.detach(), values)
    assert images.grad is None


@every_method
@pytest.mark.parametrize("at", ["first", "relu", "last"])
def test_model_is_as_before_an_exception(method, at):
    model, (images, targets) = make(Small).train(), images_and_classes(3)
    calls = []

    def fail(module, inputs):
        calls.append(module)
        if len(calls) > 1:
            raise RuntimeError("out of memory")

    model.get_submodule(at).register_forward_pre_hook(fail)
    before = state_of(model)
    with pytest.raises(RuntimeError, match="out of memory"):
        method(model, images, targets, max_batch=2)
    assert state_of(model) == before


class Stubborn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.exp()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient


class Odd(nn.Module):
    def forward(self, x):
        return Stubborn.apply(x)


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.same = nn.Conv2d(3, 4, 3)

    def forward(self, images):
        return sum(self.same(each).mean((2, 3)) for each in (images, images[..., ::2]))


class Rows(nn.Module):
    """A linear layer that works on a row for each place of each image."""

    def __init__(self):
        super().__init__()
        self.patches, self.linear = nn.Conv2d(3, 5, 8, 8), nn.Linear(5, 4)

    def forward(self, images):
        rows = self.linear(self.patches(images).flatten(2).mT.flatten(0, 1))
        return rows.unflatten(0, (len(images), -1)).mean(1)


class Nowhere(nn.Module):
    """Linear layers on the last axis, after a layer that spreads the whole image over all places."""

    def __init__(self):
        super().__init__()
        self.all, self.linear, self.head = nn.Linear(3, 24), nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, images):
        return self.head(self.linear(self.all(images.mean((2, 3))).view(-1, 2, 2, 6)).mean((1, 2)))


class Across(LastAxis):
    """Tokens with something that is in no layer: a product of features, or positions."""

    def __init__(self, what):
        super().__init__("n t c")
        self.prepend.register_forward_hook(self.product if what == "product" else self.positions)
        self.at = nn.Parameter(torch.rand(65, 6))

    def product(self, _module, _inputs, tokens):
        return tokens * (1 + 1e-3 * tokens)

    def positions(self, _module, _inputs, tokens):
        return tokens + self.at


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (COMPLETE["last_axis"], "2 Linear (3, 6, 5) no known place"),
        (Rows, "linear Linear (48, 4) first axis is not that of the images"),
        (Nowhere, "linear Linear (3, 2, 2, 5) no known place channels second axis last"),
        (partial(Across, "product"), "Across is in no part of FullGrad multiplies features by features"),
        (partial(Across, "position"), "Across is in no part of FullGrad adds a tensor"),
        (
            lambda: around(nn.BatchNorm2d(6, track_running_stats=False)),
            "1 BatchNorm2d track_running_stats=True",
        ),
        (
            lambda: around(Odd()),
            "1 Odd second derivative",
        ),
        (Pyramid, "same (3, 4, 30, 30) (3, 4, 30, 14)"),
    ],
)
def test_network_in_the_way_is_refused_by_the_layers_name(kind, said):
    model, (images, targets) = make(kind), images_and_classes(3, 32)
    before = state_of(model)
    with pytest.raises(ValueError, match=words(said)):
        fullgrad.full_grad(model, images, targets)
    assert state_of(model) == before


@pytest.mark.parametrize("axes", ["n h w c", "n t c"])
@pytest.mark.parametrize("method", METHODS)
def test_layers_on_the_last_axis_are_laid_out_as_their_places_lie(axes, method):
    model, (images, targets) = make(partial(LastAxis, axes)), images_and_classes(3, 32)
    kept = {}

    def keep(name, module, inputs, output):
        kept[name] = output
        return output.clone()

    for name in ("patches", "norm", "wide", "narrow"):
        model.get_submodule(name).register_forward_hook(partial(keep, name))
    points = images.clone().requires_grad_()
    scores = model(points).gather(1, targets[:, None]).sum()
    slopes = dict(zip(kept, torch.autograd.grad(scores, list(kept.values()), retain_graph=True), strict=True))
    slope = torch.autograd.grad(scores, points)[0]
    parts = fullgrad.full_grad_parts(model, images, targets).modules if "simple" not in method else slopes
    assert {*parts} - {"head", "act", "prepend"} == {*slopes}

    def in_places(name):
        if name == "patches":
            return parts[name]
        if axes == "n t c":
            return parts[name][:, 1:].unflatten(1, (8, 8)).movedim(3, 1)
        return parts[name].movedim(3, 1)

    scaled = (lambda part: part) if method == "full_grad_plain" else psi
    every = [images * slope, *(in_places(name) for name in parts if name != "head")]
    torch.testing.assert_close(METHODS[method](model, images, targets), sum(large(scaled(part), 32) for part in every))


@every_method
@pytest.mark.parametrize("side", [8, 1])
def test_channels_last_and_channels_second_give_the_same_map(method, side):
    models, (images, targets) = (
        [make(partial(LastAxis, axes, side)) for axes in ("n h w c", "n c h w")],
        images_and_classes(3, 32),
    )
    for name, value in models[1].named_parameters():
        value.data = models[0].get_parameter(name).data.view_as(value)
    found, expected = (method(model, images, targets) for model in models)
    torch.testing.assert_close(found, expected)


@every_method
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_network_with_layers_on_the_last_axis_is_as_before(method, mode):
    model, (images, targets) = make(partial(LastAxis, "n t c")), images_and_classes(3, 32)
    expected, before = method(model, images, targets), state_of(model)
    with mode():
        torch.testing.assert_close(method(model, images, targets, max_batch=2), expected)
    assert state_of(model) == before


def test_a_bias_outside_a_layer_of_its_own_is_named():
    class Outside(LastAxis):
        def forward(self, images):
            return super().forward(images) + F.linear(images.mean((2, 3)), self.other.weight, self.other.bias)

    model, (images, targets) = make(partial(Outside, "n t c")), images_and_classes(3, 32)
    model.other, model.unused = nn.Linear(3, 4).double(), nn.Linear(3, 4).double()
    with pytest.raises(ValueError, match=words("Outside other.bias outside a layer")):
        fullgrad.simple_full_grad(model, images, targets)
    with pytest.raises(ValueError, match=words("Outside is in no part of FullGrad")):
        fullgrad.full_grad(model, images, targets)


class ChannelsLast(nn.Module):
    """A LayerNorm over the channels of each place: on the last axis, or by torchvision's layer for n c h w."""

    def __init__(self, *, last):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.deep, self.linear = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 1, 1), nn.Linear(8, 4)
        self.norm = nn.LayerNorm(6) if last else LayerNorm2d(6)
        nn.init.normal_(self.norm.bias)
        self.last = last

    def forward(self, images):
        features = self.conv(images)
        features = self.norm(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if self.last else self.norm(features)
        return self.linear(self.deep(features).relu().mean((2, 3)))


def test_channels_on_the_last_axis_are_read_as_channels():
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    found, expected = (
        fullgrad.full_grad(ChannelsLast(last=last).eval(), images, torch.tensor([0, 1])) for last in (True, False)
    )
    torch.testing.assert_close(found, expected)
