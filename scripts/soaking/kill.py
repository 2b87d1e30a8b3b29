"""Runs that are killed at random moments and run again until they end. They must find what an undisturbed run finds."""

import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from soaking.runs import (
    PATTERN,
    STUDY,
    TWO_WORKERS,
    Command,
    different,
    efface,
    fresh,
    living,
    numbers,
    orphans,
    strike,
)
from soaking.runs import write_study as write
from soaking.table import Setting, Table

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
EXECUTORS = {"serial": "serial", "processes": TWO_WORKERS}
MOST_STRIKES = 3
SLOW = """import time


def slow(model, images, targets):
    time.sleep(0.25)
    return images.sum(1) * targets[:, None, None]
"""
"""A method whose calls take long, so that some kills fall into one."""

PLAIN_EVERY = 8
"""One run in so many is started by a new Python, so that the imports are killed, too."""


def kill(setting: Setting) -> Table:
    """So many kills. Each of the four signals, executors and aims takes its turn."""
    table, count = Table("kill"), setting.count or 40
    methods = [*STUDY["attribution_methods"], PATTERN, {"name": "slow", "method": "own.slow"}]
    reference, usual = {}, {}
    executors = EXECUTORS if count >= len(SIGNALS) else {"serial": "serial"}  # workers need seconds to start
    for name, executor in executors.items():
        folder = fresh(setting.out / "undisturbed" / name)
        write_both(folder, attribution_methods=methods, executor=executor)
        ended = efface(folder, "all", "study.yml", seconds=600)
        if ended.code != 0:
            table.add(f"undisturbed, {name}", "LOST", ended.last)
            return table
        reference[name], usual[name] = numbers(folder / "run"), ended.seconds
    if any(different(each, reference["serial"]) for each in reference.values()):
        table.add("undisturbed", "SILENT", "serial and processes differ")
    kinds = [(name, sign, whole) for sign in SIGNALS for whole in (True, False) for name in executors]
    setting.draw.shuffle(kinds)
    kills = number = 0
    while kills < count:
        name, sign, whole = kinds[number % len(kinds)]
        number += 1
        folder = fresh(setting.out / "killed")
        write_both(folder, attribution_methods=methods, executor=EXECUTORS[name])
        strikes = min(setting.draw.randint(1, MOST_STRIKES), count - kills)
        limit = setting.ceiling + usual[name]
        kind = f"{sign.name} to {'all' if whole else 'the parent'}, {name}"
        outcome, note, struck = struck_again(folder, strikes, sign, limit, setting.draw, whole=whole, usual=usual[name])
        kills += struck
        seconds = 0.0
        if outcome is None:
            ended = efface(folder, "all", "study.yml", seconds=limit + 3 * usual[name])
            seconds, note = ended.seconds, ended.last
            wrong = different(numbers(folder / "run"), reference[name]) if ended.code == 0 else []
            outcome = "hang" if ended.code is None else "traceback" if ended.traceback else "equal"
            if outcome == "equal" and (wrong or ended.code):
                outcome, note = ("SILENT", f"{len(wrong)} differ: {wrong[:4]}") if wrong else ("LOST", ended.last)
        for _ in range(max(1, struck)):
            table.add(kind, outcome, note, seconds)
        if outcome != "equal":
            keep(folder, setting.out / f"bad-{number}")
    return table


def struck_again(
    folder: Path, strikes: int, sign: signal.Signals, limit: float, draw: random.Random, *, whole: bool, usual: float
) -> tuple[str | None, str, int]:
    """What was bad of the kills, a note, and how many there were: a run may end before it is struck."""
    struck = 0
    for _ in range(strikes):
        plain = draw.randrange(PLAIN_EVERY) == 0
        command = Command(folder, "all", "study.yml", plain=plain)
        time.sleep(draw.uniform(0, usual + (3 if plain else 0)))
        struck += command.process.exitcode is None
        at_once = living(command.pid) if whole else [command.pid]
        strike(at_once, sign)
        ended = command.wait(limit)
        left = orphans(command.pid)
        note = f"exit {ended.code}: {ended.last}"
        if ended.code is None:
            return "hang", f"after {sign.name}, {note}", struck
        if left:
            return "orphan", f"{len(left)} processes live after {sign.name}", struck
        if ended.traceback:
            return "traceback", f"{note}; {ended.errors[-600:]!r}", struck
        if sign != signal.SIGKILL and ended.code not in (0, 130, -sign, -signal.SIGINT):  # Python ends itself by SIGINT
            return "unclear", note, struck
    return None, "", struck


def write_both(folder: Path, **changes: Any) -> None:
    """Write the study, and the slow method beside it."""
    (folder / "own.py").write_text(SLOW)
    write(folder, **changes)


def keep(folder: Path, at: Path) -> None:
    """Keep a folder for a look."""
    shutil.rmtree(at, ignore_errors=True)
    shutil.move(folder, at)
