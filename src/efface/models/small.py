"""Small networks: a convolutional network for MNIST, and fully connected networks of any depth and width.

Both functions take these settings:

num_classes: width of the last layer.
in_channels: channels of the images.
mean: one number for each channel, for images in [0, 1]; the first layer subtracts it. None: no normalisation.
std: one number above 0 for each channel; the first layer divides by it. Give both `mean` and `std` or neither.
weights: a state-dict file to load; None: new random weights.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from efface.base.types import VECTOR_ONE, VECTOR_ZERO
from efface.models.activation import Nonlinearity, nonlinearity
from efface.models.network_settings import NetworkSettings
from efface.plug.shared_settings import with_settings_of


@with_settings_of(NetworkSettings)
def mnist_cnn(*, size: int = 28, num_classes: int = 10, in_channels: int = 1, **settings: Any) -> nn.Module:
    """Two 5x5 convolutions of 32 and 64 channels, each pooled 2x2, then 1,024 units: 3,274,634 parameters.

    All non-linearities are ReLUs, and the weights have PyTorch's default initialisation.

    size: height and width of the images in pixels, at least 4.

    Source: the MNIST network (there called MLP) of the released code of Yang et al., ICLR 2023, "Re-calibrating feature
        attributions for model interpretation".
    """
    side = size // 4
    if side < 1:
        raise ValueError(f"mnist_cnn: size is {size}, expected 4 pixels or more for two pools; raise it")
    common = NetworkSettings(num_classes=num_classes, in_channels=in_channels, **settings)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        normalise=common.normalise(),
        conv1=nn.Conv2d(in_channels, 32, 5, padding=2),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(32, 64, 5, padding=2),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        linear1=nn.Linear(64 * side**2, 1024),
        relu3=nn.ReLU(),
        linear2=nn.Linear(1024, num_classes),
    )
    return common.started(nn.Sequential(layers))


@with_settings_of(NetworkSettings)
def mlp(
    *,
    in_features: int,
    widths: Sequence[int] = (1024, 1024),
    activation: Nonlinearity = "relu",
    beta: float = 10.0,
    batch_norm: bool = False,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    centred: bool = False,
    num_classes: int = 10,
    in_channels: int = 1,
    **settings: Any,
) -> nn.Module:
    """Linear layers over all values of an image, with a non-linearity after each but the last.

    The weights have PyTorch's default initialisation.

    in_features: number of values of an image, channels times height times width.
    widths: units of each hidden layer, at least 1; an empty list gives a linear network. Cost and memory grow with the
        products of neighbouring widths: 25,000 units on 10 values have 0.3 million weights, two layers of 1,024 units
        on 3,072 values have 4.2 million.
    activation: relu or softplus.
    beta: steepness of the softplus, above 0.
    batch_norm: True for a BatchNorm between each hidden layer and its non-linearity.
    dropout: share of a hidden layer's values, after the non-linearity, that each training step sets to 0; at least 0,
        below 1. Regularisers of the loss refuse a network with dropout.
    input_dropout: the same share for the values of the image, with the same limit.
    centred: True if the images are the stored vectors of `efface.data.synthetic`. The first layer then maps them back
        to [-1, 1]: 0 exactly, -1 and 1 up to the last digit of float32. It replaces `mean` and `std`.

    Differs: the released code of Shah, Jain & Netrapalli 2021 (arXiv:2102.12781) normalises last: linear layer,
        non-linearity, dropout, BatchNorm.
    """
    common = NetworkSettings(num_classes=num_classes, in_channels=in_channels, **settings)
    if centred and (common.mean is not None or common.std is not None):
        raise ValueError("mlp: centred is a normalisation, but mean and std are given as well; give only one of them")
    _check_mlp(in_features, widths, dropout, input_dropout, batch_norm=batch_norm)
    if centred:
        common = replace(common, mean=[VECTOR_ZERO / 255] * in_channels, std=[VECTOR_ONE / 255] * in_channels)
    make, inputs = nonlinearity(activation, beta), in_features
    layers: OrderedDict[str, nn.Module] = OrderedDict(normalise=common.normalise())
    layers["flatten"] = nn.Flatten()
    if input_dropout:
        layers["input_dropout"] = nn.Dropout(input_dropout)
    for number, width in enumerate(widths, 1):
        layers[f"linear{number}"] = nn.Linear(inputs, width)
        if batch_norm:
            layers[f"bn{number}"] = nn.BatchNorm1d(width)
        layers[f"{activation}{number}"] = make()
        if dropout:
            layers[f"dropout{number}"] = nn.Dropout(dropout)
        inputs = width
    layers["linear"] = nn.Linear(inputs, num_classes)
    return common.started(nn.Sequential(layers))


def _check_mlp(
    in_features: int, widths: Sequence[int], dropout: float, input_dropout: float, *, batch_norm: bool
) -> None:
    if in_features < 1 or min([1, *widths]) < 1:
        raise ValueError(
            f"mlp: in_features is {in_features}, widths are {list(widths)}; expected numbers of at least 1; raise them"
        )
    for name, share in (("dropout", dropout), ("input_dropout", input_dropout)):
        if not 0 <= share < 1:
            raise ValueError(f"mlp: {name} is {share}; expected a share of at least 0 and below 1")
    for name, value in (("batch_norm", batch_norm), ("dropout", dropout)):
        if value and not widths:
            raise ValueError(
                f"mlp: {name} is {value}, but widths is empty; expected a hidden layer: add one, or drop {name}"
            )
