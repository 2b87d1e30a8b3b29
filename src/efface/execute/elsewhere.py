"""Work for processes that this program does not start itself: how it gets there, and how its outcome comes back."""

import importlib
import io
import os
import pickle
import sys
from dataclasses import dataclass
from types import FunctionType
from typing import Any


@dataclass(frozen=True)
class Place:
    """Where a program works: its folder, and the folders in which it finds modules."""

    folder: str
    path: tuple[str, ...]

    @classmethod
    def here(cls) -> "Place":
        """Return the place of this process."""
        return cls(str(os.getcwd()), tuple(os.path.abspath(each) for each in sys.path))  # noqa: PTH100, PTH109

    def enter(self) -> None:
        """Make it the place of this process. ValueError: this machine does not have the folder."""
        try:
            os.chdir(self.folder)
        except OSError as error:
            raise ValueError(
                f"{self.folder}: the machine {os.uname().nodename} does not have this folder ({error.strerror}); start "
                "the command in a folder that every machine sees under the same path"
            ) from error
        sys.path[:] = [*self.path, *(each for each in sys.path if each not in self.path)]


def needed(package: str, extra: str) -> Any:
    """Return a package that is an extra of efface. ValueError: it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as problem:
        raise ValueError(
            f"efface.execute.{extra} needs {package}, which is not installed; run: pip install 'efface[{extra}]'"
        ) from problem


def packed(value: Any) -> bytes:
    """Return work or a task as bytes. ValueError: it does not pickle, or other machines do not have its code."""
    file = io.BytesIO()
    try:
        _Pickler(file).dump(value)
    except Exception as error:  # pickle raises many types of exceptions
        raise cannot_be_sent(error) from error
    return file.getvalue()


class _Pickler(pickle.Pickler):
    """Pickles functions and classes by their names, as usual, but none of the program that was started."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, type | FunctionType) and value.__module__ == "__main__":
            raise ValueError(f"{value.__qualname__} is defined in the program itself, which no other process imports")
        return NotImplemented


def cannot_be_sent(error: Exception) -> ValueError:
    """Return the error for work that does not pickle."""
    return ValueError(
        f"executor: this work cannot be sent to other processes ({type(error).__name__}: {error}); define the "
        "functions and classes that it uses at the top level of a module, or set executor: efface.execute.serial"
    )


def answer(work: bytes, task: bytes) -> bytes:
    """Return what the work returns for the task, or the exception that it raises, as bytes for `outcome`."""
    try:
        return pickle.dumps((pickle.loads(work)(pickle.loads(task)), None))  # noqa: S301  written by `packed`
    except Exception as error:  # noqa: BLE001  `outcome` raises it again
        try:
            return pickle.dumps((None, error))
        except Exception:  # noqa: BLE001  pickle raises many types of exceptions
            return pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))


def outcome(answered: bytes) -> Any:
    """Return what the work returned, or raise what it raised."""
    result, error = pickle.loads(answered)  # noqa: S301  written by `answer`
    if error is not None:
        raise error
    return result


def check_counts(most: int, **counts: int | None) -> None:
    """Raise ValueError for settings that are no integers from 1 to `most`. None is allowed."""
    for name, value in counts.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most):
            raise ValueError(f"kwargs.{name}: is {value!r}; expected an integer from 1 to {most}")
