"""Maps of a file in place of a method: which file, what its maps are made from, and checks against the run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from efface.base.types import Maps, Split, Targets
from efface.plug.source import file_digest
from efface.stages.run.run import Run
from efface.store.foreign import ForeignMaps, open_maps, places
from efface.store.keys import versions
from efface.study.schema import MethodEntry

_NEAR = 1e-2
"""Two answers are a tie if they differ by less than this share of the largest logit: other hardware, other rounding."""


def foreign_path(entry: MethodEntry, split: str) -> Path:
    """Return the file of a split's maps. ValueError: the entry names none. FileNotFoundError: it is not there."""
    where = f"attribution_methods.{entry.name}.file"
    files: dict[Any, Path] = entry.file if isinstance(entry.file, dict) else {split: entry.file}  # type: ignore[dict-item]
    if split not in files:
        raise ValueError(
            f"{where}: names no file of the {split} images, but a metric needs their maps; add it, "
            "file: {train: a.npz, test: b.npz}, or drop the metrics that train again"
        )
    if not files[split].is_file():
        raise FileNotFoundError(f"{where}: {files[split]}: no such file, looked for from {Path.cwd()}; correct it")
    return files[split]


def foreign_provenance(run: Run, entry: MethodEntry, split: str) -> dict[str, Any]:
    """Return what copied maps are made from: the digest of the file, and what they were checked against."""
    return {
        "split": split,
        "data": run.data_digest[split],
        "network": run.network_of(entry).digest,
        "file": file_digest(foreign_path(entry, split)),
        "versions": versions("store"),
        "explain": run.study.explain,
    }


@dataclass(frozen=True)
class PlacedMaps:
    """Maps of a file in the order of a split's rows. at: the row of the file for each row of the split."""

    where: str
    maps: ForeignMaps
    at: np.ndarray

    def take(self, rows: Int[Tensor, " n"]) -> Maps:
        """Return the maps of these rows of the split. ValueError: a value is not finite."""
        try:
            return self.maps.take(self.at[rows.numpy()])
        except ValueError as error:
            raise ValueError(f"{self.where}: {error}") from None

    def check(self, rows: Int[Tensor, " n"], classes: Targets, logits: Float[Tensor, "n k"] | None) -> None:
        """Compare classes and predictions that the file tells with those of the run.

        rows: of the split. classes: the classes that the study explains at these rows. logits: of the run's network.
        ValueError: they differ. The message names the row of the file.
        """
        at = self.at[rows.numpy()]
        theirs = None if self.maps.targets is None else self.maps.targets[at]
        if theirs is not None and (other := theirs != classes.cpu().numpy()).any():
            first = int(other.argmax())
            ours = f"explains class {int(classes[first])} of image {int(rows[first])}"
            raise ValueError(
                f"{self.where}: {self.maps.path}: row {at[first]} explains class {theirs[first]}, but the study {ours} "
                f"({int(other.sum())} of {len(rows)} rows differ); set explain, or make maps of the explained class"
            )
        if self.maps.prediction is None or logits is None:
            return
        claimed, own = self.maps.prediction[at], logits.cpu().numpy()
        if claimed.shape != own.shape:
            raise ValueError(
                f"{self.where}: {self.maps.path}: its predictions have {claimed.shape[1]} outputs, but the network has "
                f"{own.shape[1]}; were the maps made for another network?"
            )
        short = own.max(1) - own[np.arange(len(own)), claimed.argmax(1)]
        other = short > _NEAR * np.abs(own).max(1)
        if other.any():
            first = int(other.argmax())
            raise ValueError(
                f"{self.where}: {self.maps.path}: row {at[first]} has class {int(claimed[first].argmax())}, but the "
                f"network predicts class {int(own[first].argmax())} of image {int(rows[first])} ({int(other.sum())} of "
                f"{len(rows)} rows differ); were the maps made for another network, or other images?"
            )


def foreign_maps(run: Run, entry: MethodEntry, split: str) -> PlacedMaps:
    """Return the maps of a split, matched with its rows. ValueError: shapes or numbers do not fit the images."""
    where, path, data = f"attribution_methods.{entry.name}", foreign_path(entry, split), run.data[split]
    try:
        maps = open_maps(path, split, alone=isinstance(entry.file, dict) or split == "test")
        _check_shape(maps, data, split)
        return PlacedMaps(where, maps, places(maps, data.images))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _check_shape(maps: ForeignMaps, data: Split, split: str) -> None:
    c, h, w = data.shape
    if maps.shape[-2:] != (h, w) or (len(maps.shape) == 4 and maps.shape[1] not in (1, c)):
        raise ValueError(
            f"{maps.path}: '{maps.name}' has shape {maps.shape}, expected (n, {h}, {w}), (n, 1, {h}, {w}) or "
            f"(n, {c}, {h}, {w}), as the {split} images are"
        )
