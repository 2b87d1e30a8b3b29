"""Stage watch: what is done, at work and left in the folder of a run, seen from another terminal or machine."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from efface.execute.task_status import SILENCE, Seen, Statuses
from efface.stages.page.folders import kept_folder
from efface.stages.run.curves import RunRecord
from efface.stages.run.live_lines import Totals, total_line, worker_lines
from efface.stages.run.progress import duration, say
from efface.stages.run.terminal import CLEAR, block, is_terminal, size
from efface.study.yaml_file import InvalidStudyError

RECENT = 300
"""Seconds over which the speed is counted."""
_MOST = 8
"""Workers with a line, where lines are written into a file."""


def watch(folder: Path, *, every: float = 5.0, once: bool = False) -> None:
    """Say what is done, at work and left, again and again until nothing is left. It reads files alone.

    In a terminal the lines replace each other. In a file they are written if they changed.

    folder: of a run, or of a study. every: seconds between two looks, above 0. once: look once.

    InvalidStudyError: the folder holds no plan, and nothing works there.
    """
    drawn = is_terminal(sys.stdout) and not once
    try:
        _watch(folder, every=every, once=once, drawn=drawn)
    except KeyboardInterrupt:
        print(CLEAR if drawn else "", end="", flush=True)
        raise


def _watch(folder: Path, *, every: float, once: bool, drawn: bool) -> None:
    """drawn: draw the lines anew, on a terminal."""
    shown, statuses = list[str](), dict[Path, Statuses]()
    while True:
        begun = time.monotonic()
        columns, rows = size(sys.stdout)
        room = (rows, columns) if drawn else None
        try:
            runs = [run for several in kept_folder(folder)[0].values() for run in several]
        except InvalidStudyError:  # the plan is kept after the first training
            lines, is_over = _without_plan(folder, statuses, room), once
            if not lines and not shown:
                raise
        else:
            statuses |= {run.folder: Statuses([run.folder]) for run in runs if run.folder not in statuses}
            lines = [line for run in runs for line in lines_of(run, statuses[run.folder], room)]
            is_over = once or not any(_left(run) for run in runs)
        if is_over or not drawn:
            print(CLEAR if drawn else "", end="")
            for line in lines if lines != shown else ():
                say(line)
        else:
            print(block(lines[: rows - 2], columns), end="", flush=True)
        if is_over:
            return
        shown = lines or shown
        time.sleep(max(every, 10 * (time.monotonic() - begun)))  # a folder of very many results takes long to read


def _without_plan(folder: Path, statuses: dict[Path, Statuses], room: tuple[int, int] | None) -> list[str]:
    """Return what the command and its workers say in a folder, and in those of variants and seeds below."""
    names = [f"{below}{name}" for below in ("", "*/", "*/*/") for name in (".progress.json", ".worker-*.json")]
    places = sorted({path.parent for name in names for path in folder.glob(name)})
    statuses |= {place: Statuses([place]) for place in places if place not in statuses}
    return [line for place in places for line in _under_way(place, statuses[place].look(), room)]


def lines_of(run: RunRecord, statuses: Statuses, room: tuple[int, int] | None = None) -> list[str]:
    """Return what is said of one run: how much is done, how fast, when it may end, and what is at work.

    statuses: of its folder. room: rows and columns of a terminal.
    """
    left, workers = _left(run), statuses.look()
    told = [f"{run.folder}: {len(run.kept.tasks) - len(left)} of {len(run.kept.tasks)} probes done"]
    if not left:
        return [f"{told[0]}, nothing left"]
    working = sum(seen.is_sure for seen in workers)
    recent = sum(_ended(run.results.records[key]) > time.time() - RECENT for key in set(run.kept.tasks) - left)
    told.append(f"{len(left)} left")
    told.append(f"{recent} results in the last {RECENT // 60} minutes")
    seconds, unknown = _expected(run, left)
    if seconds and (working or recent):
        seconds /= max(1, working)
        ends = datetime.now() + timedelta(seconds=seconds)  # noqa: DTZ005  the reader's own clock
        least = "at least " if unknown else ""
        told.append(f"{least}{duration(seconds)} to go, until {ends:%H:%M}")
    under_way = _under_way(run.folder, workers, room)
    idle = [] if working or recent or under_way else ["  nothing is at work; the same command of the study goes on"]
    return [", ".join(told), *idle, *under_way]


def _under_way(folder: Path, workers: Sequence[Seen], room: tuple[int, int] | None) -> list[str]:
    """Return the lines of the command that works in a folder, if there is one, and of the workers."""
    lines = list[str]()
    if (found := Totals.kept(folder)) is not None:
        totals, silent = found
        where = f"process {totals.process} on {totals.node}"
        late = f", no report for {duration(silent)} (it may hang, or was killed)" if silent >= SILENCE else ""
        lines.append(f"  {total_line(replace(totals, where=where))}{late}")
    rows, columns = room or (None, None)
    return [*lines, *worker_lines(workers, _MOST if rows is None else rows - 5, columns)]


def _left(run: RunRecord) -> set[str]:
    """Return the keys of the results that are missing. Files of values are not opened."""
    return set(run.kept.tasks) - set(run.results.records)


def _expected(run: RunRecord, left: set[str]) -> tuple[float, bool]:
    """Return the seconds that the missing results may take on one worker, and whether some metric has none yet.

    A missing result is taken to need the mean seconds of its metric's results.
    """
    metrics, spent, counts = _metrics(run), Counter[str](), Counter[str]()
    for key in set(run.kept.tasks) - left:
        spent[metrics.get(key, "")] += run.results.records[key].get("seconds", 0.0)
        counts[metrics.get(key, "")] += 1
    wanted = Counter(metrics.get(key, "") for key in left)
    seconds = sum(count * spent[name] / counts[name] for name, count in wanted.items() if counts[name])
    return float(seconds), any(not counts[name] for name in wanted)


def _metrics(run: RunRecord) -> dict[str, str]:
    """Return the metric of each planned result, by key. Results that several metrics share count for the first."""
    found: dict[str, str] = {}
    for curve in run.kept.curves:
        for repeat in curve.repeats:
            for point in repeat:
                for key in point.values():
                    found.setdefault(key, curve.metric)
    return found


def _ended(record: dict[str, object]) -> float:
    """Return when a result was written, in seconds of the system's clock; 0 if its line does not say it."""
    try:
        return datetime.fromisoformat(str(record.get("time"))).timestamp()
    except ValueError:
        return 0.0
