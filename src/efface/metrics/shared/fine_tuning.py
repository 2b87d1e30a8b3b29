"""Fine-tuning: the given network, trained further on images that lack a random part, once in a run."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxtyping import Int
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images, Imputer, Mask, Seeds, StoredImages
from efface.erase.batches import Batches
from efface.erase.masking import erase, pad, to_float, to_stored
from efface.metrics.probes import Case, fill_of, fill_seeds
from efface.plug.call import Call
from efface.store.arrays import read_rows
from efface.store.keys import versions
from efface.training.loop import TrainingRows, TrainingSettings
from efface.training.loop import train as train_network

Removed = Callable[[Images, Seeds], Mask]
"""Function: training images and a seed for each -> what they lack, True = removed."""


def fine_tuned(
    case: Case, name: str, removed: Removed, imputer: Call, settings: TrainingSettings, what: Mapping[str, Any]
) -> nn.Module:
    """Return the given network after fine-tuning on training images without a part, another one in each epoch.

    It is trained once in a run, for all epochs of the settings. ValueError: the data have no training images.

    name: the metric, in the error and in the seeds.
    what: what the weights depend on besides the network, the data, the fill and the settings.
    """
    if "train" not in case.data:
        raise ValueError(f"{name}: the data have no 'train' split to fine-tune on; take other data, or drop it")
    given, train = case.network, case.data["train"]
    depends = {**what, "imputer": imputer.identity(), "fit": settings.identity()} | versions(f"metric.{name}")

    def start() -> nn.Module:
        network = case.build()
        network.load_state_dict(given.state_dict())
        return network

    def make() -> dict[str, Tensor]:
        lacking = _without(case, name, removed, imputer, settings.crop)
        seed = draws.seed_of(f"{case.seed} {name}")
        rows = TrainingRows(train.training, train.validation)
        return train_network(
            start, lacking, rows, train.targets, settings, seed=seed, device=case.device
        ).network.state_dict()

    network = start()
    network.load_state_dict(case.once(name, depends, make))
    return network.to(case.device).eval()


def _without(case: Case, name: str, removed: Removed, imputer: Call, width: int) -> Batches:
    """Return the function that yields training images without a part."""
    train = case.data["train"]

    def batches(indices: Int[Tensor, " n"], size: int, epoch: int) -> Iterator[StoredImages]:
        for part in indices.cpu().split(size):
            images = to_float(read_rows(train.images, part).to(case.device))
            seeds = draws.fold(draws.seeds_of(f"{case.seed} {name} train", part), epoch).to(case.device)
            fill: Imputer = fill_of(case, imputer, fill_seeds(case, "train", part))
            yield to_stored(pad(erase(images, removed(images, seeds), fill), width, fill))

    return batches
