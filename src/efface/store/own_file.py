"""An open file of efface, which code of others may close behind its back. Its number may then be another file's."""

import os
from io import FileIO
from pathlib import Path

_LOST: list[FileIO] = []
"""Files whose numbers belong to others by now. They are never closed here, for that would close the others."""


class OwnFile:
    """A file that is open for writing in place, without a buffer."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("r+b", buffering=0)
        self._opened = os.fstat(self._file.fileno())

    def checked(self) -> FileIO:
        """Return the open file. ValueError: it was closed, so that a write would go nowhere or into another file."""
        if not self.is_open():
            raise ValueError(
                f"{self._path}: was closed while it was written, by a method that closes files that it did not open; "
                "finished rows are kept; mend the method, and the same command continues from them"
            )
        return self._file

    def finish(self) -> None:
        """Put what was written onto the disk, and close the file. ValueError: it was closed before."""
        os.fsync(self.checked().fileno())
        self._file.close()

    def abandon(self) -> None:
        """Close the file, also a second time."""
        if self.is_open():
            self._file.close()
        else:
            _LOST.append(self._file)

    def is_open(self) -> bool:
        """Return whether only this object has closed the file, if anything has."""
        try:
            return self._file.closed or os.path.samestat(os.fstat(self._file.fileno()), self._opened)
        except OSError:
            return False
