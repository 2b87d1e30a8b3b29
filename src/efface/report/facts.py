"""What a page states about its study besides the numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from efface.study.mask_controls import Outline


class Cost(NamedTuple):
    """Time that the probes of a metric took. A probe that two metrics share counts for both.

    seconds: seconds for all methods.
    per_image: seconds for each test image; NaN if networks are trained.
    per_map: seconds for each test image and map; NaN if networks are trained.
    """

    seconds: float
    per_image: float
    per_map: float


@dataclass(frozen=True)
class Origin:
    """Where the numbers of a page come from. A text is empty, and a number is None, if it is not known.

    date: day of the last result, as 2026-11-30.
    commit: commits of efface that made the results.
    command: the command that makes the study again.
    seed: seed of the study. repeats: trainings of each point.
    tables: files of the study, as label and address relative to the page, which links to those that exist.
    """

    date: str = ""
    commit: str = ""
    command: str = ""
    seed: int | None = None
    repeats: int | None = None
    tables: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Facts:
    """Facts about the study on the page, besides its numbers.

    study: the resolved study, as YAML.
    name: name of the study.
    versions: version of each package.
    device: device of the run.
    seconds: time spent, by stage or probe.
    unfinished: sentences on the missing work.
    data: one line on the data set.
    network: one line on the network, with its test accuracy.
    warnings: further cautions, as sentences.
    how: for each metric, the settings of its numbers: `unit`, `explain`, `imputer`, `ties`, `count`.
    setting_of: for each metric at one of several settings, the entry of the study that it comes from.
    outlines: for each retrained metric, where the outline of the removed units is measured.
    degenerate: for each method, mean shares of degenerate maps, see `cautions`; empty if they were not computed.
    costs: time of each metric, without the extraction of maps.
    layers: for each method that looks at layers, which these are and how they are laid out.
    claims: the claims of the study, each with `says`, `source`, `published`, `message` and `verdict`.
    picture: bytes of the PNG file of stage visualize.
    passes: of a study that measures in rounds, the share of the planned forward passes that it used; NaN if unknown.
    accuracy: share of the test images that the network classifies correctly; NaN if unknown.
    chance: share that a network would get right by chance, 1 / number of classes; NaN if unknown.
    origin: where the numbers come from.
    weak: of a page of several networks, those that have learnt little.
    controls: rows of `degenerate` that are controls, besides the rows of the page.
    """

    study: str
    name: str
    versions: dict[str, str]
    device: str
    seconds: dict[str, float]
    unfinished: tuple[str, ...]
    data: str
    network: str
    warnings: tuple[str, ...]
    how: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    setting_of: Mapping[str, str] = field(default_factory=dict)
    outlines: Mapping[str, Outline] = field(default_factory=dict)
    degenerate: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    costs: Mapping[str, Cost] = field(default_factory=dict)
    layers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    claims: Sequence[Any] = ()
    picture: bytes | None = field(default=None, repr=False)
    passes: float = float("nan")
    accuracy: float = float("nan")
    chance: float = float("nan")
    origin: Origin = Origin()
    weak: tuple[str, ...] = ()
    controls: frozenset[str] = frozenset()
