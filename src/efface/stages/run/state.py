"""What `status` says of a run: which networks, maps and results are there."""

from collections.abc import Mapping, Sequence
from typing import Any

from efface.stages.run.progress import say

Extraction = tuple[str, str, int, int]
"""An unfinished extraction: method, split, number of finished maps, number of images."""


def say_files(folder: str, networks: Mapping[str, bool], extractions: Sequence[Extraction]) -> None:
    """Print which networks are there, and which maps are missing.

    networks: by name, whether the network is trained or needs no training.
    """
    for name, is_there in networks.items():
        say(f"{folder}: {name} {'there' if is_there else 'to be trained'}")
    for method, split, finished, rows in extractions:
        say(f"  to extract: {method}, {split}: {finished} of {rows} maps are there")


def run_facts(
    folder: str, networks: Mapping[str, bool], extractions: Sequence[Extraction], probes: tuple[int, int, int]
) -> dict[str, Any]:
    """Return the same as plain values. probes: how many are planned, done, and left."""
    names = ("method", "split", "finished", "images")
    return {
        "folder": folder,
        "networks": dict(networks),
        "to_extract": [dict(zip(names, extraction, strict=True)) for extraction in extractions],
        "probes": dict(zip(("planned", "done", "left"), probes, strict=True)),
    }
