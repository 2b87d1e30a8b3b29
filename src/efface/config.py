"""Study: one YAML file, read safely, checked whole before any work.

Every path is imported and every kwarg bound while the file is read, so all that is wrong is said at once.
"""

import difflib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from efface.call import Call, bound
from efface.fit import Fit
from efface.generate import Sampling
from efface.methods.contract import check_method
from efface.metrics import Metric, metric, own_settings
from efface.tree import InvalidStudyError, load, override, reference_form
from efface.types import Unit

Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=80)]
Post = tuple[Annotated[Call, bound("maps")], ...]
ImputerCall = Annotated[Call, bound("images", "removed", offered=("mean", "seeds"))]


_GROUPS = ("patch", "superpixel")


def _unit(value: object) -> object:
    """`patch` is short for efface.units.patch; what is no unit of ours is a call, checked here to give one message."""
    if value in get_args(Unit) or not isinstance(value, str | dict | Call):
        return value
    call = value if isinstance(value, Call) else Call.model_validate(value)
    if "." not in call.call:
        if call.call not in _GROUPS:
            known = ", ".join((*get_args(Unit), *_GROUPS))
            raise ValueError(f"'{call.call}' is no unit; there are {known}, or the dotted path of a function of images")
        call = Call(call=f"efface.units.{call.call}", kwargs=call.kwargs)
    call.check(("images",))
    return call


UnitCall = Annotated[Unit | Call, BeforeValidator(_unit)]


def _word(value: object) -> object:
    """YAML reads the word true as a truth value."""
    return {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value


class Strict(BaseModel):
    """Frozen, and no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MethodEntry(Strict):
    """An attribution method, or a second view (`maps:`) of another entry's maps with a `post` of its own.

    method, kwargs: a callable `(model, images, targets, **kwargs) -> maps`.
    batched: false for `(model, image, label, **kwargs)`, one image at a time.
    outputs: names of the maps of a method that returns a dict of them.
    draws: how many times the maps of a method that draws are made, each time from other seeds: what differs between
        them is the method's own chance. Each costs a whole extraction, and its own trainings where one retrains.
    """

    name: Name
    method: str | None = None
    kwargs: dict[str, Any] = {}
    batched: bool = True
    outputs: tuple[Name, ...] = ()
    draws: PositiveInt = 1
    maps: str | None = None
    post: Post | None = None
    _draw: int = PrivateAttr(default=1)

    @property
    def draw(self) -> int:
        """Which draw of its maps this is, from 1."""
        return self._draw

    def each_draw(self) -> list["MethodEntry"]:
        """An entry for each draw of the maps: this one, and NAME~2, NAME~3, ..."""
        found = [self]
        for number in range(2, self.draws + 1):
            names = {"name": f"{self.name}~{number}", "outputs": tuple(f"{each}~{number}" for each in self.outputs)}
            entry = self.model_copy(update=names)
            entry._draw = number  # noqa: SLF001  of its own class
            found.append(entry)
        return found

    @property
    def call(self) -> Call:
        """The method with its settings."""
        assert self.method is not None
        return Call(call=self.method, kwargs=self.kwargs)

    @property
    def gives(self) -> tuple[str, ...]:
        """The names of its maps."""
        return self.outputs or (self.name,)

    @model_validator(mode="after")
    def _is_callable(self) -> "MethodEntry":
        if (self.method is None) == (self.maps is None):
            raise ValueError("give either 'method' (a dotted path) or 'maps' (the name of another entry)")
        if self.maps is not None and (self.kwargs or self.outputs or self.draws > 1 or self.post is None):
            raise ValueError("a view of another entry's maps has 'post' and nothing else")
        if self.method is not None:
            check_method(self.call, batched=self.batched)
        return self


class MetricSettings(BaseModel):
    """What every metric may set for itself (what it leaves out is the study's), and its own settings beside."""

    model_config = ConfigDict(frozen=True, extra="allow")
    imputer: ImputerCall | None = None
    fractions: tuple[Fraction, ...] | None = Field(default=None, min_length=1)
    unit: UnitCall | None = None
    post: Post | None = None
    repeats: PositiveInt | None = None


class MetricEntry(Strict):
    """A metric by its name, or by `metric:`, the dotted path of a Metric, with settings of its own."""

    name: Name
    metric: str | None = None
    kwargs: MetricSettings = MetricSettings()

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @cached_property
    def formula(self) -> Metric:
        """The metric itself, with its own settings."""
        return metric(self.metric or self.name, self.kwargs.model_extra)

    @cached_property
    def paper(self) -> MetricSettings:
        """What the metric's own paper fixes."""
        return MetricSettings.model_validate(dict(self.formula.defaults))

    def __getstate__(self) -> dict[Any, Any]:
        """What another process needs to make the formula anew: its functions do not pickle."""
        state = super().__getstate__()
        plain = {name: value for name, value in state["__dict__"].items() if name in type(self).model_fields}
        return state | {"__dict__": plain}

    @model_validator(mode="after")
    def _exists(self) -> "MetricEntry":
        own = own_settings(self.metric or self.name)
        for unknown in sorted(set(self.kwargs.model_extra or {}) - set(own)):
            known = [*MetricSettings.model_fields, *own]
            close = difflib.get_close_matches(unknown, known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known)}"
            raise ValueError(f"kwargs.{unknown}: unknown key; {hint}")
        if self.kwargs.fractions is not None and not self.formula.axis:
            raise ValueError("kwargs.fractions: this metric is one number, it has no points at fractions; drop it")
        if self.kwargs.repeats is not None and self.formula.over != "repeats":
            raise ValueError("kwargs.repeats: this metric has a score of each image, no trainings to repeat; drop it")
        assert self.paper is not None  # raises where the metric, or a setting that it fixes, does not exist
        return self


class Visualize(Strict):
    """What the stage `visualize` shows.

    rows: test rows; or count of them, evenly spaced over the test images.
    percentile: of a map's magnitudes, where its colours end.
    noise: standard deviation of that which is added to an image, in units of [0, 1]; steps, lr: how it is taken away.
    """

    count: PositiveInt = 9
    rows: tuple[NonNegativeInt, ...] | None = Field(default=None, min_length=1)
    percentile: Annotated[float, Field(gt=0, le=100)] = 99.0
    noise: Annotated[float, Field(ge=0)] = 0.1
    steps: PositiveInt = 200
    lr: Annotated[float, Field(gt=0)] = 0.01


class Study(Strict):
    """One study, as its file says it. docs/studies.md explains each key."""

    out: Path
    data: Annotated[Call, bound()]
    model: Annotated[Call, bound()]
    weights: Path | None = None
    fit: Fit | None = None
    explain: Annotated[Literal["predicted", "true"], BeforeValidator(_word)] = "predicted"
    attribution_methods: tuple[MethodEntry, ...] = Field(min_length=1)
    post: Post = ()
    imputer: ImputerCall = Call(call="efface.impute.channel_mean")
    metrics: tuple[MetricEntry, ...] = ()
    samples: Sampling = Sampling()
    visualize: Visualize = Visualize()
    unit: UnitCall = "pixel"
    fractions: tuple[Fraction, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    repeats: PositiveInt = 3
    executor: Annotated[Call, bound("work", "tasks", offered=("progress",))] = Call(call="efface.execute.processes")
    seed: NonNegativeInt = 0
    device: str = "auto"
    rows: PositiveInt = 256
    memory_gb: Annotated[float, Field(ge=0)] = 2.0

    @model_validator(mode="after")
    def _agrees(self) -> "Study":
        if problems := _disagreements(self.model_dump()):
            raise ValueError("\n".join(problems))
        return self

    def map_names(self) -> list[str]:
        """Every row of the report: maps and views of maps."""
        return [name for each in self.attribution_methods for name in each.gives]

    def with_metrics(self, names: Sequence[str]) -> "Study":
        """This study with these metrics alone; those it does not list get its defaults."""
        listed = {each.name: each.model_dump() for each in self.metrics}
        tree = self.model_dump() | {"metrics": [listed.get(name, {"name": name}) for name in names]}
        try:
            return Study.model_validate(tree)
        except ValidationError as error:
            lines = dict.fromkeys(line for each in error.errors() for line in _explain(each, tree))
            raise InvalidStudyError("\n".join(f"--metrics: {line}" for line in lines)) from None


def read(path: Path, overrides: Sequence[str] = ()) -> Study:
    """A study from its file and `key=value` overrides (`fit.epochs=2`). InvalidStudyError lists all that is wrong."""
    tree = load(path)
    for each in overrides:
        override(tree, each, path)
    return check(tree, path)


def check(tree: Any, path: Path) -> Study:
    """A study from what its file held."""
    if not isinstance(tree, dict):
        raise InvalidStudyError(f"{path}: holds a {type(tree).__name__}, expected keys like 'data:' and 'model:'")
    if old := reference_form(tree):
        raise InvalidStudyError(f"{path}: {old}")
    tree = {key: value for key, value in tree.items() if not str(key).startswith("x-")}
    try:
        return Study.model_validate(tree)
    except ValidationError as error:
        lines = [line for each in error.errors() for line in _explain(each, tree)] + _disagreements(tree)
        raise InvalidStudyError("\n".join(f"{path}: {line}" for line in dict.fromkeys(lines))) from None


def dump(study: Study) -> str:
    """The study as YAML, every default written out."""
    return yaml.safe_dump(study.model_dump(mode="json", exclude_none=True), sort_keys=False, width=120)


def _explain(error: Any, tree: Any) -> list[str]:
    """One problem in the user's words: where, what was found, what to do."""
    if (
        error["type"] == "too_short" and error["input"]
    ):  # entries that are wrong are said to be wrong, not to be missing
        return []
    names: list[tuple[Any, Any]] = []
    for part in error["loc"]:
        if isinstance(part, str) and part[:9] in ("function-", "union_tag"):
            continue
        here = _named(tree, names)
        entry = here[part] if isinstance(here, list) and isinstance(part, int) and part < len(here) else None
        names.append((entry.get("name", part) if isinstance(entry, dict) else part, part))
    where = ".".join(str(shown) for shown, _ in names)
    prefix = f"{where}: " if where else ""
    if error["type"] == "extra_forbidden":
        known = _known([str(part) for _, part in names[:-1]])
        close = difflib.get_close_matches(str(names[-1][0]), known, n=1)
        return [
            f"{prefix}unknown key; " + (f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known)}")
        ]
    if error["type"] == "missing":
        return [f"{prefix}missing; this key is needed"]
    if error["type"] in ("value_error", "assertion_error"):
        lines = str(error["ctx"]["error"]).splitlines()
        return [f"{where}.{line}" if line.startswith("kwargs.") else prefix + line for line in lines]
    found = error.get("input")
    shown = f"{found!r}" if not isinstance(found, dict | list) else f"a {type(found).__name__}"
    return [f"{prefix}{error['msg'][0].lower()}{error['msg'][1:]}, found {shown}"]


def _named(tree: Any, names: list[tuple[Any, Any]]) -> Any:
    for _, part in names:
        try:
            tree = tree[part]
        except (KeyError, IndexError, TypeError):
            return None
    return tree


def _known(path: list[str]) -> list[str]:
    """The keys that may stand at this place."""
    models: dict[str, type[BaseModel]] = {
        "fit": Fit,
        "attribution_methods": MethodEntry,
        "metrics": MetricEntry,
        "kwargs": MetricSettings,
        "samples": Sampling,
        "visualize": Visualize,
    }
    words = [part for part in path if not part.isdigit()]
    if not words:
        return list(Study.model_fields)
    return list(models.get(words[-1], Call).model_fields)


def _disagreements(tree: Any) -> list[str]:
    """What no single key shows: names that stand twice, views of nothing, retraining without `fit`."""
    methods = [each for each in _listed(tree, "attribution_methods") if isinstance(each, dict)]
    metrics = [each if isinstance(each, dict) else {"name": each} for each in _listed(tree, "metrics")]
    rows = [str(name) for each in methods for name in each.get("outputs") or [each.get("name")]]
    maps = [str(name) for each in methods if not each.get("maps") for name in each.get("outputs") or [each.get("name")]]
    problems = _doubled("attribution_methods", rows)
    problems += _doubled("metrics", [str(each.get("name")) for each in metrics])
    for each in methods:
        if each.get("maps") and each["maps"] not in maps:
            listed = ", ".join(maps) or "none"
            problems.append(
                f"attribution_methods.{each.get('name')}.maps: no entry '{each['maps']}'; there are {listed}"
            )
    for each in metrics if not tree.get("fit") else ():
        try:
            found = metric(str(each.get("metric") or each.get("name")))
        except ValueError:  # said elsewhere
            continue
        if found.over == "repeats" or found.needs_fit:
            name = each.get("name")
            problems.append(
                f"metrics.{name}: retrains the network, but the study has no 'fit'; add it, or drop the metric"
            )
    return problems


def _listed(tree: Any, key: str) -> list[Any]:
    found = tree.get(key)
    return list(found) if isinstance(found, list | tuple) else []


def _doubled(where: str, names: Sequence[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    return [f"{where}: the name '{name}' stands twice; every row of the report needs its own" for name in twice]
