"""The result of the trial of one method."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass
class Trial:
    """The result of trying one method on two images."""

    name: str
    passes: float
    """Forward passes for one image."""
    warnings: list[str]
    shapes: dict[str, tuple[int, ...]]
    """Shape of one map, by its name. A ranking that is redrawn in each epoch has no map."""
    cut: bool = False
    """True if the trial was ended early. Then `passes` counts only the passes until that moment."""
    layers: Sequence[str] = ()
    """Sentences on the layers that the method looks at."""
    leaves_thread: bool = False
    """True if a thread of the method still runs. The network that was tried is not used any more."""

    def facts(self) -> dict[str, Any]:
        """Return what `check` says of the method, as plain values."""
        told = {"name": self.name, "passes": self.passes, "stopped": self.cut, "maps": self.shapes}
        return told | {"layers": list(self.layers), "warnings": self.warnings}
