"""What a message must name, whatever its sentence."""

import re

TOKEN = re.compile(r"\([^()]*\)|\[[^\]]*\]|\S+")


def words(text: str) -> str:
    """A pattern that finds every word of `text`, in any order: what a message names, not how it says it.

    Words are split at spaces, but not within brackets, so a shape such as (3, 8, 8) is one word.
    """
    return "(?s)^" + "".join(f"(?=.*{_whole(word)})" for word in TOKEN.findall(text))


def _whole(word: str) -> str:
    before = r"(?<!\w)" if re.match(r"\w", word) else ""
    after = r"(?!\w)" if re.search(r"\w$", word) else ""
    return before + re.escape(word) + after


def names(message: str, text: str) -> bool:
    """Whether a message names every word of `text`, in any order."""
    return re.search(words(text), message) is not None
