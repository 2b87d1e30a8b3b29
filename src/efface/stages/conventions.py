"""How a study's entries become calls of their methods, and what their maps are called."""

from collections.abc import Mapping

from torch import Tensor

from efface.entries import MethodEntry
from efface.methods.contract import Convention
from efface.stages.run import Run


def convention(entry: MethodEntry, learnt: Mapping[str, Tensor] | None) -> Convention:
    """The entry's method. It knows its maps by the names that the study gave them, whichever draw this is."""
    outputs = tuple(map(_undrawn, entry.outputs))
    return Convention(_undrawn(entry.name), entry.call, entry.batched, outputs, learnt)


def named(entry: MethodEntry, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The method's maps by the names of this draw."""
    return {name: maps[_undrawn(name)] for name in entry.gives}


def seed_text(run: Run, entry: MethodEntry, split: str) -> str:
    """What a method's draws belong to. The controls that shuffle share theirs: to a frozen network they are one."""
    is_shuffle = entry.call.call.startswith("efface.methods.control.random")
    again = f" draw {entry.draw}" if entry.draw > 1 else ""
    return f"{run.study.seed} {split} {'random' if is_shuffle else entry.call.text}{again}"


def _undrawn(name: str) -> str:
    return name.partition("~")[0]
