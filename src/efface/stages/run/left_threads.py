"""Threads that a method leaves running: they may change the network after its call, while others are at work."""

import _thread
import threading
import time
from typing import NamedTuple

from efface.execute.own_signals import threads_begun

_GRACE = 0.05
"""Seconds that threads have to end, all together."""
_OWN = "efface-"


class Threads(NamedTuple):
    """The threads of this process: those that Python knows by name, and the number of the others.

    begun: number of threads without a name that were started so far.
    """

    named: frozenset[threading.Thread]
    others: int
    begun: int


def running() -> Threads:
    """Return the threads that run now, without those that a library in C has started."""
    named = [thread for thread in threading.enumerate() if not isinstance(thread, threading._DummyThread)]  # noqa: SLF001
    return Threads(frozenset(named), _thread._count() - len(named), threads_begun())  # noqa: SLF001


def left_since(before: Threads) -> list[str]:
    """Return the names of the threads that have started since and do not end; threads of efface do not count."""
    until = time.monotonic() + _GRACE
    if threads_begun() > before.begun:
        time.sleep(_GRACE)  # such a thread counts only after it began
    while names := _started(before):
        if time.monotonic() > until:
            return names
        time.sleep(0.002)
    return []


def _started(before: Threads) -> list[str]:
    now = running()
    names = sorted(thread.name for thread in now.named - before.named if not thread.name.startswith(_OWN))
    return [*dict.fromkeys(names), *["without a name"] * (now.others > before.others)]
