"""Small networks: the convolutional one of the MNIST experiments, and fully connected ones of any depth and width.

Both take these settings:

num_classes: width of the last layer.
mean, std: one number a channel, for images in [0, 1]; the first layer normalises by them, or does nothing without.
weights: a state-dict file to start from; fresh weights without.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from efface.models.activation import Nonlinearity, nonlinearity
from efface.models.normalise import normalisation
from efface.models.resnet import File, Numbers, started
from efface.types import VECTOR_ONE, VECTOR_ZERO


def mnist_cnn(
    *,
    size: int = 28,
    num_classes: int = 10,
    in_channels: int = 1,
    mean: Numbers = None,
    std: Numbers = None,
    weights: File = None,
) -> nn.Module:
    """Two 5x5 convolutions of 32 and 64 channels, each pooled 2x2, then 1,024 units: 3,274,634 parameters.

    ReLU throughout, PyTorch's default initialisation.

    size: height and width of the images in pixels, at least 4.

    Source: the MNIST network (there called MLP) of the released code of Yang, Akhtar, Wen & Mian 2023, "Re-calibrating
        feature attributions for model interpretation".
    """
    side = size // 4
    if side < 1:
        raise ValueError(f"mnist_cnn: size is {size}, expected 4 pixels or more for two pools; raise it")
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        normalise=normalisation(mean, std, in_channels),
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
    return started(nn.Sequential(layers), weights)


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
    mean: Numbers = None,
    std: Numbers = None,
    weights: File = None,
) -> nn.Module:
    """Linear layers over all values of an image, a non-linearity after each but the last. PyTorch's initialisation.

    in_features: values of an image, channels times height times width.
    widths: units of each hidden layer, at least 1; none for a linear network. Cost and memory are the products of
        neighbours: 25,000 units on 10 values are 0.3 million weights, two layers of 1,024 on 3,072 values 4.2 million.
    activation: relu or softplus. beta: steepness of the softplus, above 0.
    batch_norm: whether a BatchNorm stands between each hidden layer and its non-linearity.
    dropout: share of a hidden layer's values, after the non-linearity, that each training step loses; at least 0, below
        1. input_dropout: the same of the image's values. Regularisers of the loss refuse a network with either.
    centred: the images are the stored vectors of `efface.data.synthetic`, which the first layer maps back to [-1, 1]:
        0 exactly, -1 and 1 but for the last place of float32. Instead of `mean` and `std`.
    in_channels: channels of the images, one `mean` and `std` each.

    Differs: the builder in the released code of Shah, Jain & Netrapalli 2021 (arXiv:2102.12781) normalises last: linear
        layer, non-linearity, dropout, BatchNorm.
    """
    if centred and (mean is not None or std is not None):
        raise ValueError("mlp: centred is a normalisation, found mean and std beside it; give one of them")
    _check_mlp(in_features, widths, dropout, input_dropout, batch_norm=batch_norm)
    if centred:
        mean, std = [VECTOR_ZERO / 255] * in_channels, [VECTOR_ONE / 255] * in_channels
    make, inputs = nonlinearity(activation, beta), in_features
    layers: OrderedDict[str, nn.Module] = OrderedDict(normalise=normalisation(mean, std, in_channels))
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
    return started(nn.Sequential(layers), weights)


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
                f"mlp: {name} is {value}, but widths is empty; expected a hidden layer: give one, or drop it"
            )
