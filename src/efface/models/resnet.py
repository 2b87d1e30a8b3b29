"""Residual networks for small images: three stages or any other number, for any size from 8x8 upwards.

Names are those of the published state dicts (`conv1`, `layer1.0.conv1`, ..., `linear`). Every ReLU is a module that is
used once and never in place, and the addition creates a new tensor. Hooks therefore see the right tensors:
`layer3.0.relu1` is inside the block, `layer3.0.relu` is its output. The names stay if another non-linearity replaces
the ReLU.

All networks take these settings:

num_classes: width of the last layer.
in_channels: channels of the images.
mean: one number for each channel, for images in [0, 1]; the first layer subtracts it. None: no normalisation.
std: one number above 0 for each channel; the first layer divides by it. Give both `mean` and `std` or neither.
batch_norm: False: no BatchNorm, and each convolution has a bias, as where it is folded. All other names stay. The
    weights of a block's first convolution are then divided by the root of the number of blocks, and those of its last
    one start at 0, so that deep networks train (Fixup: Zhang, Dauphin & Ma 2019, arXiv:1901.09321, without its scalars
    and its last layer of zeros).
weights: a state-dict file to load; None: new random weights.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efface.models.network_settings import NetworkSettings
from efface.plug.shared_settings import with_settings_of

_THIN = (16, 32, 64)
_WIDE = (64, 128, 256)

Activation = Callable[[], nn.Module]
Shortcut = Literal["projection", "padding"]


@with_settings_of(NetworkSettings)
def _network(*, blocks: int, wide: bool = False, batch_norm: bool = True, **settings: Any) -> nn.Module:
    common = NetworkSettings(**settings)
    network = ResNet(_WIDE if wide else _THIN, blocks, "projection" if wide else "padding", common)
    if not wide:
        for module in network.modules():
            if isinstance(module, nn.Conv2d):  # He et al. 2015: deep networks need it to train
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    if not batch_norm:
        _drop_batch_norm(network)
    return common.started(network)


_settings = with_settings_of(_network, but=("blocks", "wide"))


@_settings
def resnet8_wide(**settings: Any) -> nn.Module:
    """Wide ResNet-8, one block in each stage: 1,227,594 parameters with 10 classes, 195 M MACs at 32x32.

    The stages have 64, 128 and 256 channels, and the shortcuts are projections.

    Source: the network of Khakzar et al. 2021 (CVPR), with PyTorch's default initialisation as in the paper.
    """
    return _network(blocks=1, wide=True, **settings)


@_settings
def resnet8(**settings: Any) -> nn.Module:
    """Thin ResNet-8, one block in each stage: 75,290 parameters. It follows the rule of He et al. with n = 1.

    Differs: the smallest network of He et al. has 20 layers.
    """
    return _network(blocks=1, **settings)


@_settings
def resnet20(**settings: Any) -> nn.Module:
    """Thin ResNet-20, three blocks in each stage: 269,722 parameters. Source: He et al. 2016, section 4.2."""
    return _network(blocks=3, **settings)


@_settings
def resnet32(**settings: Any) -> nn.Module:
    """Thin ResNet-32, five blocks in each stage: 464,154 parameters. Source: He et al. 2016, section 4.2."""
    return _network(blocks=5, **settings)


@_settings
def resnet44(**settings: Any) -> nn.Module:
    """Thin ResNet-44, seven blocks in each stage: 658,586 parameters. Source: He et al. 2016, section 4.2."""
    return _network(blocks=7, **settings)


@_settings
def resnet56(**settings: Any) -> nn.Module:
    """Thin ResNet-56, nine blocks in each stage: 853,018 parameters. Source: He et al. 2016, section 4.2."""
    return _network(blocks=9, **settings)


class ResNet(nn.Module):
    """Normalisation, 3x3 stem, stages of blocks, global average pooling, linear layer.

    By default, every stage but the first halves the height and width.

    widths: channels of each stage.
    blocks: number of blocks in each stage, one number or a number for each stage.
    shortcut: type of a shortcut that changes the shape.
    common: classes, images and their normalisation.
    strides: stride of each stage's first block; None: 1 for the first stage and 2 for the others.
    block: `BasicBlock` or `Bottleneck`; None: `BasicBlock`.
    activation: creates the non-linearity of the stem and of the sums.
    inner: creates the non-linearity inside the blocks; None: `activation`.

    in_place (also of each block): True in a fast copy, for no hook keeps the tensors that a sum or a ReLU overwrites
    there. In the network itself it is False, so no output is overwritten and hooks see all outputs.
    """

    in_place = False
    returns_logits = True

    def __init__(
        self,
        widths: Sequence[int],
        blocks: int | Sequence[int],
        shortcut: Shortcut,
        common: NetworkSettings,
        *,
        strides: Sequence[int] | None = None,
        block: "type[BasicBlock | Bottleneck] | None" = None,
        activation: Activation = nn.ReLU,
        inner: Activation | None = None,
    ) -> None:
        super().__init__()
        kind = block or BasicBlock
        counts = [blocks] * len(widths) if isinstance(blocks, int) else list(blocks)
        steps = [1] + [2] * (len(widths) - 1) if strides is None else list(strides)
        self.normalise = common.normalise()
        self.conv1 = _conv3x3(common.in_channels, widths[0])
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = activation()
        self.stages = tuple(f"layer{number}" for number in range(1, len(widths) + 1))
        inputs = widths[0]
        for name, width, count, stride in zip(self.stages, widths, counts, steps, strict=True):
            made = []
            for block_stride in [stride] + [1] * (count - 1):
                past = _past(inputs, width * kind.expansion, block_stride, shortcut)
                made.append(kind(inputs, width, block_stride, past, activation, inner or activation))
                inputs = width * kind.expansion
            self.add_module(name, nn.Sequential(*made))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(inputs, common.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(self.normalise(images))))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return self.linear(torch.flatten(self.pool(x), 1))


class BasicBlock(nn.Module):
    """A block of two 3x3 convolutions and a shortcut."""

    expansion = 1
    in_place = False

    def __init__(
        self, inputs: int, width: int, stride: int, shortcut: nn.Module, activation: Activation, inner: Activation
    ) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = inner()
        self.conv2 = _conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = shortcut
        self.relu = activation()

    def forward(self, x: Tensor) -> Tensor:
        inside = self.relu1(self.bn1(self.conv1(x)))
        return self.relu(_sum(self.bn2(self.conv2(inside)), self.shortcut(x), in_place=self.in_place))


class Bottleneck(nn.Module):
    """A block of three convolutions and a shortcut: 1x1, 3x3 with the stride, and 1x1 to four times the width."""

    expansion = 4
    in_place = False

    def __init__(
        self, inputs: int, width: int, stride: int, shortcut: nn.Module, activation: Activation, inner: Activation
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = inner()
        self.conv2 = _conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = inner()
        self.conv3 = nn.Conv2d(width, self.expansion * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(self.expansion * width)
        self.shortcut = shortcut
        self.relu = activation()

    def forward(self, x: Tensor) -> Tensor:
        inside = self.relu2(self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x))))))
        return self.relu(_sum(self.bn3(self.conv3(inside)), self.shortcut(x), in_place=self.in_place))


class Padding(nn.Module):
    """The shortcut without parameters: every second row and column, with channels of zeros added on both sides.

    Source: option A of He et al. 2016, section 4.2; zeros on both sides, as in the training of the published weights.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


def _sum(inside: Tensor, past: Tensor, *, in_place: bool) -> Tensor:
    return inside.add_(past) if in_place else inside + past


@torch.no_grad()
def _drop_batch_norm(network: nn.Module) -> None:
    """Give each convolution a bias in place of the BatchNorm after it, and start the blocks near the identity."""
    for parent in [*network.modules()]:
        for name, module in parent.named_children():
            if isinstance(module, nn.BatchNorm2d):
                parent.add_module(name, nn.Identity())
            elif isinstance(module, nn.Conv2d):
                module.bias = nn.Parameter(torch.zeros(module.out_channels))
    blocks = [module for module in network.modules() if isinstance(module, BasicBlock)]
    for block in blocks:
        block.conv1.weight.div_(len(blocks) ** 0.5)
        block.conv2.weight.zero_()


def _past(inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if shortcut == "projection":
        return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    return Padding(inputs, outputs)


def _conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
