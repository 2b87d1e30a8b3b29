"""Mosaics of correctly classified images, and the share of a map in the cell whose class it explains."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images, Targets
from efface.erase.masking import to_float
from efface.erase.post import apply_post
from efface.erase.ranking import for_unit
from efface.execute.task_status import already_there
from efface.metrics.probes import Case, Needs
from efface.plug.call import Call
from efface.store.arrays import read_rows
from efface.store.results import Score
from efface.training.loop import TrainingSettings

Size = Literal["larger", "same"]
Box = tuple[slice, slice]


def choose(
    logits: Float[Tensor, "n k"], targets: Targets, *, cells: int, mosaics: int, seed: int
) -> Int[Tensor, "m cells"]:
    """Return row numbers of each mosaic: correctly classified images of distinct classes, most confident first.

    No image is in two mosaics. A mosaic takes one image from each of the classes with most images left, so that the
    number of mosaics is as large as possible. Equal classes and the order of the cells are drawn at random.

    cells: images in one mosaic.
    mosaics: largest number of mosaics.
    ValueError: too few classes have a correctly classified image.
    """
    targets, sure = targets.cpu(), logits.softmax(1).amax(1).cpu()
    right = (logits.argmax(1).cpu() == targets).nonzero().flatten()
    right = right[sure[right].argsort(descending=True, stable=True)]
    queues = {int(target): right[targets[right] == target].tolist() for target in targets[right].unique()}
    if len(queues) < cells:
        raise ValueError(
            f"a mosaic of {cells} cells needs as many classes with rightly classified test images; there are "
            f"{len(queues)}: take fewer cells, more test images or a better network"
        )
    generator = torch.Generator().manual_seed(seed)
    rows: list[list[int]] = []
    while len(rows) < mosaics:
        names = [name for name, queue in queues.items() if queue]
        if len(names) < cells:
            break
        shuffled = [names[place] for place in torch.randperm(len(names), generator=generator)]
        taken = sorted(shuffled, key=lambda name: -len(queues[name]))[:cells]
        order = torch.randperm(cells, generator=generator).tolist()
        rows.append([queues[taken[place]].pop(0) for place in order])
    return torch.tensor(rows, dtype=torch.int64)


def boxes(side: int, h: int, w: int) -> list[Box]:
    """Return the cells of an image of h x w, row by row."""
    down, across = ([size * cell // side for cell in range(side + 1)] for size in (h, w))
    return [(slice(down[i], down[i + 1]), slice(across[j], across[j + 1])) for i in range(side) for j in range(side)]


def compose(images: Float[Tensor, "n c h w"], side: int, size: Size) -> Float[Tensor, "m c tall wide"]:
    """Return mosaics of side x side images, row by row. With `same`, each image is shrunk by averaging over areas."""
    n, c, h, w = images.shape
    tall, wide = (h * side, w * side) if size == "larger" else (h, w)
    whole = images.new_empty(n // side**2, c, tall, wide)
    for cell, (down, across) in enumerate(boxes(side, tall, wide)):
        part = images[cell :: side**2]
        shape = (down.stop - down.start, across.stop - across.start)
        whole[:, :, down, across] = part if size == "larger" else F.interpolate(part, shape, mode="area")
    return whole


def share_inside(maps: Float[Tensor, "n h w"], box: Box) -> Float[Tensor, " n"]:
    """Share of each map's positive relevance inside the box. NaN without positive relevance."""
    positive = maps.double().clamp(min=0)
    whole = positive.sum((1, 2))
    return torch.where(whole > 0, positive[:, box[0], box[1]].sum((1, 2)) / whole, torch.nan).float()


class OneCell(nn.Module):
    """A network that sees one cell of a mosaic. Everything around it is grey."""

    def __init__(self, network: nn.Module, box: Box, fill: float) -> None:
        super().__init__()
        self.network, self.box, self.fill = network, box, fill

    def forward(self, images: Tensor) -> Tensor:
        seen = torch.zeros(images.shape[2:], dtype=torch.bool, device=images.device)
        seen[self.box] = True
        return self.network(torch.where(seen, images, self.fill))


@dataclass(frozen=True)
class Mosaics:
    """The share of a map inside a cell, for the method run on the class of each cell.

    fill: value around the explained cell, for a network that sees one cell. None: the given network sees all cells.
    """

    side: int
    size: Size
    mosaics: int
    post: tuple[Call, ...]
    fill: float | None = None

    needs = Needs(maps=False, method=True)
    explains = "true"
    map_values = "pixel"

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG002
        """Forward passes: one for each test image, and one for each map at most, times the area of a larger mosaic."""
        most = min(self.mosaics * self.side**2, images["test"])
        return float(images["test"] + most * self._area())

    def identity(self) -> dict[str, Any]:
        what = {"probe": "mosaics", "side": self.side, "size": self.size, "mosaics": self.mosaics, "fill": self.fill}
        return what | {"post": [step.identity() for step in self.post]}

    def check(self, network: nn.Module, images: Images) -> None:
        """Raise ValueError if the network has too few classes for a mosaic, or does not accept images of its size."""
        with torch.no_grad():
            classes = network(images[:1]).shape[1]
        if classes < self.side**2:
            raise ValueError(
                f"side is {self.side}: a mosaic needs {self.side**2} classes, but the network has {classes}: lower it"
            )
        self._check(network, images[:1].repeat(1, 1, self.side, self.side))

    def __call__(self, case: Case) -> Score:
        split, network = case.data["test"], case.network
        seed = draws.seed_of(f"{case.seed} mosaics")
        indices = choose(_logits(case), split.targets, cells=self.side**2, mosaics=self.mosaics, seed=seed)
        shares = np.full(len(split), np.nan, np.float32)
        for part in indices.split(max(1, case.max_batch // (self.side**2 * self._area()))):
            whole, masks = self._made(case, part)
            self._check(network, whole)
            for cell, box in enumerate(boxes(self.side, *whole.shape[2:])):
                asked = network if self.fill is None else OneCell(network, box, self.fill).eval()
                classes = split.targets[part[:, cell].to(split.targets.device)]
                own = self._maps(case, asked, whole, classes, part[:, cell], box, masks)
                shares[part[:, cell].numpy()] = share_inside(own, box).numpy(force=True)
            case.advance(float(part.numel() * self._area()))
        most = min(self.mosaics * self.side**2, len(split))
        with already_there():
            case.advance(float((most - indices.numel()) * self._area()))  # images that are in no mosaic
        return Score({"share": shares})

    def _made(self, case: Case, indices: Int[Tensor, "m cells"]) -> tuple[Images, Tensor | None]:
        """Return the mosaics of these rows, and the masks of the objects in them if the data have masks."""
        split = case.data["test"]
        images = to_float(read_rows(split.images, indices.flatten()).to(case.device))
        if split.masks is None:
            return compose(images, self.side, self.size), None
        objects = split.masks[indices.flatten()].to(case.device, torch.float32)
        return compose(images, self.side, self.size), compose(objects[:, None], self.side, self.size)[:, 0] >= 0.5

    def _maps(
        self, case: Case, network: nn.Module, whole: Images, classes: Targets, indices: Tensor, box: Box, masks: Any
    ) -> Float[Tensor, "n h w"]:
        """Return the maps of the mosaics for the class of one cell. Only the object in that cell counts."""
        offered = {}
        if masks is not None:
            offered["masks"] = torch.zeros_like(masks)
            offered["masks"][:, box[0], box[1]] = masks[:, box[0], box[1]]
        maps = case.explain(network, whole, classes.to(case.device), indices, **offered)
        return for_unit(apply_post(maps, self.post), "pixel", case.data["test"].shape[0])

    def _check(self, network: nn.Module, whole: Images) -> None:
        if self.size == "same":
            return
        try:
            with torch.no_grad():
                network(whole[:1])
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            h, w = whole.shape[2:]
            raise ValueError(
                f"{type(network).__name__} does not accept images of {h} x {w} ({' '.join(str(error).split())[:120]}); "
                "set size: same, which shrinks the cells"
            ) from error

    def _area(self) -> int:
        return self.side**2 if self.size == "larger" else 1


def read_grid(metric: str, side: int, mosaics: int) -> None:
    """Raise ValueError if a mosaic has one cell, or if there is no mosaic."""
    if side < 2:
        raise ValueError(f"{metric}: side is {side}, expected at least 2 cells across; raise it")
    if mosaics < 1:
        raise ValueError(f"{metric}: mosaics is {mosaics}, expected at least 1; raise it")


def _logits(case: Case) -> Tensor:
    return torch.cat(list(_answers(case)))


def _answers(case: Case) -> Iterator[Tensor]:
    split = case.data["test"]
    for indices in torch.arange(len(split)).split(case.max_batch):
        with torch.no_grad():
            yield case.network(to_float(read_rows(split.images, indices).to(case.device))).float().cpu()
        case.advance(float(len(indices)))
