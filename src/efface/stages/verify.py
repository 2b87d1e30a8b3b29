"""Stage verify: compute a random sample of published numbers again, and compare.

A folder of published studies has a folder for each. It holds `study.yml`, `results.parquet` (a line for each number),
`origin.json` (where the numbers come from), and `network.pt` if the network is small.
"""

import json
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from efface.report.panels import panels
from efface.report.paper import numbers
from efface.stages.run.curves import planned_run
from efface.stages.run.progress import say
from efface.stages.run.run import Run
from efface.stages.run.runs import working
from efface.stages.work.measuring import measure_missing
from efface.stages.work.steps import extracted
from efface.study.study import Study, read
from efface.study.yaml_file import InvalidStudyError, load

STUDY, RESULTS, ORIGIN, NETWORK = "study.yml", "results.parquet", "origin.json", "network.pt"
TOLERANCE = 1e-4
"""Largest difference of a number of a network that is not trained again, relative to its size if it is above 1."""
_WHAT = ["metric", "score", "method", "kind", "at"]
_COLUMNS = {*_WHAT, "value", "low", "high", "over"}


class Number(NamedTuple):
    """A published number: its study, what it is, its value, and its interval. trained: networks were trained for it."""

    study: str
    metric: str
    score: str
    method: str
    kind: str
    at: float
    value: float
    low: float
    high: float
    trained: bool

    def agrees(self, value: float) -> bool:
        """Return whether a number that was computed again is this one.

        It must lie within the interval if networks were trained for it, and else within `TOLERANCE`.
        """
        if self.trained:
            return bool(self.low <= value <= self.high)
        return bool(abs(value - self.value) <= TOLERANCE * max(1.0, abs(self.value)))

    def said(self) -> str:
        """Return in words which number it is."""
        at = f" at {self.at:g}" if self.kind == "point" else ""
        return f"{self.study}: {self.metric}, {self.score.replace('_', ' ')} of {self.method}{at}"


@dataclass(frozen=True)
class Published:
    """A published study. study: as it is to be computed again. rows: its numbers."""

    name: str
    study: Study
    rows: tuple[Number, ...]


def verify(folder: Path, *, rows: int, seed: int, facts: dict[str, Any] | None = None) -> None:
    """Compute a random sample of the numbers in a folder of published studies again, and say which differ.

    Studies whose data or weights are not here are left out and counted. A study whose stored files cannot be read, or
    that fails, is named at the end, after the others are compared.

    rows: size of the sample. seed: of the sample. facts: gets the same as plain values: `checked` and `left_out`.

    ValueError: numbers differ; a study fails, or a stored file of it cannot be read; or the folder has no published
    study, or none whose data are here.
    """
    facts = {} if facts is None else facts
    names = sorted(each.parent.name for each in folder.glob(f"*/{RESULTS}") if (each.parent / STUDY).is_file())
    if not names:
        raise ValueError(f"{folder}: has no published study, which is a folder with {STUDY} and {RESULTS}")
    with tempfile.TemporaryDirectory(prefix="efface-verify-") as work:
        found, left, broken = _published(folder, names, Path(work))
        for name, (count, why) in left.items():
            say(f"left out: {count:,} numbers of {name}: {why}")
        if not found:
            why = "; ".join(broken.values()) or "see the lines above"
            raise ValueError(f"{folder}: no study can be computed again here: {why}")
        every = _numbers_of(found, folder)
        chosen = random.Random(seed).sample(every, min(rows, len(every)))  # noqa: S311  no secret
        say(f"{len(chosen)} of {len(every):,} numbers are computed again, chosen by seed {seed}")
        again: dict[Number, float] = {}
        for one in found:
            if asked := [number for number in chosen if number.study == one.name]:
                try:
                    again |= _again(_narrowed(one.study, asked), asked)
                except (OSError, ValueError) as error:
                    broken[one.name] = f"{folder / one.name}: {error}"
    chosen = [number for number in chosen if number.study not in broken]
    facts["left_out"] = {name: {"numbers": count, "why": why} for name, (count, why) in left.items()}
    facts["checked"] = [
        number._asdict() | {"again": _plain(again.get(number)), "agrees": _agrees(number, again)} for number in chosen
    ]
    for number in chosen:
        say(_line(number, again.get(number, np.nan)))
    wrong = [number for number in chosen if not _agrees(number, again)]
    say(f"{len(chosen) - len(wrong)} of {len(chosen)} agree")
    said = [f"{len(wrong)} of {len(chosen)} numbers differ; the lines above say which"] if wrong else []
    if said := [*said, *broken.values()]:
        raise ValueError("\nefface: ".join(said))


def _published(
    folder: Path, names: Sequence[str], work: Path
) -> tuple[list[Published], dict[str, tuple[int, str]], dict[str, str]]:
    """Return the studies; those that are left out, with their count of numbers and the reason; and unreadable ones."""
    found, left, broken = list[Published](), dict[str, tuple[int, str]](), dict[str, str]()
    for name in names:
        try:
            stored, origin = _table(folder / name / RESULTS), _origin(folder / name / ORIGIN)
            _check_is_tree(folder / name / STUDY)
        except ValueError as error:
            broken[name] = str(error)
            continue
        try:
            study = _study(folder / name, work / name, origin)
            found.append(Published(name, study, tuple(_numbers(name, stored, study))))
        except (InvalidStudyError, OSError, ValueError) as error:
            left[name] = len(stored), str(error).replace("\n", "; ")
    return found, left, broken


def _check_is_tree(path: Path) -> None:
    if not isinstance(load(path), dict):
        raise ValueError(f"{path}: holds no study; expected keys like 'data:' and 'model:'")


def _numbers_of(found: Sequence[Published], folder: Path) -> list[Number]:
    """Return the numbers of all studies. ValueError: there is none."""
    every = [number for one in found for number in one.rows]
    if not every:
        raise ValueError(
            f"{folder}: has no number that can be computed again; expected a frozen metric, or a retrained one with "
            "intervals: publish a study with such numbers"
        )
    return every


def _line(number: Number, again: float) -> str:
    published = f"{number.value:.6g}"
    if number.trained:
        published += f" [{number.low:.4g}, {number.high:.4g}]"
    word = "agrees" if number.agrees(again) else "differs"
    return f"{word}: {number.said()}: {published} published, {again:.6g} here"


def _table(path: Path) -> pd.DataFrame:
    """Return the numbers of a file. ValueError: it is none of efface's, or pyarrow is not installed."""
    try:
        table = pd.read_parquet(path, engine="pyarrow")
    except ImportError as error:
        raise ValueError(f"{path}: to read it, install pyarrow: pip install 'efface[parquet]'") from error
    except Exception as error:  # whatever pyarrow raises for bytes that are no Parquet
        raise ValueError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from error
    if missing := sorted(_COLUMNS - {*table.columns}):
        raise ValueError(f"{path}: has no column {missing[0]}; expected results.parquet of a report")
    if wrong := [name for name in ("at", "value", "low", "high") if not pd.api.types.is_float_dtype(table[name])]:
        raise ValueError(f"{path}: column {wrong[0]} has no numbers; expected results.parquet of a report")
    return table


def _numbers(name: str, table: pd.DataFrame, study: Study) -> Iterator[Number]:
    """Yield the numbers that can be computed again: points, and of networks that are not trained summaries too."""
    trains = {entry.name: entry.formula.sample == "repeats" or entry.formula.needs_fit for entry in study.metrics}
    rows = set(study.map_names()) | {"network"}
    for line in table.to_dict("records"):
        if line["metric"] not in trains or line["method"] not in rows or line["kind"] not in ("point", "summary"):
            continue
        trained = trains[line["metric"]]
        known = [line["value"], *([line["low"], line["high"]] if trained else [])]
        if np.isnan(known).any() or (trained and line["kind"] == "summary" and len(_points(study, line["metric"])) > 1):
            continue
        fields = {key: line[key] for key in (*_WHAT, "value", "low", "high")}
        yield Number(study=name, trained=trained, **fields)


def _points(study: Study, metric: str) -> tuple[float, ...]:
    entry = next(each for each in study.metrics if each.name == metric)
    return (entry.kwargs.fractions or study.fractions) if entry.formula.axis else (0.0,)


def _study(folder: Path, out: Path, origin: Mapping[str, Any]) -> Study:
    """Return a published study, to be computed again in another folder. ValueError: its data are not those."""
    own = [f"out={json.dumps(str(out))}"]
    if (folder / NETWORK).is_file():
        own.append(f"weights={json.dumps(str(folder / NETWORK))}")
    study = read(folder / STUDY, own)
    if study.variants or study.seeds:
        raise ValueError(f"{folder / STUDY}: has variants or seeds; only a study of one run is verified")
    for file in (study.weights, study.model.kwargs.get("weights")):
        if isinstance(file, Path | str) and Path(file).suffix and not Path(file).is_file():
            raise ValueError(f"its weights are not here: there is no file {file}")
    if origin.get("data") not in (None, Run(study).data_digest):
        raise ValueError("its images here are others than the published ones")
    return study


def _origin(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a table of facts, found {type(found).__name__}")
    return found


def _narrowed(study: Study, asked: Sequence[Number]) -> Study:
    """Return the study with what these numbers need: their metrics, methods and points."""
    tree = study.model_dump(mode="json", exclude_none=True)
    for key in ("claims", "controls", "reference", "decide"):
        tree.pop(key, None)
    methods = {number.method for number in asked}
    sources = {each.get("maps") for each in tree["attribution_methods"] if each["name"] in methods}
    kept = [
        each for each in tree["attribution_methods"] if {each["name"], *each.get("outputs", ())} & {*methods, *sources}
    ]
    tree["attribution_methods"] = kept or tree["attribution_methods"][:1]
    tree["metrics"] = [each for each in tree["metrics"] if each["name"] in {number.metric for number in asked}]
    entries = {entry.name: entry for entry in study.metrics}
    for each in tree["metrics"]:
        own = [number for number in asked if number.metric == each["name"]]
        formula = entries[each["name"]].formula
        if formula.axis and formula.points_for is None and all(number.kind == "point" for number in own):
            each.setdefault("kwargs", {})["fractions"] = sorted({number.at for number in own} - {0.0}) or [1.0]
    return Study.model_validate(tree)


def _again(study: Study, asked: Sequence[Number]) -> dict[Number, float]:
    """Return the numbers that this study gives here."""
    study.out.mkdir(parents=True, exist_ok=True)
    with working(study, ()) as runs:
        whole, failures = extracted(study, runs)
        for run in whole:
            planned = planned_run(run)
            failures += measure_missing(planned)
            table = numbers(panels(planned_run(run).curves, study.references()))
    if failures:
        raise ValueError(f"{asked[0].study}: {'; '.join(failures)}")
    found = {_key(*(line[name] for name in _WHAT)): float(line["value"]) for line in table.to_dict("records")}
    return {each: found[key] for each in asked if (key := _key(*each[1:6])) in found}


def _key(metric: str, score: str, method: str, kind: str, at: float) -> tuple[str, str, str, str, float | None]:
    return metric, score, method, kind, None if np.isnan(at) else round(float(at), 9)


def _agrees(number: Number, again: Mapping[Number, float]) -> bool:
    return number in again and number.agrees(again[number])


def _plain(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else value
