"""Probes: frozen, hashable, picklable values, each one unit of work. Called with a case, a probe yields a score.

Any frozen dataclass that is callable with the case, says whether it `needs_map` and `needs_network`, what it `costs`
and, by its `identity`, what its number depends on is a probe: no base class.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from efface import draws
from efface.call import Call
from efface.feed import Feed, Prepare, resident, streamed
from efface.fit import Fit, Log, Precision, Rows, fit, predict
from efface.maps import MapStore
from efface.masking import erase, for_unit, pad, rank, removed, to_float, to_stored
from efface.results import Score
from efface.rows import take
from efface.types import Images, Imputer, Order, Ranks, Split, StoredImages, Targets, Unit

_TOGETHER = 1 << 22  # numbers ranked or erased at once, of 4 to 8 bytes each: 1,024 images of 32 x 32, 27 of 224 x 224


@dataclass(frozen=True)
class Case:
    """All that a probe may need. `network` is the given one; `build` makes a fresh one.

    explained: the class each test image's maps explain. maps: by split, absent for a probe that needs none.
    mean: channel means of the training images. rows: images in one forward pass. checkpoint: where a training may
    keep its state. log: where it may write its scalars. cache: ranks of the last map.
    """

    build: Callable[[], nn.Module]
    network: nn.Module | None
    data: Mapping[str, Split]
    explained: Targets
    maps: Mapping[str, MapStore]
    mean: Tensor
    fit: Fit | None
    seed: int
    rows: int
    device: torch.device
    checkpoint: Path | None = None
    advance: Callable[[float], None] = lambda _: None
    log: Log | None = None
    cache: dict[Any, Tensor] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Erasure:
    """What is erased and what takes its place; the part that every erasing probe shares."""

    order: Order
    fraction: float
    imputer: Call
    post: tuple[Call, ...] = ()
    unit: Unit = "pixel"

    @property
    def needs_map(self) -> bool:
        """At 0 and 1 every ranking erases the same: nothing, or all."""
        return 0 < self.fraction < 1

    def identity(self) -> dict[str, Any]:
        """What the erased image depends on besides the map."""
        end = {"fraction": self.fraction, "imputer": self.imputer.identity()}
        if not self.needs_map:
            return end
        return end | {"order": self.order, "post": [each.identity() for each in self.post], "unit": self.unit}


@dataclass(frozen=True)
class Perturb:
    """Score the given network on erased test images: one point of MoRF (most relevant first) or LeRF."""

    erasure: Erasure

    needs_network = True

    @property
    def needs_map(self) -> bool:
        return self.erasure.needs_map

    def costs(self, case_rows: Mapping[str, int], fit_settings: Fit | None) -> float:  # noqa: ARG002
        """Forward rows."""
        return float(case_rows["test"])

    def identity(self) -> dict[str, Any]:
        return {"probe": "perturb"} | self.erasure.identity()

    def __call__(self, case: Case) -> Score:
        assert case.network is not None
        logits = _logits(case, case.network, self.erasure, "fp32")
        return _score(logits, case.data["test"].targets, case.explained)


@dataclass(frozen=True)
class Retrain:
    """Train a fresh network on erased training images, score it on equally erased test images: a point of ROAR or KAR.

    The same repeat has the same initial weights and order of images for every method and fraction, so methods are
    compared in pairs.
    """

    erasure: Erasure
    repeat: int

    needs_network = False

    @property
    def needs_map(self) -> bool:
        return self.erasure.needs_map

    def costs(self, case_rows: Mapping[str, int], fit_settings: Fit | None) -> float:
        """Forward rows: a training step counts three (forward, and backward about twice that)."""
        assert fit_settings is not None
        return float(3 * fit_settings.epochs * case_rows["train"] + case_rows["test"])

    def identity(self) -> dict[str, Any]:
        return {"probe": "retrain", "repeat": self.repeat} | self.erasure.identity()

    def __call__(self, case: Case) -> Score:
        assert case.fit is not None
        train, test = case.data["train"], case.data["test"]
        seed = draws.seed_of(f"{case.seed} retrain {self.repeat}")
        draws_before = self.repeat * case.fit.epochs
        width = case.fit.crop
        feed = erased_feed(case, "train", self.erasure, width=width, whole=True, first_draw=draws_before)
        fitted = fit(
            case.build,
            feed,
            Rows(train.training, train.validation),
            train.targets,
            case.fit,
            seed=seed,
            device=case.device,
            checkpoint=case.checkpoint,
            fingerprint=case.checkpoint.stem if case.checkpoint else "",
            log=case.log,
            advance=lambda epochs: case.advance(3.0 * epochs * len(train)),
        )
        logits = _logits(case, fitted.network, self.erasure, case.fit.precision)
        return _score(logits, test.targets, test.targets)


def _logits(case: Case, network: nn.Module, erasure: Erasure, precision: Precision) -> Tensor:
    """A network's answers to the erased test images; in smaller batches when memory runs out."""
    feed, rows = erased_feed(case, "test", erasure, width=0, whole=False), case.rows
    every = torch.arange(len(case.data["test"]))
    while True:
        try:
            return predict(network, _counted(feed(every, rows, 0), case.advance), precision=precision)
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
            rows //= 2
            torch.cuda.empty_cache()


def _score(logits: Tensor, targets: Targets, asked: Targets) -> Score:
    """Accuracy against the true classes, probability of the class asked about."""
    probability = logits.softmax(1).gather(1, asked.cpu()[:, None])[:, 0]
    correct = logits.argmax(1) == targets.cpu()
    values = {"correct": correct.numpy(), "probability": probability.numpy()}
    return Score(float(correct.double().mean()), float(probability.double().mean()), len(targets), values)


def _counted(batches: Iterator[StoredImages], advance: Callable[[float], None]) -> Iterator[StoredImages]:
    for batch in batches:
        yield batch
        advance(float(len(batch)))


def erased_feed(case: Case, split: str, erasure: Erasure, *, width: int, whole: bool, first_draw: int = 0) -> Feed:
    """The split's images, erased.

    whole: they are read many times, so keep them all where they fit.
    first_draw: where the draws of a ranking that is drawn anew begin, so that no two repeats share theirs.
    """
    images = case.data[split].images
    store = case.maps[split] if erasure.needs_map else None
    redrawn = store is not None and store.kind == "seeds" and split == "train"
    if isinstance(images, Tensor):
        ranks = _ranks(case, split, store, erasure) if store is not None and not redrawn else None
        prepare = _prepare(case, erasure, store if ranks is None else None, width, first_draw)

        def gather(rows: Tensor) -> tuple[Tensor, Tensor | None]:
            beside = ranks if ranks is not None else store
            return take(images, rows), None if beside is None else take(beside, rows)

        if whole:
            return resident(len(images), gather, prepare, block=_block(case.data[split]), redrawn=redrawn)
        return lambda rows, size, epoch: (prepare(*gather(part), part, epoch) for part in rows.split(size))

    def gather_files(rows: Tensor) -> tuple[Tensor, Tensor | None]:
        return take(images, rows), None if store is None else store.take(rows)

    prepare = _prepare(case, erasure, store, width, first_draw)
    return streamed(gather_files, prepare, case.device, redrawn=redrawn)


def _prepare(case: Case, erasure: Erasure, store: MapStore | None, width: int, first_draw: int) -> Prepare:
    """Ranks (or maps, where `store` is given: they are ranked here) and images become erased, padded, 8-bit images."""
    imputer = _imputer(erasure.imputer, case.mean.to(case.device))

    def prepare(
        stored: StoredImages, beside: Tensor | None, rows: Tensor, epoch: int
    ) -> UInt8[Tensor, "n c tall wide"]:
        images = to_float(stored.to(case.device))
        if erasure.fraction == 1:
            gone = torch.ones(len(images), *images.shape[2:], dtype=torch.bool, device=case.device)
            images = erase(images, gone, imputer)
        elif beside is not None:
            ranks = beside.to(case.device)
            if store is not None:
                ranks = _rank(case, store, ranks, erasure, rows, first_draw + epoch, images.shape[1:])
            images = erase(images, removed(ranks, erasure.fraction, erasure.order), imputer)
        return to_stored(pad(images, width, imputer))

    return prepare


def _imputer(call: Call, mean: Tensor) -> Imputer:
    return lambda images, mask: call(images, mask, mean=mean)


def _ranks(case: Case, split: str, store: MapStore, erasure: Erasure) -> Ranks:
    """The whole split's ranks, kept for the next probe of the same map."""
    written = store.path.stat().st_mtime_ns  # the same path may hold other maps by now
    key = (store.path, split, written, case.seed, erasure.post, erasure.unit)
    if key not in case.cache:
        for stale in [each for each in case.cache if each[1] == split]:
            del case.cache[stale]
        shape = case.data[split].shape
        blocks = [
            _rank(case, store, store.take(rows).to(case.device), erasure, rows, 0, shape)
            for rows in torch.arange(len(store)).split(_block(case.data[split]))
        ]
        case.cache[key] = torch.cat(blocks)
    return case.cache[key]


def _rank(
    case: Case, store: MapStore, maps: Tensor, erasure: Erasure, rows: Tensor, epoch: int, shape: tuple[int, ...]
) -> Ranks:
    c, h, w = shape
    ties = draws.seeds_of(f"{case.seed} ties", rows.to(maps.device))
    if store.kind == "seeds":  # the first draw is that of `control.random`
        seeds = draws.fold(maps, epoch) if epoch else maps
        return rank(draws.uniform(seeds, (h, w) if erasure.unit == "pixel" else (c, h, w)), ties)
    for each in erasure.post:
        maps = each(maps)
    return rank(for_unit(maps, erasure.unit, c), ties)


def _block(split: Split) -> int:
    """How many images are worked on at once."""
    return max(1, min(1024, _TOGETHER // math.prod(split.shape)))


def image_mean(split: Split) -> Tensor:
    """Channel means of a split's images in [0, 1], over at most 50,000 evenly spaced rows."""
    count = min(len(split), 50_000)
    rows = torch.linspace(0, len(split) - 1, count).round().long()
    sums = [take(split.images, part).sum((0, 2, 3), dtype=torch.int64) for part in rows.split(_block(split))]
    _, h, w = split.shape
    return (torch.stack(sums).sum(0).double() / (count * h * w * 255)).float()


def erased(case: Case, erasure: Erasure, rows: Tensor) -> Images:
    """Test images of these rows, erased: what the network sees, for looking at."""
    return to_float(torch.cat(list(erased_feed(case, "test", erasure, width=0, whole=False)(rows, case.rows, 0))))
