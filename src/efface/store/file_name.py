"""Names of files for names that a person chose."""

import hashlib
import re

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*(~[0-9]+)?")
_LONGEST = 60


def file_name(name: str) -> str:
    """Return the name as it is if it is one of letters, digits and `. _ + -`.

    Any other name keeps these signs, and a digest of the whole name tells it from names that look alike.
    """
    if _PLAIN.fullmatch(name):
        return name
    readable = re.sub(r"[^A-Za-z0-9_.+-]+", "-", name).strip("-.")[:_LONGEST]
    return f"{readable or 'x'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
