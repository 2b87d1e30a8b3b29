"""References to papers, read from the `Source:` of docstrings, and written as BibTeX.

A docstring names authors and a year, mostly with a venue, an arXiv number or a DOI. `bibliography.bib` holds one entry
for each paper.
"""

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

_BIBLIOGRAPHY = Path(__file__).with_name("bibliography.bib")
_NAME = r"[A-ZÀ-Ý][\w'-]*[a-zà-ÿ][\w'-]*"  # a venue such as ICLR has capitals alone
_PAPER = re.compile(
    rf"(?P<authors>{_NAME}(?:, {_NAME})*(?: & {_NAME})?)(?: et al\.)?,?(?: (?P<venue>[A-Z][A-Za-z]+))? "
    r"(?P<year>(?:19|20)\d\d)\b"
)
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_DOI = re.compile(r"doi[: ] ?(10\.[^\s);]+)")


@functools.cache
def bibliography() -> dict[str, str]:
    """Return the BibTeX entry of each paper by its key."""
    entries = re.finditer(r"^@\w+\{(\w+),\n.*?^\}$", _BIBLIOGRAPHY.read_text(), re.MULTILINE | re.DOTALL)
    return {entry[1]: entry[0] for entry in entries}


def cited(source: str) -> Iterator[str]:
    """Yield the key of each paper that a text such as `Selvaraju et al. 2017, section 3 (arXiv:1610.02391)` names.

    LookupError: the bibliography has no entry for a paper, or several.
    """
    papers = [*_PAPER.finditer(source)]
    for paper, following in itertools.zip_longest(papers, papers[1:]):
        yield _key(paper, source[paper.end() : following.start() if following else None])


def _key(paper: re.Match[str], rest: str) -> str:
    """Return the key of a paper. rest: the text behind it, up to the next paper."""
    names = [_letters(name) for name in re.split(r", | & ", paper["authors"])]
    arxiv, doi = _ARXIV.search(rest), _DOI.search(rest)
    said = [
        paper["venue"] or "",
        f"eprint = {{{arxiv[1]}}}" if arxiv else "",
        f"doi = {{{doi[1].rstrip('.,')}}}" if doi else "",
    ]
    fitting = [
        key
        for key, entry in bibliography().items()
        if re.fullmatch(f"{names[0]}{paper['year']}[a-z]*", key)
        and all(name in _letters(entry) for name in names)
        and all(part in entry for part in said)
    ]
    if len(fitting) != 1:
        raise LookupError(
            f"{_BIBLIOGRAPHY.name}: {' and '.join(fitting) or 'no entry'} for '{paper[0]}{rest}'; expected one entry "
            "with this author and year, and with the venue, arXiv number and DOI that are given"
        )
    return fitting[0]


def _letters(text: str) -> str:
    """Return the letters of a text in lower case and without accents, be they characters or LaTeX."""
    return re.sub(r"[^a-z]", "", unicodedata.normalize("NFKD", text).lower())


def bibtex(used_by: Mapping[str, Iterable[str]]) -> str:
    """Return entries as BibTeX, sorted by key. used_by: by the key of each, the words of what it is cited for."""
    return "\n\n".join(f"% {', '.join(words)}\n{bibliography()[key]}" for key, words in sorted(used_by.items()))
