"""Networks of the model studies: published parameter counts, hand-built equals, methods that have to work on them."""

from collections import OrderedDict
from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from efface.methods.backprop import guided_backprop
from efface.methods.cam import grad_cam
from efface.methods.fullgrad import full_grad, full_grad_parts
from efface.methods.gradient import gradient
from efface.models import cifar
from efface.models.activation import nonlinearity
from efface.models.fast_copy import folded
from efface.models.layers import last_convolution
from efface.models.preact import preact_resnet, preact_resnet18
from efface.models.resnet import BasicBlock, resnet8, resnet8_wide, resnet20
from efface.models.small import mlp, mnist_cnn
from efface.models.weights import load_weights, read_weights
from small.batches import uniform_images
from small.messages import words
from small.networks import scrambled
from small.tiers import first_short

PUBLISHED = {  # parameters with 100 classes
    "resnet9": 4_949_412,
    "resnet18": 11_220_132,
    "resnet34": 21_328_292,
    "resnet50": 23_705_252,
    "vgg5": 1_757_796,
    "vgg7": 4_709_220,
    "vgg11": 9_615_780,
    "vgg14": 14_928_036,
}
SMALL_RESNET = {"blocks": [1, 2], "widths": [4, 6], "num_classes": 3}
SMALL_PREACT = {"blocks": [2, 1], "widths": [4, 6], "num_classes": 3}
SMALL_VGG = {"plan": [4, "M", 5, "M", 6], "size": 8, "num_classes": 3}
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


images = partial(uniform_images, 3, seed=0, dtype=torch.float32)


def parameters(network):
    return sum(each.numel() for each in network.parameters())


def kinds(network, kind):
    return [name for name, each in network.named_modules() if isinstance(each, kind)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name):
    with torch.device("meta"):
        assert parameters(getattr(cifar, name)(num_classes=100)) == PUBLISHED[name]
        grey = getattr(cifar, name)(in_channels=1)
        told = getattr(cifar, name).__doc__
    stem = 2 * 64 * 9
    assert f"{parameters(grey) + stem:,} parameters" in told


def test_the_reference_systems_networks_are_one_line():
    with torch.device("meta"):
        wide = cifar.resnet(blocks=[1, 1, 1], widths=[64, 128, 256], strides=[1, 1, 2], activation="relu")
        assert parameters(wide) == 1_227_594  # the stride moves no weight: as ResNet8
        ten = cifar.resnet(blocks=[1, 1, 1, 1], activation="relu")
        deep = cifar.resnet(blocks=[3, 4, 23, 3], bottleneck=True, activation="relu")
        deepest = cifar.resnet(blocks=[3, 8, 36, 3], bottleneck=True, activation="relu")
    # Weighted layers: the number in the name, and a projection for each stage whose shape changes.
    assert len(kinds(ten, (nn.Conv2d, nn.Linear))) == 10 + 3
    assert len(kinds(deep, (nn.Conv2d, nn.Linear))) == 101 + 4
    assert len(kinds(deepest, (nn.Conv2d, nn.Linear))) == 152 + 4


def test_strides_are_those_asked_for():
    network = cifar.resnet(**SMALL_RESNET | {"blocks": [1, 1, 1], "widths": [4, 4, 6], "strides": [1, 1, 2]}).eval()
    seen = {}
    for name in network.stages:
        network.get_submodule(name).register_forward_hook(lambda _m, _i, o, name=name: seen.update({name: o.shape}))
    network(images(8))
    assert {name: tuple(shape[1:]) for name, shape in seen.items()} == {
        "layer1": (4, 8, 8),
        "layer2": (4, 8, 8),
        "layer3": (6, 4, 4),
    }
    default = cifar.resnet(blocks=[1, 1, 1], widths=[4, 4, 6])
    assert [default.get_submodule(name)[0].conv1.stride for name in default.stages] == [(1, 1), (2, 2), (2, 2)]


@pytest.mark.parametrize("make", [resnet8, resnet20, resnet8_wide], ids=lambda make: make.__name__)
def test_a_network_without_batch_norm_is_that_with_its_batch_norms_folded(make):
    known, plain = scrambled(make(num_classes=4)), make(num_classes=4, batch_norm=False).eval()
    assert kinds(known, nn.BatchNorm2d)
    assert not kinds(plain, nn.BatchNorm2d)
    shared = {name for name in known.state_dict() if name.rpartition(".")[0] not in kinds(known, nn.BatchNorm2d)}
    assert set(plain.state_dict()) == shared | {f"{name}.bias" for name in kinds(known, nn.Conv2d)}
    assert dict(plain.named_modules()).keys() == dict(known.named_modules()).keys()
    state = folded(known, images()).state_dict()
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    torch.testing.assert_close(plain(images()), known(images()), atol=1e-4, rtol=1e-4)


def test_without_batch_norm_each_block_starts_as_its_shortcut():
    network, given = resnet20(batch_norm=False).eval(), {}
    blocks = [module for module in network.modules() if isinstance(module, BasicBlock)]
    for block in blocks:
        block.register_forward_hook(lambda block, inputs, output: given.update({block: (*inputs, output)}))
    network(images())
    assert len(given) == len(blocks) == 9
    for block, (x, output) in given.items():
        torch.testing.assert_close(output, block.shortcut(x).relu(), atol=0, rtol=0)
    deep = torch.cat([block.conv1.weight.flatten() * (block.conv1.in_channels * 9) ** 0.5 for block in blocks])
    assert deep.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.02)  # He's 2 / n, over the 9 blocks


@pytest.mark.parametrize("beta", [1.0, 10.0])
def test_softplus_has_its_beta_and_nears_relu(beta):
    make = nonlinearity("softplus", beta)
    z = torch.linspace(-1.9, 1.9, 21, dtype=torch.float64)
    torch.testing.assert_close(make()(z), (1 + (beta * z).exp()).log() / beta)
    assert make() is not make()
    network = cifar.vgg(**SMALL_VGG, beta=beta)
    assert {each.beta for each in network.modules() if isinstance(each, nn.Softplus)} == {beta}
    steep, relu = cifar.vgg(**SMALL_VGG, beta=1e5).eval(), cifar.vgg(**SMALL_VGG, activation="relu").eval()
    relu.load_state_dict(steep.state_dict())
    torch.testing.assert_close(steep(images()), relu(images()), atol=1e-4, rtol=0)


def test_every_non_linearity_is_softplus_unless_the_mixed_original_is_asked_for():
    with torch.device("meta"):
        for name in PUBLISHED:
            network = getattr(cifar, name)()
            assert kinds(network, nn.Softplus)
            assert not kinds(network, nn.ReLU)
            assert not kinds(getattr(cifar, name)(activation="relu"), nn.Softplus)
        mixed = cifar.resnet50(inner="relu")
    inside = [f"layer{s}.{b}.relu{i}" for s, n in enumerate((3, 4, 6, 3), 1) for b in range(n) for i in (1, 2)]
    assert kinds(mixed, nn.ReLU) == inside
    assert len(kinds(mixed, nn.Softplus)) == 16 + 1  # the sums and the stem


def test_a_vgg_is_the_sequence_of_its_plan():
    network = scrambled(cifar.vgg(**SMALL_VGG, mean=MEAN, std=STD))
    made = []
    for inputs, outputs, pool in ((3, 4, True), (4, 5, True), (5, 6, False)):
        made += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.Softplus(beta=10)]
        made += [nn.MaxPool2d(2)] if pool else []
    by_hand = nn.Sequential(*made, nn.Flatten(), nn.Linear(6 * 2 * 2, 3)).eval()
    by_hand.load_state_dict(
        OrderedDict(zip(by_hand.state_dict(), network.state_dict().values(), strict=True)), strict=True
    )
    normalised = (images() - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    assert torch.equal(network(images()), by_hand(normalised))


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_resnet_is_its_equations(bottleneck):
    network = scrambled(cifar.resnet(**SMALL_RESNET, bottleneck=bottleneck))
    soft = nn.Softplus(beta=10)

    def normed(name, x):
        layer = network.get_submodule(name)
        mean, var = layer.running_mean[:, None, None], layer.running_var[:, None, None]
        return (x - mean) / (var + 1e-5).sqrt() * layer.weight[:, None, None] + layer.bias[:, None, None]

    def convolved(name, x, **kwargs):
        return F.conv2d(x, network.get_submodule(name).weight, **kwargs)

    x = soft(normed("bn1", convolved("conv1", images(), padding=1)))
    for name, stride in (("layer1.0", 1), ("layer2.0", 2), ("layer2.1", 1)):
        first, middle = ({}, {"padding": 1, "stride": stride}) if bottleneck else ({"padding": 1, "stride": stride}, {})
        inner = soft(normed(f"{name}.bn1", convolved(f"{name}.conv1", x, **first)))
        inner = normed(f"{name}.bn2", convolved(f"{name}.conv2", inner, **middle or {"padding": 1}))
        if bottleneck:
            inner = normed(f"{name}.bn3", convolved(f"{name}.conv3", soft(inner)))
        if f"{name}.shortcut.0" in dict(network.named_modules()):
            x = normed(f"{name}.shortcut.1", convolved(f"{name}.shortcut.0", x, stride=stride))
        x = soft(inner + x)
    expected = x.mean((2, 3)) @ network.linear.weight.T + network.linear.bias
    torch.testing.assert_close(network(images()), expected, atol=1e-5, rtol=1e-5)
    assert x.shape[1] == (24 if bottleneck else 6)


# Blocks that normalise and rectify first


def counted(blocks, widths, classes, expansion, *, final_norm):
    """Parameters of a pre-activation network, by the formula of each layer."""
    total, inputs = 3 * 9 * widths[0], widths[0]
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        for block in range(count):
            outputs = width * expansion
            if expansion == 1:
                total += 2 * inputs + 9 * inputs * width + 2 * width + 9 * width * width
            else:
                total += 2 * inputs + inputs * width + 2 * width + 9 * width * width + 2 * width + width * outputs
            if inputs != outputs or (stage > 0 and block == 0):
                total += inputs * outputs
            inputs = outputs
    return total + (2 * inputs if final_norm else 0) + (inputs + 1) * classes


@pytest.mark.parametrize("final_norm", [True, False])
def test_parameters_of_a_preactivation_network_are_those_of_its_layers(final_norm):
    four = (64, 128, 256, 512)
    with torch.device("meta"):
        eighteen = parameters(preact_resnet18(final_norm=final_norm))
        deep = preact_resnet(blocks=[3, 4, 6, 3], bottleneck=True, num_classes=100, final_norm=final_norm)
        same = preact_resnet(blocks=[2, 1], widths=[4, 4], strides=[1, 2], final_norm=final_norm)
    assert eighteen == counted((2, 2, 2, 2), four, 10, 1, final_norm=final_norm)
    assert f"{eighteen:,}" in preact_resnet18.__doc__
    assert parameters(deep) == counted((3, 4, 6, 3), four, 100, 4, final_norm=final_norm)
    assert parameters(same) == counted((2, 1), (4, 4), 10, 1, final_norm=final_norm)  # a stride projects, too


@pytest.mark.parametrize("final_norm", [True, False])
@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_preactivation_network_is_its_equations(bottleneck, final_norm):
    network = scrambled(preact_resnet(**SMALL_PREACT, bottleneck=bottleneck, final_norm=final_norm, mean=MEAN, std=STD))
    state = network.state_dict()

    def rectified(name, x):
        parts = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{name}.{part}"] for part in parts)).relu()

    def convolved(name, x, padding, stride=1):
        return F.conv2d(x, state[f"{name}.weight"], padding=padding, stride=stride)

    x = (images() - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    x, projected = convolved("conv1", x, 1), []
    for name, stride in (("layer1.0", 1), ("layer1.1", 1), ("layer2.0", 2)):
        first = rectified(f"{name}.bn1", x)
        if bottleneck:
            inner = rectified(f"{name}.bn2", convolved(f"{name}.conv1", first, 0))
            inner = rectified(f"{name}.bn3", convolved(f"{name}.conv2", inner, 1, stride))
            inner = convolved(f"{name}.conv3", inner, 0)
        else:
            inner = rectified(f"{name}.bn2", convolved(f"{name}.conv1", first, 1, stride))
            inner = convolved(f"{name}.conv2", inner, 1)
        if inner.shape != x.shape:
            projected.append(name)
            x = convolved(f"{name}.shortcut.0", first, 0, stride)
        x = inner + x
    assert projected == (["layer1.0", "layer2.0"] if bottleneck else ["layer2.0"])
    features = rectified("bn", x) if final_norm else x
    torch.testing.assert_close(network(images()), network.linear(features.mean((2, 3))), atol=1e-5, rtol=1e-5)
    assert last_convolution(network, images()) is (network.relu if final_norm else network.layer2)
    assert not any(getattr(each, "inplace", False) for each in network.modules())
    ran = []
    for name in kinds(network, nn.ReLU):
        network.get_submodule(name).register_forward_hook(lambda _m, _i, _o, name=name: ran.append(name))
    network(images())
    assert ran == kinds(network, nn.ReLU)  # each once


def test_a_preactivation_network_has_the_names_of_published_state_dicts():
    with torch.device("meta"):
        keys = {*preact_resnet18(final_norm=False).state_dict()}
    assert {"conv1.weight", "layer1.0.bn1.weight", "layer1.0.conv1.weight", "layer4.1.conv2.weight"} < keys
    assert {name for name in keys if "shortcut" in name} == {f"layer{k}.0.shortcut.0.weight" for k in (2, 3, 4)}
    assert {"linear.weight", "linear.bias"} < keys
    assert not {name for name in keys if name.startswith(("bn", "relu"))}
    assert preact_resnet18(num_classes=7, mean=MEAN, std=STD).eval()(
        uniform_images(2, 8, seed=0, dtype=torch.float32)
    ).shape == (2, 7)


@pytest.mark.parametrize("name", ["resnet9", "vgg5"])
def test_the_named_networks_take_small_photographs(name):
    assert getattr(cifar, name)(num_classes=7, mean=MEAN, std=STD).eval()(
        uniform_images(2, 32, seed=0, dtype=torch.float32)
    ).shape == (2, 7)


@pytest.mark.parametrize(
    "build",
    [
        lambda **s: cifar.resnet(**SMALL_RESNET, **s),
        lambda **s: cifar.vgg(**SMALL_VGG, **s),
        lambda **s: preact_resnet(**SMALL_PREACT, **s),
    ],
)
@pytest.mark.parametrize("activation", ["softplus", "relu"])
def test_gradients_cams_and_full_gradients_work_on_them(build, activation):
    network, batch, targets = scrambled(build(activation=activation)), images(), torch.tensor([0, 2, 1])
    assert gradient(network, batch, targets).abs().sum() > 0
    assert grad_cam(network, batch, targets).shape == (3, 8, 8)
    assert full_grad(network, batch, targets).isfinite().all()
    assert full_grad_parts(network, batch, targets).rest.abs().max() < 1e-4  # complete, softplus and all
    if activation == "relu":
        assert guided_backprop(network, batch, targets).abs().sum() > 0
    else:
        with pytest.raises(ValueError, match=words("Softplus")):
            guided_backprop(network, batch, targets)


def test_softplus_has_a_hessian_and_relu_has_none():
    for activation, curved in (("softplus", True), ("relu", False)):
        network = scrambled(cifar.resnet(**SMALL_RESNET, activation=activation)).double()
        point = uniform_images(1, seed=0, dtype=torch.float32).double()
        hessian = torch.autograd.functional.hessian(lambda x, network=network: network(x)[0, 0], point)
        assert bool(hessian.abs().max() > 1e-9) == curved


def test_weights_go_round(tmp_path):
    for build in (
        lambda **s: cifar.resnet(**SMALL_RESNET, **s),
        lambda **s: cifar.vgg(**SMALL_VGG, **s),
        lambda **s: preact_resnet(**SMALL_PREACT, **s),
        lambda **s: mlp(in_features=192, widths=[5], in_channels=3, **s),
        lambda **s: mlp(in_features=192, widths=[5], in_channels=3, batch_norm=True, dropout=0.5, **s),
    ):
        network = scrambled(build())
        torch.save(network.state_dict(), tmp_path / "w.pt")
        again = build(weights=str(tmp_path / "w.pt"), mean=MEAN, std=STD).eval()
        coloured = images() * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
        torch.testing.assert_close(again(coloured), network(images()), atol=1e-5, rtol=1e-5)


# Small ones


def test_mnist_cnn_is_the_published_one():
    network = mnist_cnn().eval()
    assert parameters(network) == 832 + 51_264 + 3_212_288 + 10_250
    x, state = images(28, channels=1), network.state_dict()
    for name in ("conv1", "conv2"):
        x = F.max_pool2d(F.relu(F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=2)), 2)
    x = F.relu(F.linear(x.flatten(1), state["linear1.weight"], state["linear1.bias"]))
    expected = F.linear(x, state["linear2.weight"], state["linear2.bias"])
    torch.testing.assert_close(network(images(28, channels=1)), expected)
    assert mnist_cnn(size=8, num_classes=2)(images(8, channels=1)).shape == (3, 2)
    assert guided_backprop(network, images(28, channels=1), torch.zeros(3, dtype=torch.int64)).abs().sum() > 0


@pytest.mark.parametrize("widths", [[], [7], [4, 9, 5]])
@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_a_fully_connected_network_of_any_depth(widths, activation):
    network = mlp(in_features=27, in_channels=3, widths=widths, activation=activation, beta=3.0, num_classes=2)
    sizes = [27, *widths, 2]
    assert parameters(network) == sum((a + 1) * b for a, b in pairwise(sizes))
    x = images(3).flatten(1)
    for layer in kinds(network, nn.Linear)[:-1]:
        x = network.get_submodule(layer)(x)
        x = x.relu() if activation == "relu" else F.softplus(x, beta=3.0)
    torch.testing.assert_close(network(images(3)), network.linear(x))


def test_a_fully_connected_network_with_batchnorm_and_dropout_is_its_equations():
    network = mlp(in_features=27, widths=[7, 5], in_channels=3, batch_norm=True, dropout=0.5, input_dropout=0.2)
    names = ["normalise", "flatten", "input_dropout"]
    names += [f"{each}{number}" for number in (1, 2) for each in ("linear", "bn", "relu", "dropout")]
    assert [name for name, _ in network.named_children()] == [*names, "linear"]
    for each in (network.bn1, network.bn2):
        for tensor in (each.weight, each.bias, each.running_mean, each.running_var):
            tensor.data += torch.rand(tensor.shape, generator=torch.Generator().manual_seed(1))
    x = images(3).flatten(1)
    for linear, norm in ((network.linear1, network.bn1), (network.linear2, network.bn2)):
        x = ((linear(x) - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias).relu()
    torch.testing.assert_close(network.eval()(images(3)), network.linear(x))
    copied = folded(network, images(3))
    assert copied is not network
    torch.testing.assert_close(copied(images(3)), network.linear(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("setting", "name"), [("dropout", "dropout2"), ("input_dropout", "input_dropout")])
def test_dropout_loses_its_share_in_training_and_nothing_afterwards(setting, name):
    network = mlp(in_features=3000, widths=[4, 3000], in_channels=3, **{setting: 0.3})
    whole = mlp(in_features=3000, widths=[4, 3000], in_channels=3)
    whole.load_state_dict(network.state_dict())  # the same names
    kept = []
    network.get_submodule(name).register_forward_hook(lambda _m, inputs, output: kept.append((inputs[0], output)))
    batch = uniform_images(8, seed=0, dtype=torch.float32).repeat(1, 1, 4, 5)[:, :, :25] * 0.9 + 0.1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network.train()(batch)
    before, after = kept[0]
    lost = (after == 0)[before != 0].float()
    assert abs(lost.mean() - 0.3) < 5 * (0.3 * 0.7 / len(lost)) ** 0.5
    torch.testing.assert_close(after[after != 0], before[after != 0] / 0.7)
    assert torch.equal(network.eval()(batch), whole.eval()(batch))


def test_a_fully_connected_network_without_these_is_the_one_that_it_was():
    assert list(mlp(in_features=27, widths=[7], in_channels=3).state_dict()) == [
        "linear1.weight", "linear1.bias", "linear.weight", "linear.bias",
    ]  # fmt: skip
    plain = mlp(in_features=27, widths=[7], in_channels=3, batch_norm=False, dropout=0.0, input_dropout=0.0)
    assert [name for name, _ in plain.named_children()] == ["normalise", "flatten", "linear1", "relu1", "linear"]


def test_a_centred_network_sees_the_vectors_that_were_stored():
    linear = mlp(in_features=4, widths=[], centred=True, num_classes=2)
    stored = torch.tensor([1, 128, 255, 64], dtype=torch.uint8)[None, None, None]
    seen = linear.normalise(stored.float() / 255).flatten()
    assert seen[1] == 0
    torch.testing.assert_close(seen, torch.tensor([-1, 0, 1, -64 / 127]), atol=2e-7, rtol=0)
    box = linear.normalise(torch.tensor([0.0, 1.0])).flatten()
    torch.testing.assert_close(box, torch.tensor([-128 / 127, 1]), atol=2e-7, rtol=0)
    radius = linear.normalise(torch.tensor([0.3, 0.3 + 0.45 * 127 / 255])).flatten().diff()
    assert radius.item() == pytest.approx(0.45, abs=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cifar.resnet(blocks=[1, 1], widths=[4]), "resnet blocks stage"),
        (lambda: cifar.resnet(blocks=[1, 0], widths=[4, 4]), "at least 1"),
        (lambda: cifar.resnet(blocks=[], widths=[]), "at least 1"),
        (lambda: cifar.resnet(blocks=[1, 1], widths=[4, 4], strides=[1]), "stage"),
        (lambda: cifar.vgg(plan=["M"]), "convolution"),
        (lambda: cifar.vgg(plan=[4, "M", "M"], size=2), "2x2 4 2"),
        (lambda: cifar.vgg(plan=[4], beta=0.0), "beta 0.0"),
        (lambda: preact_resnet(blocks=[1, 1], widths=[4]), "preact_resnet blocks [1, 1] widths [4]"),
        (lambda: preact_resnet(blocks=[]), "preact_resnet stage"),
        (lambda: preact_resnet(blocks=[1, 0], widths=[4, 4]), "at least 1"),
        (lambda: mlp(in_features=3, dropout=1.0), "dropout 1.0"),
        (lambda: mlp(in_features=3, input_dropout=-0.1), "input_dropout -0.1"),
        (lambda: mlp(in_features=3, widths=[], batch_norm=True), "batch_norm widths"),
        (lambda: mlp(in_features=3, widths=[], dropout=0.5), "dropout 0.5 widths"),
        (lambda: mnist_cnn(size=3), "size 3 4"),
        (lambda: mlp(in_features=0), "in_features 0"),
        (lambda: mlp(in_features=3, widths=[2, 0]), "widths [2, 0]"),
        (lambda: mlp(in_features=3, centred=True, mean=[0.5], std=[0.5]), "centred"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(make, message):
    with pytest.raises(ValueError, match=words(message)):
        make()


# Checkpoints of the released code


class _OldBlock(nn.Module):
    """A block by the names of the score-matching system."""

    def __init__(self, inputs, width, stride, wide):
        super().__init__()
        outputs, act = (4 * width, nn.ReLU) if wide else (width, lambda: nn.Softplus(10))
        sizes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        parts = []
        for c, k, size, step in sizes if wide else [(inputs, width, 3, stride), (width, width, 3, 1)]:
            parts += [nn.Conv2d(c, k, size, step, padding=size // 2, bias=False), nn.BatchNorm2d(k), act()]
        self.residual_function = nn.Sequential(*parts[:-1])
        straight = stride == 1 and inputs == outputs
        past = () if straight else (nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Sequential(*past)

    def forward(self, x):
        return F.softplus(self.residual_function(x) + self.shortcut(x), 10)


class _OldResNet(nn.Module):
    def __init__(self, blocks, wide, classes):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.Softplus(10))
        inputs = 64
        for number, count in enumerate(blocks):
            made, width = [], 64 * 2**number
            for each in range(count):
                made.append(_OldBlock(inputs, width, 2 if number and not each else 1, wide))
                inputs = width * (4 if wide else 1)
            self.add_module(f"conv{number + 2}_x", nn.Sequential(*made))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        for part in (self.conv1, self.conv2_x, self.conv3_x, self.conv4_x, self.conv5_x):
            x = part(x)
        return self.fc(x.mean((2, 3)))


class _OldVgg(nn.Module):
    def __init__(self, plan, classes):
        super().__init__()
        parts, inputs = [], 3
        for each in plan:
            if each == "M":
                parts.append(nn.MaxPool2d(2))
            else:
                parts += [nn.Conv2d(inputs, each, 3, padding=1), nn.BatchNorm2d(each), nn.Softplus(beta=10)]
                inputs = each
        self.features, self.classifier = nn.Sequential(*parts), nn.Linear(4 * inputs, classes)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


OLD = {
    "resnet9": (lambda: _OldResNet((1, 1, 1, 1), False, 3), {}),
    "resnet18": (lambda: _OldResNet((2, 2, 2, 2), False, 3), {}),
    "resnet50": (lambda: _OldResNet((3, 4, 6, 3), True, 3), {"inner": "relu"}),
    "vgg5": (lambda: _OldVgg(cifar.VGG5, 3), {}),
    "vgg11": (lambda: _OldVgg(cifar.VGG11, 3), {}),
}


@pytest.mark.parametrize("name", first_short(2, ["resnet9", "vgg5", "resnet50", "resnet18", "vgg11"]))
def test_a_checkpoint_of_the_released_code_is_the_same_network(tmp_path, name):
    make, settings = OLD[name]
    torch.manual_seed(3)
    old = scrambled(make())
    torch.save(old.state_dict(), tmp_path / "old.pt")
    network = getattr(cifar, name)(num_classes=3, weights=tmp_path / "old.pt", **settings).eval()
    shown = uniform_images(2, 32, dtype=torch.float32)
    torch.testing.assert_close(network(shown), old(shown), rtol=1e-4, atol=1e-5)
    again = getattr(cifar, name)(num_classes=3, **settings)
    load_weights(again, read_weights(tmp_path / "old.pt"), "old.pt")  # the study's own key `weights`
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in again.state_dict().items())


def test_a_checkpoint_of_other_names_is_refused_by_its_own_names(tmp_path):
    old = _OldResNet((1, 1, 1, 1), False, 3).state_dict()
    with pytest.raises(ValueError, match=words("conv1.0.weight ResNet")):
        load_weights(resnet20(num_classes=3), old, "old.pt")  # another network does not know these names
    with pytest.raises(ValueError, match=words("conv3_x.1.residual_function.0.weight")):
        load_weights(cifar.resnet9(num_classes=3), _OldResNet((1, 2, 1, 1), False, 3).state_dict(), "old.pt")
    with pytest.raises(ValueError, match=words("num_classes 5 3")):
        load_weights(cifar.resnet9(num_classes=5), old, "old.pt")
