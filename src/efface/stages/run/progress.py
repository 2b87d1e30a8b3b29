"""What a stage says while it works: a bar with an estimate of the time left, and plain lines around it."""

import sys
import time

from tqdm import tqdm


class Clock:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._started, self._worked = time.monotonic(), time.process_time()

    def seconds(self) -> dict[str, float]:
        """As a result's line has them: `seconds` that passed, and `cpu_seconds`, which other work does not lengthen."""
        passed, worked = time.monotonic() - self._started, time.process_time() - self._worked
        return {"seconds": round(passed, 3), "cpu_seconds": round(worked, 3)}


def bar(total: float, what: str, unit: str, *, delay: float = 0.0) -> "tqdm[None]":
    """A progress bar on stderr; on a terminal it moves, in a log file it writes a line every half minute.

    delay: seconds before it shows, for work that is mostly done by then.
    """
    often = 0.2 if sys.stderr.isatty() else 30.0
    return tqdm(
        total=total,
        desc=what,
        unit=unit,
        unit_scale=True,
        mininterval=often,
        smoothing=0.1,
        dynamic_ncols=True,
        delay=delay,
        leave=not delay,
    )


def say(line: str) -> None:
    """A line for the user, above any bar."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def duration(seconds: float) -> str:
    """Seconds in the words of a person who waits: 42 s, 3 min 10 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
