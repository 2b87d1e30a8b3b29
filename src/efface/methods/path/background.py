"""Integrated gradients from references that are training images."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images, Seeds, Split, Target, TargetScore
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
from efface.methods.path.clusters import k_means, nearest_row, representatives
from efface.methods.path.grid import Alphas, grid_of
from efface.models.evaluation import evaluating
from efface.models.memory import at_least_one, blocks
from efface.models.scores import logits_of
from efface.store.arrays import read_rows

KEYS_AT_ONCE = 1 << 20
"""Numbers sorted at once to draw references: 8 MB. It changes no reference."""


class ExpectedGradients:
    """Way from random training images to the image, times the gradient at a random point of each way, averaged.

    Formula: map = mean over r and k of (x - r) * grad f(r + alpha_k (x - r)), alpha_k uniform in [0, 1).

    The map is signed unless it is re-calibrated. Summed over pixels, a map without re-calibration equals on average
    logit(image) minus the mean logit of the training images. `fit` keeps training images, drawn by seed, and costs no
    pass. With `references`, `fit` is not needed.

    samples: references for each image, drawn without repeats from the kept training images, at least 1; all of them
        where fewer are kept.
    steps: random points on each way, at least 1. In all, samples x steps forward and backward passes.
    pool: training images to keep, at least 1; all where there are fewer. They cost their bytes in memory and in the
        run's folder.
    recalibrate: none; or, for each element, average only the contributions that are not below zero: of whole
        `references`, or of single `points` (`efface.methods.path.average.Recalibrate`). Costs no pass.
    score: score of the target class to differentiate: logit, log_probability, probability or loss (cross entropy).

    Source: Erion et al. 2021 (arXiv:1906.10670); re-calibration from Yang et al., ICLR 2023.
    Differs: references are drawn from `pool` training images, not from all of them. The code of Yang et al. uses
        gradients on the path from one reference as gradients on the path from another.
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
        """Return the settings that `learnt` depends on."""
        return {"fit": "training_images", "pool": self.pool}

    def fit(self, model: nn.Module, data: Split, *, seed: int, max_batch: int) -> None:
        """Keep `pool` training images, and their row numbers."""
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
        """Return the maps.

        seeds: one integer per image. An image's references and points depend only on its seed, not on the batch.
        references: the references themselves. Then `fit` is not needed.
        alphas: the points, 0 the reference and 1 the image: one row for all paths, or n r p. With `references` and
            `alphas`, no seeds are needed.
        max_batch: most points in one pass, at least 1. It limits the memory and changes maps by rounding only.
        """
        images = images.detach()
        if references is None:
            stored = _fitted(self, "images")
            own = needed(seeds, images, "the references themselves")
            count = min(self.samples, len(stored))
            some = draws.fold(own, 0).split(max(1, KEYS_AT_ONCE // len(stored)))
            orders = (draws.keys(part, len(stored)).argsort(dim=1, stable=True)[:, :count] for part in some)
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
    """Integrated gradients averaged by density over training images with logits similar to the image's (LPI).

    Formula: map = sum over r of d_r (x - r) * mean over k of grad f(r + alpha_k (x - r)), d_r the densities.

    `fit` clusters the training images by the network's logits, and then the images of each cluster again. The training
    image nearest to each inner centre is a reference. Its density is the share of the cluster's images around this
    centre. An image gets the references of the cluster whose centre is nearest to its logits.

    The map is signed unless it is re-calibrated. Summed over pixels, a map without re-calibration equals on average
    logit(image) minus the mean logit of the references, weighted by density.

    samples: references for each image, at least 1; fewer where the cluster has fewer images.
    steps: random points in [0.01, 0.99] on each line, at least 1. In all, samples x steps forward and backward passes.
    centres: number of clusters, at least 1. More than one cluster costs one more forward pass per image.
    pool: training images to cluster, drawn by seed, at least 1; all where there are fewer. Each costs one forward pass,
        and memory for its logits.
    recalibrate: none; or, for each element, average only the contributions that are not below zero: of whole
        `references`, or of single `points` (`efface.methods.path.average.Recalibrate`). Costs no pass.
    score: score of the target class to differentiate: logit, log_probability, probability or loss (cross entropy).

    Source: Yang, Akhtar, Wen & Mian, AAAI 2023 (doi:10.1609/aaai.v37i3.25422); re-calibration from the same, ICLR 2023.
    Differs: the released code also divides by the number of references, which changes no ranking. Here every reference
        is used with all of its points, each cluster has its own densities, and the references come from the images
        that were clustered.
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
        """Return the settings that `learnt` depends on."""
        return {"fit": "local_paths", "samples": self.samples, "centres": self.centres, "pool": self.pool}

    def fit(self, model: nn.Module, data: Split, *, seed: int, max_batch: int) -> None:
        """Cluster training images, and keep the centres; for each centre, reference images, row numbers, densities."""
        chosen = _some_training_rows(data, self.pool, seed)
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        with evaluating(model), torch.no_grad():
            parts = (read_rows(data.images, chosen[block]).to(device) for block in blocks(len(chosen), max_batch))
            logits = torch.cat([logits_of(model, part.float().div(255)).float().cpu() for part in parts])
        centres, cluster, _ = k_means(logits, self.centres, seed)
        rows, densities = [], []
        for number in range(len(centres)):
            members = (cluster == number).nonzero().flatten()
            stand, shares = representatives(logits[members], self.samples, seed)
            rows.append(chosen[members[stand]])
            densities.append(shares)
        kept = torch.stack(rows)
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
        """Return the maps.

        seeds: one integer per image. An image's points depend only on its seed, not on the batch.
        references: the references themselves. Then `fit` is not needed.
        densities: weights of these references; by default equal.
        alphas: the points, 0 the reference and 1 the image: one row for all paths, or n r p. Then no seeds are needed.
        max_batch: most points in one pass, at least 1. It limits the memory and changes maps by rounding only.
        """
        images = images.detach()
        if references is None:
            if densities is not None:
                raise ValueError(
                    "densities are given without references; expected both, or neither: `fit` computes both"
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
        """Return for each image the number of the centre nearest to its logits."""
        centres = self.learnt["centres"]
        if len(centres) == 1:
            return torch.zeros(len(images), dtype=torch.int64)
        with evaluating(model), torch.no_grad():
            logits = torch.cat([logits_of(model, images[block]).float() for block in blocks(len(images), max_batch)])
        return nearest_row(logits.cpu(), centres)


def _some_training_rows(data: Split, count: int, seed: int) -> Int[Tensor, " n"]:
    """Return at most `count` rows of the training set, drawn by seed, in ascending order."""
    order = draws.keys(torch.tensor([seed]), len(data.training))[0].argsort(stable=True)
    return data.training[order[:count]].sort().values


def _fitted(method: ExpectedGradients | LocalPathIntegration, name: str) -> Tensor:
    if not method.learnt:
        raise ValueError(f"{type(method).__name__} is not fitted: call fit first, or pass references")
    return method.learnt[name]


def _stored(images: Images, stored: Tensor, numbers: Int[Tensor, "n r"]) -> Draw:
    """Return a function that makes references from stored 8-bit images, by number."""
    return lambda block, at: stored[numbers[block, at]].to(images).div(255)
