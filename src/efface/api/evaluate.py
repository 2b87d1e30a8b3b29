"""`efface.evaluate`, `efface.maps` and `efface.compare`: the stages of the command line for objects in memory."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from efface.api.in_memory import in_words, process_as_before, quiet, run_folder, study_of_objects
from efface.api.methods import Methods
from efface.api.metrics import Metrics
from efface.api.result import Result
from efface.execute import stoppable
from efface.plug.in_python import in_python
from efface.report.cautions import weak_network
from efface.stages.extract import extract
from efface.stages.measure import measure
from efface.stages.page.accuracy import accuracy
from efface.stages.page.comparison import write_comparison
from efface.stages.page.folders import kept_folder
from efface.stages.page.report_data import accuracy_of
from efface.stages.run.curves import planned_run
from efface.stages.run.labels import labels_said
from efface.stages.run.run import Run
from efface.stages.run.runs import refuse_unwritable
from efface.store.maps import MapStore


def evaluate(
    model: nn.Module | Callable[[], nn.Module],
    images: Any,
    labels: Any = None,
    methods: Methods = ("gradient", "integrated_gradients", "smooth_grad"),
    metrics: Metrics = ("morf", "lerf"),
    *,
    train: Any = None,
    device: str | torch.device | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    verbose: bool = True,
    **settings: Any,
) -> Result:
    """Measure how well attribution methods find what a network uses, with the stages of the command line.

    A random map is measured beside the methods, as the reference of the verdicts, unless one of them is random or
    `reference` names another method. Maps with several channels are summed over them, unless `post` says otherwise.

    model: a classifier that returns logits n k for images n c h w; it is copied and evaluated in evaluation mode. Or a
        function without arguments that makes one.
    images: tensor n c h w, array n h w c or n c h w, list of PIL images, Dataset of (image, label), or DataLoader.
        uint8, or floats in [0, 1]; with `mean=` and `std=`, floats that are normalised by them. efface keeps 8 bits.
    labels: class of each image, n whole numbers; None: the Dataset or DataLoader gives them.
    methods: a dict from names to methods, or a list of short words and functions. A method is a short word
        (`"grad_cam"`), a function (model, images, targets) -> maps, a function (model, image, label) -> map, a class or
        an object of Captum, an array of maps, or an entry of a study, `{"method": ..., "kwargs": {...}}`.
    metrics: a list of names, of entries of a study, `{"name": "insertion", "kwargs": {...}}`, or of what
        `efface.metric` returns; "recommended", which is a short list (docs/choosing.md); or a dict from names to
        metrics, where a metric may also be an `efface.Metric` or a function (model, images, targets, maps) -> one
        number for each image.
    train: training images, for metrics that train networks and methods that learn: a pair (images, labels), a Dataset
        or a DataLoader. None: there are none.
    device: such as "cpu" or "cuda"; None: a GPU if there is one.
    out: folder of the run, as the command line has it; the same call goes on there. None: a folder that goes with the
        result.
    seed: of all random numbers, an integer from 0.
    verbose: False prints no lines; the display of each stage stays.
    settings: further keys of a study, such as `unit`, `imputer`, `fractions`, `post`, `explain`, `repeats`, `mean`,
        `std`, `fit`, `refit`; see docs/studies.md.

    Returns a `Result`. ValueError: an argument is wrong, or a method fails on the two images of the trial; the message
    lists all problems that can be known before any work. A method that fails later is left out with a warning;
    `failures` of the result names it.
    """
    with run_folder(out) as (folder, owner), in_words():
        study, kept = study_of_objects(model, images, labels, methods, metrics, train, device, folder, seed, settings)
        with process_as_before(), stoppable(), quiet(verbose=verbose):
            failures = tuple(map(in_python, measure(study)))
            planned = planned_run(Run(study))
            weak = weak_network(*accuracy_of(planned.run))
            careful = tuple(filter(None, (weak, *labels_said(planned.run))))
            result = Result(planned.curves, accuracy(planned.run), study, failures, careful, (owner, kept))
    for failure in failures:
        warnings.warn(f"efface: {failure}", stacklevel=2)
    return result


def maps(
    model: nn.Module | Callable[[], nn.Module],
    images: Any,
    labels: Any = None,
    methods: Methods = ("gradient",),
    *,
    train: Any = None,
    device: str | torch.device | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    verbose: bool = True,
    **settings: Any,
) -> dict[str, Tensor]:
    """Compute the attribution maps of methods, with the seeds, checks and files of a study.

    All arguments are those of `efface.evaluate`. Without labels, maps explain the class that the network predicts.

    Returns for each method float maps n h w or n c h w, before `post`. ValueError: an argument is wrong, or a method
    fails.
    """
    if labels is None and isinstance(images, Tensor):
        labels = torch.zeros(len(images), dtype=torch.int64)
        settings, verbose = {"explain": "predicted"} | settings, False  # a line would say the accuracy on these labels
    with run_folder(out) as (folder, owner), in_words():
        study, kept = study_of_objects(model, images, labels, methods, (), train, device, folder, seed, settings)
        with process_as_before(), stoppable(), quiet(verbose=verbose):
            if failures := extract(study):
                raise ValueError("\n".join(failures))
        run, every = Run(study), torch.arange(len(kept[0].splits["test"]))
        names = [name for entry in run.entries if entry.name in _asked(methods) for name in entry.gives]
        found = {name: MapStore(run.map_path(name, "test")).take(every).clone() for name in names}
        if owner is not None:
            owner.remove()
    return found


def compare(*, out: str | Path = "runs/compare", **results: Result | str | Path) -> Path:
    """Write one page of several results side by side, and return its path.

    out: folder of the page.
    results: at least two, each under its name on the page: what `efface.evaluate` returned, or the folder of a run.
        Folders are read as data; none of their code runs.

    ValueError: there are fewer than two, or nothing is measured in one of them.
    """
    if len(results) < 2:
        raise ValueError(
            f"compare: got {len(results)} result; give two or more by name: compare(mine=one, theirs=other)"
        )
    refuse_unwritable(Path(out).absolute())
    beside = {}
    for label, result in results.items():
        if isinstance(result, Result) and not result.is_current:
            raise ValueError(
                f"compare: {label}: {result.out} has the results of a later call; give each call an out= of its own"
            )
        folder = result.out if isinstance(result, Result) else Path(result)
        if not folder.is_dir():
            raise ValueError(f"compare: {label}: there is no folder {folder}; give a result, or the folder of a run")
        for name, runs in kept_folder(folder)[0].items():
            if not any(run.results.records for run in runs):
                raise ValueError(f"compare: {label}: nothing is measured in {folder}")
            beside[f"{label}/{name}" if name else label] = runs
    write_comparison(Path(out), Path(out).name, beside)
    return Path(out) / "report.html"


def _asked(methods: Methods) -> set[str]:
    """Return the names of the methods that a call names."""
    if isinstance(methods, str):
        return {methods}
    return {str(each) if isinstance(each, str) else getattr(each, "__name__", type(each).__name__) for each in methods}
