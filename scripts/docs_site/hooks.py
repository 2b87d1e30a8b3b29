"""Hooks of mkdocs: files outside docs become pages, the notebook becomes a page, plug-ins come from their docstrings.

The pages of docs are written for the plain repository. There a link such as ../configs/digits.yml leads to the file. On
the site every file that a page links to is a page below `repository/`, and the links are turned round accordingly.
"""

import json
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
OUTSIDE = "repository"
_LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)\s#]+)([^)]*\))")
_MARKER = re.compile(r"^<!-- reference: (\w+) -->$", re.MULTILINE)
_FENCED = re.compile(r"^(`{3,}|~{3,}).*?^\1`*\s*?$", re.DOTALL | re.MULTILINE)
_TIGHT_LIST = re.compile(r"^((?![-*] |[|#<>\s]|\d+\. ).+\n)(?=[-*] |1\. )", re.MULTILINE)
"""A line of text before a list: unlike the repository's Markdown, that of the site needs an empty line between them."""
_PAGES = (".md", ".ipynb")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every file outside docs that a page links to, and for every notebook."""
    docs = Path(config.docs_dir)
    for notebook in sorted(docs.rglob("*.ipynb")):
        files.append(File.generated(config, _site_page(notebook), content=_cells(notebook)))
    todo = sorted(docs.rglob("*.md"))
    seen = set(todo)
    while todo:
        page = todo.pop()
        for target in _targets(page):
            if target in seen or not target.is_file():
                continue
            seen.add(target)
            if docs not in target.parents:
                files.append(File.generated(config, _site_page(target), content=_content(target)))
                if target.suffix == ".md":
                    todo.append(target)
    return files


def on_page_markdown(markdown: str, *, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Turn links that leave docs to the pages of those files, and put plug-ins in the place of their marker."""
    source = _repository_path(page.file.src_uri)
    here = posixpath.dirname(page.file.src_uri)

    def turned(match: re.Match[str]) -> str:
        target = (source.parent / match[2]).resolve()
        if not target.exists() or (ROOT not in target.parents):
            return match[0]
        return f"{match[1]}{posixpath.relpath(_site_page(target), here or '.')}{match[3]}"

    def linked(text: str) -> str:
        return _TIGHT_LIST.sub(r"\1\n", _LINK.sub(turned, text))

    return _MARKER.sub(lambda match: _plug_ins(match[1]), _outside_fences(markdown, linked))


def _outside_fences(text: str, change: Any) -> str:
    """Return the text with the parts that are not fenced code changed."""
    found, at = [], 0
    for match in _FENCED.finditer(text):
        found += [change(text[at : match.start()]), match[0]]
        at = match.end()
    return "".join([*found, change(text[at:])])


def _targets(page: Path) -> list[Path]:
    """Return the files that a page links to."""
    text = _FENCED.sub("", page.read_text())
    return [(page.parent / match[2]).resolve() for match in _LINK.finditer(text)]


def _repository_path(uri: str) -> Path:
    """Return the file of a page of the site."""
    if uri.startswith(f"{OUTSIDE}/"):
        path = ROOT / uri.removeprefix(f"{OUTSIDE}/")
        return path if path.exists() else path.with_suffix("")
    return ROOT / "docs" / uri


def _site_page(path: Path) -> str:
    """Return the place of a file of the repository among the sources of the site."""
    docs = ROOT / "docs"
    if docs in path.parents:
        uri = path.relative_to(docs).as_posix()
        return f"{uri}.md" if path.suffix == ".ipynb" else uri
    uri = f"{OUTSIDE}/{path.relative_to(ROOT).as_posix()}"
    return uri if path.suffix in (*_PAGES, ".png") else f"{uri}.md"


def _content(path: Path) -> str | bytes:
    """Return the page of a file outside docs: a page of text as it is, code in a fence below its name."""
    if path.suffix == ".md":
        return path.read_text()
    if path.suffix == ".png":
        return path.read_bytes()
    kind = {".yml": "yaml", ".py": "python", ".toml": "toml"}.get(path.suffix, "text")
    return f"# {path.relative_to(ROOT).as_posix()}\n\n`````{kind}\n{path.read_text()}`````\n"


def _cells(path: Path) -> str:
    """Return the cells of a notebook as a page."""
    found = [f"[The notebook itself]({path.name})\n"]
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        found.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join([found[1], found[0], *found[2:]])


def _plug_ins(kind: str) -> str:
    """Return a heading and the docstring of every plug-in of a kind, by its short word."""
    sys.path.insert(0, str(ROOT / "src"))
    from efface.plug import words

    if kind not in words.KINDS:
        raise PluginError(f"reference: there is no kind '{kind}'; there are {', '.join(words.KINDS)}")
    options = "    options:\n      show_root_heading: true\n      heading: {0}\n      toc_label: {0}\n"
    return "\n".join(f"::: {path}\n{options.format(word)}" for word, path in words.index(kind).items())
