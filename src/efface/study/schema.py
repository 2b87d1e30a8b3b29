"""What stands in a study: methods, metrics, a second network, each checked while it is read."""

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
from efface.plug import moved, words
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
    """A word that means no function is kept; anything else is a call, checked here to give one message."""
    if value in get_args(Unit) or not isinstance(value, str | dict | Call):
        return value
    call = value if isinstance(value, Call) else Call.model_validate(value)
    call.check(("images",))
    return call


UnitCall = Annotated[Unit | Call, BeforeValidator(_unit), Word("unit", get_args(Unit))]


class Strict(BaseModel):
    """Frozen, and no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MethodEntry(Strict):
    """An attribution method, or a second view (`maps:`) of another entry's maps with a `post` of its own.

    method, kwargs: a callable `(model, images, targets, **kwargs) -> maps`.
    batched: false for `(model, image, label, **kwargs)`, one image at a time.
    outputs: names of the maps of a method that returns a dict of them.
    network: `second_network` for maps of the study's second network, which then rank the pixels that the first one
        loses (the class is still the one that the first explains).
    draws: how many times the maps of a method that draws are made, each time from other seeds: what differs between
        them is the method's own chance. Each costs a whole extraction, and its own trainings where one retrains.
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
        """Which draw of its maps this is, from 1."""
        return self._draw

    def each_draw(self) -> list["MethodEntry"]:
        """An entry for each draw of the maps: this one, and NAME~2, NAME~3, ..."""
        found = [self]
        for number in range(2, self.draws + 1):
            names = {"name": f"{self.name}~{number}", "outputs": tuple(f"{each}~{number}" for each in self.outputs)}
            entry = self.model_copy(update=names)
            entry._draw, entry._first = number, self  # noqa: SLF001  of its own class
            found.append(entry)
        return found

    @property
    def call(self) -> Call:
        """The method with its settings; a function that is given methods that learn is made a class that does."""
        plain = self._plain
        if is_class(plain) or not plain.learns:
            return plain
        return Call(call=_AROUND, kwargs={"method": plain.model_dump()} | ({} if self.batched else {"batched": False}))

    @property
    def learns(self) -> bool:
        """Whether the method learns from training images before it makes maps."""
        return is_class(self.call) and is_learning(self.call)

    @property
    def undrawn(self) -> "MethodEntry":
        """The first draw of its maps: this one, or the entry that this one is another draw of."""
        return self._first or self

    @property
    def is_control(self) -> bool:
        """Whether the method is a control, whatever it is given: it says so, see `efface.methods.control.control`."""
        return self.method is not None and is_control(self._plain)

    @property
    def is_random(self) -> bool:
        """Whether the method is a control of chance, with which the others are compared."""
        return self.method is not None and is_random(self._plain)

    @property
    def is_redrawn(self) -> bool:
        """Whether the method says that it gives seeds: a ranking that is drawn anew each epoch of a training."""
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
        """The names of its maps."""
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
            raise ValueError("a view of another entry's maps has 'post' and nothing else")
        if self.method is not None:
            check_method(self._plain, batched=self.batched)
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

    @property
    def path(self) -> str:
        """The dotted path of the metric."""
        return words.expand("metric", self.metric or self.name)

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
        self._refuse_unread()
        if self.kwargs.repeats is not None and self.formula.sample != "repeats":
            raise ValueError("kwargs.repeats: this metric has a score of each image, no trainings to repeat; drop it")
        assert self.paper is not None  # raises where the metric, or a setting that it fixes, does not exist
        return self

    def _refuse_unread(self) -> None:
        """ValueError: a setting of its own that would change no number."""
        formula, given, own = self.formula, self.kwargs, self.kwargs.model_extra or {}
        if given.fractions is not None and formula.point_settings:
            raise ValueError(
                f"kwargs.fractions: the axis of this metric is {formula.axis}, not a fraction; set "
                f"{formula.point_settings} instead"
            )
        if given.fractions is not None and not formula.axis:
            raise ValueError("kwargs.fractions: this metric is one number, it has no points at fractions; drop it")
        beside = f" with {', '.join(f'{name}: {value}' for name, value in own.items())}" if own else ""
        for name in ("imputer", "unit", "post"):
            if getattr(given, name) is not None and name not in formula.uses:
                raise ValueError(
                    f"kwargs.{name}: the metric '{self.metric or self.name}'{beside} does not read it, its numbers "
                    "would be the same; drop it"
                )
        if isinstance(given.unit, Call) and "groups" not in formula.uses:
            raise ValueError(
                f"kwargs.unit: the metric '{self.metric or self.name}'{beside} takes each value by itself, found "
                f"{given.unit.call}, units of several pixels; expected pixel or feature"
            )


class SecondNetwork(Strict):
    """A second network: it judges samples of the first, or lends it maps.

    fit: how it is trained, on the study's own training images; by default as the first, without attack and
        regularizers.
    weights: a state-dict file instead. seed: of its training; by default drawn from the study's.
    folder: where it is kept, so that several studies have one; by default the study's own.
    """

    model: Annotated[Call, Word("model"), bound()]
    fit: TrainingSettings | None = None
    weights: Path | None = None
    seed: NonNegativeInt | None = None
    folder: Path | None = None


class Side(Strict):
    """One side of a claim: the maps of a method, of a variant; what is left out is the study's only one."""

    variant: str = ""
    method: str = ""


class Claim(Strict):
    """A sentence that the study's numbers bear out or not: `more` is higher than `less` on a metric.

    source, published: where it is claimed, and with which figures.
    metric, score: a metric of the study, or `accuracy`, the network's; by default its first score.
    at: a point of the metric's axis; by default what stands for its curve.
    more, less: a variant and a method each, or a number.
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
