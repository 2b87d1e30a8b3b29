"""Output of a stage: lines of text, and times."""

import time


class Clock:
    """Measures the time since it was made."""

    def __init__(self) -> None:
        self._started, self._worked = time.monotonic(), time.process_time()

    def seconds(self) -> dict[str, float]:
        """Return `seconds` of wall time and `cpu_seconds` of this process, as a result line has them."""
        passed, worked = time.monotonic() - self._started, time.process_time() - self._worked
        return {"seconds": round(passed, 3), "cpu_seconds": round(worked, 3)}


def say(line: str) -> None:
    """Print a line on stdout at once."""
    print(line, flush=True)


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
