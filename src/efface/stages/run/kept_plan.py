"""The plan of a run as data, `plan.json`: keys, labels, and what each metric means.

A run folder from somebody else is read by this file alone. Nothing in it is a call that is made, and no code outside
efface is imported for it.
"""

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from efface.base.shown import unprintable
from efface.base.types import Knows
from efface.metrics import Metric, metric
from efface.metrics.shared.of_function import of_function
from efface.plug import words
from efface.plug.given import is_given
from efface.plug.strict import Strict
from efface.report.stats.curve import Better, Looks, Over
from efface.store.atomic import atomic_write
from efface.study.mask_controls import Outline
from efface.study.schema import Claim
from efface.study.yaml_file import InvalidStudyError

NAME = "plan.json"
OF_FUNCTION = f"{of_function.__module__}.{of_function.__name__}"
LONGEST_TEXT, LONGEST_STUDY = 10_000, 4_000_000
"""Characters of a text in the file, and of the study that stands in it."""


def _below(part: str) -> str:
    if Path(part).is_absolute() or ".." in Path(part).parts:
        raise ValueError(f"'{part}' leads out of the folder, expected a folder in it")
    return part


def _ascending(points: tuple[float, ...]) -> tuple[float, ...]:
    if not all(map(math.isfinite, points)) or list(points) != sorted(set(points)):
        raise ValueError("its points do not ascend, or are not finite; expected each point once")
    return points


def _of_rounds(looks: Looks) -> Looks:
    if not looks.after or looks.after[0] < 1 or list(looks.after) != sorted(set(looks.after)):
        raise ValueError("its rounds do not ascend; expected each number of samples once")
    if not 0 < looks.level < 1:
        raise ValueError(f"its level is {looks.level}; expected a number between 0 and 1")
    return looks


Key = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Label = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f/\\]+$")]
MethodLabel = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""The name of a method. No path is made of it but by `file_name`."""
Part = Annotated[str, Field(max_length=300, pattern=r"^[^\x00-\x1f\x7f\\]+$"), AfterValidator(_below)]
"""A folder below the folder of the study, such as `softplus/seed-0`."""


class ReadWith(Strict):
    """A metric that another one must be read beside: its name, its path, and words for it."""

    name: str
    path: str
    phrase: str


class KeptMetric(Strict):
    """The facts of a metric. The fields are those of `efface.metrics.Metric`.

    name: of the entry. path: dotted path of the metric. settings: its own. opposite: name of the entry that erases in
    the opposite order.
    """

    name: Label
    path: str
    settings: dict[str, Any]
    sample: Over
    direction: dict[Label, Better]
    caption: str
    axis: str
    summary: Literal["area", "mean"]
    by_mean: tuple[str, ...]
    family: str
    may_lack_points: bool
    value_units: dict[str, str]
    ranges: dict[str, tuple[float, float]] = Field(default_factory=dict)
    opposite: str
    read_with: tuple[ReadWith, ...]


class KeptCurve(Strict):
    """A planned curve: the keys of its results, by repeat (or block of images), point and name of the probe.

    looks: for a study that measures in rounds, see `efface.report.stats.Looks`. knows: what a control knows of the
    network.
    """

    metric: Label
    method: MethodLabel
    control: bool
    draw_of: str
    twin_of: str = ""
    at: Annotated[tuple[float, ...], AfterValidator(_ascending)] = Field(min_length=1)
    repeats: tuple[tuple[dict[str, Key], ...], ...] = Field(min_length=1)
    looks: Annotated[Looks, AfterValidator(_of_rounds)] | None = None
    knows: Knows = "nothing"

    @model_validator(mode="after")
    def _fits(self) -> "KeptCurve":
        if self.looks is not None and len(self.repeats) not in (len(self.looks.after), self.looks.after[-1]):
            raise ValueError(f"looks: {self.looks.after} do not fit {len(self.repeats)} repeats or blocks")
        return self


class KeptNetwork(Strict):
    """A network. file: of its weights, below the run folder or beside it; "" for a network that needs none."""

    name: Label
    file: str


class KeptMaps(Strict):
    """An extraction: the maps that a method makes of a split of `rows` images."""

    method: MethodLabel
    split: Label
    names: tuple[MethodLabel, ...]
    rows: NonNegativeInt


class KeptFacts(Strict):
    """The facts that the page states beside the numbers; see `efface.report.facts.Facts`.

    drawn: what the pictures of stage visualize were made from, if they show the study as it is.
    """

    versions: dict[str, str]
    device: str
    data: str
    network: str
    remarks: tuple[str, ...]
    how: dict[str, dict[str, str]]
    layers: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    setting_of: dict[str, str] = Field(default_factory=dict)
    outlines: dict[str, Outline] = Field(default_factory=dict)
    repeats: PositiveInt | None = None
    passes: float | None = None
    drawn: str = ""


class KeptRun(Strict):
    """The plan of one run.

    data: digest of the test images. settings: digest of the study without folder and seed. right: for each test image
    whether the network is right, a bit each, in hexadecimal digits; None before the network was asked. classes: number
    of classes of the test images. methods: rows of the page in the order of the study. Both are lacking in old plans.
    """

    format: Literal[1] = 1
    seed: NonNegativeInt
    study: str
    settings: Key
    data: str
    images: PositiveInt
    source: str
    model: str
    references: tuple[str, ...]
    claims: tuple[Claim, ...]
    metrics: tuple[KeptMetric, ...]
    curves: tuple[KeptCurve, ...]
    conditions: dict[MethodLabel, Key]
    tasks: tuple[Key, ...]
    networks: tuple[KeptNetwork, ...]
    maps: tuple[KeptMaps, ...]
    said: tuple[str, ...]
    right: Annotated[str, Field(pattern=r"^[0-9a-f]*$")] | None
    facts: KeptFacts | None
    classes: NonNegativeInt = 0
    methods: tuple[MethodLabel, ...] = ()


class KeptStudy(Strict):
    """The runs of a study of several: for each variant, the folder of each seed."""

    format: Literal[1] = 1
    parts: dict[str, tuple[Part, ...]] = Field(min_length=1)
    claims: tuple[Claim, ...]


def write_kept(folder: Path, kept: KeptRun | KeptStudy) -> None:
    """Write the file, unless it is there as it is."""
    tree = kept.model_dump(mode="json")
    content = json.dumps(tree | {"digest": _digest(tree)}, indent=1).encode()
    path = folder / NAME
    if not path.is_file() or path.read_bytes() != content:
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)


def read_kept(folder: Path) -> KeptRun | KeptStudy:
    """Return the content of the file. InvalidStudyError: it is damaged, or of another version."""
    path = folder / NAME
    remedy = "run the report stage on its study again, or add --trust if you know who made the folder"
    tree: Any = None
    with contextlib.suppress(ValueError, RecursionError):  # not JSON, or not text
        tree = json.loads(path.read_bytes())
    if not isinstance(tree, dict) or tree.pop("digest", None) != _digest(tree):
        raise InvalidStudyError(f"{path}: is damaged, or efface did not write it (its digest differs); {remedy}")
    if wrong := _unfit_text(tree, ""):
        raise InvalidStudyError(f"{path}: {wrong}; {remedy}")
    try:
        return (KeptStudy if "parts" in tree else KeptRun).model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidStudyError(
            f"{path}: {where}: {first['msg'][0].lower()}{first['msg'][1:]}; it is no plan that this version of efface "
            f"wrote; {remedy}"
        ) from None


def own_formula(kept: KeptMetric, where: Path) -> Metric:
    """Return the formula of one of efface's own metrics. InvalidStudyError: it needs other code."""
    if kept.path == OF_FUNCTION:  # its numbers are those of its probe; the function does not run
        (better,) = kept.direction.values()
        return of_function(
            function=str(kept.settings.get("function")), better=better, caption=kept.caption or "A function."
        )
    outside = foreign_paths(kept)
    if any(map(is_given, outside)):
        raise InvalidStudyError(
            f"{where}: metrics.{kept.name}: its numbers are put together by an object that was handed over in Python, "
            f"which no command can call; the same call of efface.evaluate with out='{where}' writes the page again"
        )
    if outside:
        raise InvalidStudyError(
            f"{where}: metrics.{kept.name}: its numbers are put together by {', '.join(outside)}, which is no code of "
            "efface, so nothing of it is imported; add --trust if you know who made the folder"
        )
    return metric(kept.path.rpartition(".")[2], kept.settings)


def foreign_paths(kept: KeptMetric) -> list[str]:
    """Return the dotted paths of a metric and of its settings that do not name plug-ins of efface."""
    own = {word for kind in words.KINDS for pair in words.index(kind).items() for word in pair}
    texts = [text for text in _texts(kept.settings) if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", text)]
    metrics = words.index("metric").values()
    return [*([] if kept.path in metrics else [kept.path]), *(text for text in texts if text not in own)]


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, Mapping):
        yield from (text for subtree in tree.values() for text in _texts(subtree))
    elif isinstance(tree, list | tuple):
        yield from (text for subtree in tree for text in _texts(subtree))


def _unfit_text(tree: Any, where: str) -> str:
    """Return which text a page or a terminal cannot show, or is too long, in words; "" for none."""
    if isinstance(tree, str):
        most = LONGEST_STUDY if where == "study" else LONGEST_TEXT
        if len(tree) > most:
            return f"{where}: has {len(tree):,} characters, expected at most {most:,}"
        odd = unprintable(tree)
        return f"{where}: holds the character {odd}, which no page can show; expected printable text" if odd else ""
    if isinstance(tree, dict):
        for key, subtree in tree.items():
            if wrong := _unfit_text(key, f"{where}: a key in it") or _unfit_text(subtree, f"{where}.{key}".lstrip(".")):
                return wrong
    elif isinstance(tree, list):
        for at, subtree in enumerate(tree):
            if wrong := _unfit_text(subtree, f"{where}.{at}"):
                return wrong
    return ""


def _digest(tree: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]
