"""What a number was made with: code, versions, device."""

import functools
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

import efface
from efface.plug.source import code_digest, source_digest

ERASING = (
    "efface.metrics.probes.case",
    "efface.metrics.probes.erasure",
    "efface.metrics.probes.score",
    "efface.erase.units",
    "efface.training.loop",
    "efface.training.settings",
    "efface.training.batch",
    "efface.erase.batches",
    "efface.erase.masking",
    "efface.draws",
    "efface.erase.ranking",
    "efface.models.evaluation",
    "efface.models.scores",
    "efface.models.memory",
    "efface.models.modes",
    "efface.models.fast_copy",
)
EXPLAINING = ("efface.methods.calling", "efface.models.modes", "efface.draws")
GENERATING = (
    "efface.training.generate",
    "efface.draws",
    "efface.models.evaluation",
    "efface.models.scores",
    "efface.models.memory",
    "efface.models.modes",
    "efface.models.fast_copy",
)


@functools.cache
def engine() -> str:
    """A digest of the code that every erased and retrained number depends on."""
    return code_digest(*ERASING)


@functools.cache
def measurer(module: str) -> str:
    """A digest of the code of a probe, besides the engine: its module, and what this may import.

    Of efface's own, that is what metrics share, the files whose names begin with an underscore.
    """
    if not module.startswith("efface."):
        return source_digest(module)
    files = sorted((Path(efface.__file__).parent / "metrics" / "shared").glob("[a-z]*.py"))
    layers = ("efface.models.layers", "efface.models.modes")
    shared = (f"efface.metrics.shared.{each.stem}" for each in files)
    return code_digest(module, *shared, *layers, "efface.metrics.shared.degenerate")


@functools.cache
def explainer() -> str:
    """A digest of the code that every map depends on, whatever its method."""
    return code_digest(*EXPLAINING)


@functools.cache
def generator() -> str:
    """A digest of the code that every image that a network made depends on."""
    return code_digest(*GENERATING)


def surroundings(device: torch.device) -> dict[str, Any]:
    """What goes into every result line besides the number: device, versions, commit."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {"device": name, "versions": versions(), "commit": _commit()}


@functools.cache
def versions() -> dict[str, str]:
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
        found = subprocess.run(  # noqa: S603  a fixed command
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*"],  # noqa: S607  whichever git the user has
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except OSError:
        return ""
    return found.stdout.strip()


@functools.cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()
