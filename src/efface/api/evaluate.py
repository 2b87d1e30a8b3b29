"""`efface.evaluate`: a study from objects in memory, through the same stages as the command line."""

import contextlib
import functools
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from efface.api.images import split_of
from efface.api.methods import Methods, entries_of
from efface.api.networks import network_keys
from efface.api.result import Result
from efface.execute import serial, stoppable
from efface.plug.given import give, keep
from efface.stages.measure import measure
from efface.stages.page.accuracy import accuracy
from efface.stages.run.curves import planned_run
from efface.stages.run.run import Run
from efface.store.arrays import digest
from efface.store.keys import key
from efface.study.study import Study, check, dump
from efface.types import Split

_WHERE = Path("evaluate")
_SERIAL = "efface.execute.serial"
_OWN = ("out", "data", "model", "attribution_methods", "metrics", "seed", "device", "variants", "seeds", "claims")
"""Keys of a study that have an argument of their own, or no meaning for one call."""


def evaluate(
    model: nn.Module | Callable[[], nn.Module],
    images: Any,
    labels: Any = None,
    methods: Methods = ("gradient", "integrated_gradients", "smooth_grad"),
    metrics: str | Iterable[str | Mapping[str, Any]] = ("morf", "lerf"),
    *,
    train: Any = None,
    device: str | torch.device | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    **settings: Any,
) -> Result:
    """Measure how well attribution methods find what a network uses, with the stages of the command line.

    A random map is measured beside the methods, as the reference of the verdicts, unless one of them is random or
    `reference` names another method.

    model: a classifier that returns logits n k for images n c h w; it is copied and evaluated in evaluation mode. Or a
        function without arguments that makes one.
    images: tensor n c h w, array n h w c or n c h w, list of PIL images, Dataset of (image, label), or DataLoader.
        uint8, or floats in [0, 1]; with `mean=` and `std=`, floats that are normalised by them. efface keeps 8 bits.
    labels: class of each image, n whole numbers; None: the Dataset or DataLoader gives them.
    methods: a dict from names to methods, or a list of short words and functions. A method is a short word
        (`"grad_cam"`), a function (model, images, targets) -> maps, a function (model, image, label) -> map, a class or
        an object of Captum, an array of maps, or an entry of a study, `{"method": ..., "kwargs": {...}}`.
    metrics: names, or entries of a study, `{"name": "insertion", "kwargs": {...}}`.
    train: training images, for metrics that train networks and methods that learn: a pair (images, labels), a Dataset
        or a DataLoader. None: there are none.
    device: such as "cpu" or "cuda"; None: a GPU if there is one.
    out: folder of the run, as the command line has it; the same call goes on there. None: a folder that goes with the
        result.
    seed: of all random numbers, an integer from 0.
    settings: further keys of a study, such as `unit`, `imputer`, `fractions`, `post`, `explain`, `repeats`, `mean`,
        `std`, `fit`, `refit`; see docs/studies.md.

    Returns a `Result`. ValueError: an argument is wrong; the message lists all problems that can be known before any
    work. A method that fails is left out with a warning; `failures` of the result names it.
    """
    with _folder(out) as (folder, owner):
        study, kept = _study(model, images, labels, methods, metrics, train, device, folder, seed, settings)
        with _torch_as_before(), stoppable():
            failures = measure(study)
            planned = planned_run(Run(study))
            result = Result(planned.curves, accuracy(planned.run), study, tuple(failures), (owner, kept))
    for failure in failures:
        warnings.warn(f"efface: {failure}", stacklevel=2)
    return result


def _study(
    model: Any,
    images: Any,
    labels: Any,
    methods: Methods,
    metrics: str | Iterable[str | Mapping[str, Any]],
    train: Any,
    device: str | torch.device | None,
    folder: Path,
    seed: int,
    settings: dict[str, Any],
) -> tuple[Study, list[Any]]:
    """Return the study of these objects, and what must live as long as its result."""
    if own := [name for name in settings if name in _OWN]:
        raise ValueError(f"evaluate: '{own[0]}' is no setting of a call; see help(efface.evaluate)")
    made = functools.partial(split_of, mean=settings.get("mean"), std=settings.get("std"))
    splits = {"test": made(images, labels)}
    if train is not None:
        pair = train if isinstance(train, tuple) and len(train) == 2 else (train, None)
        splits["train"] = made(*pair, where="train")
    data = _Splits(splits)
    given = folder / "given"
    given.mkdir(parents=True, exist_ok=True)
    retrains = train is not None and ("refit" in settings or "fit" in settings)
    tree: dict[str, Any] = {
        "out": str(folder),
        "data": {"call": give("data", "images", data, data.digest())},
        **network_keys(model, given, retrains=retrains),
        "attribution_methods": entries_of(methods, model, splits["test"].images, given),
        "metrics": [metrics]
        if isinstance(metrics, str)
        else [dict(m) if isinstance(m, Mapping) else m for m in metrics],
        "seed": seed,
        "executor": {"call": _SERIAL},
        "threads": torch.get_num_threads(),
        **({} if device is None else {"device": str(device)}),
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


@contextlib.contextmanager
def _folder(out: str | Path | None) -> Iterator[tuple[Path, Any]]:
    """Yield the folder of the run, and what removes it when nobody needs it any more; None if it is the caller's."""
    if out is not None:
        yield Path(out).absolute(), None
        return
    owner = tempfile.TemporaryDirectory(prefix="efface-", ignore_cleanup_errors=True)
    try:
        yield Path(owner.name), owner
    except BaseException:
        shutil.rmtree(owner.name, ignore_errors=True)
        raise


@contextlib.contextmanager
def _torch_as_before() -> Iterator[None]:
    """Restore torch's threads, its settings of determinism and its generators after the block."""
    before = (torch.get_num_threads(), torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = before[1:]
