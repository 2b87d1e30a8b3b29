"""A method misbehaves beside honest ones. Their maps and rows must be those of a study without it."""

import contextlib
from pathlib import Path

from soaking.kinds_of_methods import KINDS, module_of
from soaking.runs import METHODS, TWO_WORKERS, Ended, efface, fresh, maps_digest, tables
from soaking.runs import write_study as write
from soaking.table import Setting, Table

TIMEOUT = 2.0
"""The bad entry's own `timeout`, in seconds."""
WITH_WORKERS = ("raises late", "exits hard late", "exits late", "changes the weights", "leaves training mode")


def methods(setting: Setting) -> Table:
    """Each kind of misbehaviour once, and some with two workers; or so many of them."""
    table = Table("methods")
    cases = [(kind, False) for kind in KINDS]
    if setting.count is None or setting.count > len(WITH_WORKERS):  # workers need seconds to start
        cases += [(kind, True) for kind in WITH_WORKERS]
    setting.draw.shuffle(cases)
    cases = cases[: setting.count]
    reference = {}
    for two in sorted({each for _, each in cases}):
        folder = fresh(setting.out / "without")
        write(folder, **executor(two=two))
        ended = efface(folder, "all", "study.yml", seconds=600)
        reference[two] = (honest(folder / "run"), ended.seconds)
    for number, (kind, two) in enumerate(cases):
        folder = fresh(setting.out / f"case-{number}")
        (folder / "bad.py").write_text(module_of(kind))
        entry = {"name": "bad", "method": "bad.bad", "timeout": TIMEOUT}
        write(folder, attribution_methods=[METHODS[0], entry, *METHODS[1:]], **executor(two=two))
        expected, usual = reference[two]
        ended = efface(folder, "all", "study.yml", seconds=usual + setting.ceiling)
        outcome, note = judged(ended, honest(folder / "run"), expected)
        if outcome == "left to the next run":  # the process itself ended: the next run leaves the method out
            ended = efface(folder, "all", "study.yml", seconds=usual + setting.ceiling)
            outcome, note = judged(ended, honest(folder / "run"), expected)
            outcome = "LOST" if outcome == "left to the next run" else outcome
        table.add(kind + (", two workers" if two else ""), outcome, note, ended.seconds)
    return table


def executor(*, two: bool) -> dict[str, object]:
    return {"executor": TWO_WORKERS} if two else {}


def honest(run: Path) -> dict[str, object]:
    """The maps of the honest methods and their rows of the summary, without the comparisons with others."""
    found: dict[str, object] = {}
    for each in METHODS:
        for path in sorted(run.glob(f"maps/{each['name']}-*.h5")):
            found[path.name] = "unreadable"
            with contextlib.suppress(OSError):
                found[path.name] = maps_digest(path)
    names = {each["name"] for each in METHODS}
    found["rows"] = sorted(row[:5] for row in tables(run)["summary.csv"] if row[2] in names)
    return found


def judged(  # noqa: PLR0911  one line for each outcome
    ended: Ended, found: dict[str, object], expected: dict[str, object]
) -> tuple[str, str]:
    """The outcome of one run with a bad method, and a note."""
    note = f"exit {ended.code}: {ended.last}"
    named = "bad" in ended.errors and ended.code in (1, 2)
    unreadable = [name for name, value in found.items() if value == "unreadable"]
    if unreadable and ended.code == 1 and all(name in ended.errors for name in unreadable):
        return "the damaged file is named", note
    wrong = [name for name, value in found.items() if name != "rows" and expected.get(name) != value]
    rows = found["rows"] if isinstance(found["rows"], list) else []
    other = [row for row in rows if row not in expected["rows"]] if isinstance(expected["rows"], list) else []
    if wrong or (other and found.keys() == expected.keys()):
        return "SILENT", f"{note}; other maps {wrong}, other rows {other[:2]}"
    if ended.traceback:
        return "traceback", f"{note}; {ended.errors[-400:]!r}"
    if ended.code is None:
        return "hang", note
    if found == expected:
        return ("taken, others equal" if ended.code == 0 else "named, others equal" if named else "unclear"), note
    if named and found == {"rows": []}:
        return "named before any work", note
    if ended.code == 0:
        return "SILENT", f"{note}; honest methods are missing"
    return "left to the next run", note
