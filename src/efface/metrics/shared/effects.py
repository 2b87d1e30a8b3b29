"""What the network answers when images are changed, and how that goes with a map: shared by several metrics."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from efface import draws
from efface.erase.masking import to_float
from efface.erase.post import apply_post
from efface.metrics.probes import Case, Needs
from efface.models.evaluation import evaluating_fast
from efface.models.memory import blocks
from efface.models.scores import target_scores
from efface.plug.call import Call
from efface.store.arrays import read_rows
from efface.training.loop import TrainingSettings
from efface.types import Images, Maps, Seeds, Targets, TargetScore

Changed = Callable[[int], Images]
"""Number of the draw -> the images as it changes them."""
Found = TypeVar("Found")


@runtime_checkable
class _Sampling(Protocol):
    @property
    def samples(self) -> int: ...


def falls(
    network: nn.Module,
    images: Images,
    classes: Targets,
    changed: Changed,
    samples: int,
    *,
    score: TargetScore = "logit",
    max_batch: int = 256,
) -> Float[Tensor, "n {samples}"]:
    """How far the score of each image's class falls under each change, in float64 on the CPU.

    changed: asked for draws 0, 1, ... `samples` - 1, in this order.
    score: the score, of the class explained: logit, log_probability, probability or loss (cross entropy).
    max_batch: images in one pass, or a single draw of them all where that is more; bounds the memory.
    """
    whole = answers(network, images, classes, lambda _: images, 1, score=score, max_batch=max_batch)
    return whole - answers(network, images, classes, changed, samples, score=score, max_batch=max_batch)


def answers(
    network: nn.Module,
    images: Images,
    classes: Targets,
    changed: Changed,
    samples: int,
    *,
    score: TargetScore = "logit",
    max_batch: int = 256,
) -> Float[Tensor, "n {samples}"]:
    """The score of each image's class under each change; settings as those of `falls`."""
    together, found = max(1, max_batch // max(1, len(images))), []
    with evaluating_fast(network, images) as fast, torch.no_grad():
        for some in blocks(samples, together):
            points = torch.cat([changed(k) for k in range(some.start, some.stop)])
            scores = target_scores(fast, points, classes.repeat(some.stop - some.start), score)
            found.append(scores.double().cpu().unflatten(0, (-1, len(images))))
    return torch.cat(found).T.contiguous()


def pearson(one: Float[np.ndarray, "n s"], other: Float[np.ndarray, "n s"]) -> Float[np.ndarray, " n"]:
    """Correlation of each row with its counterpart; NaN where either is constant but for rounding."""
    spread = []
    for each in (one, other):
        centred = each - each.mean(1, keepdims=True)
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        constant = length <= 1e-9 * np.linalg.norm(each, axis=1, keepdims=True)
        spread.append(np.divide(centred, length, out=np.full_like(centred, np.nan), where=~constant))
    return np.asarray(np.clip((spread[0] * spread[1]).sum(1), -1, 1))


def spearman(one: Float[np.ndarray, "n s"], other: Float[np.ndarray, "n s"]) -> Float[np.ndarray, " n"]:
    """Correlation of the ranks in each row, equal values sharing their mean rank; NaN where either is constant."""
    from scipy.stats import rankdata

    return pearson(rankdata(one, axis=1), rankdata(other, axis=1))


def image_blocks(case: Case, samples: int, *, whole: bool = False) -> Iterator[tuple[Tensor, Images, Targets]]:
    """Row numbers, images and explained classes, so many at once that one pass holds all `samples` of them if it can.

    whole: as many images as a pass holds of one sample each.
    What was worked on is reported when the next block is asked for: `samples` forward rows an image.
    """
    for rows in torch.arange(len(case.data["test"])).split(
        case.max_batch if whole else max(1, case.max_batch // samples)
    ):
        images = to_float(read_rows(case.data["test"].images, rows).to(case.device))
        yield rows, images, case.target_classes.to(case.device)[rows.to(case.device)]
        case.advance(float(samples * len(rows)))


def reduced(case: Case, rows: Int[Tensor, " n"], post: tuple[Call, ...]) -> Maps:
    """The maps of these test rows after `post`."""
    return apply_post(case.maps["test"].take(rows).to(case.device), post)


def seeds_for(case: Case, name: str, rows: Int[Tensor, " n"]) -> Seeds:
    """A seed of each test image for one purpose of a metric."""
    return draws.seeds_of(f"{case.seed} {name}", rows).to(case.device)


def identity_of(probe: Any) -> dict[str, Any]:
    """A probe's name and fields as plain values."""
    found = {"probe": type(probe).__name__.lower()}
    fields = {each.name: getattr(probe, each.name) for each in dataclasses.fields(probe)}
    return found | {name: _plain(value) for name, value in fields.items() if not isinstance(value, Needs)}


def one_an_image(_probe: Any, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG001
    """The cost of a probe that answers, asks for or looks at one thing of each test image."""
    return float(images["test"])


def one_a_sample(probe: _Sampling, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG001
    """The cost of a probe that looks at each test image as it is, and at `samples` others beside it."""
    return float((probe.samples + 1) * images["test"])


def on_test_images(
    case: Case, measure: Callable[[nn.Module, Tensor, Images, Targets], Found], *, cost: float
) -> list[Found]:
    """What `measure(network, rows, images, true classes)` finds in each batch of the test images.

    network: the given one, or a faster copy that answers as it does.
    cost: of one image, in forward rows; it is reported after each batch.
    """
    split, found = case.data["test"], []
    every = torch.arange(len(split))
    first = to_float(read_rows(split.images, every[:1]).to(case.device))
    with evaluating_fast(case.network, first) as fast:
        for rows in every.split(case.max_batch):
            images = to_float(read_rows(split.images, rows).to(case.device))
            found.append(measure(fast, rows, images, split.targets[rows].to(case.device)))
            case.advance(len(rows) * cost)
    return found


def positive(where: str, **settings: Any) -> None:
    """Refuse settings that are not above 0 and finite."""
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{where}: {name} is {value}; expected a number above 0: raise it")


def _plain(value: Any) -> Any:
    if isinstance(value, Call):
        return value.identity()
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
