"""The documentation site: it builds without warnings, needs no network, and has every page and every plug-in."""

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from efface.plug import words

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, where one function of the slugs is named by a tag."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)
CONFIG = yaml.load((ROOT / "mkdocs.yml").read_text(), _Loader)  # noqa: S506  a safe loader that keeps the tag as text


def listed(nav):
    """The pages of a part of the navigation."""
    if isinstance(nav, str):
        return [nav]
    return [page for part in (nav.values() if isinstance(nav, dict) else nav) for page in listed(part)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as the target does it, and what the build said."""
    out = tmp_path_factory.mktemp("site") / "site"
    words_of_build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words_of_build, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return out


def test_every_page_of_docs_is_in_the_navigation_once():
    pages = [page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")]
    pages += [f"{page.relative_to(DOCS).as_posix()}.md" for page in DOCS.rglob("*.ipynb")]
    assert sorted(listed(CONFIG["nav"])) == sorted(pages)


def test_the_target_and_ci_build_the_site_and_warnings_are_errors():
    target = yaml.safe_load((ROOT / "Taskfile.yml").read_text())["tasks"]["docs"]["cmd"]
    assert target.startswith("mkdocs build --strict")
    assert "./taskw docs\n" in (ROOT / ".ci/run").read_text()
    assert "/site/" in (ROOT / ".gitignore").read_text().splitlines()


def test_every_kind_of_plug_in_has_a_place_in_the_reference():
    text = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    assert sorted(re.findall(r"^<!-- reference: (\w+) -->$", text, re.MULTILINE)) == sorted(words.KINDS)


def test_the_tools_of_the_site_are_pinned_once_and_not_in_the_runtime():
    def pins(name):
        lines = (ROOT / name).read_text().splitlines()
        return {line.split("==")[0]: line.split()[0] for line in lines if "==" in line}

    site, runtime, dev = map(pins, ("requirements-docs.txt", "requirements.txt", "requirements-dev.txt"))
    assert {"mkdocs", "mkdocs-material", "mkdocstrings-python"} <= set(site) - set(runtime)
    assert [name for name in site if {runtime.get(name, site[name]), dev.get(name, site[name])} != {site[name]}] == []
    assert "-r requirements-docs.txt" in (ROOT / "requirements-dev.txt").read_text().splitlines()


def test_a_docstring_becomes_a_list_of_settings_and_paragraphs(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "docs_site"))
    from docstrings import as_markdown

    text = "A mean.\n\nsteps: points on the line;\n    each costs one pass.\nlow, high: ends.\n\n"
    text += "Source: A 2017.\nDiffers: B."
    assert as_markdown(text).splitlines() == [
        "A mean.",
        "",
        "",
        "- **`steps`**: points on the line;",
        "    each costs one pass.",
        "- **`low, high`**: ends.",
        "",
        "",
        "",
        "**Source:** A 2017.",
        "",
        "**Differs:** B.",
    ]


@pytest.mark.long
def test_the_site_builds_without_a_warning_and_reads_nothing_from_the_network(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]+src=\"([^\"]+)\"", text)
        loaded += re.findall(r"<link[^>]+rel=\"(?:stylesheet|icon|preload|preconnect)\"[^>]+href=\"([^\"]+)\"", text)
        assert [each for each in loaded if "//" in each] == [], page
    styles = "".join(style.read_text() for style in site.rglob("*.css"))
    assert re.findall(r"url\(['\"]?(?:https?:)?//[^)]*\)|@import[^;]*//[^;]*;", styles) == []


@pytest.mark.long
def test_links_of_the_site_lead_to_a_page_and_a_place(site):
    places = {page: set(re.findall(r"\bid=\"([^\"]+)\"", page.read_text())) for page in site.rglob("*.html")}
    for page in places:
        (article,) = re.findall(r"<article.*?</article>", page.read_text(), re.DOTALL) or [""]
        for link in re.findall(r"<a [^>]*?href=\"([^\"]+)\"", article):
            file, _, place = html.unescape(link).partition("#")
            if "://" in link or link.startswith("mailto:"):
                continue
            target = (page.parent / file).resolve() if file else page
            assert target.exists(), f"{page.relative_to(site)}: {link}"
            assert not place or target.suffix != ".html" or place in places[target], f"{page.relative_to(site)}: {link}"


@pytest.mark.long
def test_every_plug_in_and_call_has_its_docstring_on_the_site(site):
    text = "".join(page.read_text() for page in (site / "reference").glob("*.html"))
    paths = [path for kind in words.KINDS for path in words.index(kind).values()]
    assert [path for path in paths if f'id="{path}"' not in text] == []
    for name in ("evaluate", "maps", "compare"):
        assert f'id="efface.api.evaluate.{name}"' in text
    for name in ("api.metrics.metric", "api.result.Result", "metrics.formula.Metric", "store.foreign_write.write_maps"):
        assert f'id="efface.{name}"' in text
    assert "<strong><code>points</code></strong>: steps along the axis besides 0" in text
    plain = html.unescape(re.sub(r"<[^>]+>", "", text))
    assert "points: int | None = None" in plain  # the signature
    assert "LeRF: least relevant first. The score of the given network" in plain  # a value without settings
    (cam,) = re.findall(r"\ngrad_cam\(.*?Selvaraju et al", plain, re.DOTALL)
    assert "This module's docstring" not in cam or "The module:" in cam


@pytest.mark.long
def test_a_list_is_a_list_also_right_behind_a_line_of_text(site):
    text = (site / "repository" / "CHANGELOG.html").read_text()
    assert text.count("<li>") > 100
    for page in site.rglob("*.html"):
        assert "reference" in page.parts or not re.search(r"<p>[^<]*(?:<(?!/p>)[^<]*)*\n[-*] ", page.read_text()), page


@pytest.mark.long
def test_files_outside_docs_and_the_notebook_are_pages(site):
    config = (site / "repository" / "configs" / "my_folder_vit.yml.html").read_text()
    assert "attribution_methods" in config
    assert "../repository/configs/my_folder_vit.yml.html" in (site / "studies.html").read_text() or (
        "repository/configs/my_folder_vit.yml.html" in (site / "studies.html").read_text()
    )
    assert "efface in a notebook" in (site / "notebooks" / "quickstart.ipynb.html").read_text()
