"""The maps of one method on some images of a split, as extraction stores them."""

from typing import NamedTuple

import torch
from torch import Tensor

from efface.base import draws
from efface.base.types import Targets
from efface.methods.calling import MethodCall, attribute
from efface.models.memory import with_smaller_batches
from efface.stages.run.method_calls import maps_of_draw, seed_text
from efface.stages.run.progress import say_out_of_memory
from efface.stages.run.run import Run
from efface.store.arrays import read_rows
from efface.study.schema import MethodEntry


class Budget:
    """The largest batch that fits in memory. After an out-of-memory error, later blocks start with the reduced size."""

    def __init__(self, method: str, max_batch: int) -> None:
        self.method, self.max_batch = method, max_batch

    def lower(self, max_batch: int) -> None:
        self.max_batch = max_batch
        say_out_of_memory(self.method, max_batch)


class Found(NamedTuple):
    """Maps by name, and the logits of the method's forward passes if `classes_of` was given."""

    maps: dict[str, Tensor]
    logits: list[Tensor]


def compute_maps(
    run: Run,
    entry: MethodEntry,
    method: MethodCall,
    split: str,
    budget: Budget,
    classes: Targets | None,
    indices: Tensor,
) -> Found:
    """Return the maps of these images. After an out-of-memory error, it goes on with smaller batches.

    classes: of the whole split; None to have them found.
    """

    def computed(max_batch: int) -> Found:
        every = [_attribute(run, entry, method, split, max_batch, classes, part) for part in indices.split(max_batch)]
        maps = {name: torch.cat([batch.maps[name] for batch in every]) for name in every[0].maps}
        return Found(maps_of_draw(entry, maps), [part for batch in every for part in batch.logits])

    return with_smaller_batches(computed, budget.max_batch, halved=budget.lower)


def _attribute(
    run: Run, entry: MethodEntry, method: MethodCall, split: str, budget: int, classes: Targets | None, indices: Tensor
) -> Found:
    """classes: of the whole split; None to have them found."""
    data, answers = run.data[split], []
    images = read_rows(data.images, indices).to(run.device).float().div_(255)
    masks = None if data.masks is None else data.masks[indices].to(run.device)
    seeds = draws.seeds_of(seed_text(run, entry, split), indices).to(run.device)

    def classes_of(logits: Tensor) -> Targets:
        answers.append(logits.detach().float().cpu())
        return logits.argmax(1)

    targets = torch.zeros_like(indices) if classes is None else classes[indices]
    maps = attribute(
        method,
        run.network_of(entry).module,
        images,
        targets.to(run.device),
        seeds=seeds,
        max_batch=budget,
        masks=masks,
        classes_of=classes_of if classes is None else None,
    )
    if classes is None and (asked := sum(map(len, answers))) != len(indices):
        raise ValueError(
            f"attribution_methods.{entry.name}: asked for the classes of {asked} images out of {len(indices)}; call "
            "classes_of once for each image, in their order, or leave this keyword out"
        )
    return Found(maps, answers)
