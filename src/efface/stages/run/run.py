"""A run: one study, the folder where its files lie, and its data and networks, each loaded once."""

import copy
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Split, Targets
from efface.erase.masking import to_float
from efface.metrics.probes import image_mean
from efface.models.adapt import Adaptation
from efface.models.evaluation import evaluating_fast
from efface.models.memory import with_smaller_batches
from efface.models.patch_size import patch_size
from efface.plug.call import Call
from efface.stages.run.inputs import call_checked, check_classes, checked_data, place_split, split_digest
from efface.stages.run.network import Network
from efface.stages.run.views import View, extracted_entries, twins_of, views_of
from efface.store.arrays import read_rows
from efface.store.file_name import file_name
from efface.store.maps import MapStore
from efface.store.results import Results
from efface.store.sealed import is_whole, read_arrays, write_arrays
from efface.study.mask_controls import MASK
from efface.study.network_entry import adaptation
from efface.study.schema import MethodEntry
from efface.study.study import Study, dump
from efface.training.loop import TrainingSettings, predict


class Run:
    """One study and its folder."""

    def __init__(self, study: Study, like: "Run | None" = None) -> None:
        """like: a run whose data this one has, too."""
        self.study, self.folder, self._like = study, study.out, like
        self.stores: dict[Path, tuple[tuple[int, int, int] | None, MapStore]] = {}
        """Map files that were read, each with the state of the file (time, size, number) at that moment."""

    def with_study(self, study: Study) -> "Run":
        """The same data, network and results for a study that differs in its metrics alone."""
        other = copy.copy(self)
        other.study = study
        for name in ("text", "entries"):  # random controls have maps for as many trainings as the metrics ask for
            vars(other).pop(name, None)
        return other

    @cached_property
    def text(self) -> str:
        """The study as YAML with all defaults."""
        return dump(self.study)

    @cached_property
    def device(self) -> torch.device:
        """The study's device; `auto` is the GPU where there is one."""
        name = self.study.device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(name)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"device: '{name}' cannot be used here ({str(error).splitlines()[0]}); try device=auto"
            ) from error
        return device

    # Data

    @cached_property
    def data(self) -> dict[str, Split]:
        """The splits: on the device below the memory budget, in a packed file above it."""
        if self._like is not None:
            return self._like.data
        splits = checked_data(self.study.data, call_checked("data", self.study.data))
        folder, budget = self.folder / "data", self.study.memory_gb * 1e9
        return {name: place_split(split, budget, self.device, folder, name) for name, split in splits.items()}

    @cached_property
    def data_digest(self) -> dict[str, str]:
        """A digest of each split: images, targets, masks and which rows validate."""
        if self._like is not None:
            return self._like.data_digest
        return {name: split_digest(split) for name, split in self.data.items()}

    @cached_property
    def mean(self) -> Tensor:
        """Channel means of the training images, else of the test images; NaN if no fill uses them."""
        study = self.study
        fills = [
            study.imputer,
            *(metric.kwargs.imputer or metric.paper.imputer or study.imputer for metric in study.metrics),
        ]
        if not any(fill.wants("mean") for fill in fills):
            return torch.full((self.data["test"].shape[0],), torch.nan)
        return image_mean(self.data.get("train", self.data["test"]))

    # Networks

    @cached_property
    def first(self) -> Network:
        """The network that is explained."""
        study = self.study
        stated = adaptation(study.outputs, study.mean, study.std, study.tokens)
        folder = self.folder / "models"
        return self._network("network", study.model, study.fit, study.weights, study.seed, folder, stated)

    @cached_property
    def second(self) -> Network:
        """The second network. ValueError: the study has none."""
        second = self.study.second_network
        if second is None:
            raise ValueError(
                "second_network: the study has none; add second_network: {model: ..., fit: ...}, a second network"
            )
        fit = second.fit or (self.study.fit.plain() if self.study.fit is not None and not second.weights else None)
        # The text of efface 0.1: the network keeps its draws.
        seed = draws.seed_of(f"judge {self.study.seed if second.seed is None else second.seed}")
        folder = second.folder or self.folder / "models"
        stated = adaptation(second.outputs, second.mean, second.std, second.tokens)
        return self._network("second_network", second.model, fit, second.weights, seed, folder, stated)

    def networks(self) -> list[Network]:
        """All networks that the study trains or reads."""
        return [self.first] if self.study.second_network is None else [self.first, self.second]

    def network_of(self, entry: MethodEntry) -> Network:
        """The network whose maps an entry makes."""
        return self.second if entry.network == "second" else self.first

    def _network(
        self,
        name: str,
        model: Call,
        fit: TrainingSettings | None,
        weights: Path | None,
        seed: int,
        folder: Path,
        adaptation: Adaptation,
    ) -> Network:
        data = self.data_digest["train"] if fit is not None and "train" in self.data else None
        study = self.study
        return Network(
            name=name,
            model=model,
            fit=fit,
            weights=weights,
            seed=seed,
            data=data,
            source=study.data.call,
            border=study.imputer,
            folder=folder,
            device=self.device,
            adaptation=adaptation,
            shape=lambda: self.data["test"].shape,
            classes=lambda: 1 + max(int(split.targets.max()) for split in self.data.values() if len(split)),
        )

    @property
    def network(self) -> nn.Module:
        """The first network, on the device, in eval mode."""
        return self.first.module

    @property
    def refit(self) -> TrainingSettings | None:
        """The settings with which networks are trained again."""
        study = self.study
        return study.refit or (study.fit.plain() if study.fit is not None else None)

    @property
    def network_digest(self) -> str:
        """A digest of the first network's weights; before training a text that matches no stored digest."""
        return self.first.digest

    def unit_of(self, unit: Call) -> Call:
        """Return a unit with the size of the first network's patches, if it asks for them.

        ValueError: the network has no patches.
        """
        if unit not in self.units:
            handed = {"token_size": self._token_size(unit)} if unit.wants("token_size") else {}
            self.units[unit] = Call(call=unit.call, kwargs=unit.kwargs | handed) if handed else unit
        return self.units[unit]

    @cached_property
    def units(self) -> dict[Call, Call]:
        """The units that were asked for so far, by what the study says of them."""
        return {}

    @cached_property
    def group_counts(self) -> dict[Call, int]:
        """Number of groups of the first test image, by unit, of the units that were counted so far."""
        return {}

    def _token_size(self, unit: Call) -> list[int]:
        """Height and width of the first network's patches. A network that is not trained yet has the same."""
        images = to_float(read_rows(self.data["test"].images, torch.arange(1)).to(self.device))
        try:
            return list(patch_size(self.first.to_try(), images))
        except ValueError as error:
            raise ValueError(f"unit {unit.call.rpartition('.')[2]}: {error}") from error

    # What the first network predicts

    def logits_path(self, split: str) -> Path:
        """The file of the first network's logits on whole images."""
        return self.folder / "models" / f"logits-{self.network_digest}-{self.data_digest[split]}.npz"

    def has_logits(self, split: str) -> bool:
        """Return whether the file of these logits exists and is whole."""
        path = self.logits_path(split)
        return is_whole(path, path.stem, "the network computes its logits again")

    def logits(self, split: str) -> Tensor:
        """The first network's logits on whole images, computed once and kept."""
        if not self.has_logits(split):
            images, every = self.data[split].images, torch.arange(len(self.data[split]))
            first = to_float(read_rows(images, every[:1]).to(self.device))

            def answers(max_batch: int) -> Tensor:
                with evaluating_fast(self.network, first) as network:
                    return predict(
                        network, (read_rows(images, part).to(self.device) for part in every.split(max_batch))
                    )

            self.keep_logits(split, with_smaller_batches(answers, self.study.max_batch))
        path, kept = self.logits_path(split), self._logits
        if path not in kept:
            kept[path] = torch.from_numpy(read_arrays(path, path.stem)["logits"])
        return kept[path]

    @cached_property
    def _logits(self) -> dict[Path, Tensor]:
        """Logits that were read, by file."""
        return {}

    def keep_logits(self, split: str, logits: Tensor) -> None:
        """Keep the first network's logits, whichever forward pass gave them."""
        check_classes(logits, self.data[split], split, self.study.outputs)
        path = self.logits_path(split)
        self._logits.pop(path, None)
        write_arrays(path, path.stem, {"logits": logits.numpy()})

    def right(self) -> Tensor:
        """Return, for each test image, whether the first network classifies it right."""
        return self.logits("test").argmax(1) == self.data["test"].targets.cpu()

    def target_classes(self, split: str) -> Targets:
        """The class that every map of the split explains."""
        return self.logits(split).argmax(1) if self.study.explain == "predicted" else self.data[split].targets

    # Maps and results

    @cached_property
    def views(self) -> tuple[View, ...]:
        """The rows of the report."""
        return views_of(self.study)

    @cached_property
    def twins(self) -> tuple[View, ...]:
        """The blurred twins of the rows, beside their retrained scores; none without `controls: mask`."""
        return twins_of(self.views, self.data["test"].shape) if self.study.controls == MASK else ()

    @cached_property
    def entries(self) -> tuple[MethodEntry, ...]:
        """The methods that make maps, an entry for each draw."""
        return extracted_entries(self.study)

    def entry(self, name: str) -> MethodEntry:
        """The entry of this name."""
        return next(entry for entry in self.entries if entry.name == name)

    def entry_of_maps(self, name: str) -> MethodEntry:
        """The entry that makes the maps of this name."""
        return next(entry for entry in self.entries if name in entry.gives)

    def map_path(self, name: str, split: str) -> Path:
        """The map file of this name."""
        return self.folder / "maps" / f"{file_name(name)}-{split}.h5"

    @cached_property
    def results(self) -> Results:
        """The results that are measured so far."""
        return Results(self.folder)
