"""A study from objects in memory, and where its run lies."""

import contextlib
import functools
import io
import random
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from efface.api.images import split_of
from efface.api.methods import Methods, entries_of
from efface.api.metrics import Metrics, metric_entries
from efface.api.networks import network_keys
from efface.base.types import Split
from efface.execute import serial
from efface.execute.attempt import own_place
from efface.plug.given import give, keep, names_given
from efface.plug.in_python import in_python
from efface.stages.run.runs import refuse_unwritable
from efface.store.arrays import digest
from efface.store.keys import key
from efface.study.study import Study, check, dump

_WHERE = Path("evaluate")
_SERIAL = "efface.execute.serial"
_OWN = ("out", "data", "model", "attribution_methods", "metrics", "seed", "device", "variants", "seeds", "claims")
"""Keys of a study that have an argument of their own, or no meaning for one call."""


def study_of_objects(
    model: Any,
    images: Any,
    labels: Any,
    methods: Methods,
    metrics: Metrics,
    train: Any,
    device: str | torch.device | None,
    folder: Path,
    seed: int,
    settings: dict[str, Any],
) -> tuple[Study, list[Any]]:
    """Return the study of these objects, and what must live as long as its result."""
    if own := [name for name in settings if name in _OWN]:
        raise ValueError(f"{own[0]}: is no setting of a call; help(efface.evaluate) lists its arguments")
    if "fit" in settings and isinstance(model, nn.Module):
        raise ValueError(
            "fit: it trains the network that is explained, but the model that is handed over is explained as it "
            "is; give refit={...} for the trainings of metrics, or a function that makes the model"
        )
    made = functools.partial(split_of, mean=settings.get("mean"), std=settings.get("std"))
    splits = {"test": made(images, labels)}
    if train is not None:
        pair = train if isinstance(train, tuple) and len(train) == 2 else (train, None)
        splits["train"] = made(*pair, where="train")
        (_, *of_train), (_, *of_images) = splits["train"].images.shape, splits["test"].images.shape
        if of_train != of_images:
            found, expected = (" x ".join(map(str, shape)) for shape in (of_train, of_images))
            raise ValueError(f"train: its images are {found}, and images are {expected}; give both one size")
    data = _Splits(splits)
    given = folder / "given"
    given.mkdir(parents=True, exist_ok=True)
    retrains = train is not None and ("refit" in settings or "fit" in settings)
    tree: dict[str, Any] = {
        "out": str(folder),
        "data": {"call": give("data", "images", data, data.digest())},
        **network_keys(model, given, retrains=retrains),
        "attribution_methods": entries_of(methods, model, splits["test"].images, given),
        "metrics": metric_entries(metrics),
        "seed": seed,
        "executor": {"call": _SERIAL},
        "threads": torch.get_num_threads(),
        **({} if device is None else {"device": str(device)}),
        **({} if settings.get("unit") == "feature" else {"post": ["channel_sum"]}),
        **settings,
    }
    study = check(_with_reference(tree), _WHERE)
    if study.executor.resolve() is not serial:
        try:
            keep(dump(study), given)
        except ValueError as error:
            warnings.warn(f"efface: everything runs in this process, because {error}", stacklevel=4)
            study = check(_with_reference(tree | {"executor": {"call": _SERIAL}}), _WHERE)
    return study, [data]


def _with_reference(tree: dict[str, Any]) -> dict[str, Any]:
    """Return the tree with a random control, unless it has one or names a reference."""
    words = [str(entry.get("method", "")).rpartition(".")[2] for entry in tree["attribution_methods"]]
    if tree.get("reference") or any(word.startswith("random") for word in words):
        return tree
    taken = {entry["name"] for entry in tree["attribution_methods"]}
    name = next(name for name in ("random", "random_control", "random_map") if name not in taken)
    return tree | {"attribution_methods": [{"name": name, "method": "random"}, *tree["attribution_methods"]]}


@dataclass(frozen=True)
class _Splits:
    """A function that returns splits in memory."""

    splits: dict[str, Split]
    is_synthetic: bool = False

    def digest(self) -> str:
        """A digest of all images and classes."""
        return key({name: [digest(split.images), digest(split.targets)] for name, split in self.splits.items()})

    def __call__(self) -> dict[str, Split]:
        return dict(self.splits)


class Folder:
    """A temporary folder that goes with this object."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="efface-"))
        self.remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@contextlib.contextmanager
def run_folder(out: str | Path | None) -> Iterator[tuple[Path, Folder | None]]:
    """Yield the folder of the run, and what removes it when nobody needs it any more; None if it is the caller's."""
    if out is not None:
        path = Path(out).absolute()
        refuse_unwritable(path)
        _refuse_other_study(path)
        yield path, None
        return
    folder = Folder()
    try:
        yield folder.path, folder
    except BaseException:
        folder.remove()
        raise


def _refuse_other_study(folder: Path) -> None:
    """ValueError: the folder belongs to a study of a file, whose study.yml and page a call would replace."""
    study = next((file for file in (folder / "study.yml", *folder.glob("*/study.yml")) if file.is_file()), None)
    if study is not None and not names_given(study.read_text(encoding="utf-8", errors="replace")):
        raise ValueError(
            f"out: {folder}: is the folder of a study that was run from a file ({study}), and a call would replace its "
            "page; give another folder with out=..."
        )


@contextlib.contextmanager
def process_as_before() -> Iterator[None]:
    """Restore torch's threads and its settings of determinism, and all generators of random numbers, afterwards."""
    cudnn = torch.backends.cudnn
    threads, settings = torch.get_num_threads(), (cudnn.benchmark, cudnn.deterministic)
    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002  what methods of others draw from
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            cudnn.benchmark, cudnn.deterministic = settings
            random.setstate(python)
            np.random.set_state(numbers)  # noqa: NPY002


@contextlib.contextmanager
def in_words() -> Iterator[None]:
    """Say errors of the block in the words of a call, with what was handed over by its own name.

    The error has no chain of causes: its text says all, with the file and line of the caller's own code that failed.
    """
    try:
        yield
    except ValueError as error:
        text, place = in_python(str(error)), own_place(error)
        raise ValueError(f"{text} ({place})" if place and place not in text else text) from None


def quiet(*, verbose: bool) -> contextlib.AbstractContextManager[Any]:
    """Return a context whose lines go nowhere, unless it is verbose."""
    return contextlib.nullcontext() if verbose else contextlib.redirect_stdout(io.StringIO())
