"""Residual networks for small images: three stages, any size from 8x8 upwards.

Names are those of the published state dicts (`conv1`, `layer1.0.conv1`, ..., `linear`). Every ReLU is a module used
once and never in place, and the addition makes a new tensor, so that hooks see what they should: `layer3.0.relu1` is
inside the block, `layer3.0.relu` is its output.

All take these settings:

num_classes: width of the last layer.
in_channels: channels of the images.
mean, std: one number a channel, for images in [0, 1]; the first layer normalises by them, or does nothing without.
weights: a state-dict file to start from; fresh weights without.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efface.models.normalise import normalisation
from efface.models.weights import load_weights, read_weights

_THIN = (16, 32, 64)
_WIDE = (64, 128, 256)

Numbers = Sequence[float] | None
File = str | Path | None


def resnet8_wide(
    *, num_classes: int = 10, in_channels: int = 3, mean: Numbers = None, std: Numbers = None, weights: File = None
) -> nn.Module:
    """ResNet-8 of 64, 128 and 256 channels, a block a stage, projections: 1,227,594 parameters, 195 M MACs at 32x32.

    Source: the network of Khakzar et al. 2021 (CVPR); PyTorch's default initialisation, as there.
    """
    normalise = normalisation(mean, std, in_channels)
    network = ResNet(_WIDE, 1, "projection", num_classes=num_classes, in_channels=in_channels, normalise=normalise)
    return _start(network, weights)


def resnet8(
    *, num_classes: int = 10, in_channels: int = 3, mean: Numbers = None, std: Numbers = None, weights: File = None
) -> nn.Module:
    """Thin ResNet-8, one block a stage: 75,290 parameters. He et al. begin at 20; the same rule, n = 1."""
    return _thin(1, num_classes, in_channels, mean=mean, std=std, weights=weights)


def resnet20(
    *, num_classes: int = 10, in_channels: int = 3, mean: Numbers = None, std: Numbers = None, weights: File = None
) -> nn.Module:
    """Thin ResNet-20, three blocks a stage: 269,722 parameters. Source: He et al. 2016, section 4.2."""
    return _thin(3, num_classes, in_channels, mean=mean, std=std, weights=weights)


def resnet32(
    *, num_classes: int = 10, in_channels: int = 3, mean: Numbers = None, std: Numbers = None, weights: File = None
) -> nn.Module:
    """Thin ResNet-32, five blocks a stage: 464,154 parameters. Source: He et al. 2016, section 4.2."""
    return _thin(5, num_classes, in_channels, mean=mean, std=std, weights=weights)


def resnet44(
    *, num_classes: int = 10, in_channels: int = 3, mean: Numbers = None, std: Numbers = None, weights: File = None
) -> nn.Module:
    """Thin ResNet-44, seven blocks a stage: 658,586 parameters. Source: He et al. 2016, section 4.2."""
    return _thin(7, num_classes, in_channels, mean=mean, std=std, weights=weights)


def resnet56(
    *, num_classes: int = 10, in_channels: int = 3, mean: Numbers = None, std: Numbers = None, weights: File = None
) -> nn.Module:
    """Thin ResNet-56, nine blocks a stage: 853,018 parameters. Source: He et al. 2016, section 4.2."""
    return _thin(9, num_classes, in_channels, mean=mean, std=std, weights=weights)


class ResNet(nn.Module):
    """Normalise, 3x3 stem, three stages (the second and third halve the size), global average pooling, linear.

    widths: channels of each stage. blocks: in each stage. shortcut: what widens the way past a block.
    """

    def __init__(
        self,
        widths: Sequence[int],
        blocks: int,
        shortcut: Literal["projection", "padding"],
        *,
        num_classes: int,
        in_channels: int,
        normalise: nn.Module,
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.conv1 = _conv3x3(in_channels, widths[0])
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        self.layer1 = _stage(widths[0], widths[0], blocks, shortcut, stride=1)
        self.layer2 = _stage(widths[0], widths[1], blocks, shortcut, stride=2)
        self.layer3 = _stage(widths[1], widths[2], blocks, shortcut, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(widths[2], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(self.normalise(images))))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(self.pool(x), 1))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a way past them."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = _conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = shortcut
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu1(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class Padding(nn.Module):
    """Every second row and column, new channels of zeros on both sides: the shortcut without parameters.

    Source: option A of He et al. 2016, section 4.2; zeros on both sides as the published weights were trained.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


def _thin(blocks: int, num_classes: int, in_channels: int, *, mean: Numbers, std: Numbers, weights: File) -> nn.Module:
    normalise = normalisation(mean, std, in_channels)
    network = ResNet(_THIN, blocks, "padding", num_classes=num_classes, in_channels=in_channels, normalise=normalise)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")  # He et al. 2015: deep ones train only so
    return _start(network, weights)


def _start(network: nn.Module, weights: File) -> nn.Module:
    if weights is not None:
        load_weights(network, read_weights(weights), weights)
    return network


def _stage(inputs: int, outputs: int, blocks: int, shortcut: str, *, stride: int) -> nn.Sequential:
    if stride == 1 and inputs == outputs:
        first: nn.Module = nn.Identity()
    elif shortcut == "projection":
        first = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    else:
        first = Padding(inputs, outputs)
    rest = [BasicBlock(outputs, outputs, 1, nn.Identity()) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(inputs, outputs, stride, first), *rest)


def _conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
