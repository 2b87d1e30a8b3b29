"""Speed of work, and the time that the rest may take."""

import math


class Speed:
    """Mean work for each second, in which recent work counts more.

    A second of age a has the weight exp(-a / memory). The memory grows with the run, so that a task of an hour that
    tells nothing until its end does not stop the clock.

    now: seconds of any clock. memory: seconds. share: of the time since the start that the memory has at least.
    """

    def __init__(self, now: float, *, memory: float, share: float = 0.0) -> None:
        self._began = self._then = now
        self._memory, self._share = memory, share
        self._work = self._time = 0.0

    def add(self, now: float, work: float) -> None:
        """Count work that was done since the last call, or 0. Work before any time has passed does not count."""
        if now <= self._then:
            return
        passed, self._then = now - self._then, now
        kept = math.exp(-passed / max(self._memory, self._share * (now - self._began)))
        self._work, self._time = self._work * kept + work, self._time * kept + passed

    @property
    def each_second(self) -> float:
        """The work of a second; 0 before there is any."""
        return self._work / self._time if self._time > 0 else 0.0

    def seconds_for(self, work: float) -> float | None:
        """Return the seconds that so much more work may take; None if none was done so far."""
        return work / self.each_second if self.each_second > 0 else None


def roughly(seconds: float) -> str:
    """Return a time that is only estimated: 5 s, 45 s, 12 min, 3 h 5 min, 2 days 4 h."""
    if seconds < 90:
        return f"{max(5, 5 * round(seconds / 5))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    hours, minutes = divmod(5 * round(seconds / 300), 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days {hours % 24} h"
