"""Output of a stage: a progress bar with the time left, and lines of text."""

import sys
import time

from tqdm import tqdm


class Clock:
    """Measures the time since it was made."""

    def __init__(self) -> None:
        self._started, self._worked = time.monotonic(), time.process_time()

    def seconds(self) -> dict[str, float]:
        """Return `seconds` of wall time and `cpu_seconds` of this process, as a result line has them."""
        passed, worked = time.monotonic() - self._started, time.process_time() - self._worked
        return {"seconds": round(passed, 3), "cpu_seconds": round(worked, 3)}


def bar(total: float, what: str, unit: str, *, delay: float = 0.0) -> "tqdm[None]":
    """Return a progress bar on stderr. In a log file it writes a line every half minute.

    delay: seconds before the bar shows.
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
    """Print a line above any bar."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def say_out_of_memory(where: str, max_batch: int) -> None:
    """Say that work goes on with fewer images in a pass."""
    say(f"{where}: out of memory, so it goes on with max_batch={max_batch}")


def duration(seconds: float) -> str:
    """Return seconds as text: 42 s, 3 min 10 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
