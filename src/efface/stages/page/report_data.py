"""The facts about a run that its page states beside the numbers."""

import dataclasses
import datetime as dt
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from efface.metrics.probes.block import whole_of
from efface.metrics.probes.description import KINDS, NONE, describe
from efface.metrics.probes.probe import Explains
from efface.plug import words
from efface.plug.call import Call
from efface.plug.given import said
from efface.plug.in_python import for_maker
from efface.report.cautions import SHARES
from efface.report.facts import Cost, Facts, Origin
from efface.report.formats import listed, percent
from efface.report.told import from_python
from efface.stages.page.gallery_data import rows_of
from efface.stages.page.pictures import picture
from efface.stages.run.curves import PlannedRun
from efface.stages.run.labels import labels_said
from efface.stages.run.map_files import extraction_key
from efface.stages.run.plan import Plan, of_maps
from efface.stages.run.provenance import package_versions, surroundings
from efface.stages.run.rounds import needed, spent_share
from efface.stages.run.run import Run
from efface.store.results import Results
from efface.study.mask_controls import Outline, outlines
from efface.study.metric_entry import MetricEntry
from efface.study.study import Study

_OPTIONAL = {
    "timm": ("call: timm", "efface.models.timm"),
    "transformers": ("call: huggingface", "efface.models.huggingface"),
    "datasets": ("call: huggingface", "efface.data.huggingface"),
    "captum": ("captum",),
    "zennit": ("zennit",),
}
"""Optional packages, and words by which the text of a study needs them."""


def facts(planned: PlannedRun, measured: Sequence[str]) -> Facts:
    """Return the facts that the page states beside the numbers. measured: metrics that have a result."""
    run, plan = planned.run, planned.plan
    study = run.study
    more = {name: version(name) for name in ("torchvision", "h5py", "scipy")} | optional_versions(run.text)
    accuracy, chance = accuracy_of(run)
    is_call = from_python(study.model.call) and study.out.name.startswith("efface-")  # of a folder without a name
    return Facts(
        study=run.text,
        name="efface.evaluate" if is_call else study.out.name,
        versions=package_versions() | more,
        device=surroundings(run.device)["device"],
        seconds=seconds_of(run.results),
        unfinished=_unfinished(planned, measured),
        data=data_said(run),
        network=network_said(run),
        warnings=(*labels_said(run), *remarks(run, plan)),
        how={entry.name: how_of(planned, entry) for entry in study.metrics},
        setting_of=setting_of(run),
        outlines=outlines_of(study),
        degenerate=degenerate_of(conditions_of(plan), run.results),
        costs={entry.name: cost for entry in study.metrics if (cost := _cost(planned, entry)) is not None},
        layers=layers_of(run),
        picture=picture(run),
        passes=np.nan if study.decide is None else spent_share(planned),
        accuracy=accuracy,
        chance=chance,
        origin=origin_of(run.folder, run.results, study.model.call, seed=study.seed, repeats=study.repeats),
    )


def optional_versions(study: str) -> dict[str, str]:
    """Return the versions of the optional packages that a study names. study: its text, with dotted paths."""
    needed = (name for name, words_of in _OPTIONAL.items() if any(word in study for word in words_of))
    return {name: version(name) for name in needed if find_spec(name.replace("-", "_")) is not None}


def data_said(run: Run) -> str:
    """Return one line on the data set."""
    sizes = ", ".join(f"{len(split):,} {name} images" for name, split in run.data.items())
    c, h, w = run.data["test"].shape
    return f"{named(run.study.data)}: {sizes}, {c} x {h} x {w}"


def network_said(run: Run) -> str:
    """Return one line on the network, with its test accuracy."""
    trained = run.first.trained()
    right = f"{percent(float(run.right().float().mean()))} of the test images right" if trained else "not trained yet"
    return f"{named(run.study.model)}: {right}"


def named(call: Call) -> str:
    """Return what a call loads, in short: its word, and the name that it is given."""
    word = words.name_of(call.call).rpartition(".")[2] or said(call.call)
    given = next((call.kwargs[key] for key in ("name", "model", "path") if isinstance(call.kwargs.get(key), str)), "")
    return f"{word} {given}" if given else word


def accuracy_of(run: Run) -> tuple[float, float]:
    """Return the network's share of correct test images, and what chance would get; NaN before it is trained."""
    if not run.first.trained():
        return np.nan, np.nan
    return float(run.right().float().mean()), 1 / len(run.data["test"].targets.unique())


def origin_of(folder: Path, results: Results, model: str, *, seed: int, repeats: int | None) -> Origin:
    """Return where the numbers of a run come from."""
    commits = dict.fromkeys(str(row.get("commit") or "") for row in results.records.values())
    day = ""
    if results.path.is_file():
        changed = results.path.stat().st_mtime
        day = dt.datetime.fromtimestamp(changed).astimezone().date().isoformat()
    again = f"efface all {shlex.quote(str(folder / 'study.yml'))}"
    command = "the same call of efface.evaluate in Python" if from_python(model) else again
    return Origin(
        date=day,
        commit=listed([commit for commit in commits if commit], 3) if any(commits) else "",
        command=command,
        seed=seed,
        repeats=repeats,
        tables=tuple((name, f"../{name}") for name in ("results.jsonl", "study.yml")),
    )


def layers_of(run: Run) -> dict[str, tuple[str, ...]]:
    """Return the layers that each method looked at when its test maps were extracted, in words."""
    entries = [entry for entry in run.entries if entry.file is None and entry.draw == 1]
    records = {entry.name: run.results.records.get(extraction_key(run, entry, "test"), {}) for entry in entries}
    return {name: tuple(record["layers"]) for name, record in records.items() if record.get("layers")}


def outlines_of(study: Study) -> dict[str, Outline]:
    """Return where the outline of each retrained metric is measured."""
    random = study.model_copy(update={"reference": None}).references()
    return outlines(study.metrics, study.fractions, random)


def setting_of(run: Run) -> dict[str, str]:
    """Return the entry of the study that each metric at one of several settings comes from."""
    return {entry.name: entry.setting_of for entry in run.study.metrics if entry.setting_of}


def conditions_of(plan: Plan) -> dict[str, str]:
    """Return the keys of the results that tell whether the maps of each row are fit to be scored."""
    return {name: task.key for name, task in plan.conditions.items()}


def how_of(planned: PlannedRun, entry: MetricEntry) -> dict[str, str]:
    """Return what a metric's numbers depend on, in words. "none" stands for what its probes do not have."""
    run, points = planned.run, (point for curve in planned.plan.of(entry)[:1] for point in curve.points)
    probes = [whole_of(task.probe) for point in points for task in point.tasks.values()]
    explains = [probe.explains for probe in probes if isinstance(probe, Explains)]
    descriptions = [dataclasses.asdict(describe(probe)) for probe in probes]
    values = {
        kind: dict.fromkeys(description[kind] for description in descriptions if description[kind] != NONE)
        for kind in KINDS
    }
    return {kind: ", ".join(words) or NONE for kind, words in values.items()} | {
        "explain": (explains or [run.study.explain])[-1]
    }


def degenerate_of(conditions: Mapping[str, str], results: Results) -> dict[str, dict[str, float]]:
    """Return the mean share of each kind of degenerate map, by row of the report. NaN: not known.

    conditions: for each row, the key of the result that tells it.
    """
    records = {name: results.records[key] for name, key in conditions.items() if key in results}
    return {
        name: {kind: float(row[kind]) if isinstance(row.get(kind), int | float) else np.nan for kind in SHARES}
        for name, row in sorted(records.items())
    }


def cost_of(keys: Iterable[str], results: Results, images: int, sample: str) -> Cost | None:
    """Return the time of the probes of these keys, or None if none has run.

    images: number of test images. sample: what a sample of the metric is, "repeats" or "images".
    """
    records = [results.records[key] for key in dict.fromkeys(keys) if key in results.records]
    if not records:
        return None
    seconds = sum(row.get("seconds", 0.0) for row in records)
    if sample == "repeats":
        return Cost(seconds, np.nan, np.nan)
    maps = len({row.get("method") for row in records} - {None}) or 1
    return Cost(seconds, seconds / images, seconds / images / maps)


def seconds_of(results: Results) -> dict[str, float]:
    """Return the seconds spent on each kind of work, summed over processes."""
    names = {
        "train": "train",
        "extract": "extract maps",
        "retrain": "retrain (ROAR, KAR)",
        "perturb": "perturb (MoRF, LeRF)",
        "degeneracy": "look for degenerate maps",
    }
    seconds: dict[str, float] = {}
    for row in results.records.values():
        kind = row.get("probe", {}).get("probe", "other work")
        seconds[names.get(kind, kind)] = seconds.get(names.get(kind, kind), 0.0) + row.get("seconds", 0.0)
    return seconds


def _cost(planned: PlannedRun, entry: MetricEntry) -> Cost | None:
    keys = (task.key for curve in planned.plan.of(entry) for point in curve.points for task in point.tasks.values())
    return cost_of(keys, planned.run.results, len(planned.run.data["test"]), entry.formula.sample)


def _unfinished(planned: PlannedRun, measured: Sequence[str]) -> tuple[str, ...]:
    run, tasks = planned.run, needed(planned)
    missing = [task.key for task in tasks if task.key not in run.results]
    without = [entry.name for entry in run.study.metrics if entry.name not in measured]
    of = f", all of {', '.join(without)} among them" if without else ""
    return tuple(
        for_maker(line, run.study.model.call) for line in unfinished_said(missing, len(tasks), run.results, of)
    )


def unfinished_said(missing: Sequence[str], planned: int, results: Results, of: str = "") -> tuple[str, ...]:
    """Return how many probes failed, and how many are not run yet. missing: keys of results. planned: their number."""
    failed = sum(key in results.failed for key in missing)
    said = []
    if failed:
        said.append(f"{failed} of {planned} probes failed. The file failures.log in the run's folder has the errors.")
    if len(missing) > failed:
        said.append(f"{len(missing) - failed} of {planned} probes are not run yet{of}. Run the measure stage.")
    return tuple(said)


def remarks(run: Run, plan: Plan) -> tuple[str, ...]:
    """Return what the data left out, and which rows some metrics do not have, in words."""
    frozen = [entry for entry in of_maps(run) if entry.formula.sample == "images"]
    redrawn = [view.name for view in rows_of(run) if frozen and view.name in plan.redrawn]
    noted = tuple(note for split in run.data.values() for note in split.notes)
    return noted + tuple(
        f"{name} is ranked anew in each epoch of a training. For a network that does not train, it equals "
        f"a fixed random ranking, so {listed([entry.name for entry in frozen])} are not run for it."
        for name in redrawn
    )
