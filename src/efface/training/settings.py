"""Settings of a training: those under a study's `fit`, `refit` and `second_network.fit`."""

import contextlib
import difflib
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import (
    AfterValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    PrivateAttr,
    model_serializer,
    model_validator,
)

from efface.base.shown import shown
from efface.plug.call import Call, bound
from efface.plug.field import Word, writes_words
from efface.plug.strict import Strict
from efface.training.checkpoint import Training
from efface.training.presets import Layer


class Regularizer(Strict):
    """A term of the loss.

    call, kwargs: a function `(network, images, targets, outputs, **kwargs) -> Term` and its settings.
    weight: factor of its value, at least 0. With 0 the term costs as much and only has a curve.
    preset: name of a published weight and settings, from the table PRESETS in the function's module. Replaces `weight`.
    """

    call: Annotated[str, Word("regularizer")]
    kwargs: dict[str, Any] = Field(default_factory=dict)
    weight: float | None = None
    preset: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        return {"call": value} if isinstance(value, str) else value

    @property
    def factor(self) -> float:
        """The weight, from the study or from the preset."""
        return float(self._published["weight"] if self.weight is None else self.weight)

    @property
    def term(self) -> Call:
        """The function with its settings, from the study or from the preset."""
        published = {name: value for name, value in self._published.items() if name != "weight"}
        return Call(call=self.call, kwargs=published | self.kwargs)

    @property
    def _published(self) -> Mapping[str, Any]:
        return _presets(self.call).get(self.preset or "", {})

    def identity(self) -> dict[str, Any]:
        """Return what the weights of a network trained with this term depend on."""
        return {"weight": self.factor} | self.term.identity()

    @model_validator(mode="after")
    def _agrees(self) -> "Regularizer":
        known = _presets(self.call)
        named = f"preset: {' or '.join(known)}" if known else ""
        if self.preset is not None and self.preset not in known:
            raise ValueError(
                f"{self.call} has no preset '{self.preset}'; "
                + (
                    f"it has {', '.join(known)}"
                    if known
                    else f"it has none: give weight, and kwargs{_near_table(self.call)}"
                )
            )
        if self.preset is None and self.weight is None:
            raise ValueError(f"weight is missing; give a number{f', or {named}' if named else _near_table(self.call)}")
        if self.preset is not None and self.weight is None and "weight" not in self._published:
            raise ValueError(f"{self.call}: PRESETS has no 'weight' in its preset '{self.preset}'; add a number there")
        if self.weight is not None and not 0 <= self.weight < math.inf:
            raise ValueError(f"weight is {self.weight}; expected a number not below 0")
        doubled = sorted({*self.kwargs, *(["weight"] if self.weight is not None else [])} & {*self._published})
        if doubled:
            raise ValueError(
                f"preset '{self.preset}' already sets {', '.join(doubled)}; remove these keys, or remove the preset"
            )
        self.term.check(("network", "images", "targets", "outputs"), ("seeds",))
        return self


def _presets(path: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the published weights and settings of a regulariser, from the table PRESETS in its module."""
    regularizer = Call(call=path).resolve()
    beside = getattr(sys.modules.get(getattr(regularizer, "__module__", "")), "PRESETS", {})
    return dict(beside.get(path.rpartition(".")[2], {}))


def _near_table(path: str) -> str:
    """Return words on a name in a regulariser's module that was meant to be PRESETS; "" if there is none."""
    regularizer = Call(call=path).resolve()
    names = [name for name in vars(sys.modules.get(getattr(regularizer, "__module__", ""), sys)) if name.isupper()]
    close = difflib.get_close_matches("PRESETS", names, n=1, cutoff=0.8)
    return f" (its module has '{close[0]}', which nothing reads; did you mean PRESETS?)" if close else ""


Precision = Literal["fp32", "bf16"]


def _loss_binds(call: Call) -> Call:
    call.check(() if isinstance(call.resolve(), type) else ("outputs", "targets"))
    return call


def _steps_alone(call: Call) -> Call:
    if getattr(call.resolve(), "__name__", "") == "ReduceLROnPlateau":
        raise ValueError("ReduceLROnPlateau steps by a measured loss; a benchmark must not tune on it; take another")
    return call


def _starts(call: Call) -> Call:
    """Build the optimizer for one number, so that a wrong value is an error before any training."""
    try:
        with _without_compiler():
            call([torch.nn.Parameter(torch.zeros(1))])
    except Exception as error:
        given = ", ".join(f"{name}={shown(value)}" for name, value in call.kwargs.items())
        raise ValueError(f"{call.call}({given}) fails: {type(error).__name__}: {error}") from error
    return call


@contextlib.contextmanager
def _without_compiler() -> Iterator[None]:
    """Make optimizers without torch._dynamo inside the block: its import takes longer than that of all else."""
    marked = torch.optim.Optimizer.add_param_group
    plain = getattr(marked, "__wrapped__", marked)
    torch.optim.Optimizer.add_param_group = plain  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.optim.Optimizer.add_param_group = marked  # type: ignore[method-assign]


class Stop(Strict):
    """Conditions that end a training before its last epoch. One satisfied condition is enough.

    loss: the mean loss of the epoch, terms included, is below this value, above 0.
    accuracy: the share of the epoch's images classified right, as seen by their steps, is at least this, in (0, 1].
    """

    loss: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    accuracy: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _says_when(self) -> "Stop":
        if self.loss is None and self.accuracy is None:
            raise ValueError("neither loss nor accuracy is given; give one, or both, or drop 'stop'")
        return self

    def reached(self, state: Training) -> bool:
        """Return whether the last epoch satisfies a condition."""
        if not state.losses:
            return False
        if self.loss is not None and state.losses[-1] < self.loss:
            return True
        # a mean of batches is rounded: 1e-9 is less than one image of any data set
        return self.accuracy is not None and state.terms["training_accuracy"][-1] >= self.accuracy - 1e-9


class TrainingSettings(Strict):
    """Settings of a training.

    preset: function `(recipe, **kwargs) -> recipe` that fills in the keys that are not given.
    epochs: passes over the training rows.
    batch_size: images in one step.
    optimizer, schedule, loss: classes or functions of torch or others, by dotted path.
    schedule_each: the schedule steps after each epoch or after each step.
    crop: width in pixels of a border of removed pixels. Each epoch cuts a random window out of the padded image.
    flip: mirror half of the images.
    precision: fp32, or bf16 for autocast.
    channels_last: the memory layout that is faster for convolutions on most devices.
    keep: weights of the last epoch, or of the epoch that was best on the validation rows.
    tensorboard: write scalars to the run's tensorboard folder.
    devices: devices that share a training, each with its part of every batch; `auto` is every GPU that torch sees.
    augment: functions `(images, seeds, **kwargs) -> images`, applied in order after crop and flip.
    stop: ends a training before `epochs`. Schedules still count to `epochs`.
    regularizers: terms added to the loss. They need fp32.
    attack: function `(network, images, targets, **kwargs) -> images`. Each step uses its images instead of the given
        ones.
    """

    preset: Annotated[Call, Word("preset"), bound("recipe")] | None = None
    epochs: PositiveInt
    batch_size: PositiveInt = 128
    optimizer: Annotated[Call, bound("params"), AfterValidator(_starts)] = Call(
        call="torch.optim.Adam", kwargs={"lr": 1e-3}
    )
    schedule: Annotated[Call, bound("optimizer", offered=("total_steps",)), AfterValidator(_steps_alone)] | None = None
    schedule_each: Literal["epoch", "step"] = "epoch"
    loss: Annotated[Call, AfterValidator(_loss_binds)] = Call(call="torch.nn.CrossEntropyLoss")
    crop: NonNegativeInt = 0
    flip: bool = False
    precision: Precision = "fp32"
    channels_last: bool = False
    keep: Literal["last", "best"] = "last"
    tensorboard: bool = False
    devices: PositiveInt | Literal["auto"] = 1
    augment: tuple[Annotated[Call, Word("augmentation"), bound("images", "seeds")], ...] = ()
    stop: Stop | None = None
    regularizers: tuple[Regularizer, ...] = ()
    attack: Annotated[Call, Word("attack"), bound("network", "images", "targets", offered=("seeds",))] | None = None
    _filled: frozenset[str] = PrivateAttr(frozenset())

    def plain(self) -> "TrainingSettings":
        """Return the same settings without regularisers and attack, written out without the preset."""
        plain = self.model_copy(update={"regularizers": (), "attack": None, "preset": None})
        plain._filled = frozenset()  # noqa: SLF001  of its own class
        return plain

    def resolved(self) -> dict[str, Any]:
        """Return the settings written out, without the preset."""
        return {name: value for name, value in self if name != "preset"}

    def identity(self) -> dict[str, Any]:
        """Return what the weights depend on: the settings, with the source of each path."""
        names = ("optimizer", "schedule", "loss", "attack")
        calls: dict[str, Any] = {name: call.identity() for name in names if (call := getattr(self, name))}
        lists = {name: [entry.identity() for entry in getattr(self, name)] for name in ("regularizers", "augment")}
        calls |= {name: listed for name, listed in lists.items() if listed}
        if self.stop is not None:
            calls["stop"] = self.stop.model_dump()
        apart = {"tensorboard", "devices", "regularizers", "attack", "augment", "stop"}
        return {name: value for name, value in self.resolved().items() if name not in apart} | calls

    @model_validator(mode="wrap")
    @classmethod
    def _with_preset(cls, given: Any, handler: Callable[[Any], "TrainingSettings"]) -> "TrainingSettings":
        if isinstance(given, Mapping) and given.get("preset") is not None:
            given = Layer(given, {})
        if not isinstance(given, Layer):
            return handler(given)
        try:
            whole = given.filled(cls.model_fields)
        except ValueError:
            handler({"epochs": 1, **given.own})  # what is wrong in another key is said of that key
            raise
        settings = handler(whole)
        settings._filled = frozenset(whole) - frozenset(given.own)  # noqa: SLF001  of its own class
        return settings

    @model_serializer(mode="wrap")
    def _as_written(self, handler: Callable[[Any], dict[str, Any]], info: Any) -> dict[str, Any]:
        """Leave out what the preset filled in: it is filled in again, from keys that may have changed.

        With short words, as a run stores its study, the preset is left out instead.
        """
        left_out = {"preset"} if writes_words(info) else self._filled
        return {name: value for name, value in handler(self).items() if name not in left_out}

    @model_validator(mode="after")
    def _has_an_image_for_each_device(self) -> "TrainingSettings":
        if self.devices != "auto" and self.devices > self.batch_size:
            raise ValueError(
                f"devices is {self.devices}, but a batch has {self.batch_size} images; lower devices, or raise "
                "batch_size"
            )
        return self

    @model_validator(mode="after")
    def _in_fp32(self) -> "TrainingSettings":
        if self.regularizers and self.precision != "fp32":
            raise ValueError(
                f"precision is '{self.precision}', but regularizers differentiate twice, or divide a small difference "
                "of logits by a smaller number, which needs fp32; set precision to fp32, or drop them"
            )
        return self
