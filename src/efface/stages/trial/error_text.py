"""Errors of a user's code in words."""

import re

from efface.execute.attempt import own_place, text_of
from efface.study.schema import MethodEntry


def error_text(error: BaseException) -> str:
    """Return an error of a method in one sentence, with the file and line of the method's own code."""
    if isinstance(error, ValueError | FileNotFoundError) and text_of(error).startswith("attribution_methods."):
        return text_of(error)
    place = own_place(error)
    kind = "" if isinstance(error, ValueError | FileNotFoundError) and not place else f"{type(error).__name__}: "
    return f"{kind}{text_of(error)}{f' ({place})' if place else ''}"


_OF_AXES = re.compile(
    r"returned shape|dimension|\bdims?\b|\b[0-9]-?d\b|\bshapes?\b|size of tensor|sizes of tensors|input of size|"
    r"cannot be converted to (a )?scalar|one element tensors|out of (bounds|range)|channels, but got|broadcast",
    re.IGNORECASE,
)


def batch_hint(entry: MethodEntry, error: BaseException) -> str:
    """Return what a method is given, if it fails on the number of axes or on an index; "" for any other failure.

    A method that takes a batch and one that takes a single image fail so when `batched` says the opposite.
    """
    if not isinstance(error, IndexError) and not _OF_AXES.search(text_of(error)):
        return ""
    if not entry.batched:
        return (
            ". With batched: false the method gets one image at a time, of shape (1, c, h, w), and its label as a "
            "tensor without axes; drop this key if the method takes n images and n labels"
        )
    if entry.method is None or entry.method.startswith("efface."):
        return ""
    return (
        ". The method gets n images of shape (n, c, h, w) and n labels; write batched: false in its entry if it takes "
        "one image at a time"
    )
