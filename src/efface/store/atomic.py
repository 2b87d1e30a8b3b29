"""Atomic writes of files: a file is written under another name, then renamed."""

import contextlib
import hashlib
import os
import socket
import time
from collections.abc import Collection, Iterator
from pathlib import Path

_ABANDONED = 3600.0
"""Seconds without a write after which a temporary file counts as abandoned."""

_SHARE = 100
_LISTED: dict[Path, tuple[float, list[str]]] = {}
"""By folder: when it is listed again, and the temporary files that it had."""


@contextlib.contextmanager
def atomic_write(path: Path, *, synced: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`. At the end of the block, the temporary file is renamed to `path`.

    Readers find the earlier file or the new one, never a part. After an exception, the earlier file stays and the
    temporary file is removed. The temporary name contains the machine and the process number, so that two processes do
    not write into the same file. A killed process leaves its temporary file. A later write of `path` on the same
    machine removes that file. A write on another machine removes it once it is an hour old. The folder is created if it
    does not exist.

    synced: True to sync the content to the disk before the file is renamed, so that it also survives a loss of power.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    temporary = path.with_name(f".{path.name}.{_machine()}-{os.getpid()}.new")
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
    for name in _temporaries(path.parent):
        if not name.startswith(f".{path.name}."):
            continue
        with contextlib.suppress(FileNotFoundError):  # its process has just renamed or removed it
            abandoned = path.parent / name
            machine, _, process = abandoned.name.removesuffix(".new").removeprefix(f".{path.name}.").rpartition("-")
            is_dead = machine == _machine() and process.isdecimal() and not _is_running(int(process))
            if is_dead or time.time() - abandoned.stat().st_mtime > _ABANDONED:
                abandoned.unlink()


def _temporaries(folder: Path) -> Collection[str]:
    """Return the names of temporary files in a folder, as it was a short time ago.

    A run may write 100,000 files into one folder. To list it takes at most a hundredth of the time.
    """
    due, names = _LISTED.get(folder, (0.0, []))
    if (now := time.monotonic()) >= due:
        names = [name for name in os.listdir(folder) if name[:1] == "." and name.endswith(".new")]  # noqa: PTH208
        _LISTED[folder] = now + _SHARE * (time.monotonic() - now), names
    return names


def _machine() -> str:
    """Return a short name for the space of process numbers: this machine, and its container if there is one."""
    space = Path("/proc/self/ns/pid")
    container = str(space.readlink()) if space.is_symlink() else ""
    return hashlib.sha256(f"{socket.gethostname()} {container}".encode()).hexdigest()[:8]


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
