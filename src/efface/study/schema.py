"""Entries of a study: methods, metrics, a second network and claims. Each is checked while it is read."""

import difflib
import inspect
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    PrivateAttr,
    field_serializer,
    field_validator,
    model_validator,
)

from efface.methods.calling import check_method, is_class
from efface.methods.control import is_control, is_random
from efface.metrics import Metric, metric, own_settings
from efface.plug import moved
from efface.plug.call import Call, bound, settings_by_path, settings_by_word
from efface.plug.field import Word, writes_words
from efface.plug.learning import is_learning
from efface.training.loop import TrainingSettings
from efface.types import Seeds, Unit

Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=80)]
Post = tuple[Annotated[Call, Word("post"), bound("maps")], ...]
ImputerCall = Annotated[Call, Word("imputer"), bound("images", "removed", offered=("mean", "seeds"))]


_AROUND = "efface.methods.nested.FittedInner"


def _unit(value: object) -> object:
    """Keep a word that means no function. Check anything else as a call, so that there is only one message."""
    if value in get_args(Unit) or not isinstance(value, str | dict | Call):
        return value
    call = value if isinstance(value, Call) else Call.model_validate(value)
    call.check(("images",))
    return call


UnitCall = Annotated[Unit | Call, BeforeValidator(_unit), Word("unit", get_args(Unit))]


class Strict(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MethodEntry(Strict):
    """An attribution method, or a second view (`maps:`) of another entry's maps with a `post` of its own.

    method: a callable `(model, images, targets, **kwargs) -> maps`.
    kwargs: settings of the method.
    batched: False for a method `(model, image, label, **kwargs)` that takes one image at a time.
    outputs: names of the maps, for a method that returns a dict of maps.
    network: `second` for maps of the study's second network. These maps then rank the pixels that the first network
        loses. The class stays the one that is explained for the first network.
    draws: number of times that the maps are computed, each time with other seeds, at least 1. The differences show how
        much a random method varies. Each draw costs a whole extraction, and its own trainings if a metric retrains.
    maps: name of the entry that this one is a second view of.
    post: functions that process the maps before they are used.
    """

    name: Name
    method: Annotated[str, Word("method")] | None = None
    kwargs: dict[str, Any] = {}
    batched: bool = True
    outputs: tuple[Name, ...] = ()
    network: Literal["second"] | None = None
    draws: PositiveInt = 1
    maps: str | None = None
    post: Post | None = None
    _draw: int = PrivateAttr(default=1)
    _first: "MethodEntry | None" = PrivateAttr(default=None)

    @property
    def draw(self) -> int:
        """Number of this draw of the maps, from 1."""
        return self._draw

    def each_draw(self) -> list["MethodEntry"]:
        """Return an entry for each draw of the maps: this entry, then NAME~2, NAME~3, ..."""
        found = [self]
        for number in range(2, self.draws + 1):
            names = {"name": f"{self.name}~{number}", "outputs": tuple(f"{each}~{number}" for each in self.outputs)}
            entry = self.model_copy(update=names)
            entry._draw, entry._first = number, self  # noqa: SLF001  of its own class
            found.append(entry)
        return found

    @property
    def call(self) -> Call:
        """The method with its settings. If a setting is a learning method, the function is wrapped to be fitted."""
        plain = self._plain
        if is_class(plain) or not plain.learns:
            return plain
        return Call(call=_AROUND, kwargs={"method": plain.model_dump()} | ({} if self.batched else {"batched": False}))

    @property
    def learns(self) -> bool:
        """True if the method learns from training images before it computes maps."""
        return is_class(self.call) and is_learning(self.call)

    @property
    def undrawn(self) -> "MethodEntry":
        """The entry of the first draw: this entry itself, or the one that it repeats with other seeds."""
        return self._first or self

    @property
    def is_control(self) -> bool:
        """True if the method is marked as a control, see `efface.methods.control.control`."""
        return self.method is not None and is_control(self._plain)

    @property
    def is_random(self) -> bool:
        """True if the method is a random control, which the other methods are compared with."""
        return self.method is not None and is_random(self._plain)

    @property
    def is_redrawn(self) -> bool:
        """True if the method returns seeds, so that its ranking is drawn anew in each epoch of a training."""
        if self.method is None:
            return False
        try:
            return inspect.signature(self._plain.resolve()).return_annotation is Seeds
        except (ValueError, TypeError):  # some callables have no signature
            return False

    @property
    def _plain(self) -> Call:
        assert self.method is not None
        return Call(call=self.method, kwargs=self.kwargs)

    @property
    def gives(self) -> tuple[str, ...]:
        """Names of the maps that the entry yields."""
        return self.outputs or (self.name,)

    @field_validator("kwargs")
    @classmethod
    def _by_path(cls, kwargs: dict[str, Any], info: Any) -> dict[str, Any]:
        return settings_by_path(info.data.get("method") or "", kwargs)

    @field_serializer("kwargs")
    def _by_word(self, kwargs: dict[str, Any], info: Any) -> dict[str, Any]:
        return settings_by_word(self.method or "", kwargs) if writes_words(info) else kwargs

    @model_validator(mode="after")
    def _is_callable(self) -> "MethodEntry":
        if (self.method is None) == (self.maps is None):
            raise ValueError("give either 'method' (a word or a dotted path) or 'maps' (the name of another entry)")
        if self.maps is not None and (
            self.kwargs or self.outputs or self.network or self.draws > 1 or self.post is None
        ):
            raise ValueError("a view of another entry's maps takes 'post' and no other key")
        if self.method is not None:
            check_method(self._plain, batched=self.batched)
        return self


class MetricSettings(BaseModel):
    """Settings of one metric: those that every metric may have, and the metric's own.

    A shared setting that is left out has the study's value.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    imputer: ImputerCall | None = None
    fractions: tuple[Fraction, ...] | None = Field(default=None, min_length=1)
    unit: UnitCall | None = None
    post: Post | None = None
    repeats: PositiveInt | None = None


class MetricEntry(Strict):
    """A metric with its settings.

    name: name of the metric in the report, and its short word unless `metric` is given.
    metric: short word or dotted path of a Metric.
    kwargs: settings of the metric.
    """

    name: Name
    metric: Annotated[str, Word("metric")] | None = None
    kwargs: MetricSettings = MetricSettings()

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


class SecondNetwork(Strict):
    """A second network. It classifies samples of the first network, or provides maps that rank its pixels.

    model: the network.
    fit: settings of its training on the study's training images; by default those of the first network, without
        attack and regularizers.
    weights: a state-dict file to load in place of a training.
    seed: seed of its training; by default drawn from the study's seed.
    folder: folder that holds the network, so that several studies can share it; by default the study's own.
    """

    model: Annotated[Call, Word("model"), bound()]
    fit: TrainingSettings | None = None
    weights: Path | None = None
    seed: NonNegativeInt | None = None
    folder: Path | None = None


class Side(Strict):
    """One side of a claim: the maps of a method in a variant.

    variant: may be left out if the study has no variants.
    method: may be left out if the study has only one, or if the metric measures the network.
    """

    variant: str = ""
    method: str = ""


class Claim(Strict):
    """A sentence that the study's numbers support or not: `more` is higher than `less` on a metric.

    says: the sentence.
    source: publication that claims it.
    published: figures of that publication.
    metric: a metric of the study, or `accuracy` for the accuracy of the network.
    score: a score of the metric; by default its first score.
    at: a point of the metric's axis; by default the area of the curve, or the metric's only number.
    more: a variant and a method, or a number.
    less: a variant and a method, or a number.
    """

    says: str
    source: str = ""
    published: str = ""
    metric: str
    score: str = ""
    at: float | None = None
    more: Side | float
    less: Side | float


class Visualize(Strict):
    """Settings of the stage `visualize`.

    count: number of test images, evenly spaced over the test rows, at least 1.
    rows: row numbers of the test images to show; replaces `count`.
    percentile: percentile of a map's magnitudes at which its colours saturate, in (0, 100].
    noise: standard deviation of the noise that is added to an image, in units of [0, 1].
    steps: steps of the optimizer that removes the noise, at least 1.
    lr: learning rate of that optimizer, above 0.
    """

    count: PositiveInt = 9
    rows: tuple[NonNegativeInt, ...] | None = Field(default=None, min_length=1)
    percentile: Annotated[float, Field(gt=0, le=100)] = 99.0
    noise: Annotated[float, Field(ge=0)] = 0.1
    steps: PositiveInt = 200
    lr: Annotated[float, Field(gt=0)] = 0.01
