"""Residual networks whose blocks normalise and rectify before they convolve, for small images.

A block is BatchNorm, ReLU, convolution, and the same again; nothing stands between one sum and the next. Where the
shape changes, the way past the block is a 1x1 convolution of what is normalised and rectified already; elsewhere it is
the block's input as it is. Images of any size from 8x8 upwards. PyTorch's default initialisation.

Names are those of the other ResNets (`conv1`, `layer1.0.conv1`, ..., `linear`); `layer3.0.relu1` and `relu2` stand
before the convolutions of these numbers, `bn` and `relu` behind the last block. Every non-linearity is a module used
once and never in place. Sums here have both signs and may nearly cancel, and LRP divides by them: its maps in float32
can change by a hundredth with the size of the batch, in float64 they do not; composites without a rule for a BatchNorm
that follows no layer refuse.

Both take these settings:

activation: relu; or softplus, log(1 + exp(beta z)) / beta.
beta: steepness of the softplus, above 0.
final_norm: whether a BatchNorm and a ReLU stand behind the last block, as published; some released networks have none.
num_classes: width of the last layer.
in_channels: channels of the images.
mean, std: one number a channel, for images in [0, 1]; the first layer normalises by them, or does nothing without.
weights: a state-dict file to start from; fresh weights without.

Source: He, Zhang, Ren & Sun 2016, "Identity mappings in deep residual networks", figure 1b and appendix
    (arXiv:1603.05027).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from efface.models.activation import Nonlinearity, nonlinearity
from efface.models.normalise import normalisation
from efface.models.resnet import Activation, File, Numbers, started


def preact_resnet18(
    *,
    activation: Nonlinearity = "relu",
    beta: float = 10.0,
    final_norm: bool = True,
    num_classes: int = 10,
    in_channels: int = 3,
    mean: Numbers = None,
    std: Numbers = None,
    weights: File = None,
) -> nn.Module:
    """Pre-activation ResNet-18, two basic blocks a stage: 11,172,170 parameters with 10 classes.

    Without the last BatchNorm they are 11,171,146.

    Source: this file's; the supplement of Yang, Akhtar & Mian 2023, "Local path integration for attribution", trains a
        pre-activation ResNet on CIFAR.
    """
    return preact_resnet(
        blocks=(2, 2, 2, 2),
        activation=activation,
        beta=beta,
        final_norm=final_norm,
        num_classes=num_classes,
        in_channels=in_channels,
        mean=mean,
        std=std,
        weights=weights,
    )


def preact_resnet(
    *,
    blocks: Sequence[int],
    widths: Sequence[int] = (64, 128, 256, 512),
    strides: Sequence[int] | None = None,
    bottleneck: bool = False,
    activation: Nonlinearity = "relu",
    beta: float = 10.0,
    final_norm: bool = True,
    num_classes: int = 10,
    in_channels: int = 3,
    mean: Numbers = None,
    std: Numbers = None,
    weights: File = None,
) -> nn.Module:
    """A 3x3 stem, a stage for each of the `blocks`, global average pooling and a linear layer.

    blocks: how many in each stage, at least 1; widths: channels of each stage, a fourth of them with `bottleneck`.
    strides: of each stage's first block; 1 for the first stage and 2 for the others if not given.
    bottleneck: blocks of three convolutions (1x1, 3x3 that strides, 1x1 to four times the width) instead of two 3x3.
    """
    steps = [1, *[2] * (len(blocks) - 1)] if strides is None else list(strides)
    stages = {name: list(each) for name, each in (("blocks", blocks), ("widths", widths), ("strides", steps))}
    if not blocks or len({len(each) for each in stages.values()}) > 1 or min(map(min, stages.values())) < 1:
        raise ValueError(
            f"preact_resnet: {', '.join(f'{name} {each}' for name, each in stages.items())}; expected numbers of at "
            "least 1, one for each stage in all of them: make them as many"
        )
    network = PreActResNet(
        list(zip(blocks, widths, steps, strict=True)),
        PreActBottleneck if bottleneck else PreActBlock,
        num_classes=num_classes,
        in_channels=in_channels,
        normalise=normalisation(mean, std, in_channels),
        activation=nonlinearity(activation, beta),
        final_norm=final_norm,
    )
    return started(network, weights)


class PreActBlock(nn.Module):
    """Two 3x3 convolutions, each of what is normalised and rectified, and a way past them.

    in_place: a copy made for speed sets it, for nothing here keeps what a ReLU or the sum overwrites.
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
    """Convolutions of 1x1, 3x3, which strides, and 1x1 to four times the width, each of what is rectified; a way past.

    in_place: as of the other block.
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
    """Normalise, 3x3 stem, stages of blocks, BatchNorm and ReLU (or not), global average pooling, linear.

    stages: number of blocks, width, and stride of the first block, of each.
    """

    in_place = False

    def __init__(
        self,
        stages: Sequence[tuple[int, int, int]],
        block: type[PreActBlock | PreActBottleneck],
        *,
        num_classes: int,
        in_channels: int,
        normalise: nn.Module,
        activation: Activation,
        final_norm: bool,
    ) -> None:
        super().__init__()
        inputs = stages[0][1]
        self.normalise = normalise
        self.conv1 = nn.Conv2d(in_channels, inputs, 3, padding=1, bias=False)
        self.stages = tuple(f"layer{number}" for number in range(1, len(stages) + 1))
        for name, (count, width, stride) in zip(self.stages, stages, strict=True):
            made = []
            for each in [stride] + [1] * (count - 1):
                made.append(block(inputs, width, each, activation))
                inputs = width * block.expansion
            self.add_module(name, nn.Sequential(*made))
        if final_norm:
            self.bn = nn.BatchNorm2d(inputs)
            self.relu = activation()
        self.final_norm = final_norm
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(inputs, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv1(self.normalise(images))
        x = x.view_as(x)  # another tensor: the first BatchNorm is not to be folded into what goes past it, too
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
    """A block's output: a projection takes what is rectified already, an identity the block's input."""
    past = shortcut(x if isinstance(shortcut, nn.Identity) else first)
    return inside.add_(past) if in_place else inside + past
