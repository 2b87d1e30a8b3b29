"""F-Fidelity: erasure, scored by a network that was fine-tuned on images with random holes."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images, Mask, Ranks, Seeds
from efface.erase.masking import erase, to_float, to_stored
from efface.erase.ranking import rank, removed
from efface.metrics.formula import EVERY, Metric, Point
from efface.metrics.probes import Case, Description, Needs, fill_of, fill_seeds, ranks_of
from efface.metrics.probes.description import NONE, SHUFFLED, by_fields
from efface.metrics.shared.fine_tuning import fine_tuned as tuned_on
from efface.metrics.shared.orders import SIGNED
from efface.plug.call import Call
from efface.store.arrays import read_rows
from efface.store.results import Score
from efface.training.loop import TrainingSettings

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
Side = Literal["explanation", "rest"]


def f_fidelity(
    *, samples: int = 50, alpha: float = 0.5, beta: float = 0.1, epochs: int = 5, rate: float = 0.1
) -> Metric:
    """Cost of random holes in the explanation minus their cost in the rest, for a network fine-tuned on such holes.

    The explanation is the share s of pixels that a map ranks highest. Values of each image and s:

    plus: right on the whole image (1 or 0) minus the mean over samples of right without a random part of the
        explanation.
    minus: the same for the rest.
    difference: plus - minus.

    The three values exist also for the probability of the explained class. The random part is alpha of the pixels of
    that side, but at most beta of all pixels, so no image loses more than in the fine-tuning. The summary is the mean
    of the points.

    samples: random holes of each image, at least 1. Each costs two forward passes of the test images at each point.
    alpha: part of a side that is dropped, in (0, 1].
    beta: part of all pixels, in (0, 1]. It is the cap, and the part that the fine-tuning drops at random from every
        training image, anew each epoch.
    epochs: epochs of the fine-tuning from the given weights, at least 1, once in a run.
    rate: factor of the learning rate of the study's `fit`, above 0. The other settings of `fit` hold, except for the
        schedule: the rate is constant.

    Source: Zheng et al. 2025, ICLR (arXiv:2410.02970).
    Differs: exactly floor(alpha * side) pixels are dropped, where the code drops each pixel of a side with that
        probability; the cap is theirs. The maps are those of the given network, where the authors' run takes those of
        the fine-tuned one. Holes are filled by the study's imputer, where theirs are the mean colour of ImageNet.
    """
    for name, value in (("samples", samples), ("epochs", epochs)):
        if value < 1:
            raise ValueError(f"f_fidelity: {name} is {value}, expected 1 or more; change it")
    for name, part in (("alpha", alpha), ("beta", beta)):
        if not 0 < part <= 1:
            raise ValueError(f"f_fidelity: {name} is {part}, expected a part above 0, to 1; change it")
    if not rate > 0:
        raise ValueError(f"f_fidelity: rate is {rate}, expected above 0, a part of fit's learning rate; change it")

    def probes(point: Point) -> dict[str, Any]:
        share = float(point.x)
        post, unit = (point.post, point.unit) if 0 < share < 1 else ((), point.unit)
        return {"holes": FineTune(share, point.imputer, post, unit, samples, alpha, beta, epochs, rate)}

    names = ("difference", "plus", "minus")
    return Metric(
        probes=probes,
        value=_values,
        direction={
            prefix + name: "lower" if name == "minus" else "higher" for prefix in ("", "probability_") for name in names
        },
        ranges={
            prefix + name: (-2.0, 2.0) if name == "difference" else SIGNED
            for prefix in ("", "probability_")
            for name in names
        },
        sample="images",
        uses=EVERY,
        axis="share taken as explanation",
        points_for=lambda _: SHARES,
        summary="mean",
        needs_fit=True,
        caption="The network is fine-tuned on images with random holes. Then random holes are made in the pixels that "
        "a map ranks highest (plus: their cost) and in all others (minus), never larger than in the fine-tuning. "
        "With a truthful map the first cost much and the second cost little.",
    )


@dataclass(frozen=True)
class FineTune:
    """Score of the fine-tuned network on test images with random holes in the explanation, and in the rest."""

    share: float
    imputer: Call
    post: tuple[Call, ...]
    unit: Literal["pixel", "feature"] | Call
    samples: int
    alpha: float
    beta: float
    epochs: int
    rate: float

    @property
    def needs(self) -> Needs:
        return Needs(maps=0 < self.share < 1, training=True)

    def describe(self) -> Description:
        count = f"min(floor({self.alpha} * side + 1e-6), floor({self.beta} * units + 1e-6))"
        return replace(by_fields(self), ties=SHUFFLED if self.needs.maps else NONE, count=count)

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG002
        """Forward passes, without the fine-tuning, which all such probes share."""
        return float(images["test"] * (1 + 2 * self.samples))

    def identity(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in ("share", "samples", "alpha", "beta", "epochs", "rate")}
        unit = self.unit.identity() if isinstance(self.unit, Call) else self.unit
        post = [step.identity() for step in self.post]
        return {"probe": "f_fidelity", "imputer": self.imputer.identity(), "post": post, "unit": unit} | plain

    def __call__(self, case: Case) -> Score:
        network = fine_tuned(case, self.imputer, beta=self.beta, epochs=self.epochs, rate=self.rate)
        together = max(1, case.max_batch // self.samples)
        scores = [self._score(case, network, part) for part in torch.arange(len(case.data["test"])).split(together)]
        return Score({name: torch.cat([score[name] for score in scores]).numpy() for name in scores[0]})

    @torch.inference_mode()
    def _score(self, case: Case, network: nn.Module, indices: Tensor) -> dict[str, Tensor]:
        test = case.data["test"]
        images = to_float(read_rows(test.images, indices).to(case.device))
        expected, asked = test.targets[indices].to(case.device), case.target_classes[indices].to(case.device)
        seeds = draws.seeds_of(f"{case.seed} f_fidelity", indices).to(case.device)
        ranks = self._ranks(case, indices, images)
        whole = _answers(network(images), expected, asked)
        case.advance(float(len(indices)))
        result = {}
        for sign, side in ((0, "plus"), (1, "minus")):
            sums = torch.zeros_like(whole)
            for first in range(0, self.samples, case.max_batch):
                some = torch.arange(first, min(first + case.max_batch, self.samples))
                gone = dropped(
                    ranks.repeat_interleave(len(some), 0),
                    self.share,
                    "rest" if sign else "explanation",
                    torch.stack([draws.fold(seeds, 2 * int(sample) + sign) for sample in some], 1).flatten(),
                    alpha=self.alpha,
                    beta=self.beta,
                    grouped=isinstance(self.unit, Call),
                )
                fill = fill_of(case, self.imputer, fill_seeds(case, "test", indices.repeat_interleave(len(some))))
                holed = to_float(to_stored(erase(images.repeat_interleave(len(some), 0), gone, fill)))
                many = (classes.repeat_interleave(len(some)) for classes in (expected, asked))
                sums += _answers(network(holed), *many).unflatten(0, (len(indices), -1)).sum(1)
                case.advance(float(len(holed)))
            result[side], result[f"probability_{side}"] = (whole - sums / self.samples).cpu().unbind(1)
        return result

    def _ranks(self, case: Case, indices: Tensor, images: Tensor) -> Ranks:
        c, h, w = case.data["test"].shape
        seeds = draws.seeds_of(f"{case.seed} ties", indices).to(case.device)
        if not self.needs.maps:  # one side is everything: any ranking tells the units apart
            drawn = draws.uniform(seeds, (h, w))
            return ranks_of(drawn, images, post=(), unit=self.unit, ties=seeds, channels=c)
        maps = case.maps["test"].take(indices).to(case.device)
        return ranks_of(maps, images, post=self.post, unit=self.unit, ties=seeds, channels=c)


def dropped(
    ranks: Ranks, share: float, side: Side, seeds: Seeds, *, alpha: float, beta: float, grouped: bool = False
) -> Bool[Tensor, "..."]:
    """Return a random part of one side of each image, True = removed, of exactly min(alpha * side, beta * all) units.

    share: part of the units, most relevant first, that is the explanation.
    seeds: one for each image; they decide which units are removed.
    grouped: True if pixels that share a rank are one unit.
    """
    flat = ranks.flatten(1).long()
    units = flat.amax(1) + 1 if grouped else torch.full_like(flat[:, 0], flat.shape[1])
    first = torch.floor(share * units.double() + 1e-6).long()
    inside = first if side == "explanation" else units - first
    many = torch.minimum(
        torch.floor(alpha * inside.double() + 1e-6).long(), torch.floor(beta * units.double() + 1e-6).long()
    )
    most = int(inside.max())
    if most == 0:
        return torch.zeros_like(ranks, dtype=torch.bool)
    keys: Int[Tensor, "n most"] = draws.keys(seeds, most)
    keys = keys.masked_fill(torch.arange(most, device=keys.device) >= inside[:, None], torch.iinfo(torch.int64).max)
    last = keys.sort(1).values.gather(1, (many - 1).clamp_min(0)[:, None])
    chosen = nn.functional.pad((keys <= last) & (many > 0)[:, None], (0, 1))  # the last column is the other side
    at = flat if side == "explanation" else units[:, None] - 1 - flat
    return chosen.gather(1, torch.where(at < inside[:, None], at, most)).reshape(ranks.shape)


def fine_tuned(case: Case, imputer: Call, *, beta: float, epochs: int, rate: float) -> nn.Module:
    """Return the given network after fine-tuning on training images without a random part of their pixels.

    `fit.stop` is not used. ValueError: the data have no training images, or the optimizer has no learning rate.
    """
    settings = case.training.model_copy(
        update={"epochs": epochs, "stop": None, "schedule": None, "optimizer": _slower(case.training.optimizer, rate)}
    )

    def holes(images: Images, seeds: Seeds) -> Mask:
        return removed(rank(draws.uniform(seeds, tuple(images.shape[2:])), seeds), beta, "most_first")

    return tuned_on(case, "f_fidelity", holes, imputer, settings, {"beta": beta})


def _slower(optimizer: Call, rate: float) -> Call:
    known = inspect.signature(optimizer.resolve()).parameters
    usual = optimizer.kwargs.get("lr", known["lr"].default if "lr" in known else None)
    if not isinstance(usual, int | float):
        raise ValueError(f"f_fidelity: fit.optimizer {optimizer.call} has no learning rate 'lr' to lower; give it one")
    return Call(call=optimizer.call, kwargs=optimizer.kwargs | {"lr": usual * rate})


def _answers(logits: Tensor, expected: Tensor, asked: Tensor) -> Tensor:
    """Return for each image whether it is classified right, and the probability of the given class."""
    right = (logits.argmax(1) == expected).float()
    return torch.stack([right, logits.softmax(1).gather(1, asked[:, None])[:, 0]], 1)


def _values(scores: Mapping[str, Score]) -> dict[str, np.ndarray]:
    values = {name: value.astype(np.float64) for name, value in scores["holes"].values.items()}
    for prefix in ("", "probability_"):
        values[f"{prefix}difference"] = values[f"{prefix}plus"] - values[f"{prefix}minus"]
    return values
