"""The pages on the code are true: examples of docs/extending.md run, files that a page names are there."""

import importlib
import re
from pathlib import Path

import pytest
import yaml

import efface.__main__ as program
import efface.commands.program as lines
from efface import stages
from efface.study.study import check, read
from small.studies import STUDY, write_study
from small.studies import efface as run_efface
from test_layers import LAYERS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()
PAGES = ("docs/extending.md", "docs/architecture.md", "CONTRIBUTING.md")
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))


def modules(text):
    """The files of the Python examples, by the name of the module, which stands in their first line."""
    blocks = re.findall(r"```python\n# (\w+)\.py\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == text.count("```python"), "an example lacks the name of its file"
    return dict(blocks)


def changes(text):
    """The keys of a study that the YAML examples set."""
    found = {}
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        found |= yaml.safe_load(block)
    return found


def test_the_smallest_study_is_whole(tmp_path):
    (text,) = re.findall(r"```text\n(out: .*?)```", PAGE, re.DOTALL)
    found = check(yaml.safe_load(text), tmp_path / "study.yml")
    assert [each.name for each in found.metrics] == ["morf"]


EXAMPLES = [name for name, text in SECTIONS.items() if "```yaml" in text]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder: it is the current one, and its modules are importable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def merged():
    """One study with the examples of all sections."""
    whole = {"fit": dict(STUDY["fit"]), "attribution_methods": [], "metrics": ["morf", "roar"]}
    for name in EXAMPLES:
        for key, value in changes(SECTIONS[name]).items():
            if isinstance(value, list) and key in ("attribution_methods", "metrics"):
                whole[key] += [each for each in value if each not in whole[key]]
            elif key == "fit":
                whole["fit"] |= value
            else:
                whole[key] = value
    return whole


def test_every_kind_of_the_table_has_a_section_with_both_lists():
    listed = re.findall(r"^\| \[([^\]]+)\]\(#([\w-]+)\)", PAGE, re.MULTILINE)
    assert len(listed) == 19
    for name, link in listed:
        section = SECTIONS[name[0].upper() + name[1:]]
        assert link == name.replace(" ", "-")
        assert "**Must have:**" in section
        assert "**May have:**" in section
        assert "```python" in section or name == "section of the page"


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_study_of_an_example_is_read(name, folder):
    study = read(write_study(folder, modules(SECTIONS[name]), **changes(SECTIONS[name])))
    own = next(iter(modules(SECTIONS[name])))
    assert f"{own}." in study.model_dump_json(), "the study names what the example defines"


@pytest.mark.long
@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_runs_alone(name, tmp_path):
    own = changes(SECTIONS[name])
    write_study(tmp_path, modules(SECTIONS[name]), **own)
    done = run_efface(tmp_path, "check", "study.yml")
    assert done.code == 0, done.err
    done = run_efface(tmp_path, "all", "study.yml")
    assert done.code == 0, done.err
    assert (tmp_path / "run" / "report" / "report.html").exists()


@pytest.mark.long
def test_all_examples_run_together_and_show_on_the_page(tmp_path):
    own = merged()
    write_study(tmp_path, modules(PAGE), **own)
    done = run_efface(tmp_path, "all", "study.yml")
    assert done.code == 0, done.err
    table = (tmp_path / "run" / "report" / "summary.csv").read_text()
    assert [each["name"] for each in own["attribution_methods"] if each["name"] not in table] == []
    assert "gap" in table
    page = (tmp_path / "run" / "report" / "report.html").read_text()
    assert "<h2>Places</h2>" in page


def test_a_check_function_and_a_preset_beside_a_plug_in_are_read(folder):
    text = SECTIONS["Regulariser"]
    fit = changes(text)["fit"]
    study = read(write_study(folder, modules(text), fit=fit))
    assert [each.factor for each in study.fit.regularizers] == [0.01, 1e-3]
    fit["regularizers"][0]["kwargs"]["power"] = 0
    with pytest.raises(ValueError, match="power is 0"):
        read(write_study(folder, modules(text), fit=fit))


def test_the_stage_of_the_page_is_a_word_of_the_command_line(folder, monkeypatch, capsys):
    own = folder / "own_stages"
    own.mkdir()
    (own / "count.py").write_text(modules(SECTIONS["Stage"])["count"])
    monkeypatch.setattr(stages, "__path__", [*stages.__path__, str(own)])
    monkeypatch.setitem(program.STAGES, "count", "say how many images each split has")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_study(folder)
    assert program.main(["count", "study.yml"]) == 0
    assert "train: 48 images\ntest: 24 images\n" in capsys.readouterr().out


def test_the_command_of_the_page_is_a_word_of_the_command_line(folder, monkeypatch, capsys):
    (folder / "rows.py").write_text(modules(SECTIONS["Command"])["rows"])
    own = importlib.import_module("rows").rows
    commands = lines.COMMANDS | {"Look up": (*lines.COMMANDS["Look up"], own)}
    monkeypatch.setattr(lines, "COMMANDS", commands)
    write_study(folder)
    assert program.main(["rows", "study.yml"]) == 0
    assert capsys.readouterr().out.split() == ["random", "mine", "red", "green"]
    assert program.main(["-h"]) == 0
    assert "Print the rows that the page of a study has" in " ".join(capsys.readouterr().out.split())
    assert program.main(["rows", "nowhere.yml"]) == 2


def test_facts_of_the_page_are_those_that_the_code_reads():
    from efface.plug.facts import KNOWN

    rows = re.findall(r"^\| (`[^|]+) \|", SECTIONS["What holds for every kind"], re.MULTILINE)
    named = set(re.findall(r"`(\w+)`", "".join(rows)))
    assert set(KNOWN) <= named


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_is_there(page):
    text = (ROOT / page).read_text()
    named = set(re.findall(r"`((?:src|tests|docs|configs|scripts)/[\w./-]+)`", text))
    assert named
    files = [each for each in sorted(named) if "WORD" not in each and "NAME" not in each]
    assert [each for each in files if not (ROOT / each).exists()] == []


def test_the_picture_of_the_layers_has_their_order():
    text = (ROOT / "docs" / "architecture.md").read_text()
    (picture,) = re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL)
    boxes = [set(names.split(", ")) for names in re.findall(r'\w+\["([^"]+)"\]', picture)]
    assert boxes[::-1] == list(LAYERS)


def test_every_folder_of_the_package_has_its_line():
    text = (ROOT / "docs" / "architecture.md").read_text()
    folders = [each for each in sorted((ROOT / "src" / "efface").rglob("*")) if (each / "__init__.py").exists()]
    assert [each.name for each in folders if f"| `{each.relative_to(ROOT / 'src')}/` |" not in text] == []


PLAIN = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "docs/studies.md", *PAGES[:2])]
PLAIN += [each for folder in ("src", "tests", "configs", "scripts") for each in (ROOT / folder).rglob("README.md")]


PROSE = sorted({*PLAIN, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")})


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_of_prose_are_at_most_120_characters(page):
    lines = page.read_text().splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith(("|", "!["))] == []


def anchors(page):
    """The places of a page that a link can name."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PLAIN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_a_file_and_a_heading(page):
    for file, heading in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text()):
        other = page.parent / file if file else page
        assert other.exists(), file
        assert not heading or heading in anchors(other), f"{file}#{heading}"
