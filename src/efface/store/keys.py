"""Keys of results and files: digests of everything that a number depends on, with declared versions of the code."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from efface.base.shown import LONGEST

AREAS = ("draws", "store", "erase", "train", "explain", "generate", "evaluate", "measure", "pictures")
"""Areas of code that many numbers pass through. A key holds the version of each area that its number passes through."""

NUMERICS: dict[str, int] = {
    "imputer.histogram": 2,
    "metric.efficient_randomisation": 2,
    "metric.faithfulness_correlation": 2,
    "metric.idsds": 2,
    "metric.randomisation": 2,
    "pictures": 2,
}
"""The declared versions of efface's code that are above 1: of an area, or of a plug-in, such as `method.rise`.

Whoever changes numbers raises the version of what gives them, and writes the golden outputs of the tests again.
Then all results that hold the old version in their keys are measured anew. See docs/decisions/0003-keys.md.
"""


def version(name: str) -> int:
    """The declared version of an area or of a plug-in of efface: 1 until its numbers change for the first time."""
    return NUMERICS.get(name, 1)


def versions(*names: str) -> dict[str, int]:
    """The declared versions of these names."""
    return {name: version(name) for name in names}


def key(provenance: Mapping[str, Any]) -> str:
    """SHA-256 of a provenance, 16 digits."""
    return hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()[:16]


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """In words, what two provenances disagree on; empty where they agree."""
    return ", ".join(_flat_differences(dict(found), dict(expected)))


def _flat_differences(found: dict[str, Any], expected: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name in dict.fromkeys([*expected, *found]):
        value, wanted = found.get(name), expected.get(name)
        if isinstance(value, dict) and isinstance(wanted, dict):
            yield from _flat_differences(value, wanted, f"{prefix}{name}.")
        elif value != wanted:
            yield f"{prefix}{name} is {_brief(value)}, expected {_brief(wanted)}"


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 2 * LONGEST else f"{text[:LONGEST]}... ({len(text):,} characters)"
