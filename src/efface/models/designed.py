"""Networks whose weights are set by hand, so that the exact contribution of each cell of an image is known."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.base.shown import shown
from efface.base.types import Images, Targets

Rows = Sequence[Sequence[float]]
Kind = Literal["counter", "or", "and", "contrast"]

CELL = 2
"""Height and width of a cell in pixels."""
NEEDED = 3
"""Cells of one colour that the kind `and` needs."""
MARGIN = 0.2
"""Difference of brightness that the kind `contrast` ignores."""
GAIN = {"counter": 0.5, "or": 2.0, "and": 2.0, "contrast": 1.0}
"""Logit for each unit of evidence."""


class Designed(nn.Sequential):
    """A network of two classes that states its exact map. `designed` makes it.

    The layers before `total` give the evidence of each cell for each class. `total` is its mean over the cells. The
    layers after it keep the two classes apart up to the last one, which gives the logits d and -d, where d is the gated
    evidence for class 0 less that for class 1.
    """

    @torch.no_grad()
    def exact_map(self, images: Images, targets: Targets) -> Float[Tensor, "n h w"]:
        """Return the Shapley value of each cell for the logit of the target, spread evenly over the cell's pixels.

        The players are the cells; an absent cell is black. The values sum up to the logit less that of a black image.
        They are exact for images in which all evidence of a class has one size (counter, or, and), and for all images
        (contrast): every class's gated evidence is shared in proportion to the evidence of its cells.
        """
        before, after = (nn.Sequential(*part) for part in self._parts())
        evidence = before(images)
        total = evidence.mean((2, 3))
        value = torch.zeros_like(evidence[:, 0])
        for kind in range(2):
            alone = torch.zeros_like(total)
            alone[:, kind] = total[:, kind]
            gated = after(alone[:, :, None, None]).gather(1, targets[:, None])[:, 0]
            share = evidence[:, kind] / evidence[:, kind].sum((1, 2), keepdim=True).clamp_min(1e-12)
            value += gated[:, None, None] * share
        return value.repeat_interleave(CELL, 1).repeat_interleave(CELL, 2) / CELL**2

    def _parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        names, layers = zip(*self.named_children(), strict=True)
        at = names.index("total")
        return [*layers[:at]], [*layers[at:]]


def designed(*, kind: Kind = "counter", size: int = 16) -> nn.Module:
    """Network of two classes with weights set by hand, for images of the data set `designed` of the same kind.

    It reads cells of 2 x 2 pixels. Its logits are d and -d. A map is known that is exact: `Designed.exact_map`, which
    the control `exact_map` shows. It is made of convolutions, ReLUs, pooling and linear layers alone.

    kind: counter, d is half the number of red cells less that of green cells: every cell counts alike. or, d is 2 times
        (1 if there is a red cell) less (1 if there is a green one): any single cell suffices. and, the same, where a
        colour counts if three cells have it: each is needed. contrast, d is the sum over the cells of
        max(0, l - r - 0.2) - max(0, r - l - 0.2), l and r the mean brightness of the left and right pixels.
        A pixel is red if its red is at least 0.75, and not at all up to 0.5; green likewise.
    size: height and width of the images in pixels, an even number from 8.

    Source: Zhang et al. 2023, AttributionLab (arXiv:2310.06514): networks designed by hand on drawn data.
    Differs: the networks are ours.
    """
    check_designed(kind, size)
    cells, gain = float((size // CELL) ** 2), GAIN[kind]
    apart = [[1.0, -1.0], [-1.0, 1.0]]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if kind == "contrast":
        left = torch.tensor([1.0, -1.0]).expand(3, CELL, CELL) / (3 * CELL)
        layers["conv1"] = _set(nn.Conv2d(3, 2, CELL, CELL), torch.stack([left, -left]), [-MARGIN, -MARGIN])
        layers["relu1"] = nn.ReLU()
    else:
        ramps = [
            [4.0, 0.0, 0.0],
            [4.0, 0.0, 0.0],
            [0.0, 4.0, 0.0],
            [0.0, 4.0, 0.0],
        ]  # from 0 at 0.5 to 1 at 0.75, then level
        steps = [[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]]
        layers["conv1"] = _set(nn.Conv2d(3, 4, 1), _pointwise(ramps), [-2.0, -3.0, -2.0, -3.0])
        layers["relu1"] = nn.ReLU()
        layers["conv2"] = _set(nn.Conv2d(4, 2, 1), _pointwise(steps), [0.0, 0.0])
        layers["pool"] = nn.AvgPool2d(CELL)
    layers["total"], layers["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    if kind == "or":  # min(1, number) is ReLU(number) - ReLU(number - 1)
        layers["gate"] = _set(
            nn.Linear(2, 4), [[cells, 0.0], [cells, 0.0], [0.0, cells], [0.0, cells]], [0.0, -1.0, 0.0, -1.0]
        )
        layers["relu2"] = nn.ReLU()
        layers["head"] = _set(nn.Linear(4, 2), gain * torch.tensor([[1.0, -1, -1, 1], [-1.0, 1, 1, -1]]), [0.0, 0.0])
    elif kind == "and":
        layers["gate"] = _set(nn.Linear(2, 2), [[cells, 0.0], [0.0, cells]], [1.0 - NEEDED, 1.0 - NEEDED])
        layers["relu2"] = nn.ReLU()
        layers["head"] = _set(nn.Linear(2, 2), gain * torch.tensor(apart), [0.0, 0.0])
    else:
        layers["head"] = _set(nn.Linear(2, 2), gain * cells * torch.tensor(apart), [0.0, 0.0])
    return Designed(layers).eval()


def check_designed(kind: str = "counter", size: int = 16) -> None:
    """Raise ValueError for a kind that there is none of, and for a size that is odd or too small."""
    if kind not in get_args(Kind):
        raise ValueError(f"designed: kind is {shown(kind)}, expected {', '.join(get_args(Kind))}; change it")
    if size < 8 or size % CELL:
        raise ValueError(f"designed: size is {size}, expected an even number of pixels from 8; change it")


def _set(layer: nn.Conv2d | nn.Linear, weight: Tensor | Rows, bias: list[float]) -> nn.Module:
    """Return the layer with these weights."""
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(weight))
        assert layer.bias is not None
        layer.bias.copy_(torch.tensor(bias))
    return layer


def _pointwise(rows: Rows) -> Tensor:
    return torch.tensor(rows)[:, :, None, None]
