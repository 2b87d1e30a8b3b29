"""The default layer is one through which all passes that a network reads from the image."""

import pytest
import torch
from torch import nn
from torchvision.models import convnext

from efface.methods import cam
from efface.models.adapt import Adaptation, adapted
from efface.models.cut import is_cut
from efface.models.layers import feature_layer
from small.elsewhere import transformers
from small.messages import words


class Block(nn.Module):
    """A residual sum, which the block itself returns, before an activation that changes it in place."""

    def __init__(self):
        super().__init__()
        self.branch, self.after = nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(inplace=True)

    def forward(self, features):
        return self.after(features + self.branch(features))


class Residual(nn.Module):
    """As `Block`, but the sum is returned by no module: what finishes last is the branch."""

    def __init__(self):
        super().__init__()
        self.stem, self.relu, self.mixed = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)
        self.branch, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, images):
        features = self.mixed(self.relu(self.stem(images)))
        return self.head((features + self.branch(features)).mean((2, 3)))


class TwoStreams(nn.Module):
    """Two branches that meet only where nothing has a place any more."""

    def __init__(self):
        super().__init__()
        self.stem, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, images):
        stem = self.relu(self.stem(images))
        return self.head(torch.cat([self.one(stem).mean((2, 3)), self.two(stem).mean((2, 3))], 1))


IMAGES = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("build", "cuts", "branches"),
    [
        (
            lambda: nn.Sequential(nn.Conv2d(3, 8, 3), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
            ["0", "1", "1.after", "4"],
            ["1.branch"],
        ),
        (Residual, ["stem", "mixed"], ["branch"]),
        (TwoStreams, ["stem", "relu", "head"], ["one", "two"]),
    ],
)
def test_a_layer_is_a_cut_if_no_way_passes_by_it(build, cuts, branches):
    network = build().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert [name for name in cuts + branches if is_cut(network, IMAGES, name)] == cuts
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())  # noqa: SLF001
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_default_layer_is_before_a_branch_that_finishes_last():
    network = Residual().eval()
    assert feature_layer(network, IMAGES, None).name == "mixed"
    maps = cam.grad_cam(network, IMAGES, torch.tensor([0, 1]))
    torch.testing.assert_close(maps, cam.grad_cam(network, IMAGES, torch.tensor([0, 1]), layer="mixed"))


def test_a_last_stage_of_one_place_is_not_read_as_a_picture_of_its_channels():
    setting = [convnext.CNBlockConfig(8, 16, 1), convnext.CNBlockConfig(16, 32, 1), convnext.CNBlockConfig(32, None, 1)]
    network = convnext.ConvNeXt(setting, num_classes=4).eval()
    images = torch.rand(2, 3, 16, 16)  # 4, 2 and 1 places a side
    assert feature_layer(network, images, None).name == "features.4.0"
    assert feature_layer(network, torch.rand(2, 3, 32, 32), None).name == "features"


def test_a_network_of_branches_alone_needs_the_name_of_a_layer():
    network = TwoStreams().eval()
    with pytest.raises(ValueError, match=words("no layer is named TwoStreams branches Name the layer: two, one")):
        cam.grad_cam(network, IMAGES, torch.tensor([0, 1]))
    assert cam.grad_cam(network, IMAGES, torch.tensor([0, 1]), layer="one").shape == (2, 12, 12)


@pytest.mark.parametrize("kind", ["donut", "hiera"])
def test_tokens_whose_last_sum_no_layer_returns_need_the_name_of_a_layer(kind):
    config = {
        "donut": lambda: transformers.DonutSwinConfig(
            image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4, num_labels=4
        ),
        "hiera": lambda: transformers.HieraConfig(
            image_size=[64, 64], embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2], num_labels=4
        ),
    }[kind]()
    side = 32 if kind == "donut" else 64
    network = transformers.AutoModelForImageClassification.from_config(config).eval()
    network, _ = adapted(network, Adaptation(), (3, side, side), 4)
    with pytest.raises(ValueError, match=words("no layer is named is a branch name one of")):
        feature_layer(network, torch.rand(2, 3, side, side), None)
