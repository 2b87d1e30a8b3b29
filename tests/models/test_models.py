import pickle
import random
import re
from functools import partial

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import convnext, efficientnet, mobilenetv3

from efface.erase.batches import resident
from efface.methods.gradient import gradient
from efface.models import resnet
from efface.models.hookable import make_hookable
from efface.models.layers import find_layer, last_convolution
from efface.models.loaded import new_layers
from efface.models.normalise import Normalise, normalisation
from efface.models.torchvision import IMAGENET_MEAN, IMAGENET_STD, load
from efface.models.weights import head, read_weights
from efface.training.loop import TrainingRows, TrainingSettings, train
from small.batches import uniform_images
from small.messages import words
from small.networks import hooks, scrambled
from small.tiers import first_short

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
SMALL = [resnet.resnet8_wide, resnet.resnet8, resnet.resnet20, resnet.resnet32, resnet.resnet44, resnet.resnet56]
PARAMETERS = [1_227_594, 75_290, 269_722, 464_154, 658_586, 853_018]
PGD = "efface.training.attack.pgd"
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish)


images = partial(uniform_images, 2, seed=0, dtype=torch.float32)


def published_keys(blocks):
    """The weights that He et al.'s thin networks have when the shortcut has none, without step counts."""
    norm = ["weight", "bias", "running_mean", "running_var"]
    inside = ["conv1.weight", *(f"bn1.{k}" for k in norm), "conv2.weight", *(f"bn2.{k}" for k in norm)]
    keys = {"conv1.weight", "linear.weight", "linear.bias", *(f"bn1.{k}" for k in norm)}
    return keys | {f"layer{s}.{b}.{k}" for s in (1, 2, 3) for b in range(blocks) for k in inside}


def rectifier_calls(model, batch):
    """How often each non-linearity runs in one forward pass, by name."""
    calls = {name: 0 for name, module in model.named_modules() if isinstance(module, RECTIFIERS)}

    def counting(name):
        def count(*_):
            calls[name] += 1

        return count

    handles = [model.get_submodule(name).register_forward_hook(counting(name)) for name in calls]
    model.eval()(batch)
    for handle in handles:
        handle.remove()
    return calls


@pytest.mark.parametrize(("build", "count"), list(zip(SMALL, PARAMETERS, strict=True)))
def test_parameter_counts_are_the_published_ones(build, count):
    assert sum(p.numel() for p in build().parameters()) == count


@pytest.mark.parametrize(("build", "blocks"), [(resnet.resnet8, 1), (resnet.resnet20, 3), (resnet.resnet56, 9)])
def test_state_dict_has_the_published_names_with_and_without_normalisation(build, blocks):
    plain, normalised = build().state_dict(), build(mean=MEAN, std=STD).state_dict()
    assert {key for key in plain if "num_batches" not in key} == published_keys(blocks)
    assert plain.keys() == normalised.keys()


def test_projections_are_only_where_the_width_changes():
    keys = resnet.resnet8_wide().state_dict().keys()
    stages = {key.split(".")[0] for key in keys if "shortcut" in key}
    assert stages == {"layer2", "layer3"}


@pytest.mark.parametrize("build", SMALL[:3])
def test_normalisation_is_the_first_layer(build):
    inner, outer = scrambled(build()), build(mean=MEAN, std=STD).eval()
    outer.load_state_dict(inner.state_dict(), strict=True)
    by_hand = (images(32) - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(outer(images(32)), inner(by_hand))


@pytest.mark.parametrize("build", SMALL[:3])
@pytest.mark.parametrize("size", [8, 9, 32])
def test_any_image_size_and_channel_count(build, size):
    assert build(num_classes=7, in_channels=1)(images(size, channels=1)).shape == (2, 7)


def test_padding_shortcut_is_a_subsampled_copy_between_zeros():
    x = images(8, channels=4)
    y = resnet.Padding(4, 8)(x)
    assert torch.equal(y[:, 2:6], x[:, :, ::2, ::2])
    assert y[:, :2].abs().sum() + y[:, 6:].abs().sum() == 0


def test_a_block_with_silent_convolutions_is_its_shortcut():
    network = resnet.resnet8().eval()
    block = network.layer2[0]
    nn.init.zeros_(block.bn2.weight)
    x = images(8, channels=16)
    torch.testing.assert_close(block(x), block.shortcut(x))


@pytest.mark.parametrize("build", SMALL[:3])
def test_own_networks_use_each_relu_once_and_change_nothing_in_place(build):
    network = build()
    assert set(rectifier_calls(network, images(8)).values()) == {1}
    assert not any(getattr(module, "inplace", False) for module in network.modules())


def test_full_backward_hooks_see_every_layer():
    model = load("resnet18", num_classes=3).eval()
    seen = []
    for module in model.modules():
        module.register_full_backward_hook(lambda m, _, grad: seen.append((m, grad[0])))
    model(images(32).requires_grad_()).sum().backward()
    assert {id(m) for m, _ in seen} == {id(m) for m in model.modules()}


def test_weights_file_round_trip_under_any_wrapper(tmp_path):
    network = scrambled(resnet.resnet8(mean=MEAN, std=STD))
    wrapped = {f"module.{key}": value for key, value in network.state_dict().items() if "num_batches" not in key}
    for content in (network.state_dict(), wrapped, {"state_dict": wrapped, "epoch": 3}):
        torch.save(content, tmp_path / "w.pt")
        again = resnet.resnet8(mean=MEAN, std=STD, weights=tmp_path / "w.pt").eval()
        assert torch.equal(again(images(32)), network(images(32)))


def test_weights_of_another_class_count_are_named(tmp_path):
    torch.save(resnet.resnet8(num_classes=100).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=words("num_classes 10 100")):
        resnet.resnet8(weights=tmp_path / "w.pt")


def test_weights_of_another_network_list_a_few_differences(tmp_path):
    torch.save(resnet.resnet8_wide().state_dict(), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=words("conv1.weight 16x3x3x3 64x3x3x3")) as problem:
        resnet.resnet8(weights=tmp_path / "w.pt")
    assert "only in the file: layer2.0.shortcut" in str(problem.value)
    assert len(str(problem.value)) < 1000


@pytest.mark.parametrize("content", [b"", b"no weights at all", pickle.dumps({"a": print}, protocol=2)])
def test_a_file_without_weights_is_one_sentence(tmp_path, content):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(ValueError, match=words("w.pt")):
        read_weights(tmp_path / "w.pt")


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=words("none.pt")):
        resnet.resnet20(weights=tmp_path / "none.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=words("state dict")):
        resnet.resnet20(weights=tmp_path / "list.pt")


def test_mean_and_std_are_checked():
    for mean, std in [(MEAN, None), (MEAN, (1.0,)), (MEAN, (1.0, 0.0, 1.0)), ((0.5,), (0.5,))]:
        with pytest.raises(ValueError, match="mean"):
            normalisation(mean, std)
    assert isinstance(normalisation(None, None), nn.Identity)
    assert not Normalise(MEAN, STD).state_dict()


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "vgg11", "squeezenet1_0", "mobilenet_v3_small", "densenet121"]
)
def test_torchvision_network_computes_what_torchvision_computes(name):
    own = load(name, num_classes=5)
    scrambled(own)
    peer = torchvision.models.get_model(name, num_classes=5).eval()
    peer.load_state_dict(own.state_dict(), strict=True)
    batch = images(64)
    by_hand = (batch - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]
    torch.testing.assert_close(own.eval()(batch), peer(by_hand))
    assert set(rectifier_calls(own, batch).values()) == {1}
    assert not any(getattr(module, "inplace", False) for module in own.modules())


@pytest.mark.parametrize(
    "make",
    [
        lambda: efficientnet.MBConv(efficientnet.MBConvConfig(2, 3, 1, 8, 8, 1), 0.0, nn.BatchNorm2d),
        lambda: efficientnet.FusedMBConv(efficientnet.FusedMBConvConfig(2, 3, 1, 8, 8, 1), 0.0, nn.BatchNorm2d),
        lambda: convnext.CNBlock(8, 1.0, 0.0),
        lambda: mobilenetv3.InvertedResidual(
            mobilenetv3.InvertedResidualConfig(8, 3, 16, 8, False, "RE", 1, 1, 1.0), nn.BatchNorm2d
        ),
    ],
)
def test_a_residual_block_leaves_the_output_of_its_inner_layers(make):
    block, batch, kept = make().eval(), images(8, channels=8), []
    before, kind = block(batch), type(block)
    make_hookable(block)
    block.block.register_forward_hook(lambda _, __, out: kept.append((out, out.clone())))
    torch.testing.assert_close(block(batch), before)
    assert torch.equal(*kept[0])
    assert isinstance(block, kind)


def test_a_network_survives_pickling():
    network = load("resnet18", num_classes=4).eval()
    again = pickle.loads(pickle.dumps(network))  # noqa: S301 - its own
    assert torch.equal(again(images(32)), network(images(32)))


def test_inception_gives_scores_alone_while_training():
    network = load("googlenet", num_classes=4, init_weights=False)
    assert network.train()(images(64)).shape == (2, 4)


@pytest.mark.parametrize("name", first_short(2, ["squeezenet1_0", "mnasnet0_5", "resnet18"]))
def test_torchvision_weights_file_and_a_new_head(name, tmp_path):
    source = load(name, num_classes=6)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    same = load(name, weights=tmp_path / "w.pth")
    assert torch.equal(same.eval()(images(32)), source.eval()(images(32)))
    fresh = load(name, weights=str(tmp_path / "w.pth"), num_classes=3)
    assert fresh.eval()(images(32)).shape == (2, 3)
    last = head(source)
    kept = {key: value for key, value in source.state_dict().items() if not key.startswith(last)}
    assert all(torch.equal(fresh.state_dict()[key], value) for key, value in kept.items())
    assert new_layers(fresh) == (last,)
    assert new_layers(same) == new_layers(load(name, num_classes=3)) == ()


@pytest.mark.parametrize("name", first_short(1, ["squeezenet1_0", "resnet18"]))
def test_of_a_frozen_network_a_training_changes_the_last_layer_and_running_statistics_alone(name, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)  # some random SqueezeNets rectify every logit to 0, and then no gradient is left
        torch.save(load(name, num_classes=6).state_dict(), tmp_path / "w.pth")
        frozen = load(name, weights=tmp_path / "w.pth", num_classes=3, freeze=True)
    before = {key: value.clone() for key, value in frozen.state_dict().items()}
    stored = (uniform_images(8, 40, seed=0, dtype=torch.float32) * 255).byte()
    feed = resident(8, lambda rows: (stored[rows], None), lambda found, maps, rows, epoch: found)
    optimizer = {"call": "torch.optim.AdamW", "kwargs": {"lr": 1e-3, "weight_decay": 0.5}}
    settings = TrainingSettings(
        epochs=1, batch_size=4, optimizer=optimizer, attack={"call": PGD, "kwargs": {"norm": "linf", "eps": 0.1}}
    )
    targets = torch.arange(8) % 3
    trained = train(
        lambda: frozen, feed, TrainingRows(torch.arange(8)), targets, settings, seed=0, device=torch.device("cpu")
    )
    changed = {k for k, value in trained.network.state_dict().items() if not torch.equal(value, before[k])}
    last = head(frozen)
    assert {f"{last}.weight", f"{last}.bias"} <= changed
    assert all(k.startswith(last) or k.split(".")[-1] in STATISTICS for k in changed)
    maps = gradient(trained.network, images(40), targets[:2])
    assert maps.abs().sum() > 0
    with pytest.raises(ValueError, match=words("freeze weights")):
        load(name, freeze=True)


def test_old_names_and_auxiliary_branches_of_a_published_file(tmp_path):
    state = {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value
        for key, value in torchvision.models.densenet121(num_classes=2).state_dict().items()
    }
    torch.save(state | {"aux1.fc.weight": torch.zeros(1)}, tmp_path / "w.pth")
    assert load("densenet121", weights=tmp_path / "w.pth")(images(32)).shape == (2, 2)


def test_wrong_torchvision_names_are_answered_with_near_ones(tmp_path):
    with pytest.raises(ValueError, match=words("resnet51 resnet50")):
        load("resnet51")
    with pytest.raises(FileNotFoundError, match=words("IMAGENET1K_V3 IMAGENET1K_V2")):
        load("resnet50", weights="IMAGENET1K_V3")
    with pytest.raises(ValueError, match=words("resnet18 width")):
        load("resnet18", width=2)


def test_a_failed_download_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", offline)
    with pytest.raises(FileNotFoundError, match=rf"no route to host.*{tmp_path}/checkpoints/resnet18-"):
        load("resnet18", weights="DEFAULT")


def test_torchvision_weights_by_name_come_from_its_cache(tmp_path, monkeypatch):
    state = scrambled(torchvision.models.squeezenet1_1()).state_dict()
    monkeypatch.setattr(torchvision.models.SqueezeNet1_1_Weights, "get_state_dict", lambda *_, **__: state)
    model = load("squeezenet1_1", weights="IMAGENET1K_V1", num_classes=4)
    assert torch.equal(model.features[0].weight, state["features.0.weight"])
    assert model.eval()(images(64)).shape == (2, 4)


@pytest.mark.parametrize("build", SMALL[:3])
def test_layer_names_are_the_networks_own_whatever_wraps_it(build):
    network = build(mean=MEAN, std=STD)
    for wrapped in (network, nn.DataParallel(network), nn.Sequential(nn.Identity(), nn.Sequential(network))):
        assert find_layer(wrapped, "layer3.0") is network.layer3[0]
        assert find_layer(wrapped, "conv1") is network.conv1
    model = load("resnet18", num_classes=2)
    assert find_layer(model, "layer4.1.relu") is model.layer4[1].relu


def test_unknown_and_ambiguous_layers():
    network = resnet.resnet8()
    with pytest.raises(ValueError, match=words("layr3 ResNet layer3")):
        find_layer(network, "layr3")
    with pytest.raises(ValueError, match=words("relu1 layer1.0.relu1 layer2.0.relu1 layer3.0.relu1")):
        find_layer(network, "relu1")
    with pytest.raises(ValueError, match=words("conv1")):
        find_layer(network, "")


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "layer4"),
        ("vgg11", "features"),
        ("squeezenet1_0", "features"),
        ("densenet121", "features"),
        ("mobilenet_v3_small", "features"),
    ],
)
def test_last_convolution_of_torchvision_networks(name, layer):
    model = load(name, num_classes=5)
    assert last_convolution(model, images(80)) is model.get_submodule(layer)


@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize("build", SMALL[:3])
def test_last_convolution_of_own_networks_is_the_last_stage(build, size):
    network = build()
    for wrapped in (network, nn.DataParallel(network)):
        assert last_convolution(wrapped, images(size)) is network.layer3


def test_last_convolution_of_plain_stacks():
    linear = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2))
    assert last_convolution(linear, images(8)) is linear[1]
    pooled = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Dropout(), nn.Conv2d(4, 2, 1), nn.AvgPool2d(6), nn.Flatten()
    )
    assert last_convolution(pooled, images(8)) is pooled[1]
    dense = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    with pytest.raises(ValueError, match=words("Sequential 8x8 convolution")):
        last_convolution(dense, images(8))


def test_last_convolution_leaves_the_model_as_it_was():
    network = resnet.resnet8().train()
    network.layer2.eval()
    modes = [module.training for module in network.modules()]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    last_convolution(network, images(8))
    with pytest.raises(RuntimeError):
        last_convolution(network, images(8, channels=5))
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(network.state_dict()[key], value) for key, value in state.items())
    assert hooks(network) == 0


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_file_of_weights_is_refused_with_its_name(tmp_path, zipped):
    file = tmp_path / "w.pt"
    torch.save(nn.Linear(3, 2).state_dict(), file, _use_new_zipfile_serialization=zipped)
    whole, draw = file.read_bytes(), random.Random(3)  # noqa: S311  no secret
    damaged = [whole[:end] for end in draw.sample(range(len(whole) // 2), 40)]
    damaged += [whole[start:] for start in range(3, 40)]
    damaged += [draw.randbytes(length) for length in range(40)]
    for content in damaged:
        file.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(str(file))):
            read_weights(file)
