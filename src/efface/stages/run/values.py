"""The values of a metric from the scores of its probes, and what is wrong with them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from efface.metrics.shared.definition import names_differ
from efface.report.stats import Looks
from efface.report.stats.curve import Better
from efface.store.results import Score

Value = Callable[[Mapping[str, Score]], Mapping[str, Any]]
"""The formula of a metric: from the scores of its probes to named values."""
_ROUNDING = 1e-3
"""Part of its range by which a value may leave it: the sums of probabilities of small types are not exactly 1."""


@runtime_checkable
class Meaning(Protocol):
    """What the values of a metric mean, as its formula or as data."""

    @property
    def direction(self) -> Mapping[str, Better]: ...

    @property
    def ranges(self) -> Mapping[str, tuple[float, float]]: ...


def valued(name: str, meaning: Meaning, value: Value, scores: Mapping[str, Score], source: str) -> dict[str, Any]:
    """Return the values of a metric for these scores.

    name: of the metric in the study. source: the scores in words.
    ValueError: its `value` fails, does not fit its `direction`, or leaves its `ranges`.
    """
    try:
        values = value(scores)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        known = "; ".join(f"'{probe}' has {', '.join(score.values)}" for probe, score in scores.items())
        raise ValueError(
            f"metrics.{name}: its values cannot be put together from {source}: its 'value' fails with "
            f"{type(error).__name__}: {error} ({known}); the scores are whole, correct the metric"
        ) from error
    if problem := names_differ(meaning.direction, values):
        raise ValueError(f"metrics.{name}: {problem}")
    for score, (least, most) in meaning.ranges.items():
        data, beyond = np.asarray(values[score], dtype=np.float64), _ROUNDING * (most - least)
        if (outside := (data < least - beyond) | (data > most + beyond)).any():
            raise ValueError(
                f"metrics.{name}: its value '{score}' is {data[outside].flat[0]:.4g} in {source}, but its 'ranges' say "
                f"{least:g} to {most:g}, and its intervals rely on them; correct the metric"
            )
    return dict(values)


def refuse_other_size(metric: str, name: str, blocks: Sequence[Sequence[np.ndarray]], looks: Looks | None) -> None:
    """Raise ValueError if the values of the last block are not one for each of its images, or a single NaN."""
    assert looks is not None
    expected = int(np.diff((0, *looks.after))[len(blocks) - 1])
    for numbers in blocks[-1]:
        if len(numbers) != expected and not (len(numbers) == 1 and np.isnan(numbers[0])):
            raise ValueError(
                f"metrics.{metric}: its value '{name}' has {len(numbers)} numbers for a block of {expected} images; "
                "return one for each image, or state Needs(blocks=False) in its probes"
            )
