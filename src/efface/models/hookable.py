"""torchvision's networks with a separate module for each non-linearity, so that hooks see each use once.

In the original networks, a ResNet block calls one ReLU module two or three times. Some networks rectify or add in
place, which overwrites tensors that a hook has stored. Here such modules change their class to a subclass with the same
children, the same names and state dict, and a `forward` of the same value. Rewriting the traced graph would be more
general. But it removes the stages as layers, freezes `self.training` and hides the types that other libraries need to
recognise a block.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import convnext, densenet, efficientnet, mobilenetv3, resnet
from torchvision.models.googlenet import BasicConv2d as PlainGoogLeNetConv
from torchvision.models.inception import BasicConv2d as PlainInceptionConv


def make_hookable(network: nn.Module) -> None:
    """Change the network in place: one module for each use of a ReLU, and no in-place operations.

    Function and state dict stay the same. In a ResNet block, `relu1` and `relu2` follow the inner convolutions, and
    `relu` computes the output.
    """
    for module in list(network.modules()):
        if "inplace" in vars(module):
            vars(module)["inplace"] = False
        kind = _HOOKABLE.get(type(module))
        if kind is not None:
            module.__class__ = kind
            for name in kind.extra:
                parent, _, child = name.rpartition(".")
                module.get_submodule(parent).add_module(child, nn.ReLU())


class BasicBlock(resnet.BasicBlock):
    """A block with two ReLUs: `relu1` inside, `relu` at the end."""

    extra = ("relu1",)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu(inner + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(resnet.Bottleneck):
    """A block with three ReLUs: `relu1` and `relu2` inside, `relu` at the end."""

    extra = ("relu1", "relu2")

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu2(self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x))))))
        return self.relu(self.bn3(self.conv3(inner)) + (x if self.downsample is None else self.downsample(x)))


class DenseNet(densenet.DenseNet):
    """A DenseNet whose last ReLU is a module at the end of `features`; torchvision rectifies their output in place."""

    extra = ("features.relu5",)

    def forward(self, x: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(self.features(x), 1)
        return self.classifier(torch.flatten(pooled, 1))


def _rectified(self: Any, x: Tensor) -> Tensor:
    return self.relu(self.bn(self.conv(x)))


class GoogLeNetConv(PlainGoogLeNetConv):
    """A convolution of GoogLeNet whose ReLU is a module."""

    extra = ("relu",)
    forward = _rectified


class InceptionConv(PlainInceptionConv):
    """A convolution of Inception whose ReLU is a module."""

    extra = ("relu",)
    forward = _rectified


class InvertedResidual(mobilenetv3.InvertedResidual):
    """A MobileNet block whose sum is a new tensor."""

    extra = ()

    def forward(self, x: Tensor) -> Tensor:
        out = self.block(x)
        return out + x if self.use_res_connect else out


def _perhaps_skipped(self: Any, x: Tensor) -> Tensor:
    out = self.block(x)
    return self.stochastic_depth(out) + x if self.use_res_connect else out


class MBConv(efficientnet.MBConv):
    """An EfficientNet block whose sum is a new tensor."""

    extra = ()
    forward = _perhaps_skipped


class FusedMBConv(efficientnet.FusedMBConv):
    """An EfficientNet block whose sum is a new tensor."""

    extra = ()
    forward = _perhaps_skipped


class CNBlock(convnext.CNBlock):
    """A ConvNeXt block whose sum is a new tensor."""

    extra = ()

    def forward(self, x: Tensor) -> Tensor:
        return self.stochastic_depth(self.layer_scale * self.block(x)) + x


_HOOKABLE = {
    kind.__base__: kind
    for kind in (
        BasicBlock, Bottleneck, DenseNet, GoogLeNetConv, InceptionConv, InvertedResidual, MBConv, FusedMBConv, CNBlock
    )
}  # fmt: skip
