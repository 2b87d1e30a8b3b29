"""Locks on files, for one process of a run or one computation at a time."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from efface.store.sealed import warn


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Lock a run folder for this process inside the block. ValueError: another process has the lock.

    On a disk without file locks, as some NFS are, a line says so and the block runs without a lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / ".owner"
    try:
        with locked(folder / ".lock", wait=False):
            owner.unlink(missing_ok=True)  # a copy of the run may share it
            owner.write_text(str(os.getpid()))
            yield
    except Timeout as error:
        process = owner.read_text() if owner.is_file() else "?"
        raise ValueError(
            f"{folder}: another efface (process {process}) is at work there; wait for it, or give this study another "
            "folder with out=..."
        ) from error


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of this file inside the block. Timeout: another process holds it, and `wait` is False."""
    lock = FileLock(path, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except (NotImplementedError, OSError) as error:
        if isinstance(error, Timeout):
            raise
        warn(
            f"{path}: this disk has no file locks ({error}); efface goes on without one, so start no second efface in "
            "this folder"
        )
        yield
        return
    try:
        yield
    finally:
        lock.release()
