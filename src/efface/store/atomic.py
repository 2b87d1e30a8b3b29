"""Files that are either whole or not there: written under another name, then renamed."""

import contextlib
import glob
import os
import time
from collections.abc import Iterator
from pathlib import Path

_ABANDONED = 3600.0
"""Seconds after which a temporary file belongs to nobody: its writer would have written to it since."""


@contextlib.contextmanager
def atomic_write(path: Path, *, synced: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what was written there takes the name `path` at the end.

    Readers find the earlier file or the new one, never a part. After an exception the earlier file stays and the
    temporary one is removed. The temporary name holds the process's number, so that two processes do not write into
    the same file. A process that is killed leaves its file; the next write of `path` removes it once it is an hour old.
    The folder is made where there is none.

    synced: the content is on the disk before the file gets its name, so that it also survives a loss of power.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        yield temporary
        if synced:
            with temporary.open("r+b") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _remove_abandoned(path: Path) -> None:
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.new"):
        with contextlib.suppress(FileNotFoundError):  # its process has just renamed or removed it
            if time.time() - left.stat().st_mtime > _ABANDONED:
                left.unlink()
