"""Errors of a user's code in words."""

import sysconfig
import traceback
from pathlib import Path

import efface
from efface.execute.attempt import text_of

_EFFACE = str(Path(efface.__file__).parent)
_INSTALLED = (*(sysconfig.get_paths()[each] for each in ("purelib", "platlib", "stdlib", "platstdlib")), "<")


def error_text(error: BaseException) -> str:
    """Return an error of a method in one sentence, with the file and line of the method's own code."""
    if isinstance(error, ValueError | FileNotFoundError) and text_of(error).startswith("attribution_methods."):
        return text_of(error)
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames if not each.filename.startswith((_EFFACE, *_INSTALLED))]
    last = (own or frames)[-1]
    kind = "" if isinstance(error, ValueError | FileNotFoundError) and not own else f"{type(error).__name__}: "
    where = f" ({last.filename}:{last.lineno})" if own else ""
    return f"{kind}{text_of(error)}{where}"
