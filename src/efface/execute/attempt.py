"""A task that may fail: what the stage hands to an executor as its work."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from efface.execute.progress import go_on


class Failure(NamedTuple):
    """What a task raised: one sentence, and the trace for whoever wrote the code that raised it."""

    message: str
    trace: str

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        """The failure that an exception tells of. A ValueError or a missing file speaks for itself."""
        plain = isinstance(error, ValueError | FileNotFoundError)
        message = str(error) if plain else f"{type(error).__name__}: {error}"
        return cls(message, "".join(traceback.format_exception(error)))


@dataclass(frozen=True)
class Attempt:
    """Work whose exceptions become outcomes, so that a failed task stops no other. The stage makes it.

    It pickles if `work` does. A KeyboardInterrupt is no outcome and goes on.

    threads: of torch, while a task runs; the number of before is set again after it. None leaves torch as it is.
    """

    work: Callable[[Any], Any]
    threads: int | None = None

    def __call__(self, task: Any) -> Any:
        """What the work returns for the task, or a `Failure`."""
        go_on()
        before = torch.get_num_threads()
        if self.threads is not None:
            set_torch_defaults(self.threads)
        try:
            return self.work(task)
        except Exception as error:  # noqa: BLE001  the stage decides what a failed task means
            return Failure.of(error)
        finally:
            if torch.get_num_threads() != before:
                torch.set_num_threads(before)


def set_torch_defaults(threads: int) -> None:
    """Torch as every process of a run has it: so many threads, and on a GPU the same bits each time, in full fp32."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    # Freed at once, untouched: then glibc keeps what is freed, up to twice this, instead of giving it back to the
    # system, and a pass need not get its pages anew for each layer (ResNet20, 256 images: 226 ms instead of 331).
    torch.empty(31 << 20, dtype=torch.uint8)
