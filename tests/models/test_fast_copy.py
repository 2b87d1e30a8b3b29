"""A folded network answers as the network does, and methods that use one give the network's own maps."""

import functools
import gc
import weakref

import pytest
import torch
import torchvision
from torch import nn

from efface.methods.cam import layer_cam
from efface.methods.gradient import gradient
from efface.methods.path import integrated_gradients
from efface.methods.smooth import smooth_grad
from efface.models import cifar, evaluation, fast_copy
from efface.models.fast_copy import answers_as_before, folded, norms_after
from efface.models.preact import preact_resnet
from efface.models.resnet import resnet8, resnet20

IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
TARGETS = torch.tensor([1, 0, 3])


class Twice(nn.Module):
    """One convolution whose output is normalised and used bare, one that a BatchNorm shares, one used two times."""

    def __init__(self):
        super().__init__()
        self.bare, self.one, self.other, self.again = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))
        self.norm, self.shared, self.last, self.first = (nn.BatchNorm2d(3) for _ in range(4))
        self.fc = nn.Linear(3, 4)

    def forward(self, images):
        images = self.first(images)
        bare = self.bare(images)
        x = bare + self.norm(bare).relu_()
        x = self.shared(self.one(x)).relu() + self.shared(self.other(x)).relu()
        x = self.last(self.again(self.again(x)))
        return self.fc(x.mean((2, 3)))


NETWORKS = {
    "resnet8": lambda: resnet8(num_classes=4, mean=[0.5] * 3, std=[0.2] * 3),
    "resnet20": lambda: resnet20(num_classes=4),
    "resnet18": lambda: torchvision.models.resnet18(num_classes=4),
    "vgg11_bn": lambda: torchvision.models.vgg11_bn(num_classes=4),
    "densenet": lambda: torchvision.models.DenseNet(8, (2, 2), 8, num_classes=4),
    "mobilenet": lambda: torchvision.models.mobilenet_v2(num_classes=4),
    "twice": Twice,
    "preact": lambda: preact_resnet(blocks=[2, 1], widths=[4, 6], num_classes=4),
    "preact_bottleneck": lambda: preact_resnet(blocks=[2, 1], widths=[4, 6], bottleneck=True, num_classes=4),
    "no_affine": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4, affine=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ),
}


def made(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = NETWORKS[name]()
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.uniform_(norm.running_mean, -0.2, 0.2)
                nn.init.uniform_(norm.running_var, 0.5, 1.5)
                if norm.affine:
                    nn.init.uniform_(norm.weight, 0.5, 1.5)
                    nn.init.uniform_(norm.bias, -0.2, 0.2)
    return network.eval()


LARGE = ("resnet18", "vgg11_bn", "mobilenet")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name in LARGE else []) for name in NETWORKS]
)
def test_answers_and_gradients_are_the_networks_own(name):
    network, images = made(name).double(), IMAGES.double().requires_grad_()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    copied = folded(network, images.detach())
    own, other = network(images), copied(images)
    torch.testing.assert_close(other, own, rtol=1e-9, atol=1e-9)
    way = torch.randn(own.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (slope,), (same,) = torch.autograd.grad(own, images, way), torch.autograd.grad(other, images, way)
    torch.testing.assert_close(same, slope, rtol=1e-8, atol=1e-9 * float(slope.abs().max()))
    for key, value in network.state_dict().items():
        assert torch.equal(value, state[key])


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "stay"),
    [("resnet8", 0), ("resnet20", 0), ("resnet18", 0), ("vgg11_bn", 0), ("mobilenet", 0), ("no_affine", 0)],
)
def test_every_batchnorm_after_a_layer_is_folded(name, stay):
    network = made(name)
    norms = sum(isinstance(each, nn.BatchNorm2d) for each in network.modules())
    assert norms - len(norms_after(network, IMAGES[:1])[0]) == stay
    left = [each for each in folded(network, IMAGES).modules() if isinstance(each, nn.BatchNorm2d)]
    x = torch.randn(2, left[0].num_features, 4, 4)
    assert all(
        torch.equal(
            each(x[:, :1].expand(-1, each.num_features, -1, -1)), x[:, :1].expand(-1, each.num_features, -1, -1)
        )
        for each in left
    )


@pytest.mark.parametrize(("name", "inside"), [("preact", ["bn2"]), ("preact_bottleneck", ["bn2", "bn3"])])
def test_before_a_convolution_the_batchnorms_stay_and_those_within_a_block_are_folded(name, inside):
    network = made(name)
    names = {module: name for name, module in network.named_modules()}
    pairs = norms_after(network, IMAGES[:1])[0]
    blocks = [f"layer{stage}.{block}" for stage, block in ((1, 0), (1, 1), (2, 0))]
    assert [names[norm] for _, norm in pairs] == [f"{block}.{each}" for block in blocks for each in inside]
    assert folded(network, IMAGES) is not network


@pytest.mark.parametrize("width", [6, 16])
def test_a_batchnorm_over_tokens_stays_after_a_linear_layer(width):
    class Mixed(nn.Module):
        """A BatchNorm of n t c normalises the tokens, and the linear layer before it has its channels last."""

        def __init__(self):
            super().__init__()
            self.patches, self.linear = nn.Conv2d(3, 5, 8, 8), nn.Linear(5, width)
            self.norm, self.head = nn.BatchNorm1d(16), nn.Linear(width, 4)

        def forward(self, images):
            return self.head(self.norm(self.linear(self.patches(images).flatten(2).mT)).relu().mean(1))

    network = Mixed().eval()
    nn.init.uniform_(network.norm.weight, 0.5, 2.0)
    images = torch.rand(2, 3, 32, 32)
    assert norms_after(network, images)[0] == []
    torch.testing.assert_close(folded(network, images)(images), network(images))


def test_a_convolution_used_elsewhere_too_leaves_the_network_as_it_is():
    network = made("twice")
    assert folded(network, IMAGES) is network  # folding `bare` shows in the logits
    network.forward = lambda images: network.fc(network.last(network.again(network.first(images))).mean((2, 3)))
    pairs = norms_after(network, IMAGES[:1])[0]
    assert pairs == [(network.again, network.last)]  # `first` follows no layer


@pytest.mark.long
@pytest.mark.parametrize(
    "build",
    [
        resnet20,
        functools.partial(resnet8, num_classes=4),
        cifar.resnet50,
        *(NETWORKS[f"preact{each}"] for each in ("", "_bottleneck")),
    ],
)
def test_a_copy_may_work_in_place_where_the_network_never_does(build):
    network = build().eval()
    copy, slow = folded(network, IMAGES), folded(network, IMAGES)
    for each in slow.modules():
        if hasattr(each, "in_place"):
            assert each.in_place
            each.in_place = False
        if isinstance(each, nn.ReLU):
            each.inplace = False
    points = IMAGES.clone().requires_grad_()
    assert torch.equal(copy(points), slow(points))
    ours, expected = (torch.autograd.grad(each(points)[:, 1].sum(), points)[0] for each in (copy, slow))
    assert torch.equal(ours, expected)
    assert not any(getattr(each, "in_place", False) or getattr(each, "inplace", False) for each in network.modules())


@pytest.mark.parametrize("layer", ["conv1", "relu", "layer1.0.bn2", "layer2.0", "layer2.0.relu1", "layer3.2.conv2"])
def test_a_layer_of_the_copy_is_looked_at_before_anything_overwrites_it(layer, monkeypatch):
    with torch.random.fork_rng():
        torch.manual_seed(0)  # a gradient that is 0 but for rounding passes a ReLU in one of the two, or does not
        network = resnet20().eval()
        for each in network.modules():
            if isinstance(each, nn.BatchNorm2d):
                nn.init.uniform_(each.bias, -0.5, 0.5)
    fast = layer_cam(network, IMAGES, TARGETS, layer=layer)
    monkeypatch.setattr(fast_copy, "folded", lambda network, _images: network)
    fast_copy.FAST_COPIES.clear()
    torch.testing.assert_close(fast, layer_cam(network, IMAGES, TARGETS, layer=layer), rtol=1e-4, atol=1e-6)


def test_a_network_without_convolution_or_batchnorm_is_not_copied():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    assert folded(network, IMAGES) is network


def fast(model):
    with evaluation.evaluating_fast(model, IMAGES) as network:
        return network


def test_the_copy_is_made_once_and_again_when_the_weights_change():
    model = made("resnet8").train()
    first = fast(model)
    assert first is not model
    assert not first.training
    assert model.training
    assert fast(model) is first
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    second = fast(model)
    assert second is not first
    model.load_state_dict(made("resnet8").state_dict())
    assert fast(model) is not second
    kept = weakref.ref(fast(model))
    del model, first, second
    gc.collect()
    assert kept() is None


def through_data(model):
    list(model.parameters())[-2].data.mul_(-3)


def in_a_buffer(model):
    next(each for each in model.modules() if isinstance(each, nn.BatchNorm2d)).running_mean.data.add_(1)


def shuffled(model):
    weight = list(model.parameters())[-2].data
    weight.copy_(weight.flip(0).clone())


def another_module(model):
    for block in model.modules():
        for name, each in block.named_children():
            if isinstance(each, nn.ReLU):
                setattr(block, name, nn.Softplus(beta=2))


def another_setting(model):
    next(each for each in model.modules() if isinstance(each, nn.BatchNorm2d)).eps = 1.0


@pytest.mark.parametrize("change", [through_data, in_a_buffer, shuffled, another_module, another_setting])
def test_maps_are_those_of_the_network_as_it_is_now(change):
    model = made("resnet8")
    before = gradient(model, IMAGES, TARGETS)
    change(model)
    points = IMAGES.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(points).gather(1, TARGETS[:, None]).sum(), points)
    found = gradient(model, IMAGES, TARGETS)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert (found - before).abs().max() > 1e-2 * expected.abs().max()


@pytest.mark.parametrize(
    "register",
    ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"],
)
def test_a_model_with_hooks_is_used_itself(register):
    model, seen = made("resnet8"), []
    assert fast(model) is not model
    getattr(model.layer2, register)(lambda *_: seen.append(1))
    assert fast(model) is model
    gradient(model, IMAGES, TARGETS)
    assert seen


@pytest.mark.parametrize("name", ["resnet8", "twice", "preact", pytest.param("resnet18", marks=pytest.mark.long)])
def test_maps_are_those_of_the_network_itself(name, monkeypatch):
    model = made(name)
    noise = torch.randn(4, *IMAGES.shape, generator=torch.Generator().manual_seed(3)) * 0.1
    ways = {
        "gradient": lambda: gradient(model, IMAGES, TARGETS),
        "smooth": lambda: smooth_grad(model, IMAGES, TARGETS, samples=4, noise=noise),
        "path": lambda: integrated_gradients(model, IMAGES, TARGETS, steps=4),
    }
    quick = {each: way() for each, way in ways.items()}
    monkeypatch.setattr(evaluation, "fast_copy", lambda model, _: model)
    for each, way in ways.items():
        plain = way()
        assert (quick[each] - plain).abs().max() <= 1e-5 * plain.abs().max(), each


def test_a_layer_that_does_a_later_ones_work_no_longer_answers_as_before():
    network = made("resnet8")
    copied = folded(network, IMAGES)
    seen = {}

    def keep(where, name):
        return lambda _module, _inputs, output: seen.setdefault(name, {}).update({where: output.clone()})

    for where, each in (("own", network), ("copy", copied)):
        for name, module in each.named_modules():
            module.register_forward_hook(keep(where, name))
    with torch.no_grad():
        network(IMAGES), copied(IMAGES)
    same = {name: torch.allclose(each["own"], each["copy"], rtol=1e-4, atol=1e-4) for name, each in seen.items()}
    assert same == {name: answers_as_before(copied, name) for name in seen}
    assert not all(same.values())


def test_a_network_whose_forward_was_replaced_is_not_copied():
    network = made("resnet8")
    network.forward = functools.partial(type(network).forward, network)
    assert folded(network, IMAGES) is network


class Viewed(nn.Module):
    """Flattens by `view`, which a channels_last tensor refuses."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 4, 3, stride=8), nn.BatchNorm2d(4), nn.Linear(64, 4)

    def forward(self, images):
        features = self.norm(self.conv(images)).relu()
        return self.linear(features.view(len(features), -1))


@pytest.mark.parametrize("method", [gradient, smooth_grad, integrated_gradients])
def test_a_network_that_flattens_by_view_is_folded_too(method):
    network = Viewed().eval()
    settings = {"samples": 2, "seeds": torch.arange(3)} if method is smooth_grad else {}
    maps = method(network, IMAGES, TARGETS, **settings)
    network.norm.register_forward_hook(lambda *_: None)  # with a hook it is used itself
    torch.testing.assert_close(maps, method(network, IMAGES, TARGETS, **settings), rtol=1e-4, atol=1e-6)
    assert folded(Viewed().eval(), IMAGES).conv.bias is not None
