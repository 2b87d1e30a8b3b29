"""The map files of a run: what each is made from, which are there, and which are still to be extracted."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from efface.base import draws
from efface.plug import moved
from efface.plug.identity import code_of
from efface.stages.run.foreign import foreign_provenance
from efface.stages.run.provenance import EXPLAINED
from efface.stages.run.run import Run
from efface.store.keys import differences, key, versions
from efface.store.maps import MapStore, kept_path, verify_once
from efface.store.sealed import set_aside, warn
from efface.store.tensors import learnt_digest, read_learnt
from efface.study.schema import MethodEntry

_CODE = ("source", "version", "numerics")  # parts of an identity that stand for the code


@dataclass(frozen=True)
class Extraction:
    """One method on one split."""

    method: str
    split: str


def needed_splits(run: Run) -> list[str]:
    """The splits whose maps the study's metrics read: the test images, and the training images where one retrains."""
    retrains = run.refit is not None and (
        not run.study.metrics or any(metric.formula.sample == "repeats" for metric in run.study.metrics)
    )
    if retrains and "train" not in run.data:
        raise ValueError(f"metrics: retraining needs a 'train' split, which {run.study.data.call} does not give")
    return ["train", "test"] if retrains else ["test"]


def missing_extractions(run: Run, splits: Sequence[str] | None = None) -> list[Extraction]:
    """The extractions that are not there yet. ValueError: a file of that name holds maps of other data.

    splits: their splits; None: those that the study's metrics read.
    """
    tasks: list[Extraction] = []
    for split in needed_splits(run) if splits is None else splits:
        missing = [
            entry for entry in run.entries if not all(_is_there(run, entry, name, split) for name in entry.gives)
        ]
        tasks += [Extraction(entry.name, split) for entry in missing]
    return tasks


def missing_maps(run: Run) -> set[tuple[str, str]]:
    """The maps that are not there, by name and split."""
    return {(name, task.split) for task in missing_extractions(run) for name in run.entry(task.method).gives}


def map_store(run: Run, name: str, split: str) -> MapStore:
    """The finished maps of this name, verified to be this study's."""
    expected = provenance(run, run.entry_of_maps(name), name, split)
    store = _read_store(run, found_path(run.map_path(name, split), expected))
    store.expect(expected, len(run.data[split]))
    return store


def found_path(path: Path, made_from: dict[str, Any]) -> Path:
    """Return the path of the maps made from this: in the folder `kept` while other maps have their name."""
    kept = kept_path(path, made_from)
    return kept if kept.exists() else path


def _read_store(run: Run, path: Path) -> MapStore:
    """This file, whatever it was made from; opened again only when it has changed."""
    status = path.stat() if path.exists() else None
    stamp = None if status is None else (status.st_mtime_ns, status.st_size, status.st_ino)
    opened = run.stores.get(path)
    if opened is None or stamp is None or opened[0] != stamp:
        opened = run.stores[path] = stamp, MapStore(path)
    return opened[1]


def provenance(run: Run, entry: MethodEntry, name: str, split: str) -> dict[str, Any]:
    """Return what the maps of this name are made from."""
    if entry.file is not None:
        return foreign_provenance(run, entry, split)
    path = learnt_path(run, entry)
    learnt = {} if path is None else {"learnt": learnt_digest(path) if path.exists() else "nothing yet"}
    return (
        learnt
        | {
            "split": split,
            "data": run.data_digest[split],
            "network": run.network_of(entry).digest,
            "method": entry.call.identity(),
            "versions": versions(*EXPLAINED),
            "batched": entry.batched,
            "output": name if entry.outputs else "",
            "explain": run.study.explain,
            "seed": run.study.seed,
        }
        | ({"draw": entry.draw} if entry.draw > 1 else {})
    )


def extraction_key(run: Run, entry: MethodEntry, split: str) -> str:
    """Return the key of the result line of an extraction."""
    return f"extract-{key(provenance(run, entry, entry.gives[0], split))}"


def learnt_path(run: Run, entry: MethodEntry) -> Path | None:
    """Return the file of what a method learnt from training images; None for a method that does not learn."""
    if not entry.learns:
        return None
    if "train" not in run.data:
        raise ValueError(
            f"attribution_methods.{entry.name}: {entry.method} learns from training images, but "
            f"{run.study.data.call} gives no 'train' split; take other data, or drop the method"
        )
    name, _, settings = _learning(run, entry)
    what = settings | {
        "code": {name: value for name, value in code_of(entry.call.call).items() if name != "call"},
        "versions": versions(*EXPLAINED),
        "data": run.data_digest["train"],
        "network": run.network_of(entry).digest,
    }
    path = run.folder / "learnt" / f"{name}-{key(what)}.h5"
    if path.exists():
        status = path.stat()
        _is_sound(path, status.st_mtime_ns, status.st_size)
    return path


def read_learnt_tensors(run: Run, entry: MethodEntry) -> dict[str, Tensor] | None:
    """Return the tensors that a method learnt; None for a method that does not learn."""
    path = learnt_path(run, entry)
    return None if path is None else read_learnt(path)


def learnt_seed(run: Run, entry: MethodEntry) -> int:
    """Return the seed of the fit. Entries that share a `learnt_path` share the seed."""
    return draws.seed_of(_learning(run, entry)[1])


def _learning(run: Run, entry: MethodEntry) -> tuple[str, str, dict[str, Any]]:
    """Return the name of the fit, the text that seeds it, and the settings that enter the key of its file.

    Methods whose `learnt_from` has the same `fit` draw the same numbers, whatever their class. A method without
    `learnt_from` is seeded by its dotted path.
    """
    method, kind, seed = entry.call(), entry.call.resolve(), run.study.seed
    if not hasattr(method, "learnt_from"):
        own = {name: value for name, value in entry.call.identity().items() if name not in _CODE}
        return kind.__name__, f"{seed} learn {moved.first(entry.call.call)}", {"from": own, "seed": seed}
    settings = method.learnt_from()
    name = settings.get("fit", kind.__name__)
    what = {"from": settings, "seed": (drawn := f"{seed} learn {name}")}
    if not str(kind.fit.__module__).startswith("efface."):  # classes of one `learnt_from` may differ in `fit`
        what["fit"] = f"{kind.fit.__module__}.{kind.fit.__qualname__}"
    return name, drawn, what


def _is_there(run: Run, entry: MethodEntry, name: str, split: str) -> bool:
    expected = provenance(run, entry, name, split)
    path = found_path(run.map_path(name, split), expected)
    if not path.exists():
        return False
    try:
        store = _read_store(run, path)
    except ValueError as error:
        return _set_aside(path, error)
    data = {"split": split, "data": run.data_digest[split]}
    if wrong := differences({field: store.provenance.get(field) for field in data}, data):
        raise ValueError(
            f"{path}: holds maps of other data: {wrong}; move it away or delete it, "
            "or give this study another folder with out=..."
        )
    if differences(store.provenance, expected):
        return False
    try:
        store.expect(expected, len(run.data[split]))
        verify_once(store, run.folder / "verified.json")
    except ValueError as error:
        return _set_aside(path, error)
    return True


def _set_aside(path: Path, error: ValueError, remedy: str = "its maps are extracted again") -> bool:
    """Rename a damaged file, say so, and return False."""
    what = str(error).partition("; delete it")[0]
    warn(f"{what}; {remedy} (the file is set aside as {set_aside(path).name})")
    return False


@functools.cache
def _is_sound(path: Path, _written: int, _size: int) -> bool:
    """Return whether a file of what a method learnt is whole. A damaged file is set aside."""
    try:
        read_learnt(path)
    except ValueError as error:
        return _set_aside(path, error, "the method learns again")
    return True
