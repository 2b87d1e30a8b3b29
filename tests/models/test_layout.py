"""Layers whose four axes are not n c h w are told from feature maps, by which axes follow the picture."""

from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models import convnext_tiny
from torchvision.models.swin_transformer import SwinTransformer

from efface.methods.cam import grad_cam, score_cam
from efface.methods.captum import attribute
from efface.models.layers import feature_layer, last_convolution
from efface.models.layout import check_feature_map, layouts
from efface.models.of_tokens import stated_layout
from efface.models.resnet import resnet20
from efface.models.torchvision import load
from small.elsewhere import timm


class Laid(nn.Module):
    """A convolution, a layer `out` that lays its output out in another way, and a mean."""

    def __init__(self, order):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.out, self.linear = nn.Conv2d(3, 6, 3, 2, 1), nn.Identity(), nn.Linear(6, 4)
        self.order = order

    def forward(self, x):
        features = self.conv(x).relu()
        match self.order:
            case "n h w c":
                features = self.out(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            case "n w h c":
                features = self.out(features.permute(0, 3, 2, 1)).permute(0, 3, 2, 1)
            case "heads":  # n heads tokens channels
                parts = self.out(features.flatten(2).unflatten(1, (2, 3)).transpose(2, 3))
                features = parts.transpose(2, 3).flatten(1, 2).unflatten(2, features.shape[2:])
            case "tokens":  # n tokens 1 channels
                parts = self.out(features.flatten(2).transpose(1, 2)[:, :, None])
                features = parts[:, :, 0].transpose(1, 2).unflatten(2, features.shape[2:])
            case "weight":
                features = features + self.out(self.linear.weight[:1, :, None, None])
            case _:
                features = self.out(features)
        return self.linear(features.mean((2, 3)))


def images(n=2, height=16, width=16):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(16, 16), (16, 24), (32, 8)])
@pytest.mark.parametrize("order", ["heads", "tokens", "weight"])
def test_other_layouts_are_refused_by_name(order, size):
    network = Laid(order).eval()
    with pytest.raises(ValueError, match=r"'out' of Laid.*no feature map n c h w"):
        check_feature_map(network, images(2, *size), "out")
    assert layouts(network, images(2, *size))["out"].wrong
    with pytest.raises(ValueError, match=r"'out' of Laid"):
        grad_cam(network, images(2, *size), torch.tensor([0, 1]), layer="out")
    with pytest.raises(ValueError, match=r"'out' of Laid"):
        score_cam(network, images(2, *size), torch.tensor([0, 1]), layer="out")
    with pytest.raises(ValueError, match=r"'out' of Laid"):
        attribute(network, images(2, *size), torch.tensor([0, 1]), algorithm="LayerGradCam", layer="out")


@pytest.mark.parametrize("size", [(16, 16), (16, 24), (32, 8)])
def test_channels_last_are_laid_out_as_a_feature_map(size):
    of = {order: Laid(order).eval() for order in ("n h w c", "n c h w")}  # the same weights
    with pytest.raises(ValueError, match=r"'out' of Laid.*no feature map n c h w"):
        check_feature_map(of["n h w c"], images(2, *size), "out")
    assert feature_layer(of["n h w c"], images(2, *size), "out").axes == "n h w c"
    for method in (grad_cam, score_cam, partial(attribute, algorithm="LayerGradCam")):
        last, first = (method(each, images(2, *size), torch.tensor([0, 1]), layer="out") for each in of.values())
        torch.testing.assert_close(last, first)


@pytest.mark.parametrize("size", [(16, 16), (16, 24), (32, 8), (60, 1), (1, 60), (2, 2)])
def test_a_feature_map_is_none_of_them(size):
    network = Laid("n c h w").eval()
    check_feature_map(network, images(2, *size), "out")
    assert grad_cam(network, images(2, *size), torch.tensor([0, 1]), layer="out").shape == (2, *size)


def test_the_centre_of_a_change_moves_by_half_an_axis():
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Flatten(), nn.Linear(5 * 64, 3)).eval()
    found = layouts(network, images(1, 8, 8))["0"]
    assert found.shape == (1, 5, 8, 8)
    assert found.is_feature_map
    assert found.down[1] == pytest.approx(4 / 7, abs=0.1)  # from the rows 0 to 3 to the rows 4 to 7, of 0 to 7
    assert found.right[2] == pytest.approx(4 / 7, abs=0.1)
    assert max(map(abs, (*found.down[::2], *found.right[:2]))) < 0.1


class Mixed(nn.Module):
    """Features whose places are all mixed, so that no axis follows the picture, as n h w c or n c h w."""

    def __init__(self, *, last, said):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.linear = nn.Conv2d(3, 6, 4, 4), nn.LayerNorm(6), nn.Linear(6, 4)
        self.places, self.out, self.last = nn.Linear(16, 16), nn.Identity(), last
        if said:
            self.output_fmt = said

    def forward(self, x):
        tokens = self.norm(self.conv(x).flatten(2).transpose(1, 2)).transpose(1, 2)
        features = self.places(tokens).unflatten(2, (4, 4))
        features = self.out(features.movedim(1, 3)) if self.last else self.out(features).movedim(1, 3)
        return self.linear(features.relu().mean((1, 2)))


def test_timms_own_words_tell_a_layout_that_no_axis_tells():
    of = {last: Mixed(last=last, said="NHWC" if last else None).eval() for last in (True, False)}  # the same weights
    with torch.no_grad():
        for network in of.values():
            nn.init.constant_(network.places.weight, 1 / 16)
            network.places.weight[:, 0] += torch.linspace(0, 1, 16)
    assert not layouts(of[True], images())["out"].is_channels_last
    assert feature_layer(of[True], images(), "out").axes == "n h w c"
    last, first = (
        grad_cam(network, images(), torch.tensor([0, 1]), layer="out", relu=False) for network in of.values()
    )
    torch.testing.assert_close(last, first)


def test_a_layer_of_an_embedding_is_not_laid_out_as_the_embedding():
    network = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=4, depths=(1, 1), num_heads=(1, 1)
    )
    assert str(network.output_fmt) == "NHWC"
    assert (
        stated_layout(network, images(1, 32, 32), "patch_embed")
        == stated_layout(network, images(1, 32, 32), "norm")
        == "NHWC"
    )
    assert stated_layout(network, images(1, 32, 32), "patch_embed.proj") == ""


def test_a_grey_image_tells_the_same():
    check_feature_map(Laid("n c h w").eval(), torch.full((1, 3, 16, 16), 0.5), "out")
    with pytest.raises(ValueError, match="n h w c"):
        check_feature_map(Laid("n h w c").eval(), torch.full((1, 3, 16, 16), 0.5), "out")


def test_channels_of_one_place_are_no_tokens():
    network = nn.Sequential(nn.Conv2d(3, 6, 16), nn.Flatten(), nn.Linear(6, 3)).eval()
    with torch.no_grad():  # the channels see the image from above to below
        network[0].weight.zero_()
        for channel in range(6):
            network[0].weight[channel, :, 2 * channel : 2 * channel + 4] = 1
    found = layouts(network, images())["0"]
    assert found.down[0] > 0.1
    assert not found.wrong


def swin():
    return SwinTransformer([4, 4], 24, [1, 1], [2, 4], [2, 2], num_classes=4).eval()


def test_swin_is_explained_at_its_permuted_output():
    network = swin()
    assert last_convolution(network, images()) is network.permute
    assert grad_cam(network, images(2, 32, 32), torch.tensor([0, 1])).shape == (2, 32, 32)
    for layer in ("norm", "features.3", "features.1"):
        assert feature_layer(network, images(2, 32, 32), layer).axes == "n h w c"


def test_convolutional_networks_are_as_before():
    for network in (resnet20(num_classes=4), convnext_tiny(num_classes=4), load("resnet18", num_classes=4)):
        found, given = layouts(network.eval(), images(1, *_SIZE[type(network).__name__])), network
        layer = last_convolution(given, images(1, *_SIZE[type(network).__name__]))
        name = next(name for name, each in given.named_modules() if each is layer)
        assert not found[name].wrong


_SIZE = {"ResNet": (32, 32), "ConvNeXt": (64, 64)}
