"""Scores of changed images, their correlation with a map, and helpers that several metrics share."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images, Maps, Seeds, Targets, TargetScore
from efface.erase.masking import to_float
from efface.erase.post import apply_post
from efface.metrics.formula import Better, Metric, Point, Setting
from efface.metrics.probes import Case, Needs, Probe
from efface.metrics.shared.orders import SIGNED
from efface.models.evaluation import evaluating_fast
from efface.models.memory import blocks
from efface.models.scores import target_scores
from efface.plug.call import Call
from efface.plug.shared_settings import with_settings_of
from efface.store.arrays import read_rows
from efface.store.results import Score
from efface.training.loop import TrainingSettings

Changed = Callable[[int], Images]
"""Function: number of the draw -> changed images."""
Found = TypeVar("Found")


_DEFAULTS = {"imputer": "efface.impute.channel_mean", "post": ["efface.erase.post.channel_sum"]}


def faithfulness(
    probes: Callable[[Point], Mapping[str, Probe]],
    value: Callable[[Mapping[str, Score]], Mapping[str, Any]],
    direction: Mapping[str, Better],
    caption: str,
    *,
    uses: frozenset[Setting] = frozenset({"imputer", "post"}),
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> Metric:
    """Return a metric of how a signed map, with its channels summed, follows the effects of erasing parts of an image.

    ranges: by default, each value lies between -1 and 1.
    """
    return Metric(
        probes=probes,
        value=value,
        direction=direction,
        ranges=dict.fromkeys(direction, SIGNED) | dict(ranges or {}),
        sample="images",
        uses=uses,
        caption=caption,
        family="faithfulness",
        defaults=_DEFAULTS,
        axis="",
    )


@runtime_checkable
class _Sampling(Protocol):
    @property
    def samples(self) -> int: ...


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
    """Return the score of each image's class under each change, in float64 on the CPU.

    changed: called with 0, 1, ... `samples` - 1, in this order.
    score: score of the explained class: logit, log_probability, probability or loss (cross entropy).
    max_batch: images in one pass, but at least one draw of all images. It limits the memory.
    """
    together, parts = max(1, max_batch // max(1, len(images))), []
    with evaluating_fast(network, images) as fast, torch.no_grad():
        for some in blocks(samples, together):
            points = torch.cat([changed(k) for k in range(some.start, some.stop)])
            scores = target_scores(fast, points, classes.repeat(some.stop - some.start), score)
            parts.append(scores.double().cpu().unflatten(0, (-1, len(images))))
    return torch.cat(parts).T.contiguous()


@with_settings_of(answers)
def falls(
    network: nn.Module, images: Images, classes: Targets, changed: Changed, samples: int, **settings: Any
) -> Float[Tensor, "n {samples}"]:
    """Return how far the score of each image's class falls under each change. The settings are those of `answers`."""
    whole = answers(network, images, classes, lambda _: images, 1, **settings)
    return whole - answers(network, images, classes, changed, samples, **settings)


def pearson(one: Float[np.ndarray, "n s"], other: Float[np.ndarray, "n s"]) -> Float[np.ndarray, " n"]:
    """Pearson correlation of each row with its counterpart. NaN if one of them is constant up to rounding."""
    spread = []
    for rows in (one, other):
        centred = rows - rows.mean(1, keepdims=True)
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        constant = length <= 1e-9 * np.linalg.norm(rows, axis=1, keepdims=True)
        spread.append(np.divide(centred, length, out=np.full_like(centred, np.nan), where=~constant))
    return np.asarray(np.clip((spread[0] * spread[1]).sum(1), -1, 1))


def spearman(one: Float[np.ndarray, "n s"], other: Float[np.ndarray, "n s"]) -> Float[np.ndarray, " n"]:
    """Rank correlation of each row with its counterpart; ties share their mean rank. NaN if either is constant."""
    from scipy.stats import rankdata

    return pearson(rankdata(one, axis=1), rankdata(other, axis=1))


def image_blocks(case: Case, samples: int, *, whole: bool = False) -> Iterator[tuple[Tensor, Images, Targets]]:
    """Yield row numbers, images and explained classes, in blocks for one forward pass.

    A block holds as many images as fit into a pass with `samples` of each.
    whole: True: a block fills a pass with one sample of each image.
    After each block, `samples` forward passes for each image are reported as done.
    """
    for indices in case.test_rows.split(case.max_batch if whole else max(1, case.max_batch // samples)):
        images = to_float(read_rows(case.data["test"].images, indices).to(case.device))
        yield indices, images, case.target_classes.to(case.device)[indices.to(case.device)]
        case.advance(float(samples * len(indices)))


def reduced(case: Case, indices: Int[Tensor, " n"], post: tuple[Call, ...]) -> Maps:
    """Return the maps of these test rows after `post`."""
    return apply_post(case.maps["test"].take(indices).to(case.device), post)


def seeds_for(case: Case, name: str, indices: Int[Tensor, " n"]) -> Seeds:
    """Return a seed for each test image, for one purpose of a metric."""
    return draws.seeds_of(f"{case.seed} {name}", indices).to(case.device)


def identity_of(probe: Any) -> dict[str, Any]:
    """Return the name and the fields of a probe as plain values."""
    identity = {"probe": type(probe).__name__.lower()}
    fields = {field.name: getattr(probe, field.name) for field in dataclasses.fields(probe)}
    return identity | {name: _plain(value) for name, value in fields.items() if not isinstance(value, Needs)}


def one_an_image(_probe: Any, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG001
    """Return the cost of a probe that costs one forward pass, or one map, for each test image.

    Reading a stored map counts the same, although it costs almost nothing. The passes of a map depend on the method.
    """
    return float(images["test"])


def one_a_sample(probe: _Sampling, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG001
    """Return the cost of a probe that uses each test image, and `samples` changed images beside it."""
    return float((probe.samples + 1) * images["test"])


def on_test_images(
    case: Case, measure: Callable[[nn.Module, Tensor, Images, Targets], Found], *, cost: float
) -> list[Found]:
    """Return the results of `measure(network, indices, images, true classes)` for each batch of the test images.

    network: the given network, or a faster copy with the same output.
    cost: forward passes of one image. They are reported after each batch.
    """
    split, results = case.data["test"], []
    every = case.test_rows
    first = to_float(read_rows(split.images, every[:1]).to(case.device))
    with evaluating_fast(case.network, first) as fast:
        for indices in every.split(case.max_batch):
            images = to_float(read_rows(split.images, indices).to(case.device))
            results.append(measure(fast, indices, images, split.targets[indices].to(case.device)))
            case.advance(len(indices) * cost)
    return results


def check_positive(where: str, **settings: Any) -> None:
    """Raise ValueError for settings that are not above 0 and finite."""
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{where}: {name} is {value}; expected a number above 0: raise it")


def _plain(value: Any) -> Any:
    if isinstance(value, Call):
        return value.identity()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
