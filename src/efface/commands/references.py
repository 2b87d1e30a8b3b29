"""References to papers, read from the `Source:` of docstrings, and written as BibTeX.

A docstring names authors and a year, mostly an arXiv number or a DOI, and sometimes a title or a venue. An entry has
what is there, and nothing else.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

_NAME = r"[A-ZÀ-Ý][\w'-]*[a-zà-ÿ][\w'-]*"  # a venue such as ICLR has capitals alone
_PAPER = re.compile(
    rf"(?P<authors>{_NAME}(?:, {_NAME})*(?: & {_NAME})?(?P<others> et al\.)?),?(?: (?P<venue>[A-Z][A-Za-z]+))? "
    r"(?P<year>(?:19|20)\d\d)\b"
)
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_DOI = re.compile(r"doi[: ] ?(10\.[^\s);]+)")
_QUOTED = re.compile(r'"([^"]+)"')
_NO_TITLE = re.compile(r"\d|^IEEE |arXiv|doi|'s ")
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})


@dataclass(frozen=True)
class Reference:
    """A paper. What a docstring does not say is empty.

    authors: family names. others: whether there are more authors. used_by: what the paper is cited for.
    """

    authors: tuple[str, ...]
    others: bool
    year: str
    venue: str = ""
    title: str = ""
    arxiv: str = ""
    doi: str = ""
    used_by: tuple[str, ...] = field(default=(), compare=False)

    @property
    def key(self) -> str:
        """Return the name of the entry: first author and year."""
        name = unicodedata.normalize("NFKD", self.authors[0].lower().translate(_UMLAUTS))
        return re.sub(r"[^a-z]", "", name) + self.year

    @property
    def parts(self) -> int:
        """Return how much is known of the paper."""
        return len(self.authors) + sum(2 for each in (self.venue, self.title, self.arxiv, self.doi) if each)

    def may_be(self, other: "Reference") -> bool:
        """Return whether two references with the same first author and year may name the same paper."""
        if self.key != other.key:
            return False
        pairs = ((self.arxiv, other.arxiv), (self.doi, other.doi), (self.venue, other.venue))
        return not any(a and b and a != b for a, b in pairs)


def references(source: str, used_by: str) -> Iterator[Reference]:
    """Yield the papers that a text such as `Selvaraju et al. 2017, section 3 (arXiv:1610.02391)` names."""
    found = list(_PAPER.finditer(source))
    ends = [*(following.start() for following in found[1:]), len(source)]
    for paper, end in zip(found, ends[: len(found)], strict=True):
        rest = source[paper.end() : end]
        names = tuple(re.split(r", | & ", paper["authors"].removesuffix(" et al.")))
        arxiv, doi = _ARXIV.search(rest), _DOI.search(rest)
        yield Reference(
            names,
            paper["others"] is not None,
            paper["year"],
            paper["venue"] or "",
            _title(rest),
            arxiv[1] if arxiv else "",
            doi[1].rstrip(".,") if doi else "",
            (used_by,),
        )


def _title(rest: str) -> str:
    """Return the title in the text behind authors and year; "" if there is none."""
    if quoted := _QUOTED.search(rest):
        return quoted[1]
    if whole := re.match(r", ([A-Z][\w -]+: [a-z][^;(,]+)", rest):  # a title with a colon
        return whole[1].strip()
    for part in re.split(r"[,;:(] ?|\)", rest):
        words = part.strip().split()
        if len(words) > 1 and words[0][0].isupper() and not _NO_TITLE.search(part):
            return " ".join(words)
    return ""


def merged(every: Iterable[Reference]) -> list[Reference]:
    """Return each paper once, sorted by key. A reference that says less is one that says more, if only one fits."""
    found: list[Reference] = []
    for each in sorted(every, key=lambda one: -one.parts):
        fitting = [at for at, one in enumerate(found) if one.may_be(each)]
        if len(fitting) != 1:
            found.append(each)
            continue
        whole = found[fitting[0]]
        used = tuple(dict.fromkeys([*whole.used_by, *each.used_by]))
        found[fitting[0]] = replace(
            whole,
            venue=whole.venue or each.venue,
            title=whole.title or each.title,
            arxiv=whole.arxiv or each.arxiv,
            doi=whole.doi or each.doi,
            used_by=used,
        )
    return sorted(found, key=lambda one: (one.key, one.arxiv, one.doi, one.venue))


def bibtex(every: Iterable[Reference]) -> str:
    """Return the papers as BibTeX. Papers with the same first author and year get a letter."""
    papers = list(every)
    keys = [paper.key for paper in papers]
    written = []
    for at, paper in enumerate(papers):
        letter = chr(ord("a") + keys[:at].count(paper.key)) if keys.count(paper.key) > 1 else ""
        lines = {
            "author": " and ".join([*paper.authors, *(["others"] if paper.others else [])]),
            "title": f"{{{paper.title}}}" if paper.title else "",
            "year": paper.year,
            "howpublished": paper.venue,
            "eprint": paper.arxiv,
            "archivePrefix": "arXiv" if paper.arxiv else "",
            "doi": paper.doi,
        }
        told = ",\n".join(f"  {name} = {{{value}}}" for name, value in lines.items() if value)
        written.append(f"% {', '.join(paper.used_by)}\n@misc{{{paper.key}{letter},\n{told}\n}}")
    return "\n\n".join(written)
