"""Imputation detectability, a control: whether a small network can find the pixels that were filled in."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images
from efface.erase.batches import Batches
from efface.erase.masking import to_float
from efface.metrics.formula import EVERY, Metric, Point, values_of
from efface.metrics.probes import Case, Erasure, Needs, erased_batches
from efface.metrics.shared.orders import UNIT
from efface.store.results import Score
from efface.training.loop import TrainingSettings

FRACTIONS = (0.1, 0.3, 0.5, 0.7, 0.9)


def imputation_detectability(
    *, masks: Literal["random", "method"] = "random", width: int = 16, layers: int = 4, epochs: int = 10
) -> Metric:
    """Accuracy of a small network that finds the filled-in pixels of images that were not in its training.

    A network of a few convolutions is trained on half of the erased test images. It classifies each pixel of the other
    half as filled in or kept. Then the halves change places. Values of each image:
    balanced_accuracy: the mean of the share of filled pixels and the share of kept pixels that it finds.
    area: the area under its ROC curve.
    Both are 0.5 for a fill that cannot be distinguished from the image. The summary is the mean of the points.

    masks: random: pixels are removed at random. All methods share the score, which depends only on the fill and the
        data. method: the pixels that each map ranks highest are removed. Their outline also helps the network.
    width: channels of each convolution, at least 1.
    layers: number of 3 x 3 convolutions, at least 1. The network sees `layers` pixels to each side.
    epochs: passes over the half, at least 1. A point costs three such passes, and one more, in forward passes of the
        small network. The size of the small network on large images takes most of the time.

    Source: the idea, Rong et al. 2022, appendix (arXiv:2202.00449).
    Differs: two halves of the test images in turn, so that each is scored unseen and no training images are needed;
    balanced, so that chance is 0.5 at any fraction.
    """
    for name, value in (("width", width), ("layers", layers), ("epochs", epochs)):
        if value < 1:
            raise ValueError(f"imputation_detectability: {name} is {value}, expected 1 or more; change it")

    def probes(point: Point) -> dict[str, Any]:
        erasure = point.erasure("random" if masks == "random" else "most_first", point.x)
        return {"found": Detect(erasure, width, layers, epochs)}

    return Metric(
        probes=probes,
        value=values_of("found", "balanced_accuracy", "area"),
        direction={"balanced_accuracy": "none", "area": "none"},
        ranges=dict.fromkeys(("balanced_accuracy", "area"), UNIT),
        sample="images",
        uses=frozenset({"imputer", "unit", "groups", "fractions"}) if masks == "random" else EVERY,
        family="control",
        points_for=lambda _: FRACTIONS,
        summary="mean",
        caption="A small network is trained to find the pixels that were filled in. At 0.5 it only guesses. Above 0.5 "
        "the fill reveals what was erased, and the score of a network on such images may depend on the fill.",
    )


@dataclass(frozen=True)
class Detect:
    """Train a small network to find erased pixels on half of the test images, score it on the rest, then swap."""

    erasure: Erasure
    width: int
    layers: int
    epochs: int

    @property
    def needs(self) -> Needs:  # of the test images alone
        return Needs(maps=self.erasure.needs_map)

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG002
        """Forward passes of the small network. A training step counts three."""
        return float(images["test"] * (3 * self.epochs + 1)) if 0 < self.erasure.fraction < 1 else 0.0

    def identity(self) -> dict[str, Any]:
        plain = {"width": self.width, "layers": self.layers, "epochs": self.epochs}
        return {"probe": "detect"} | plain | self.erasure.identity()

    def __call__(self, case: Case) -> Score:
        count = len(case.data["test"])
        if not 0 < self.erasure.fraction < 1:  # nothing to tell apart
            half = np.full(count, 0.5, np.float32)
            return Score({"balanced_accuracy": half, "area": half})
        if count < 2:
            raise ValueError("imputation_detectability: needs 2 test images or more, found 1; raise the limit")
        pair = _images_and_masks(case, self.erasure)
        scores = torch.zeros(2, count)
        generator = torch.Generator().manual_seed(draws.seed_of(f"{case.seed} detect halves"))
        halves = torch.randperm(count, generator=generator).tensor_split(2)
        for learnt, unseen in (halves, halves[::-1]):
            network = self._train(case, pair, learnt)
            for indices in unseen.split(case.max_batch):
                images, gone = _read(pair, indices)
                with torch.inference_mode():
                    scores[:, indices] = torch.stack(detection(network(images)[:, 0], gone)).cpu()
                case.advance(float(len(indices)))
        return Score({"balanced_accuracy": scores[0].numpy(), "area": scores[1].numpy()})

    def _train(self, case: Case, pair: tuple[Batches, Batches], indices: Tensor) -> nn.Module:
        part = self.erasure.fraction
        seed = draws.seed_of(f"{case.seed} detect")
        with torch.random.fork_rng(devices=[case.device] if case.device.type == "cuda" else []):
            torch.manual_seed(seed)
            network = detector(case.data["test"].shape[0], self.width, self.layers).to(case.device)
        optimizer = torch.optim.Adam(network.parameters(), lr=_RATE)
        # filled and kept pixels have the same total weight
        loss_of = nn.BCEWithLogitsLoss(pos_weight=torch.tensor((1 - part) / part, device=case.device))
        for epoch in range(self.epochs):
            generator = torch.Generator().manual_seed(draws.seed_of(f"{seed} epoch {epoch}"))
            order = indices[torch.randperm(len(indices), generator=generator)]
            for batch in order.split(_BATCH):
                images, gone = _read(pair, batch)
                loss = loss_of(network(images)[:, 0], gone.float())
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                case.advance(3.0 * len(batch))
        return network.eval()


_BATCH = 4  # images: thousands of pixels, and enough steps for few images
_RATE = 1e-2  # of Adam; ten times its default, for a few hundred steps


def detector(channels: int, width: int, layers: int) -> nn.Sequential:
    """Return a network with a logit for each pixel: `layers` 3 x 3 convolutions of `width` channels, and a 1 x 1."""
    stack: list[nn.Module] = []
    for layer in range(layers):
        stack += [nn.Conv2d(channels if layer == 0 else width, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*stack, nn.Conv2d(width, 1, 1))


def detection(
    logits: Float[Tensor, "n h w"], gone: Bool[Tensor, "n h w"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Return the balanced accuracy of logits above 0 for each image, and their area under the ROC curve.

    Ties count half in the area.
    """
    flat, where = logits.flatten(1).double(), gone.flatten(1)
    yes, no = where.sum(1).double(), (~where).sum(1).double()
    positive = flat > 0
    balanced = ((positive & where).sum(1) / yes + (~positive & ~where).sum(1) / no) / 2
    ordered = flat.sort(dim=1).values
    below, upto = (torch.searchsorted(ordered, flat, right=right).double() for right in (False, True))
    places = (below + upto + 1) / 2  # mid-ranks from 1, Mann & Whitney 1947
    area = ((places * where).sum(1) - yes * (yes + 1) / 2) / (yes * no)
    return balanced.float(), area.float()


def _images_and_masks(case: Case, erasure: Erasure) -> tuple[Batches, Batches]:
    """Return the functions that yield erased test images, and the masks of their erased pixels."""
    of, masks = erasure, replace(erasure, shown="mask")
    return erased_batches(case, "test", of, width=0, whole=True), erased_batches(
        case, "test", masks, width=0, whole=True
    )


def _read(pair: tuple[Batches, Batches], indices: Tensor) -> tuple[Images, Bool[Tensor, "n h w"]]:
    """Return erased images, with 0 in the middle of their range, and the masks of their erased pixels."""
    images, kept = (to_float(next(iter(batches(indices, len(indices), 0)))) for batches in pair)
    return images - 0.5, (kept < 1).any(1)
