"""Values in messages: short, and in one line, whatever they are."""

import re
from typing import Any

LONGEST = 80
"""Characters of a value in a message."""
LONGEST_WORD = 300
"""Characters of a word in a message, such as a path."""

_NO_PAGE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""Characters that XML does not know: control characters but tab and ends of lines, halves of pairs."""
_NO_TERMINAL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that a terminal takes for commands, or cannot show."""


def shown(value: Any) -> str:
    """Return a value as Python writes it, in one line of at most `LONGEST` characters; the middle is left out."""
    if isinstance(value, str) and len(value) > LONGEST:
        return f"{repr(value[: LONGEST // 2])[:LONGEST]}... ({len(value):,} characters)"
    if isinstance(value, int) and abs(value) >= 10**LONGEST:
        return f"a whole number of more than {LONGEST} digits"
    try:
        text = " ".join(repr(value).split()) if not isinstance(value, str) else repr(value)
    except Exception:  # noqa: BLE001  whatever `__repr__` of a user's class raises, or a number within is too long
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}...{text[-LONGEST // 4 :]}"


def key_shown(key: str) -> str:
    """Return a key of a study as it was written; as `shown` if it is long, or cannot be printed."""
    return key if len(key) <= LONGEST and key.isprintable() else shown(key)


def cut(text: str) -> str:
    """Return a message whose long words are cut, and whose control characters are visible."""
    text = re.sub(rf"\S{{{LONGEST_WORD},}}", lambda match: f"{match[0][:LONGEST]}...{match[0][-LONGEST // 4 :]}", text)
    return _NO_TERMINAL.sub(lambda match: ascii(match[0])[1:-1], text)


def unprintable(text: str) -> str | None:
    """Return the first character that a page cannot hold, as an escape; None if there is none."""
    match = _NO_PAGE.search(text)
    return ascii(match[0])[1:-1] if match else None
