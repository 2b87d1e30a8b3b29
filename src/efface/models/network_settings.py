"""The settings that all of efface's own networks take."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from efface.models.normalise import normalisation
from efface.models.weights import load_weights, read_weights

Numbers = Sequence[float] | None
File = str | Path | None


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Classes, images and weights of a network.

    num_classes: width of the last layer.
    in_channels: channels of the images.
    mean: one number for each channel, for images in [0, 1]; the first layer subtracts it. None: no normalisation.
    std: one number above 0 for each channel; the first layer divides by it. Give both `mean` and `std` or neither.
    weights: a state-dict file to load; None: new random weights.
    """

    num_classes: int = 10
    in_channels: int = 3
    mean: Numbers = None
    std: Numbers = None
    weights: File = None

    def normalise(self) -> nn.Module:
        """Return the first layer."""
        return normalisation(self.mean, self.std, self.in_channels)

    def started(self, network: nn.Module) -> nn.Module:
        """Return the network, with the weights of the file if one is given."""
        if self.weights is not None:
            load_weights(network, read_weights(self.weights), self.weights)
        return network
