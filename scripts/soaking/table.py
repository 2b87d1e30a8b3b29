"""A table of what came of each kind of case, and the examples of what should not be."""

import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

BAD = ("LOST", "SILENT", "orphan", "executed", "wrote outside", "traceback", "hang", "unclear", "stuck", "memory")
"""Outcomes that must not be. unclear: an error that does not name its cause. stuck: what the error asks for does not
help. SILENT: another number, or a study that should be refused, with exit status 0."""


@dataclass(frozen=True)
class Setting:
    """What every part is given.

    count: how many cases; None: each kind once.
    out: the folder to work in.
    ceiling: seconds beyond an undisturbed command after which a command counts as a hang.
    """

    count: int | None
    draw: random.Random
    out: Path
    ceiling: float


class Table:
    """Counts of each kind of case and outcome, and a note of each that is bad."""

    def __init__(self, part: str) -> None:
        self.part, self.began = part, time.monotonic()
        self.counts: dict[str, Counter[str]] = {}
        self.notes: list[str] = []
        self.longest = 0.0

    def add(self, kind: str, outcome: str, note: str = "", seconds: float = 0.0) -> None:
        self.counts.setdefault(kind, Counter())[outcome] += 1
        self.longest = max(self.longest, seconds)
        if outcome in BAD:
            self.notes.append(f"{kind}: {outcome}: {note}")
            print(f"  {self.part}: {self.notes[-1]}", flush=True)

    @property
    def cases(self) -> int:
        return sum(sum(each.values()) for each in self.counts.values())

    @property
    def bad(self) -> int:
        return sum(each[name] for each in self.counts.values() for name in BAD)

    def text(self) -> str:
        """The table, the notes, and one line that sums it up."""
        names = {name for each in self.counts.values() for name in each}
        outcomes = sorted(names, key=lambda name: (name in BAD, name))
        width = max([len(self.part), *map(len, self.counts)])
        lines = [f"{self.part:<{width}}  cases  " + "  ".join(outcomes)]
        for kind, found in sorted(self.counts.items()):
            cells = (f"{found[name] or '-':>{len(name)}}" for name in outcomes)
            lines.append(f"{kind:<{width}}  {sum(found.values()):>5}  " + "  ".join(cells))
        lines += [f"  {note}" for note in self.notes]
        took = f"{time.monotonic() - self.began:.0f} s, longest command {self.longest:.1f} s"
        return "\n".join([*lines, f"{self.part}: {self.cases} cases, {self.bad} bad ({took})"])
