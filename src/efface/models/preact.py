"""Residual networks for small images, whose blocks normalise and rectify before they convolve.

A block is BatchNorm, ReLU, convolution, and the same again, with no layer between one sum and the next. If the shape
changes, the shortcut is a 1x1 convolution of the input after the first BatchNorm and ReLU; otherwise it is the block's
input. Images can have any size from 8x8 upwards. The weights have PyTorch's default initialisation.

Names are those of the other ResNets (`conv1`, `layer1.0.conv1`, ..., `linear`). `layer3.0.relu1` and `relu2` precede
the convolutions with these numbers; `bn` and `relu` follow the last block. Every non-linearity is a module that is used
once and never in place. The sums of these networks have both signs and may nearly cancel, and LRP divides by them. LRP
maps in float32 can therefore change by a hundredth with the size of the batch; in float64 they do not. LRP composites
without a rule for a BatchNorm that follows no layer refuse these networks.

Both functions take these settings:

activation: relu; or softplus, log(1 + exp(beta z)) / beta.
beta: steepness of the softplus, above 0.
final_norm: True for a BatchNorm and a ReLU after the last block, as published; some released networks have none.
num_classes: width of the last layer.
in_channels: channels of the images.
mean: one number for each channel, for images in [0, 1]; the first layer subtracts it. None: no normalisation.
std: one number above 0 for each channel; the first layer divides by it. Give both `mean` and `std` or neither.
weights: a state-dict file to load; None: new random weights.

Source: He, Zhang, Ren & Sun 2016, "Identity mappings in deep residual networks", figure 1b and appendix
    (arXiv:1603.05027).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from efface.models.activation import Nonlinearity, nonlinearity
from efface.models.network_settings import NetworkSettings
from efface.models.resnet import Activation
from efface.plug.shared_settings import with_settings_of


@with_settings_of(NetworkSettings)
def preact_resnet(
    *,
    blocks: Sequence[int],
    widths: Sequence[int] = (64, 128, 256, 512),
    strides: Sequence[int] | None = None,
    bottleneck: bool = False,
    activation: Nonlinearity = "relu",
    beta: float = 10.0,
    final_norm: bool = True,
    **settings: Any,
) -> nn.Module:
    """A 3x3 stem, a stage for each of the `blocks`, global average pooling and a linear layer.

    blocks: number of blocks in each stage, at least 1.
    widths: channels of each stage, at least 1; with `bottleneck` a fourth of its output channels.
    strides: stride of each stage's first block, at least 1; None: 1 for the first stage and 2 for the others.
    bottleneck: True for blocks of three convolutions (1x1, 3x3 with the stride, 1x1 to four times the width) instead of
        two 3x3.
    """
    steps = [1, *[2] * (len(blocks) - 1)] if strides is None else list(strides)
    stages = {name: list(numbers) for name, numbers in (("blocks", blocks), ("widths", widths), ("strides", steps))}
    if not blocks or len({len(numbers) for numbers in stages.values()}) > 1 or min(map(min, stages.values())) < 1:
        raise ValueError(
            f"preact_resnet: {', '.join(f'{name} {numbers}' for name, numbers in stages.items())}; expected numbers of "
            "at least 1, one for each stage in all of them: make the lists equally long"
        )
    common, block = NetworkSettings(**settings), PreActBottleneck if bottleneck else PreActBlock
    shapes = list(zip(blocks, widths, steps, strict=True))
    return common.started(
        PreActResNet(shapes, block, common, activation=nonlinearity(activation, beta), final_norm=final_norm)
    )


@with_settings_of(preact_resnet, but=("blocks", "widths", "strides", "bottleneck"))
def preact_resnet18(**settings: Any) -> nn.Module:
    """Pre-activation ResNet-18, two basic blocks in each stage: 11,172,170 parameters with 10 classes.

    Without the last BatchNorm it has 11,171,146 parameters.

    Source: that of this module; the supplement of Yang et al., AAAI 2023, "Local path integration for attribution",
        trains a pre-activation ResNet on CIFAR.
    """
    return preact_resnet(blocks=(2, 2, 2, 2), **settings)


class PreActBlock(nn.Module):
    """A block of two 3x3 convolutions, each after a BatchNorm and a ReLU, and a shortcut.

    in_place: True in a fast copy, for no hook keeps the tensors that a ReLU or the sum overwrites there.
    """

    expansion = 1
    in_place = False

    def __init__(self, inputs: int, width: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = activation()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = activation()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.shortcut = _past(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        first = self.relu1(self.bn1(x))
        inside = self.conv2(self.relu2(self.bn2(self.conv1(first))))
        return _sum(inside, self.shortcut, x, first, in_place=self.in_place)


class PreActBottleneck(nn.Module):
    """A block of three convolutions, each after a BatchNorm and a ReLU, and a shortcut.

    The convolutions are 1x1, 3x3 with the stride, and 1x1 to four times the width.

    in_place: as in `PreActBlock`.
    """

    expansion = 4
    in_place = False

    def __init__(self, inputs: int, width: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = activation()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = activation()
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.relu3 = activation()
        self.conv3 = nn.Conv2d(width, self.expansion * width, 1, bias=False)
        self.shortcut = _past(inputs, self.expansion * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        first = self.relu1(self.bn1(x))
        inside = self.conv2(self.relu2(self.bn2(self.conv1(first))))
        inside = self.conv3(self.relu3(self.bn3(inside)))
        return _sum(inside, self.shortcut, x, first, in_place=self.in_place)


class PreActResNet(nn.Module):
    """Normalisation, 3x3 stem, stages of blocks, optional BatchNorm and ReLU, global average pooling, linear layer.

    stages: number of blocks, width, and stride of the first block, for each stage.
    """

    in_place = False
    returns_logits = True

    def __init__(
        self,
        stages: Sequence[tuple[int, int, int]],
        block: type[PreActBlock | PreActBottleneck],
        common: NetworkSettings,
        *,
        activation: Activation,
        final_norm: bool,
    ) -> None:
        super().__init__()
        inputs = stages[0][1]
        self.normalise = common.normalise()
        self.conv1 = nn.Conv2d(common.in_channels, inputs, 3, padding=1, bias=False)
        self.stages = tuple(f"layer{number}" for number in range(1, len(stages) + 1))
        for name, (count, width, stride) in zip(self.stages, stages, strict=True):
            made = []
            for block_stride in [stride] + [1] * (count - 1):
                made.append(block(inputs, width, block_stride, activation))
                inputs = width * block.expansion
            self.add_module(name, nn.Sequential(*made))
        if final_norm:
            self.bn = nn.BatchNorm2d(inputs)
            self.relu = activation()
        self.final_norm = final_norm
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(inputs, common.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv1(self.normalise(images))
        x = x.view_as(x)  # a new tensor, so that the first BatchNorm is not folded into the shortcut's input
        for name in self.stages:
            x = self.get_submodule(name)(x)
        if self.final_norm:
            x = self.relu(self.bn(x))
        return self.linear(torch.flatten(self.pool(x), 1))


def _past(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False))


def _sum(inside: Tensor, shortcut: nn.Module, x: Tensor, first: Tensor, *, in_place: bool) -> Tensor:
    """Return a block's output. A projection takes the input after BatchNorm and ReLU, an identity the input itself."""
    past = shortcut(x if isinstance(shortcut, nn.Identity) else first)
    return inside.add_(past) if in_place else inside + past
