"""Erasing: which units of an image are removed, what replaces them, and the erased images of a split."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from efface.base import draws
from efface.base.shown import shown
from efface.base.types import Images, Imputer, Maps, Order, Ranks, Seeds, StoredImages, Unit
from efface.erase.batches import Batches, Prepare, resident, streamed
from efface.erase.contract import checked_fill, labels_of
from efface.erase.masking import erase, erase_stored, pad, to_float, to_stored
from efface.erase.post import apply_post
from efface.erase.ranking import for_unit, rank, removed
from efface.erase.units import group_means, spread
from efface.metrics.probes.case import Case, block_of
from efface.plug.call import Call
from efface.plug.facts import fact
from efface.store.arrays import read_rows, view_rows
from efface.store.maps import MapStore

Shown = Literal["images", "mask"]


@dataclass(frozen=True)
class Erasure:
    """The removed units and their fill. All erasing probes share this part.

    order: `random` shuffles the units of each image and uses no map.
    unit: `pixel`, `feature` (a channel of a pixel), or a call that groups pixels.
    shown: `mask` shows the network white for kept units and black for removed ones, and nothing of the image.

    ValueError: a word is unknown, or the fraction is none.
    """

    order: Order | Literal["random"]
    fraction: float
    imputer: Call
    post: tuple[Call, ...] = ()
    unit: Literal["pixel", "feature"] | Call = "pixel"
    shown: Shown = "images"

    def __post_init__(self) -> None:
        known = {"order": (*get_args(Order), "random"), "unit": get_args(Unit), "shown": get_args(Shown)}
        for name, words in known.items():
            if (value := getattr(self, name)) not in words and not (name == "unit" and isinstance(value, Call)):
                raise ValueError(f"Erasure: {name} is {shown(value)}; expected {', '.join(words[:-1])} or {words[-1]}")
        if not 0 <= self.fraction <= 1:
            raise ValueError(f"Erasure: fraction is {self.fraction}; expected a number from 0 to 1")

    @property
    def needs_map(self) -> bool:
        """True if a map decides what is erased. At 0 and 1 every ranking erases the same, and `random` uses no map."""
        return 0 < self.fraction < 1 and self.order != "random"

    def identity(self) -> dict[str, Any]:
        """Return what the erased image depends on besides the map."""
        identity: dict[str, Any] = {"fraction": self.fraction, "imputer": self.imputer.identity()}
        if self.shown != "images":
            identity |= {"shown": self.shown, "imputer": None}
        if not 0 < self.fraction < 1:
            return identity
        unit = self.unit.identity() if isinstance(self.unit, Call) else self.unit
        post = [step.identity() for step in self.post] if self.needs_map else []
        return identity | {"order": self.order, "post": post, "unit": unit}


def erased(case: Case, erasure: Erasure, indices: Tensor) -> Images:
    """Return the erased test images of these rows as the network sees them."""
    return to_float(
        torch.cat(list(erased_batches(case, "test", erasure, width=0, whole=False)(indices, case.max_batch, 0)))
    )


def erased_batches(
    case: Case, split: str, erasure: Erasure, *, width: int, whole: bool, first_draw: int = 0, sample: int = 0
) -> Batches:
    """Return the function that yields the split's erased images by row number.

    whole: True if the images are read many times. They are then all kept if they fit into memory.
    first_draw: index of the first draw of a ranking that is redrawn each epoch. It keeps the draws of repeats apart.
    sample: number of the fill, for a fill whose scores are averaged over several.
    """
    images = case.data[split].images
    store = case.maps[split] if erasure.needs_map else None
    redrawn = store is not None and store.kind == "seeds" and split == "train"
    if isinstance(images, Tensor):
        ranks = _kept_ranks(case, split, store, erasure) if store is not None and not redrawn else None
        prepare = _prepare(case, split, erasure, store if ranks is None else None, width, first_draw, sample)

        def gather(indices: Tensor) -> tuple[Tensor, Tensor | None]:
            beside = ranks if ranks is not None else store
            return view_rows(images, indices), None if beside is None else view_rows(beside, indices)

        if whole:
            return resident(len(images), gather, prepare, block=block_of(case.data[split]), redrawn=redrawn)
        return lambda indices, size, epoch: (prepare(*gather(part), part, epoch) for part in indices.split(size))

    def gather_files(indices: Tensor) -> tuple[Tensor, Tensor | None]:
        return read_rows(images, indices), None if store is None else store.take(indices)

    prepare = _prepare(case, split, erasure, store, width, first_draw, sample)
    return streamed(gather_files, prepare, case.device, redrawn=redrawn)


def ranks_of(
    maps: Maps | Seeds,
    images: Images | None,
    *,
    post: Sequence[Call],
    unit: Literal["pixel", "feature"] | Call,
    ties: Seeds,
    channels: int,
) -> Ranks:
    """Return ranks of maps after `post` and grouping by `unit`, 0 = most relevant. A group's pixels share its rank.

    maps: maps, or numbers already drawn; `post` must then be empty.
    images: the images from which a unit forms its groups.
    """
    maps = apply_post(maps, post)
    if not isinstance(unit, Call):
        return rank(for_unit(maps, unit, channels), ties)
    if images is None:
        raise ValueError(f"unit {unit.call} forms its groups from images, but none are given; pass the images too")
    labels = labels_of(unit, images)
    return spread(rank(group_means(for_unit(maps, "pixel", channels), labels), ties), labels)


def fill_of(case: Case, imputer: Call, seeds: Seeds) -> Imputer:
    """Return the imputer with everything that it may need: the channel means, the seeds and the training images.

    seeds: one for each image, chosen by the caller.
    """
    offered = {"mean": case.mean.to(case.device), "seeds": seeds, "training": case.data.get("train")}
    return lambda images, mask: checked_fill(imputer, imputer(images, mask, **offered), images)


def fills_averaged(imputer: Call, fraction: float = 1.0) -> int:
    """Return the number of fills of an image over which its score is averaged: 1, but for a fill that says otherwise.

    fraction: the part that is removed. Without removed pixels there is nothing to average.
    """
    fill = imputer.resolve()
    if fraction == 0 or not fact(fill, "is_averaged"):
        return 1
    setting = inspect.signature(fill).parameters.get("samples")
    if setting is None or ("samples" not in imputer.kwargs and setting.default is setting.empty):
        raise ValueError(
            f"imputer {imputer.call} states is_averaged, but its signature has no setting 'samples' with a number; "
            "give it one, such as samples: int = 5"
        )
    return int(imputer.kwargs.get("samples", setting.default))


def fill_seeds(case: Case, split: str, indices: Tensor) -> Seeds:
    """Return the seeds of the imputer for the images of these rows. They are the same in all probes."""
    return draws.seeds_of(f"{case.seed} {split} fill", indices).to(case.device)


def _prepare(
    case: Case, split: str, erasure: Erasure, store: MapStore | None, width: int, first_draw: int, sample: int
) -> Prepare:
    """Return a function that turns images and ranks (or maps, if `store` is given) into erased, padded 8-bit images."""

    def prepare(
        stored: StoredImages, beside: Tensor | None, indices: Tensor, epoch: int
    ) -> UInt8[Tensor, "n c tall wide"]:
        stored = stored.to(case.device)
        colour = width == 0 and fact(erasure.imputer.resolve(), "is_flat") and not isinstance(erasure.unit, Call)
        images = to_float(stored[:1]).expand(stored.shape) if colour else to_float(stored)  # the shape is enough
        imputer = _imputer(case, split, erasure, indices, sample)
        gone = None
        if erasure.fraction == 1:
            gone = torch.ones(len(images), *images.shape[2:], dtype=torch.bool, device=case.device)
        elif erasure.fraction > 0:
            if erasure.order == "random":
                ranks = _random_ranks(case, split, erasure, indices, images)
            elif store is not None:
                assert beside is not None
                ranks = _rank(case, store, beside.to(case.device), erasure, indices, first_draw + epoch, images)
            else:
                assert beside is not None
                ranks = beside.to(case.device)
            order: Order = "most_first" if erasure.order == "random" else erasure.order
            gone = removed(ranks, erasure.fraction, order, grouped=isinstance(erasure.unit, Call))
        if erasure.shown == "mask":
            images = _outline(images, gone)
        elif width == 0:
            return stored if gone is None else erase_stored(stored, images, gone, imputer)
        elif gone is not None:
            images = erase(images, gone, imputer)
        return to_stored(pad(images, width, imputer))

    return prepare


def _outline(images: Images, gone: Tensor | None) -> Images:
    """Return white where the image is kept and black where it is removed."""
    if gone is None:
        return torch.ones_like(images)
    where = gone if gone.ndim == images.ndim else gone[:, None]
    return (~where).to(images.dtype).expand_as(images)


def _imputer(case: Case, split: str, erasure: Erasure, indices: Tensor, sample: int) -> Imputer:
    if erasure.shown == "mask":
        return lambda images, _mask: torch.zeros_like(images)
    seeds = fill_seeds(case, split, indices)
    return fill_of(case, erasure.imputer, draws.fold(seeds, sample) if sample else seeds)


def _kept_ranks(case: Case, split: str, store: MapStore, erasure: Erasure) -> Ranks:
    """Return the ranks of a split, or of a block of its images. They are kept for the next probe of the same map."""
    written = store.path.stat().st_mtime_ns  # the path may hold newer maps
    rows = case.test_rows if split == "test" else torch.arange(len(store))
    block = None if case.rows is None else rows.numpy().tobytes()
    key = (store.path, split, written, case.seed, erasure.post, erasure.unit, block)
    if key not in case.cache:
        for stale in [kept for kept in case.cache if kept[1] == split]:
            del case.cache[stale]
        images, whole = case.data[split].images, None
        for indices in rows.split(block_of(case.data[split])):
            seen = to_float(read_rows(images, indices).to(case.device)) if isinstance(erasure.unit, Call) else None
            part = _rank(case, store, store.take(indices).to(case.device), erasure, indices, 0, seen)
            if whole is None:  # written in place: the ranks exist only once in memory
                whole = part.new_empty(len(store), *part.shape[1:])
            whole.index_copy_(0, indices.to(part.device), part)
            store.release()
        assert whole is not None
        case.cache[key] = whole
    return case.cache[key]


def _rank(
    case: Case, store: MapStore, maps: Tensor, erasure: Erasure, indices: Tensor, epoch: int, images: Images | None
) -> Ranks:
    c, h, w = case.data["test"].shape
    ties, post = draws.seeds_of(f"{case.seed} ties", indices.to(maps.device)), erasure.post
    if store.kind == "seeds":  # the first draw equals that of `control.random`
        seeds, post = draws.fold(maps, epoch) if epoch else maps, ()
        maps = draws.uniform(seeds, (c, h, w) if erasure.unit == "feature" else (h, w))
    return ranks_of(maps, images, post=post, unit=erasure.unit, ties=ties, channels=c)


def _random_ranks(case: Case, split: str, erasure: Erasure, indices: Tensor, images: Images) -> Ranks:
    """Return a shuffle of the units of each image."""
    seeds = draws.seeds_of(f"{case.seed} {split} random order", indices).to(images.device)
    if not isinstance(erasure.unit, Call):
        return rank(draws.uniform(seeds, tuple(images.shape[1 if erasure.unit == "feature" else 2 :])), seeds)
    labels = labels_of(erasure.unit, images)
    counts = labels.flatten(1).amax(1, keepdim=True) + 1
    values: Float[Tensor, "n g"] = draws.uniform(seeds, (int(counts.max()),))
    values = values.masked_fill(torch.arange(values.shape[1], device=values.device) >= counts, -torch.inf)
    return spread(rank(values, seeds), labels)
