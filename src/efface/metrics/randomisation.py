"""Parameter randomisation: whether the maps change when the layers of the network are redrawn, one after another.

Source: Adebayo, Gilmer, Muelly, Goodfellow, Hardt & Kim 2018, section 4 (arXiv:1810.03292).
Differs: the axis is the share of layers, so that networks compare; maps are compared by image, on their raw values.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from efface.base.types import Images
from efface.metrics.formula import Metric, values_of
from efface.metrics.probes import Case, Needs
from efface.metrics.shared.effects import one_an_image
from efface.metrics.shared.layers import Draw, Layers, Mode, Statistics, chosen, groups, read_layers, redrawn
from efface.metrics.shared.similarity import BETTER, NAMES, RANGES, compared, compares
from efface.store.results import Score


def randomisation(
    *,
    mode: Mode = "cascading",
    layers: list[str] | str | None = None,
    draw: Draw = "reset",
    statistics: Statistics = "keep",
    points: int | None = None,
) -> Metric:
    """Similarity of the maps with those of the network whose layers are redrawn at random, from the output down.

    Spearman and SSIM of the channel-summed maps, signed and absolute; `post` is not used. The explained class is that
    of the original network. The method uses the same random numbers for an image as for its stored map. At 0 nothing is
    redrawn: a value below 1 there is the method's own randomness. A map that does not depend on the network (edges, a
    fixed random one) stays at 1 everywhere. It costs one call of the method for each image and point.

    mode: cascading: all layers from the output down to that share. independent: only the layer at that share.
    layers: names, from the output down, or the name of a list: inception_v3, resnet (torchvision's), resnet_small
        (ours). A name stands for all modules within it. By default every module with parameters of its own.
    draw: reset: the module's own initialisation. normal: from each tensor's own mean and standard deviation (the scale
        of a BatchNorm is kept).
    statistics: running mean and variance of the BatchNorms that are redrawn. keep: those of the trained network, as in
        Adebayo et al.; activations behind a redrawn layer then have another scale, which may be very large. reset: 0
        and 1, as in a fresh network and as in Quantus.
    points: steps along the axis besides 0, at least 1. Default: one for each named layer, or 8 without names. A share
        is rounded up to whole layers.

    Source: Adebayo et al. 2018, section 4 (arXiv:1810.03292).
    Differs: a rank correlation with a constant map is 0; SSIM is of maps divided by their largest absolute value. What
        a method learnt from training images (patterns) stays that of the original network.
    """
    named, shares = read_layers("randomisation", layers, points)
    return Metric(
        probes=lambda point: {"alike": Randomised(point.x, mode, named, draw, statistics)},
        value=values_of("alike", *NAMES),
        direction=BETTER,
        ranges=RANGES,
        sample="images",
        uses=frozenset({"fractions"}),
        caption=f"The layers of the network are redrawn at random{_HOW[mode]}, and the method runs again. A truthful "
        "map changes with the network. A map that stays similar shows the image, not the network.",
        family="randomisation",
        axis="share of layers randomised",
        points_for=lambda _shape: shares,
        summary="mean" if mode == "independent" else "area",
    )


_HOW = {"cascading": ", one after another from the output down", "independent": ", one at a time"}


@dataclass(frozen=True)
class Randomised:
    """Maps of a network with a share of its layers redrawn, compared with the stored maps."""

    share: float
    mode: Mode
    layers: Layers
    draw: Draw
    statistics: Statistics = "keep"

    needs = Needs(method=True, blocks=True)
    cost = one_an_image
    describe = compares

    def identity(self) -> dict[str, Any]:
        what = {"probe": "randomised", "share": self.share}
        if self.share > 0:
            what |= {"mode": self.mode, "layers": self.layers, "draw": self.draw}
        if self.share > 0 and self.statistics != "keep":
            what["statistics"] = self.statistics
        return what

    def check(self, network: nn.Module, images: Images) -> None:  # noqa: ARG002
        """Raise ValueError if the network has no such layer, or if the layer has no parameters."""
        groups(network, self.layers, self.statistics)

    def __call__(self, case: Case) -> Score:
        network, explain = case.network, case.explain
        names = chosen(network, self.layers, self.share, self.mode, self.statistics)
        if names:
            network = redrawn(network, names, draw=self.draw, seed=case.seed, statistics=self.statistics)
        return compared(case, lambda indices, images, classes: explain(network, images, classes, indices))
