"""Work that may fail. A stage passes it to an executor."""

import sysconfig
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

import efface
from efface.execute.progress import go_on, is_stop

_EFFACE = str(Path(efface.__file__).parent)
_INSTALLED = (*(sysconfig.get_paths()[name] for name in ("purelib", "platlib", "stdlib", "platstdlib")), "<")


class Failure(NamedTuple):
    """The failure of a task.

    message: one sentence for the user.
    trace: the traceback, for the author of the code that failed.
    place: name and line of the file of the user's own code that failed; "" if there is none.
    """

    message: str
    trace: str
    place: str = ""

    @property
    def reason(self) -> str:
        """The first line of the message, and the place."""
        first = self.message.strip().partition("\n")[0]
        return f"{first} ({self.place})" if self.place and self.place not in first else first

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        """Return the failure for an exception; its message names any type but ValueError and FileNotFoundError."""
        plain = isinstance(error, ValueError | FileNotFoundError)
        message = text_of(error) if plain else f"{type(error).__name__}: {text_of(error)}"
        return cls(message, "".join(traceback.format_exception(error)), own_place(error))


def own_place(error: BaseException) -> str:
    """Return file and line of the user's own code in which an error was raised, or a cause of it; "" if there is none.

    The file has its name alone: a page that is published tells no folder of its author. The trace has the folder.
    """
    one: BaseException | None = error
    while one is not None:
        frames = traceback.extract_tb(one.__traceback__)
        own = [frame for frame in frames if not frame.filename.startswith((_EFFACE, *_INSTALLED))]
        if own:
            return f"{Path(own[-1].filename).name}:{own[-1].lineno}"
        one = one.__cause__
    return ""


def text_of(error: BaseException) -> str:
    """Return the text of an error; an error of the user's own class may have none."""
    try:
        return str(error)
    except Exception as odd:  # noqa: BLE001  whatever `__str__` of a user's class raises
        return f"it has no text, because its __str__ raises {type(odd).__name__}"


@dataclass(frozen=True)
class Attempt:
    """Work whose exceptions become outcomes, so that a failed task does not stop the others. The stage creates it.

    It pickles if `work` does. A Ctrl-C is raised as usual; an exit that the work itself asks for is a
    failure.

    work: the function of a task.
    threads: threads of torch while a task runs, at least 1; the earlier number is restored after the task. None does
        not change torch.
    """

    work: Callable[[Any], Any]
    threads: int | None = None

    def __call__(self, task: Any) -> Any:
        """Return the result of the work for the task, or a `Failure`."""
        go_on()
        before = torch.get_num_threads()
        if self.threads is not None:
            set_torch_defaults(self.threads)
        try:
            return self.work(task)
        except BaseException as error:
            if is_stop(error):
                raise KeyboardInterrupt from error
            return Failure.of(error)
        finally:
            if torch.get_num_threads() != before:
                torch.set_num_threads(before)


def set_torch_defaults(threads: int) -> None:
    """Set torch as in every process of a run: the number of threads, and on a GPU reproducible bits in full fp32."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    # This block is freed at once. After that, glibc keeps freed memory up to twice this size and does not return it to
    # the system, so a forward pass need not map new pages for each layer (ResNet20, 256 images: 226 ms, not 331).
    torch.empty(31 << 20, dtype=torch.uint8)
