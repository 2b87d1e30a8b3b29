"""Tasks that the workers of a cluster import."""

import time


def nothing(task: int) -> int:
    """Return the task."""
    return task


def sleeps(task: int, *, seconds: float) -> int:
    """Return the task after some seconds."""
    time.sleep(seconds)
    return task
