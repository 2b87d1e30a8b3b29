"""Puts the curves of a run's plan together from the results that the run has so far."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from efface.metrics import metric
from efface.metrics.probes.block import image_order
from efface.plug import words
from efface.report.stats import Curve
from efface.stages.run.kept_plan import KeptCurve, KeptMetric, KeptRun, ReadWith, own_formula
from efface.stages.run.plan import Plan, PlannedCurve, make_plan
from efface.stages.run.run import Run
from efface.stages.run.values import Value, refuse_other_size, valued
from efface.store.results import Results
from efface.store.sealed import BrokenSealError
from efface.study.claims import ACCURACY
from efface.study.metric_entry import MetricEntry

Kept = dict[tuple[str, ...], dict[str, Any]]  # values of points, by metric and the keys of their results


@dataclass(frozen=True)
class PlannedRun:
    """A run with its plan, and the curves that its results give so far. They are put together once.

    kept: values of points by the keys of their results, so that a later copy reads the files of new results alone.
    """

    run: Run
    plan: Plan
    kept: Kept = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def metrics(self) -> tuple[KeptMetric, ...]:
        """The metrics of the study as data."""
        entries = self.run.study.metrics
        return tuple(kept_metric(entry, entries) for entry in entries)

    @cached_property
    def values(self) -> dict[str, Value]:
        """The formula of each metric."""
        return {entry.name: entry.formula.value for entry in self.run.study.metrics}

    @cached_property
    def curves(self) -> list[Curve]:
        """The curves of all metrics and views; NaN where a probe has not run yet."""
        planned, order = map(kept_curve, self.plan.curves), image_order(self.run.study.seed, len(self.run.data["test"]))
        return _all_curves(planned, self.metrics, self.values, self.run.results, order, self.kept)


@dataclass(frozen=True)
class RunRecord:
    """A run as data: what was planned, and its results. values: the formula of each metric."""

    folder: Path
    kept: KeptRun
    results: Results
    values: Mapping[str, Value]

    @cached_property
    def curves(self) -> list[Curve]:
        """The curves of all metrics and views; NaN where a probe has not run yet."""
        order = image_order(self.kept.seed, self.kept.images)
        return _all_curves(self.kept.curves, self.kept.metrics, self.values, self.results, order)

    @property
    def open(self) -> int:
        """The number of results that are missing."""
        return sum(key not in self.results for key in self.kept.tasks)

    @property
    def accuracy(self) -> Curve | None:
        """The accuracy on each test image as a curve of one point; None before the network was asked."""
        if self.kept.right is None:
            return None
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(self.kept.right), np.uint8))
        if not self.kept.images <= len(bits) < self.kept.images + 8:
            raise ValueError(f"{self.folder}: 'right' of its plan has {len(bits)} bits for {self.kept.images} images")
        return accuracy_curve(bits[: self.kept.images].astype(np.float64))

    @property
    def chance(self) -> float:
        """The share of test images that a network gets right by chance; NaN if the number of classes is not known."""
        return 1 / self.kept.classes if self.kept.classes else float("nan")


def read_record(folder: Path, kept: KeptRun) -> RunRecord:
    """Return a run by its data alone. InvalidStudyError: a metric needs code that is not of efface."""
    return RunRecord(
        folder, kept, Results(folder), {meaning.name: own_formula(meaning, folder).value for meaning in kept.metrics}
    )


def planned_run(run: Run) -> PlannedRun:
    """Return the run with its plan as it is now. Keys change when its networks are trained."""
    return PlannedRun(run, make_plan(run))


def kept_metric(entry: MetricEntry, entries: tuple[MetricEntry, ...]) -> KeptMetric:
    """Return a metric of the study as data. entries: all metrics of the study."""
    formula = entry.formula
    return KeptMetric(
        name=entry.name,
        path=entry.path,
        settings=dict(entry.kwargs.model_extra or {}),
        sample=formula.sample,
        direction=dict(entry.direction),
        caption=formula.caption,
        axis=formula.axis,
        summary=formula.summary,
        by_mean=tuple(formula.by_mean),
        family="network" if formula.subject == "network" else formula.family,
        may_lack_points=formula.may_lack_points,
        value_units=dict(formula.value_units),
        ranges=dict(formula.ranges),
        opposite=next((other.name for other in entries if entry.opposes(other)), ""),
        read_with=tuple(
            ReadWith(name=name, path=words.expand("metric", name), phrase=metric(name).phrase)
            for name in formula.read_with
        ),
    )


def kept_curve(planned: PlannedCurve) -> KeptCurve:
    """Return a planned curve as data."""
    keys = tuple(
        tuple({name: task.key for name, task in point.tasks.items()} for point in repeat) for repeat in planned.repeats
    )
    view = planned.view
    return KeptCurve(
        metric=planned.entry.name,
        method=view.name,
        control=view.control,
        knows=view.knows,
        draw_of=view.draw_of,
        twin_of=view.twin_of,
        at=planned.at,
        repeats=keys,
        looks=planned.looks,
    )


def _all_curves(
    planned: Iterable[KeptCurve],
    metrics: Iterable[KeptMetric],
    values: Mapping[str, Value],
    results: Results,
    order: Int[Tensor, " images"],
    kept: Kept | None = None,
) -> list[Curve]:
    means = {meaning.name: meaning for meaning in metrics}
    known = (each for each in planned if each.metric in means)
    every = (curves_of(each, means[each.metric], values[each.metric], results, order, kept) for each in known)
    return list(itertools.chain.from_iterable(every))


def curves_of(
    planned: KeptCurve,
    meaning: KeptMetric,
    value: Value,
    results: Results,
    order: Int[Tensor, " images"],
    kept: Kept | None = None,
) -> list[Curve]:
    """Return the values of a planned curve: a curve for each score of the metric.

    A repeat of a retrained metric is the mean over its test images. The curve also keeps the values of the images. A
    curve that is measured in rounds has the samples of its finished rounds. order: of the test images, in rounds.
    """
    kept = {} if kept is None else kept
    at = planned.at
    table: dict[str, list[list[np.ndarray]]] = {name: [] for name in meaning.direction}
    missing: set[float] = set()
    in_blocks = planned.looks is not None and meaning.sample == "images"
    done = max(1, finished(planned, results, in_blocks=in_blocks)) if planned.looks is not None else None
    for repeat in planned.repeats[:done]:
        values = [_value(meaning, value, keys, results, kept) for keys in repeat]
        missing |= {where for where, value_there in zip(at, values, strict=True) if value_there is None}
        for name in meaning.direction:
            table[name].append([np.atleast_1d(scores[name]) if scores else np.array([np.nan]) for scores in values])
            if in_blocks:
                refuse_other_size(meaning.name, name, table[name], planned.looks)
    joined = {name: _stacked(table[name]) if meaning.sample == "images" else _repeated(table[name]) for name in table}
    return [
        Curve(
            metric=planned.metric,
            score=name,
            method=planned.method,
            at=at,
            values=joined[name][0],
            images=joined[name][1],
            bounds=meaning.ranges.get(name),
            sample=meaning.sample,
            direction=better,
            pairs=tuple(order[: len(joined[name][0])].tolist() if in_blocks else range(len(joined[name][0]))),
            looks=planned.looks,
            caption=meaning.caption,
            axis=meaning.axis,
            summary="mean" if name in meaning.by_mean else meaning.summary,
            family=meaning.family,
            missing=tuple(sorted(missing)),
            failed=reason_of(planned, results) if missing else "",
            may_lack_points=meaning.may_lack_points,
            control=planned.control,
            knows=planned.knows,
            draw_of=planned.draw_of,
            twin_of=planned.twin_of,
            opposite=meaning.opposite,
            value_unit=meaning.value_units.get(name, ""),
        )
        for name, better in meaning.direction.items()
    ]


def reason_of(planned: KeptCurve, results: Results) -> str:
    """Return why a task of a curve failed; "" if none did."""
    if not results.failed:
        return ""
    keys = (key for repeat in planned.repeats for point in repeat for key in point.values())
    return next((results.failed[key] for key in keys if key in results.failed and key not in results), "")


def finished(planned: KeptCurve, results: Results, *, in_blocks: bool) -> int:
    """Return how many blocks, or how many repeats, belong to the finished rounds of a curve that is measured in rounds.

    Repeats count up to the last look that they reach. Before the first look all count.
    """
    whole = ({key for keys in repeat for key in keys.values()} for repeat in planned.repeats)
    done = sum(1 for _ in itertools.takewhile(lambda keys: all(key in results for key in keys), whole))
    looks = () if in_blocks or planned.looks is None else planned.looks.after
    return max((look for look in looks if look <= done), default=done)


def accuracy_curve(right: np.ndarray) -> Curve:
    """Return the accuracy of the network as a curve of one point. right: for each test image, 1 or 0."""
    return Curve(
        *(ACCURACY, ACCURACY, "network", (0.0,), right[:, None], "images", "higher"),
        pairs=tuple(range(len(right))),
        caption="The share of the test images that the network classifies right.",
        axis="",
        family="network",
        bounds=(0.0, 1.0),
    )


def _repeated(rows: list[list[np.ndarray]]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the mean of each repeat at each point, and the values of the images where they are known."""
    images = max(len(values) for row in rows for values in row)
    means = np.array([[_mean(values) for values in row] for row in rows])
    if images == 1:
        return means, None
    whole = [[values if len(values) == images else np.full(images, np.nan) for values in row] for row in rows]
    return means, np.array(whole, dtype=np.float32)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean(dtype=np.float64)) if len(known) else float("nan")


def _stacked(rows: list[list[np.ndarray]]) -> tuple[np.ndarray, None]:
    """Return the samples of all repeats by points; a point that lacks samples is NaN."""
    blocks = []
    for row in rows:
        samples = max(map(len, row))
        blocks.append(np.stack([values if len(values) == samples else np.full(samples, np.nan) for values in row], 1))
    return np.concatenate(blocks).astype(np.float64), None


def _value(meaning: KeptMetric, value: Value, keys: Mapping[str, str], results: Results, kept: Kept) -> Any:
    """The metric's values at a point; None while one of its probes has no result."""
    known = (meaning.name, *keys.values())
    if known in kept:
        return kept[known]
    if not all(key in results for key in keys.values()):
        return None
    files = f"{results.folder}/scores/{', '.join(f'{key}.npz' for key in keys.values())}"
    try:
        scores = {name: results.score(key) for name, key in keys.items()}
    except BrokenSealError as error:
        raise ValueError(
            f"metrics.{meaning.name}: its values cannot be put together from {files} ({error}); delete these files and "
            "measure again"
        ) from error
    return kept.setdefault(known, valued(meaning.name, meaning, value, scores, files))
