"""`check` reads study files that somebody got wrong: right, or refused with one error that names file and key."""

import re
import resource

from soaking.kinds_of_studies import BASE, WAYS, Wrong, text
from soaking.runs import Ended, efface, fresh
from soaking.table import Setting, Table

MOST = 2.0
"""Gigabytes that `check` may hold; an undisturbed one holds about 0.6."""
ALLOWED = 16 << 30
"""Bytes of addresses: what asks for more fails, and this machine goes on."""


def studies(setting: Setting) -> Table:
    """So many studies, each way of a mistake in its turn; by default 40 of each."""
    table = Table("studies")
    folder = fresh(setting.out / "work")
    (folder / "study.yml").write_bytes(text(BASE))
    plain = efface(folder, "check", "study.yml", seconds=120)
    if plain.code != 0:
        table.add("as it should be", "LOST", plain.last)
        return table
    ways = [*WAYS]
    for number in range(setting.count or 40 * len(ways)):
        way = ways[number % len(ways)]
        wrong = WAYS[way](setting.draw)
        (folder / "study.yml").write_bytes(wrong.content)
        before = {each.name for each in folder.iterdir()}
        ended = efface(folder, "check", "study.yml", seconds=plain.seconds + setting.ceiling, before=bounded)
        outcome, note = judged(ended, wrong)
        if written := {each.name for each in folder.iterdir()} - before:
            outcome, note = ("executed" if "executed" in written else "LOST"), f"check leaves {sorted(written)}"
        table.add(way, outcome, f"{note} (case-{number}.yml)", ended.seconds)
        if table.notes and table.notes[-1].endswith(f"(case-{number}.yml)"):
            (setting.out / f"case-{number}.yml").write_bytes(wrong.content)
        folder = fresh(folder) if written else folder
    return table


def bounded() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ALLOWED, ALLOWED))


def judged(ended: Ended, wrong: Wrong) -> tuple[str, str]:  # noqa: PLR0911  one line for each outcome
    """The outcome of one `check`, and a note."""
    note = f"exit {ended.code}: {ended.last}"
    if ended.code is None:
        return "hang", note
    if ended.traceback or ended.code not in (0, 1, 2):
        return "traceback", f"{note}; {ended.errors[-300:]!r}"
    if ended.gigabytes > MOST:
        return "memory", f"{ended.gigabytes:.1f} GB; {note}"
    if ended.code == 0:
        return ("SILENT", f"it should be refused, but passes; {wrong.names}") if wrong.refused else ("taken", "")
    if re.search(r"study\.yml:\d+:", ended.errors):
        return "refused: file and line", ""
    if wrong.names and not any(name in ended.errors for name in wrong.names):
        return "unclear", f"{note}; expected one of {wrong.names}"
    if "study.yml" in ended.errors:
        return "refused: file and key", ""
    return ("refused: key alone", "") if wrong.names else ("unclear", note)
