"""A run: where its files lie, and what is in them. Only stages know this."""

import copy
import os
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from efface import draws, execute
from efface.methods.calling import is_class
from efface.metrics.probes import Case, image_mean
from efface.models.evaluation import evaluating_fast
from efface.plug import moved
from efface.plug.call import Call
from efface.plug.learning import is_learning
from efface.plug.source import source_digest
from efface.stages.run.inputs import check_classes, checked_data, held, made, split_digest
from efface.stages.run.network import Network
from efface.stages.run.provenance import engine, explainer
from efface.stages.run.view import View, views
from efface.store.arrays import take
from efface.store.keys import key
from efface.store.maps import MapStore
from efface.store.results import Results
from efface.store.tensors import learnt_digest, made_once
from efface.study.schema import MethodEntry
from efface.study.study import Study
from efface.training.loop import Fit, Log, predict
from efface.types import Split, Targets


class Run:
    """One study and its folder."""

    def __init__(self, study: Study, like: "Run | None" = None) -> None:
        """like: a run whose data this one has, too."""
        self.study, self.folder, self._like = study, study.out, like

    def of(self, study: Study) -> "Run":
        """The same data, network and results for a study that differs in its metrics alone."""
        other = copy.copy(self)
        other.study = study
        return other

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

    @cached_property
    def data(self) -> dict[str, Split]:
        """The splits: on the device below the memory budget, in a packed file above it."""
        if self._like is not None:
            return self._like.data
        splits = checked_data(self.study.data, made("data", self.study.data))
        folder, budget = self.folder / "data", self.study.memory_gb * 1e9
        return {name: held(split, budget, self.device, folder, name) for name, split in splits.items()}

    @cached_property
    def data_digest(self) -> dict[str, str]:
        """A digest of each split: images, targets, masks and which rows validate."""
        if self._like is not None:
            return self._like.data_digest
        return {name: split_digest(split) for name, split in self.data.items()}

    @cached_property
    def mean(self) -> Tensor:
        """Channel means of the training images (of the test images where there are no others); NaN if nobody asks."""
        study = self.study
        fills = [study.imputer, *(each.kwargs.imputer or each.paper.imputer or study.imputer for each in study.metrics)]
        if not any(each.wants("mean") for each in fills):
            return torch.full((self.data["test"].shape[0],), torch.nan)
        return image_mean(self.data.get("train", self.data["test"]))

    @cached_property
    def first(self) -> Network:
        """The network that is explained."""
        study = self.study
        return self._of("network", study.model, study.fit, study.weights, study.seed, self.folder / "models")

    @cached_property
    def second(self) -> Network:
        """The judge. ValueError: the study has none."""
        judge = self.study.judge
        if judge is None:
            raise ValueError("judge: the study has none; add judge: {model: ..., fit: ...}, a second network")
        fit = judge.fit or (self.study.fit.plain() if self.study.fit is not None and not judge.weights else None)
        seed = draws.seed_of(f"judge {self.study.seed if judge.seed is None else judge.seed}")
        return self._of("judge", judge.model, fit, judge.weights, seed, judge.folder or self.folder / "models")

    def networks(self) -> list[Network]:
        """All that the study trains or reads."""
        return [self.first] if self.study.judge is None else [self.first, self.second]

    def network_of(self, entry: MethodEntry) -> Network:
        """The network whose maps an entry makes."""
        return self.second if entry.network == "judge" else self.first

    def _of(self, name: str, model: Call, fit: Fit | None, weights: Path | None, seed: int, folder: Path) -> Network:
        data = self.data_digest["train"] if fit is not None and "train" in self.data else None
        study = self.study
        return Network(name, model, fit, weights, seed, data, study.data.call, study.imputer, folder, self.device)

    @property
    def network(self) -> nn.Module:
        """The first network, on the device, in eval mode."""
        return self.first.module

    @property
    def refit(self) -> Fit | None:
        """How networks are trained again."""
        study = self.study
        return study.refit or (study.fit.plain() if study.fit is not None else None)

    @property
    def network_digest(self) -> str:
        """A digest of the first network's weights; before they are there, a word that agrees with no file."""
        return self.first.digest

    def logits_path(self, split: str) -> Path:
        """The first network's answers on whole images."""
        return self.folder / "models" / f"logits-{self.network_digest}-{self.data_digest[split]}.npy"

    def logits(self, split: str) -> Tensor:
        """The first network's answers on whole images, computed once and kept."""
        if not self.logits_path(split).exists():
            images = self.data[split].images
            every = torch.arange(len(self.data[split])).split(self.study.rows)
            first = take(images, every[0][:1]).to(self.device).float().div(255)
            with evaluating_fast(self.network, first) as network:
                logits = predict(network, (take(images, part).to(self.device) for part in every))
            self.keep_logits(split, logits)
        return torch.from_numpy(np.load(self.logits_path(split)))

    def keep_logits(self, split: str, logits: Tensor) -> None:
        """Keep the first network's answers, whoever asked for them."""
        check_classes(logits, self.data[split], split)
        path = self.logits_path(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.npy")
        np.save(temporary, logits.numpy())
        temporary.replace(path)

    def explained(self, split: str) -> Targets:
        """The class that every map of the split explains."""
        return self.logits(split).argmax(1) if self.study.explain == "predicted" else self.data[split].targets

    def views(self) -> list[View]:
        """The rows of the report."""
        return views(self.study)

    def entries(self) -> list[MethodEntry]:
        """The methods that make maps."""
        return [drawn for each in self.study.attribution_methods if each.maps is None for drawn in each.each_draw()]

    def map_path(self, name: str, split: str) -> Path:
        """The map file of this name."""
        return self.folder / "maps" / f"{name}-{split}.h5"

    def provenance(self, entry: MethodEntry, name: str, split: str) -> dict[str, Any]:
        """What the maps of this name are made from."""
        path = self.learnt_path(entry)
        learnt = {} if path is None else {"learnt": learnt_digest(path) if path.exists() else "nothing yet"}
        return (
            learnt
            | {
                "split": split,
                "data": self.data_digest[split],
                "network": self.network_of(entry).digest,
                "method": entry.call.identity(),
                "engine": explainer(),
                "batched": entry.batched,
                "output": name if entry.outputs else "",
                "explain": self.study.explain,
                "seed": self.study.seed,
            }
            | ({"draw": entry.draw} if entry.draw > 1 else {})
        )

    def learnt_path(self, entry: MethodEntry) -> Path | None:
        """Where a method that learns from training images keeps what it learnt; None for one that does not."""
        if not (is_class(entry.call) and is_learning(entry.call)):
            return None
        if "train" not in self.data:
            raise ValueError(
                f"attribution_methods.{entry.name}: {entry.method} learns from training images, but "
                f"{self.study.data.call} gives no 'train' split; take other data, or drop the method"
            )
        name, _, settings = self._learning(entry)
        what = settings | {
            "source": source_digest(entry.call.resolve().__module__),
            "data": self.data_digest["train"],
            "network": self.network_of(entry).digest,
        }
        return self.folder / "learnt" / f"{name}-{key(what)}.h5"

    def learnt_seed(self, entry: MethodEntry) -> int:
        """What the fit of a method that learns draws from: entries of one `learnt_path` have one."""
        return draws.seed_of(self._learning(entry)[1])

    def _learning(self, entry: MethodEntry) -> tuple[str, str, dict[str, Any]]:
        """What a method learns, by name; what it draws from, in words; and the part of the key that tells both.

        Methods whose `learnt_from` has the same `fit` draw the same, whatever their class; one without by its path.
        """
        made, kind, seed = entry.call(), entry.call.resolve(), self.study.seed
        if not hasattr(made, "learnt_from"):
            own = {name: each for name, each in entry.call.identity().items() if name != "source"}
            return kind.__name__, f"{seed} learn {moved.first(entry.call.call)}", {"from": own, "seed": seed}
        settings = made.learnt_from()
        name = settings.get("fit", kind.__name__)
        return name, (drawn := f"{seed} learn {name}"), {"from": settings, "seed": drawn}

    def store(self, name: str, split: str) -> MapStore:
        """The finished maps of this name, verified to be this study's."""
        entry = next(each for each in self.entries() if name in each.gives)
        return MapStore(self.map_path(name, split), self.provenance(entry, name, split), len(self.data[split]))

    def case(
        self,
        maps: Mapping[str, MapStore],
        *,
        network: bool,
        checkpoint: Path | None = None,
        cache: dict[Any, Any] | None = None,
        log: Log | None = None,
    ) -> Case:
        """What a probe is called with."""
        study = self.study
        return Case(
            build=self.first.build,
            network=self.network if network else None,
            data=self.data,
            explained=self.explained("test") if network else self.data["test"].targets,
            maps=maps,
            mean=self.mean,
            fit=self.refit,
            seed=study.seed,
            rows=study.rows,
            device=self.device,
            checkpoint=checkpoint,
            advance=execute.advance,
            cache={} if cache is None else cache,
            log=log,
            once=self._once,
            judge=None if study.judge is None else lambda: self.second.module,
        )

    def _once(self, name: str, what: Any, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        study = self.study
        depends = {
            "what": what,
            "data": self.data_digest,
            "network": self.network_digest,
            "model": study.model.identity(),
            "fit": self.refit.identity() if self.refit is not None else None,
            "seed": study.seed,
            "engine": engine(),
        }
        return made_once(self.folder / "kept" / f"{name}-{key(depends)}.pt", make)

    @cached_property
    def results(self) -> Results:
        """What is measured so far."""
        return Results(self.folder)
