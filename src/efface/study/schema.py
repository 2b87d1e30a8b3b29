"""Parts of a study: methods, a second network, claims and pictures. Each is checked while it is read."""

import inspect
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    PrivateAttr,
    field_serializer,
    field_validator,
    model_validator,
)

from efface.base.shown import shown
from efface.base.types import Knows, Seeds, Unit
from efface.methods.calling import check_method, is_class
from efface.methods.control import is_control, is_random, known_to
from efface.plug.call import Call, bound, settings_by_path, settings_by_word
from efface.plug.field import Word, writes_words
from efface.plug.learning import is_learning
from efface.plug.strict import Strict
from efface.store.foreign_write import FORMS

Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=80)]
_LONGEST_NAME = 80


def _printable(name: str) -> str:
    if not name or not name.isprintable() or name != name.strip() or "~" in name or len(name) > _LONGEST_NAME:
        raise ValueError(
            f"{shown(name)} is no name of a method; expected 1 to {_LONGEST_NAME} characters that can be printed, "
            "without '~', and without blanks at the ends"
        )
    return name


MethodName = Annotated[str, AfterValidator(_printable)]
"""The name of a method, as the page shows it. Its files have names by `efface.store.file_name`."""
MOST = 1_000
"""Largest number of entries of a list, of runs of a study, of repeats and of draws."""
Post = tuple[Annotated[Call, Word("post"), bound("maps")], ...]
FILL_OFFERS = ("mean", "seeds", "training")
"""Keywords that an imputer receives if it names them."""
UNIT_OFFERS = ("token_size",)
"""Keywords that a unit receives if it names them."""
ImputerCall = Annotated[Call, Word("imputer"), bound("images", "removed", offered=FILL_OFFERS)]


_AROUND = "efface.methods.nested.FittedInner"


def _unit(value: object) -> object:
    """Keep a word that means no function. Check anything else as a call, so that there is only one message."""
    if value in get_args(Unit) or not isinstance(value, str | dict | Call):
        return value
    call = value if isinstance(value, Call) else Call.model_validate(value)
    call.check(("images",), UNIT_OFFERS)
    return call


UnitCall = Annotated[Unit | Call, BeforeValidator(_unit), Word("unit", get_args(Unit))]


MapFiles = Path | dict[Literal["train", "test"], Path]


class MethodEntry(Strict):
    """An attribution method, or a second view (`maps:`) of another entry's maps with a `post` of its own.

    method: a callable `(model, images, targets, **kwargs) -> maps`.
    kwargs: settings of the method.
    batched: False for a method `(model, image, label, **kwargs)` that takes one image at a time.
    timeout: seconds after which a call of the method, for one block of images, is stopped; None: never.
    outputs: names of the maps, for a method that returns a dict of maps.
    network: `second` for maps of the study's second network. These maps then rank the pixels that the first network
        loses. The class stays the one that is explained for the first network.
    draws: number of times that the maps are computed, each time with other seeds, at least 1. The differences show how
        much a random method varies. Each draw costs a whole extraction, and its own trainings if a metric retrains.
    maps: name of the entry that this one is a second view of.
    file: in place of `method`, a file of maps that were made elsewhere (.npz, .npy, .h5, .hdf5), or one for each split,
        `{train: a.npz, test: b.npz}`. `efface.write_maps` writes one.
    post: functions that process the maps before they are used.
    """

    name: MethodName
    method: Annotated[str, Word("method")] | None = None
    kwargs: dict[str, Any] = Field(default_factory=dict)
    batched: bool = True
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    outputs: tuple[MethodName, ...] = ()
    network: Literal["second"] | None = None
    draws: Annotated[PositiveInt, Field(le=MOST)] = 1
    maps: str | None = None
    file: MapFiles | None = None
    post: Post | None = None
    _draw: int = PrivateAttr(default=1)
    _first: "MethodEntry | None" = PrivateAttr(default=None)

    @property
    def draw(self) -> int:
        """Number of this draw of the maps, from 1."""
        return self._draw

    def each_draw(self, repeats: int = 1) -> list["MethodEntry"]:
        """Return an entry for each draw of the maps: this entry, then NAME~2, NAME~3, ...

        repeats: number of trainings that a random control has maps of its own for.
        """
        entries = [self]
        for number in range(2, self.draws * (repeats if self.varies else 1) + 1):
            names = {"name": f"{self.name}~{number}", "outputs": tuple(f"{output}~{number}" for output in self.outputs)}
            entry = self.model_copy(update=names)
            entry._draw, entry._first = number, self  # noqa: SLF001  of its own class
            entries.append(entry)
        return entries

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
        return self.method is not None and is_class(self.call) and is_learning(self.call)

    @property
    def undrawn(self) -> "MethodEntry":
        """The entry of the first draw: this entry itself, or the one that it repeats with other seeds."""
        return self._first or self

    @property
    def is_control(self) -> bool:
        """True if the method is marked as a control, see `efface.methods.control.control`."""
        return self.method is not None and is_control(self._plain)

    @property
    def knows(self) -> Knows:
        """What a control knows of the network, see `efface.methods.control.control`."""
        return "nothing" if self.method is None else known_to(self._plain)

    @property
    def is_random(self) -> bool:
        """True if the method is a random control, which the other methods are compared with."""
        return self.method is not None and is_random(self._plain)

    @property
    def varies(self) -> bool:
        """True if each repeat of a training has maps of its own: a random control that stores maps."""
        return self.is_random and not self.is_redrawn

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
        if [self.method, self.maps, self.file].count(None) != 2:
            raise ValueError(
                "give either 'method' (a word or a dotted path), 'maps' (the name of another entry), or 'file' (maps "
                "that were made elsewhere)"
            )
        if self.file is not None:
            self._check_file()
        if self.maps is not None and (
            self.kwargs or self.outputs or self.network or self.draws > 1 or self.post is None
        ):
            raise ValueError("a view of another entry's maps takes 'post' and no other key")
        if self.method is not None:
            check_method(self._plain, batched=self.batched)
        return self

    def _check_file(self) -> None:
        if self.kwargs or self.outputs or self.network or self.draws > 1 or not self.batched:
            raise ValueError("maps of a file take 'post' and no other key: no method is called for them")
        files = self.file.values() if isinstance(self.file, dict) else [self.file]
        for file in files:
            if file is not None and file.suffix.lower() not in FORMS:
                raise ValueError(f"file: {file} ends with '{file.suffix}', expected {', '.join(FORMS)}")
        if isinstance(self.file, dict) and "test" not in self.file:
            raise ValueError(
                "file: names no file of the test images, expected {test: b.npz} or {train: ..., test: ...}"
            )


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


class Decide(Strict):
    """Settings of a study that measures in rounds and stops when it knows enough.

    level: probability that any of its decisions on pairs of methods is wrong, above 0 and at most 0.5.
    by: how metrics over images with a known range are decided. `betting` keeps the level for every number of images,
        and needs many of them. `spending` keeps the level as the other tests of efface do. None: betting from 1,000
        test images on.
    """

    level: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    by: Literal["betting", "spending"] | None = None


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
