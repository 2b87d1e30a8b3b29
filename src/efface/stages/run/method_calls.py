"""Calls of a study's methods, the names of their maps, and the seeds of their random numbers."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images, Maps, Target
from efface.methods.calling import MethodCall, attribute
from efface.methods.looked_at import layers_looked_at
from efface.metrics.probes import Explain
from efface.stages.run.map_files import read_learnt_tensors
from efface.stages.run.run import Run
from efface.stages.run.views import View
from efface.store.arrays import read_rows
from efface.study.schema import MethodEntry


def method_call(entry: MethodEntry, learnt: Mapping[str, Tensor] | None) -> MethodCall:
    """Return the call of an entry's method. Maps have the names of the study, whichever draw this is."""
    first = entry.undrawn
    return MethodCall(first.name, entry.call, entry.batched, first.outputs, learnt, entry.timeout)


def maps_of_draw(entry: MethodEntry, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the method's maps by the names of this draw."""
    return {name: maps[first] for name, first in zip(entry.gives, entry.undrawn.gives, strict=True)}


def seed_text(run: Run, entry: MethodEntry, split: str) -> str:
    """Return the text that seeds a method's random numbers.

    The random controls share it, so that they give the same ranking to a fixed network.
    """
    again = f" draw {entry.draw}" if entry.draw > 1 else ""
    return f"{run.study.seed} {split} {'random' if entry.is_random else entry.call.draw_text}{again}"


def layers_said(run: Run, entry: MethodEntry, split: str) -> dict[str, list[str]]:
    """Return what the result line of an extraction says of the layers that the method looks at; empty for none."""
    image = read_rows(run.data[split].images, torch.arange(1)).to(run.device).float().div(255)
    layers = layers_looked_at(entry.call, run.network_of(entry).module, image)
    return {"layers": layers} if layers else {}


def explainer_of(
    run: Run,
    view: View,
    *,
    method: MethodCall | None = None,
    network: nn.Module | None = None,
    max_batch: int | None = None,
) -> Explain:
    """Return the method behind a view's maps. Its random numbers for a row are those of the extraction.

    method, network: they replace the run's own, for a trial.
    max_batch: images in one pass; None: as many as the study says.
    """
    entry = run.entry_of_maps(view.maps)
    if entry.file is not None:
        raise ValueError(f"attribution_methods.{entry.name}: is a file of maps, so there is no method to run again")
    called = method or method_call(entry, read_learnt_tensors(run, entry))
    first, own = network, run.data["test"].masks

    def explain(
        network: nn.Module, images: Images, targets: Target, indices: Tensor, masks: Tensor | None = None
    ) -> Maps:
        if entry.network is not None:
            if network is not (first or run.network):
                raise ValueError(
                    f"attribution_methods.{entry.name}: its maps are the {entry.network} network's, so it cannot "
                    "explain a changed first network; drop this method or the metric from the study"
                )
            network = run.network_of(entry).module
        seeds = draws.seeds_of(seed_text(run, entry, "test"), indices).to(images.device)
        masks = own[indices] if masks is None and own is not None else masks
        known = None if masks is None else masks.to(images.device)
        size = max_batch or run.study.max_batch
        maps = maps_of_draw(
            entry, attribute(called, network, images, targets, seeds=seeds, max_batch=size, masks=known)
        )
        return maps[view.maps].to(images.device, torch.float32)

    return explain
