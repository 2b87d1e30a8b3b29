"""Text of tasks on a terminal that shows more than this text: whole lines go elsewhere."""

import os
import threading
from collections.abc import Callable
from typing import Any


class Lines:
    """A text stream that hands whole lines to a function. All else is that of the real stream.

    A process that is forked from this one writes to the real stream.

    stream: the real one. tell: gets one or more lines, each with its end.
    """

    def __init__(self, stream: Any, tell: Callable[[str], None]) -> None:
        self.real, self._tell, self._process = stream, tell, os.getpid()
        self._rest, self._lock = "", threading.RLock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def write(self, text: str) -> int:
        """Take text, and hand on the lines that are whole by now."""
        if os.getpid() != self._process:
            return int(self.real.write(text))
        with self._lock:
            whole, end, self._rest = (self._rest + text).rpartition("\n")
            if end:
                self._tell(whole + end)
        return len(text)

    def writelines(self, texts: Any) -> None:
        """Take several texts."""
        for text in texts:
            self.write(text)

    def finish(self) -> None:
        """Hand on a last line without an end."""
        with self._lock:
            if self._rest:
                self.write("\n")
