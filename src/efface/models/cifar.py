"""Networks for CIFAR experiments that need a Hessian: softplus (or ReLU) ResNets of four stages, and VGGs.

As published, a softplus of steepness `beta` = 10 replaces every ReLU, for a network of ReLUs has no second derivative.
Images in [0, 1] are not normalised unless `mean` and `std` are given. Weights have PyTorch's default initialisation. A
ResNet takes images of any size from 8x8 upwards, a VGG images of `size`. Guided backprop and deconvnet refuse the
softplus; set `activation: relu` for them. If a network has both (`inner`), they change only the ReLUs.

All networks take these settings:

activation: softplus, log(1 + exp(beta z)) / beta; or relu.
beta: steepness of the softplus, above 0; a larger value is nearer to ReLU and has a larger second derivative.
num_classes: width of the last layer.
in_channels: channels of the images.
mean: one number for each channel, for images in [0, 1]; the first layer subtracts it. None: no normalisation.
std: one number above 0 for each channel; the first layer divides by it. Give both `mean` and `std` or neither.
weights: a state-dict file to load, from here or from the released code; None: new random weights.

Source: Srinivas & Fleuret 2021 (Rethinking the role of gradient-based attribution methods, arXiv:2006.09128), the
    networks of its released code.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from efface.models.activation import Nonlinearity, nonlinearity
from efface.models.network_settings import NetworkSettings
from efface.models.published_names import score_matching_name, with_names
from efface.models.resnet import BasicBlock, Bottleneck, ResNet
from efface.plug.shared_settings import with_settings_of

VggLayers = Sequence[int | Literal["M"]]

VGG5: VggLayers = (64, "M", 128, "M", 256, "M", 512, "M")
VGG7: VggLayers = (64, "M", 128, "M", 256, 256, "M", 512, "M", 512)
VGG11: VggLayers = (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512)
VGG14: VggLayers = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)


@with_settings_of(NetworkSettings)
def resnet(
    *,
    blocks: Sequence[int],
    widths: Sequence[int] = (64, 128, 256, 512),
    strides: Sequence[int] | None = None,
    bottleneck: bool = False,
    activation: Nonlinearity = "softplus",
    inner: Nonlinearity | None = None,
    beta: float = 10.0,
    **settings: Any,
) -> nn.Module:
    """A 3x3 stem, a stage for each of the `blocks`, global average pooling and a linear layer; projections.

    With `activation: relu`, ResNet10, 101 and 152 are blocks [1, 1, 1, 1], [3, 4, 23, 3] and [3, 8, 36, 3] (the last
    two with `bottleneck`). ResNet8v2 is blocks [1, 1, 1], widths [64, 128, 256], strides [1, 1, 2].

    blocks: number of blocks in each stage, at least 1.
    widths: channels of each stage, at least 1; with `bottleneck` a fourth of its output channels.
    strides: stride of each stage's first block, at least 1; None: 1 for the first stage and 2 for the others.
    bottleneck: True for blocks of three convolutions (1x1, 3x3 with the stride, 1x1 to four times the width).
    inner: the non-linearity inside the blocks; None: that of the stem and the sums.
    """
    lengths = {len(per_stage) for per_stage in (blocks, widths, strides or blocks)}
    if len(lengths) > 1 or not lengths - {0} or min(*blocks, *widths, *(strides or [1])) < 1:
        raise ValueError(
            f"resnet: blocks {list(blocks)}, widths {list(widths)}, strides {strides and list(strides)}; expected "
            "numbers of at least 1, one for each stage in all of them: make the lists equally long"
        )
    common = NetworkSettings(**settings)
    network = ResNet(
        widths,
        blocks,
        "projection",
        common,
        strides=strides,
        block=Bottleneck if bottleneck else BasicBlock,
        activation=nonlinearity(activation, beta),
        inner=nonlinearity(inner or activation, beta),
    )
    return common.started(with_names(network, score_matching_name))


@with_settings_of(NetworkSettings)
def vgg(
    *, plan: VggLayers, size: int = 32, activation: Nonlinearity = "softplus", beta: float = 10.0, **settings: Any
) -> nn.Module:
    """3x3 convolutions with bias and BatchNorm, 2x2 max-pools between them, and one linear layer over all positions.

    plan: channels of each convolution, M for a pool.
    size: height and width of the images in pixels, at least 2 ** (number of pools); it sets the linear layer's width.
    """
    pools = [entry for entry in plan if entry == "M"]
    side = size // 2 ** len(pools)
    wide = [entry for entry in plan if entry != "M"]
    if not wide or min(wide) < 1 or side < 1:
        raise ValueError(
            f"vgg: plan {list(plan)} on images of {size}x{size} pixels; expected at least one convolution of 1 channel "
            f"or more, and {2 ** len(pools)} pixels or more for {len(pools)} pools: change the plan or the size"
        )
    common = NetworkSettings(**settings)
    make, layers, inputs = nonlinearity(activation, beta), list[nn.Module](), common.in_channels
    for entry in plan:
        if entry == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(inputs, entry, 3, padding=1), nn.BatchNorm2d(entry), make()]
            inputs = entry
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        normalise=common.normalise(),
        features=nn.Sequential(*layers),
        flatten=nn.Flatten(),
        linear=nn.Linear(inputs * side**2, common.num_classes),
    )
    return common.started(with_names(nn.Sequential(parts), score_matching_name))


_SHAPE = ("blocks", "widths", "strides", "bottleneck")
_stages = with_settings_of(resnet, but=(*_SHAPE, "inner"))
_layers = with_settings_of(vgg, but=("plan", "size"))


@_stages
def resnet9(**settings: Any) -> nn.Module:
    """ResNet-9, one basic block in each stage: 4,903,242 parameters with 10 classes."""
    return resnet(blocks=(1, 1, 1, 1), **settings)


@_stages
def resnet18(**settings: Any) -> nn.Module:
    """ResNet-18, two basic blocks in each stage: 11,173,962 parameters with 10 classes."""
    return resnet(blocks=(2, 2, 2, 2), **settings)


@_stages
def resnet34(**settings: Any) -> nn.Module:
    """ResNet-34, 3, 4, 6 and 3 basic blocks: 21,282,122 parameters with 10 classes."""
    return resnet(blocks=(3, 4, 6, 3), **settings)


@with_settings_of(resnet, but=(*_SHAPE, "inner"))
def resnet50(*, inner: Nonlinearity | None = None, **settings: Any) -> nn.Module:
    """ResNet-50, 3, 4, 6 and 3 bottlenecks: 23,520,842 parameters with 10 classes.

    inner: the non-linearity inside the bottlenecks, if it differs; `relu` gives the network of the released code.

    Differs: softplus throughout; the released code has ReLUs inside the bottlenecks.
    """
    return resnet(blocks=(3, 4, 6, 3), bottleneck=True, inner=inner, **settings)


@_layers
def vgg5(**settings: Any) -> nn.Module:
    """VGG-5, four convolutions, for images of 32x32: 1,573,386 parameters with 10 classes."""
    return vgg(plan=VGG5, **settings)


@_layers
def vgg7(**settings: Any) -> nn.Module:
    """VGG-7, six convolutions, for images of 32x32: 4,524,810 parameters with 10 classes."""
    return vgg(plan=VGG7, **settings)


@_layers
def vgg11(**settings: Any) -> nn.Module:
    """VGG-11, ten convolutions, for images of 32x32: 9,431,370 parameters with 10 classes."""
    return vgg(plan=VGG11, **settings)


@_layers
def vgg14(**settings: Any) -> nn.Module:
    """VGG-14, thirteen convolutions, for images of 32x32: 14,743,626 parameters with 10 classes."""
    return vgg(plan=VGG14, **settings)
