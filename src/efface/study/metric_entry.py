"""Entry of a metric in a study, and its settings. They are checked while they are read."""

import difflib
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from efface.metrics import Metric, metric, own_settings
from efface.metrics.formula import Better
from efface.plug import moved, words
from efface.plug.call import Call
from efface.plug.field import Word
from efface.plug.strict import Strict
from efface.study.schema import MOST, Fraction, ImputerCall, Name, Post, UnitCall


class MetricSettings(BaseModel):
    """Settings of one metric: those that every metric may have, and the metric's own.

    A shared setting that is left out has the study's value.

    log_points: in place of `fractions`, as many numbers of removed units from 1 to all of them, evenly spaced in their
        logarithm and rounded. No unit and all units are added, and equal numbers count once.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    imputer: ImputerCall | None = None
    fractions: tuple[Fraction, ...] | None = Field(default=None, min_length=1)
    log_points: Annotated[int, Field(ge=2, le=MOST)] | None = None
    unit: UnitCall | None = None
    post: Post | None = None
    repeats: Annotated[PositiveInt, Field(le=MOST)] | None = None


class MetricEntry(Strict):
    """A metric with its settings.

    name: name of the metric in the report, and its short word unless `metric` is given.
    metric: short word or dotted path of a Metric.
    kwargs: settings of the metric.
    judge_by: score that verdicts, ranks and decisions use; default: the metric's first.
    across: lists of values of settings. The entry then stands for one entry at each combination of them.
    setting_of: name of the entry with `across` that this entry comes from. efface sets it.
    """

    name: Name
    metric: Annotated[str, Word("metric")] | None = None
    kwargs: MetricSettings = MetricSettings()
    judge_by: str | None = None
    across: dict[str, list[Any]] | None = None
    setting_of: Name | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        tree = {"name": value} if isinstance(value, str) else value
        if isinstance(tree, dict) and isinstance(given := tree.get("kwargs"), dict):
            name = str(tree.get("metric") or tree.get("name"))
            return tree | {"kwargs": moved.settings(name, given, lambda: own_settings(name))}
        return tree

    @cached_property
    def formula(self) -> Metric:
        """The metric itself, with its own settings."""
        return metric(self.metric or self.name, self.kwargs.model_extra)

    @cached_property
    def direction(self) -> Mapping[str, Better]:
        """The direction of each score, the score that judges first."""
        known = self.formula.direction
        return known if self.judge_by is None else {self.judge_by: known[self.judge_by], **known}

    @property
    def path(self) -> str:
        """The dotted path of the metric."""
        return words.expand("metric", self.metric or self.name)

    def is_of(self, name: str) -> bool:
        """Return whether this is the metric of this short name or path. The entry's own name does not count."""
        return self.path == words.expand("metric", name)

    def opposes(self, other: "MetricEntry") -> bool:
        """Return whether the other metric erases in the opposite order, with the same settings."""
        return bool(self.formula.opposite) and other.is_of(self.formula.opposite) and self.kwargs == other.kwargs

    @cached_property
    def paper(self) -> MetricSettings:
        """Settings that the paper of the metric fixes."""
        return MetricSettings.model_validate(dict(self.formula.defaults))

    def __getstate__(self) -> dict[Any, Any]:
        """Return the fields alone. Another process builds the formula from them, for its functions do not pickle."""
        state = super().__getstate__()
        plain = {name: value for name, value in state["__dict__"].items() if name in type(self).model_fields}
        return state | {"__dict__": plain}

    @model_validator(mode="after")
    def _exists(self) -> "MetricEntry":
        if self.across is not None:
            raise ValueError("across: it stands for several entries, which only the metrics of a study have")
        own = own_settings(self.metric or self.name)
        for unknown in sorted(set(self.kwargs.model_extra or {}) - set(own)):
            known = [*MetricSettings.model_fields, *own]
            close = difflib.get_close_matches(unknown, known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known)}"
            raise ValueError(f"kwargs.{unknown}: unknown key; {hint}")
        self._refuse_unread()
        if self.kwargs.repeats is not None and self.formula.sample != "repeats":
            raise ValueError(
                "kwargs.repeats: this metric has a score for each image and no trainings to repeat; drop the setting"
            )
        if self.judge_by is not None and self.judge_by not in self.formula.direction:
            scores = ", ".join(self.formula.direction)
            raise ValueError(f"judge_by: the metric has no score '{self.judge_by}'; it has {scores}")
        assert self.paper is not None  # raises if the metric, or a setting that it fixes, does not exist
        return self

    def _refuse_unread(self) -> None:
        """Raise ValueError for a setting of the entry that would change no number."""
        formula, given, own = self.formula, self.kwargs, self.kwargs.model_extra or {}
        if given.fractions is not None and formula.point_settings:
            raise ValueError(
                f"kwargs.fractions: the axis of this metric is {formula.axis}, not a fraction; set "
                f"{formula.point_settings} instead"
            )
        if given.fractions is not None and not formula.axis:
            raise ValueError(
                "kwargs.fractions: this metric is one number without points at fractions; drop the setting"
            )
        if given.log_points is not None and not formula.erases:
            axis = f"the axis of this metric is {formula.axis}" if formula.axis else "this metric is one number"
            raise ValueError(f"kwargs.log_points: {axis}, with no fractions that are removed; drop the setting")
        if given.log_points is not None and formula.sample == "repeats":
            raise ValueError("kwargs.log_points: each point would cost trainings; list the fractions instead")
        if given.log_points is not None and given.fractions is not None:
            raise ValueError("kwargs.log_points: sets the points, and so does fractions; keep one of the two")
        beside = f" with {', '.join(f'{name}: {value}' for name, value in own.items())}" if own else ""
        for name in ("imputer", "unit", "post"):
            if getattr(given, name) is not None and name not in formula.uses:
                raise ValueError(
                    f"kwargs.{name}: the metric '{self.metric or self.name}'{beside} does not read it, so its numbers "
                    "would stay the same; drop the setting"
                )
        if isinstance(given.unit, Call) and "groups" not in formula.uses:
            raise ValueError(
                f"kwargs.unit: the metric '{self.metric or self.name}'{beside} needs single values; found "
                f"{given.unit.call}, which forms units of several pixels; expected pixel or feature"
            )
