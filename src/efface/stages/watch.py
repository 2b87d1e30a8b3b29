"""Stage watch: what is done, at work and left in the folder of a run, seen from another terminal or machine."""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from efface.stages.page.folders import kept_folder
from efface.stages.run.curves import RunRecord
from efface.stages.run.progress import duration, say
from efface.stages.work.at_work import at_work

RECENT = 300
"""Seconds over which the speed is counted."""
_MOST = 8


def watch(folder: Path, *, every: float = 5.0, once: bool = False) -> None:
    """Say what is done, at work and left, again and again until nothing is left. It reads files alone.

    In a terminal the lines replace each other. In a file they are written if they changed.

    folder: of a run, or of a study. every: seconds between two looks, above 0. once: look once.

    InvalidStudyError: the folder holds no plan, as before the first run of `extract`, `measure` or `all`.
    """
    shown: list[str] = []
    while True:
        begun = time.monotonic()
        runs = [run for several in kept_folder(folder)[0].values() for run in several]
        lines = [line for run in runs for line in lines_of(run)]
        if lines != shown:
            if shown and sys.stdout.isatty():
                sys.stdout.write(f"\x1b[{len(shown)}F\x1b[J")
            for line in lines:
                say(line)
            shown = lines
        if once or not any(_left(run) for run in runs):
            return
        time.sleep(max(every, 10 * (time.monotonic() - begun)))  # a folder of very many results takes long to read


def lines_of(run: RunRecord) -> list[str]:
    """Return what is said of one run: how much is done, how fast, when it may end, and what is at work."""
    left, working = _left(run), at_work(run.folder)
    told = [f"{run.folder}: {len(run.kept.tasks) - len(left)} of {len(run.kept.tasks)} probes done"]
    if not left:
        return [f"{told[0]}, nothing left"]
    recent = sum(_ended(run.results.records[key]) > time.time() - RECENT for key in set(run.kept.tasks) - left)
    told.append(f"{len(left)} left")
    told.append(f"{recent} results in the last {RECENT // 60} minutes")
    seconds, unknown = _expected(run, left)
    if seconds and (working or recent):
        seconds /= max(1, len(working))
        ends = datetime.now() + timedelta(seconds=seconds)  # noqa: DTZ005  the reader's own clock
        least = "at least " if unknown else ""
        told.append(f"{least}{duration(seconds)} to go, until {ends:%H:%M}")
    idle = [] if working or recent else ["  nothing is at work; the same command of the study goes on"]
    return [", ".join(told), *idle, *_working(run, working)]


def _working(run: RunRecord, working: Sequence[tuple[tuple[str, str], str, float]]) -> Iterator[str]:
    """Yield a line for each task at work, the longest first."""
    metrics = _metrics(run)
    for (name, part), machine, since in sorted(working, key=lambda found: -found[2])[:_MOST]:
        what = f"{name}, {metrics.get(part, part)}" if name.startswith("attribution_methods.") else name
        yield f"  {what}: for {duration(since)} on {machine}"
    if len(working) > _MOST:
        yield f"  and {len(working) - _MOST} more"


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
