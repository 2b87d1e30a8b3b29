"""The methods of a study, called again by probes: on other images, other classes, another network."""

import torch
from torch import Tensor, nn

from efface import draws
from efface.methods.contract import attribute
from efface.probes import Explain
from efface.stages.conventions import convention, named, seed_text
from efface.stages.learn import learnt
from efface.stages.run import Run, View
from efface.types import Explained, Images, Maps


def explainer_of(run: Run, view: View) -> Explain:
    """The method behind a view's maps. It draws for a row as it did when that row's map was extracted."""
    entry = next(each for each in run.entries() if view.maps in each.gives)
    method = convention(entry, learnt(run, entry))
    own = run.data["test"].masks

    def explain(
        network: nn.Module, images: Images, targets: Explained, rows: Tensor, masks: Tensor | None = None
    ) -> Maps:
        if entry.network is not None:
            if network is not run.network:
                raise ValueError(
                    f"attribution_methods.{entry.name}: its maps are the {entry.network}'s, so it cannot explain a "
                    "changed first network; drop this method or the metric from the study"
                )
            network = run.network_of(entry).module
        seeds = draws.seeds_of(seed_text(run, entry, "test"), rows).to(images.device)
        masks = own[rows] if masks is None and own is not None else masks
        known = None if masks is None else masks.to(images.device)
        found = named(entry, attribute(method, network, images, targets, seeds=seeds, rows=run.study.rows, masks=known))
        return found[view.maps].to(images.device, torch.float32)

    return explain
