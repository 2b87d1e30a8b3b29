"""Integrated gradients from references that are training images."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from efface import draws
from efface.methods.noise import needed
from efface.methods.path.average import (
    Draw,
    Drawn,
    Recalibrate,
    References,
    average_over_paths,
    check_recalibrate,
    given_references,
)
from efface.methods.path.clusters import k_means, nearest, representatives
from efface.methods.path.grid import Alphas, grid_of
from efface.models.evaluation import evaluating
from efface.models.memory import at_least_one, blocks
from efface.models.scores import logits_of
from efface.store.arrays import read_rows
from efface.types import Images, Seeds, Split, Target, TargetScore

_KEYS = 1 << 20  # sorted at once to draw references: 8 MB


class ExpectedGradients:
    """Way from random training images to the image, times the gradient at a random point of each way, averaged.

    Signed unless re-calibrated. Summed over pixels, a map that is not is on average logit(image) less the mean logit of
    the training images. `fit` keeps training images, drawn by seed, and costs no pass; with `references` it is not
    needed.

    samples: training images for each image, drawn from those kept without repeats, at least 1; all of them where fewer
        are kept.
    steps: points on the way from each, at random, at least 1; samples x steps forward and backward passes in all.
    pool: training images kept, at least 1; all where there are fewer. Costs their bytes in memory and in the run's
        folder.
    recalibrate: none; or what the average is restricted to, where it is not below zero, element by element: whole
        references, or single points (`efface.methods.path.average.Recalibrate`). Costs no pass.
    score: what is differentiated, of the target class: logit, log_probability, probability or loss (cross entropy).

    Source: Erion et al. 2021 (arXiv:1906.10670); re-calibration from Yang et al., ICLR 2023.
    Differs: references are drawn from `pool` training images, not from all of them. The code of Yang et al. takes
        gradients on the path from one reference for those of another.
    """

    def __init__(
        self,
        *,
        samples: int = 50,
        steps: int = 1,
        pool: int = 1000,
        recalibrate: Recalibrate = "none",
        score: TargetScore = "logit",
    ) -> None:
        at_least_one("samples", samples)
        at_least_one("steps", steps)
        at_least_one("pool", pool)
        check_recalibrate(recalibrate)
        self.samples, self.steps, self.pool = samples, steps, pool
        self.recalibrate, self.score = recalibrate, score
        self.learnt: dict[str, Tensor] = {}

    def learnt_from(self) -> dict[str, Any]:
        """The settings that `learnt` depends on."""
        return {"fit": "training_images", "pool": self.pool}

    def fit(self, model: nn.Module, data: Split, *, seed: int, max_batch: int) -> None:
        """Keep `pool` training images, and the numbers of their rows."""
        del model, max_batch
        chosen = _some_training_rows(data, self.pool, seed)
        self.learnt = {"images": read_rows(data.images, chosen).cpu(), "rows": chosen}

    def __call__(
        self,
        model: nn.Module,
        images: Images,
        targets: Target,
        *,
        seeds: Seeds | None = None,
        references: References | None = None,
        alphas: Alphas | None = None,
        max_batch: int = 256,
    ) -> Images:
        """Maps.

        seeds: one an image; its references and points depend on its seed alone, not on the batch.
        references: the references themselves, then without `fit`.
        alphas: the points, 0 the reference and 1 the image: one row for all, or n r p; with `references` without seeds.
        max_batch: points in one pass, at least 1; bounds the memory, changes maps by rounding only.
        """
        images = images.detach()
        if references is None:
            stored = _fitted(self, "images")
            own = needed(seeds, images, "the references themselves")
            count = min(self.samples, len(stored))
            some = draws.fold(own, 0).split(max(1, _KEYS // len(stored)))
            orders = (draws.keys(each, len(stored)).argsort(dim=1, stable=True)[:, :count] for each in some)
            chosen = torch.cat([order.cpu() for order in orders])
            drawn = Drawn(_stored(images, stored, chosen), count)
        else:
            drawn = given_references(images, references)
        if alphas is None:
            own = needed(seeds, images, "alphas, the points themselves")
            alphas = draws.uniform(draws.fold(own, 1), (drawn.count, self.steps)).to(images.dtype)
        grid = grid_of("midpoint", self.steps, alphas)
        return average_over_paths(
            model, images, targets, drawn, grid, self.recalibrate, score=self.score, max_batch=max_batch
        )


class LocalPathIntegration:
    """Integrated gradients averaged by density over training images that the network answers like the image (LPI).

    `fit` clusters the training images by the network's logits, and each cluster again; the training image nearest to
    each inner centre is a reference, the share of the cluster's images around it its density. An image's references
    are those of the cluster its own logits are nearest to. Signed unless re-calibrated. Summed over pixels, a map that
    is not is on average logit(image) less the references' mean logit, by density.

    samples: references for each image, at least 1; fewer where the cluster has fewer images.
    steps: points on the line from each, at random in [0.01, 0.99], at least 1; samples x steps forward and backward
        passes in all.
    centres: clusters, at least 1; with more than one an image costs one more forward pass.
    pool: training images that are clustered, drawn by seed, at least 1; all where there are fewer. A forward pass each,
        and memory for their logits.
    recalibrate: none; or what the average is restricted to, where it is not below zero, element by element: whole
        references, or single points (`efface.methods.path.average.Recalibrate`). Costs no pass.
    score: what is differentiated, of the target class: logit, log_probability, probability or loss (cross entropy).

    Source: Yang, Akhtar, Wen & Mian, AAAI 2023 (doi:10.1609/aaai.v37i3.25422); re-calibration from the same, ICLR 2023.
    Differs: the released code also divides by the number of references, which changes no ranking; each reference sees
        each of its points, each cluster has its own densities, and the images kept are the ones that were clustered.
    """

    def __init__(
        self,
        *,
        samples: int = 20,
        steps: int = 5,
        centres: int = 1,
        pool: int = 50_000,
        recalibrate: Recalibrate = "none",
        score: TargetScore = "logit",
    ) -> None:
        for name, count in (("samples", samples), ("steps", steps), ("centres", centres), ("pool", pool)):
            at_least_one(name, count)
        check_recalibrate(recalibrate)
        self.samples, self.steps, self.centres, self.pool = samples, steps, centres, pool
        self.recalibrate, self.score = recalibrate, score
        self.learnt: dict[str, Tensor] = {}

    def learnt_from(self) -> dict[str, Any]:
        """The settings that `learnt` depends on."""
        return {"fit": "local_paths", "samples": self.samples, "centres": self.centres, "pool": self.pool}

    def fit(self, model: nn.Module, data: Split, *, seed: int, max_batch: int) -> None:
        """Cluster training images: the centres; of each, reference images, the numbers of their rows, densities."""
        chosen = _some_training_rows(data, self.pool, seed)
        device = next((each.device for each in model.parameters()), torch.device("cpu"))
        with evaluating(model), torch.no_grad():
            parts = (read_rows(data.images, chosen[block]).to(device) for block in blocks(len(chosen), max_batch))
            logits = torch.cat([logits_of(model, part.float().div(255)).float().cpu() for part in parts])
        centres, cluster, _ = k_means(logits, self.centres, seed)
        found, densities = [], []
        for each in range(len(centres)):
            members = (cluster == each).nonzero().flatten()
            stand, shares = representatives(logits[members], self.samples, seed)
            found.append(chosen[members[stand]])
            densities.append(shares)
        kept = torch.stack(found)
        self.learnt = {
            "centres": centres,
            "images": read_rows(data.images, kept.flatten()).cpu().unflatten(0, kept.shape),
            "densities": torch.stack(densities),
            "rows": kept,
        }

    def __call__(
        self,
        model: nn.Module,
        images: Images,
        targets: Target,
        *,
        seeds: Seeds | None = None,
        references: References | None = None,
        densities: Float[Tensor, "n r"] | None = None,
        alphas: Alphas | None = None,
        max_batch: int = 256,
    ) -> Images:
        """Maps.

        seeds: one an image; its points depend on its seed alone, not on the batch.
        references: the references themselves, then without `fit`.
        densities: what each of those counts; by default all the same.
        alphas: the points, 0 the reference and 1 the image, then without seeds: one row for all, or n r p.
        max_batch: points in one pass, at least 1; bounds the memory, changes maps by rounding only.
        """
        images = images.detach()
        if references is None:
            if densities is not None:
                raise ValueError(
                    "densities are given without references; expected both, or neither: the fit has its own"
                )
            stored, cluster = _fitted(self, "images"), self._cluster(model, images, max_batch)
            count = stored.shape[1]
            numbers = torch.arange(stored.shape[0] * count).unflatten(0, stored.shape[:2])[cluster]
            drawn = Drawn(_stored(images, stored.flatten(0, 1), numbers), count)
            densities = self.learnt["densities"][cluster]
        else:
            drawn = given_references(images, references)
        if alphas is None:
            own = needed(seeds, images, "alphas, the points themselves")
            alphas = 0.01 + 0.98 * draws.uniform(own, (drawn.count, self.steps)).to(images.dtype)
        average = partial(average_over_paths, densities=densities, score=self.score, max_batch=max_batch)
        return average(model, images, targets, drawn, grid_of("midpoint", self.steps, alphas), self.recalibrate)

    def _cluster(self, model: nn.Module, images: Images, max_batch: int) -> Int[Tensor, " n"]:
        """The number of the centre that each image's logits are nearest to."""
        centres = self.learnt["centres"]
        if len(centres) == 1:
            return torch.zeros(len(images), dtype=torch.int64)
        with evaluating(model), torch.no_grad():
            logits = torch.cat([logits_of(model, images[block]).float() for block in blocks(len(images), max_batch)])
        return nearest(logits.cpu(), centres)


def _some_training_rows(data: Split, count: int, seed: int) -> Int[Tensor, " n"]:
    """At most `count` of the rows that a training may see, drawn by seed, in ascending order."""
    order = draws.keys(torch.tensor([seed]), len(data.training))[0].argsort(stable=True)
    return data.training[order[:count]].sort().values


def _fitted(method: ExpectedGradients | LocalPathIntegration, name: str) -> Tensor:
    if not method.learnt:
        raise ValueError(f"{type(method).__name__} is not fitted: call fit first, or pass references")
    return method.learnt[name]


def _stored(images: Images, stored: Tensor, numbers: Int[Tensor, "n r"]) -> Draw:
    """Makes references of images that are kept as 8 bits a channel, by number."""
    return lambda block, at: stored[numbers[block, at]].to(images).div(255)
