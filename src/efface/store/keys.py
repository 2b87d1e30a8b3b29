"""Keys of results and files: digests of everything that a number depends on."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any


def key(provenance: Mapping[str, Any]) -> str:
    """SHA-256 of a provenance, 16 digits."""
    return hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()[:16]


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """In words, what two provenances disagree on; empty where they agree."""
    return ", ".join(_flat_differences(dict(found), dict(expected)))


def _flat_differences(found: dict[str, Any], expected: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name in dict.fromkeys([*expected, *found]):
        here, there = found.get(name), expected.get(name)
        if isinstance(here, dict) and isinstance(there, dict):
            yield from _flat_differences(here, there, f"{prefix}{name}.")
        elif here != there:
            yield f"{prefix}{name} is {json.dumps(here)}, expected {json.dumps(there)}"
