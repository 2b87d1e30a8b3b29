"""Provenance of a number: the areas of efface's code that it passes through, versions, device."""

import functools
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

import efface
from efface.metrics.probes import Needs
from efface.plug import words
from efface.plug.identity import code_of
from efface.store.keys import NUMERICS, version

TRAINED = ("draws", "store", "erase", "train", "evaluate")
"""Areas that the weights of a trained network pass through."""
EXPLAINED = ("draws", "store", "explain", "evaluate")
"""Areas that every map passes through, whatever its method."""
GENERATED = ("draws", "store", "generate", "evaluate")
"""Areas that every image that a network made passes through."""
_MEASURED = ("draws", "store", "erase", "evaluate", "measure")


def measured_areas(needs: Needs) -> tuple[str, ...]:
    """Areas that the score of a probe passes through."""
    trains = ("train",) if needs.training or not needs.network else ()
    return (*_MEASURED, *trains, *(("explain",) if needs.method else ()), *(("generate",) if needs.samples else ()))


def probe_code(kind: type, metric: str) -> dict[str, Any]:
    """Return the part of a key for the code of a probe of this class. metric: the dotted path of its metric, or "".

    A metric of efface counts by its declared version if that is above 1. Metrics of version 1 share a probe's result.
    """
    module = kind.__module__
    home = words.name_of(f"{module}.{module.rpartition('.')[2]}")  # the metric whose file the class is in
    name = words.name_of(metric)
    passed = {home, name} if name or not metric else {word for word in NUMERICS if word.startswith("metric.")}
    identity: dict[str, Any] = {"home": home, "raised": {word: version(word) for word in passed if version(word) > 1}}
    if metric and not name and (number := code_of(metric).get("version")):  # a user's formula has no other key
        identity["metric"] = {"version": number}
    if not module.startswith("efface."):
        identity |= code_of(f"{module}.{kind.__qualname__}", kind)
    return identity


def surroundings(device: torch.device) -> dict[str, Any]:
    """Return what every result line holds besides the number: device, versions, commit."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {"device": name, "versions": package_versions(), "commit": _commit()}


@functools.cache
def package_versions() -> dict[str, str]:
    """Of what the numbers were made with."""
    return {
        "efface": efface.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


@functools.cache
def _commit() -> str:
    folder = Path(efface.__file__).parent
    try:
        completed = subprocess.run(  # noqa: S603  a fixed command
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*"],  # noqa: S607  whichever git the user has
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except OSError:
        return ""
    return completed.stdout.strip()


@functools.cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()
