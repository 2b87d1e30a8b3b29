"""Benchmark of attribution maps: it erases the pixels that a map ranks as important and measures the classifier."""

import importlib
from typing import Any

from efface.plug.moved import install as _install

__version__ = "0.2.0"
_install()

_LATER = {
    "evaluate": "efface.api.evaluate",
    "maps": "efface.api.evaluate",
    "compare": "efface.api.evaluate",
    "metric": "efface.api.metrics",
    "Metric": "efface.metrics.formula",
    "write_maps": "efface.store.foreign_write",
}
"""Names whose modules are imported when they are first used, so that `import efface` stays quick."""


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
