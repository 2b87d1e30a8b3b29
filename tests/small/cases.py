"""What a probe is given, and files of maps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from efface.base.types import Split
from efface.metrics.probes import Case, image_mean
from efface.plug.call import Call
from efface.store.maps import MapStore, MapWriter
from small.batches import noise_split
from small.networks import Linear, WeightedSum


def case_of(data: dict[str, Split], network: nn.Module | None = None, **changes: Any) -> Case:
    """A case of these splits and this network. Unless told, the classes explained are the true ones; no maps."""
    given = {
        "build": nn.Identity,
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


def stored_maps(folder: Path, maps: Tensor, name: str = "", classes: Tensor | None = None) -> MapStore:
    """A finished file of these maps, which explain class 0 unless told; without a name, a file of its own."""
    path = folder / f"{name or f'maps-{len(list(folder.iterdir()))}'}.h5"
    made_from, explained = {"name": name}, torch.zeros(len(maps), dtype=torch.int64) if classes is None else classes
    writer = MapWriter(path, made_from, explained, maps[0])
    writer.write(0, maps)
    writer.close()
    return MapStore(path, made_from, len(maps))


def weighted_case(folder: Path, images: Tensor, maps: Tensor, weights: Tensor, *, max_batch=4, targets=None) -> Case:
    """A case of 8-bit images and their maps for the network `WeightedSum`; class 0 is explained."""
    classes = torch.zeros(len(images), dtype=torch.int64)
    return case_of(
        {"test": Split(images, classes if targets is None else targets)},
        WeightedSum(weights),
        build=lambda: WeightedSum(weights),
        target_classes=classes,
        maps={"test": stored_maps(folder, maps)},
        mean=torch.full((images.shape[1],), 0.5),
        max_batch=max_batch,
    )


# Six images of noise and a linear network, whose every answer is known

C, H, W, CLASSES, N = 3, 6, 5, 4, 6
BLACK = Call(call="efface.impute.constant", kwargs={"value": 0.0})
NOISE = noise_split(N, H, W, channels=C, seed=2, classes=CLASSES)
IMAGES, CLASS = NOISE.images.float() / 255, torch.tensor([3, 3, 2, 1, 0, 0])


class Known(Linear):
    """Weights and biases fixed."""

    def __init__(self):
        generator = torch.Generator().manual_seed(5)
        super().__init__(torch.randn(CLASSES, C, H, W, generator=generator), torch.randn(CLASSES, generator=generator))


class Curved(Known):
    """Not linear: the squares of the pixels, and a bounded answer."""

    def forward(self, images):
        return self.fc(images.flatten(1).square()).tanh() * 3


WEIGHTS = Known().of(CLASS)
"""The weights of each image's class, n c h w."""


def known_case(folder: Path, maps: Tensor, **changes: Any) -> Case:
    """A case of these maps, the images of noise and the network `Known`."""
    given = {"build": Known, "target_classes": CLASS, "maps": {"test": stored_maps(folder, maps)}, "max_batch": 16}
    return case_of(**{"data": {"test": NOISE}, "network": Known()} | given | changes)


def values_of(probe: Any, case: Case) -> dict[str, np.ndarray]:
    """A probe's values, having checked that it reported the work it announced."""
    reported = []
    found = probe(replace(case, advance=reported.append)).values
    assert sum(reported) == probe.cost({"test": N}, None)
    assert hash(probe) == hash(type(probe)(**vars(probe)))
    return found
