"""What a probe is given, and files of maps."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from efface.metrics.probes import Case, image_mean
from efface.store.maps import MapStore, MapWriter


def case_of(data: dict[str, Any], network: Any = None, **changes) -> Case:
    """A case of these splits and of this network, which a probe finds again where it asks for a fresh one.

    Without further arguments, the classes explained are the true ones and there are no maps.
    """
    given = {
        "build": lambda: network,
        "given_network": network,
        "data": data,
        "target_classes": data["test"].targets,
        "maps": {},
        "mean": image_mean(data["train"] if "train" in data else data["test"]),
        "given_training": None,
        "seed": 0,
        "max_batch": 64,
        "device": torch.device("cpu"),
    }
    return Case(**given | changes)


def stored_maps(folder: Path, maps: Tensor, classes: Tensor | None = None) -> MapStore:
    """A finished file of these maps, in a file of its own; they explain class 0 unless told."""
    path = folder / f"maps-{len(list(folder.iterdir()))}.h5"
    writer = MapWriter(path, {}, torch.zeros(len(maps), dtype=torch.int64) if classes is None else classes, maps[0])
    writer.write(0, maps)
    writer.close()
    return MapStore(path, {}, len(maps))
