"""The tutorial and the pages of docs/how-to run as they stand: their files, commands, and what they promise to show."""

import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from torch import nn

import efface
from efface.study.study import read
from small.studies import efface as run_efface
from small.studies import write_study
from test_extending import anchors

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NEW = ["index.md", "tutorial.md", "troubleshooting.md"]
NEW += [
    page.relative_to(DOCS).as_posix() for place in ("how-to", "explanation") for page in (DOCS / place).glob("*.md")
]
RUN = ["tutorial.md", *[page for page in NEW if page.startswith("how-to/") and not page.endswith("index.md")]]
SHORT = {"./taskw demo": ["all", "configs/digits.yml", "fit.epochs=1", "repeats=1", "metrics=[morf, roar]"]}
"""The demo has its own tests; here it runs with less, so that a page is there to be named."""


def blocks(page):
    """The fenced blocks of a page, in order: language, text."""
    return re.findall(r"^```(\w+)\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


def named(text):
    """The name of the file in the first line of a block, or none."""
    found = re.match(r"# ([\w.]+\.(?:py|yml))\n", text)
    return found[1] if found else None


def command(line):
    """The words after `efface` of a line of a shell, or the script that Python runs."""
    if line in SHORT:
        return SHORT[line]
    words = shlex.split(line)
    assert words[0] in ("efface", "python"), f"{line}: no such command is known to this test"
    return words[1:] if words[0] == "efface" else words


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("my_maps", "my_net", "my_data", "my_metric", "my_executor"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    return tmp_path


def run_python(file):
    """Run a file of the page. test_scripts.py runs the scripts of the repository, in their smallest size."""
    if file.startswith("scripts/"):
        assert (ROOT / file).is_file()
    else:
        runpy.run_path(file, run_name="__main__")


@pytest.mark.long
@pytest.mark.parametrize("page", RUN)
def test_a_page_runs_as_it_stands(page, folder):
    said, ran = "", 0
    for language, text in blocks(page):
        if language in ("python", "yaml") and named(text):
            (folder / named(text)).write_text(text)
        elif language == "sh":
            said = ""
            for line in text.splitlines():
                words = command(line.partition("  #")[0].strip())
                if words[0] == "python":
                    run_python(words[1])
                    continue
                done = run_efface(folder, *words)
                assert done.code == 0, f"{line}: {done.err}"
                said, ran = said + done.out + done.err, ran + 1
        elif language == "text":
            for line in text.splitlines():
                assert re.search(".*".join(map(re.escape, line.split("..."))), said), f"{line}\n{said}"
    assert ran > 0
    for config in folder.glob("*.yml"):
        report = folder / yaml.safe_load(config.read_text())["out"] / "report" / "report.html"
        assert report.is_file(), config
    if page == "tutorial.md":
        assert_verdicts_of_the_table(folder / "runs/mine/report/table.csv")


def assert_verdicts_of_the_table(file):
    """The verdicts of the tutorial's table are those of the run."""
    rows = re.findall(r"^\| (.+?) \|$", (DOCS / "tutorial.md").read_text(), re.MULTILINE)
    cells = [[cell.strip() for cell in row.split("|")] for row in rows]
    (names,) = [row[1:] for row in cells if "`morf` &darr;" in row]
    (words,) = [row[1:] for row in cells if row[0] == "mine against smooth_grad"]
    table = pd.read_csv(file)
    (mine,) = table[table.method == "mine"].to_dict("records")
    said = {re.findall(r"\w+", name)[0]: word for name, word in zip(names, words, strict=True)}
    assert said == {name: mine[f"{name} verdict"] for name in said}
    assert sum(column.endswith(" verdict") for column in table.columns) == len(said)


@pytest.mark.parametrize("page", RUN)
def test_a_part_of_a_study_on_a_page_is_read(page, folder):
    for language, text in blocks(page):
        if language == "yaml" and not named(text):
            assert read(write_study(folder, fit=None, metrics=["morf"], **yaml.safe_load(text)))


@pytest.mark.parametrize("page", RUN)
def test_every_block_of_a_page_is_of_a_kind_that_is_tested(page):
    known = {"python", "yaml", "sh", "text", "py", "bash"}
    assert {language for language, _ in blocks(page)} <= known
    assert [text for language, text in blocks(page) if language == "python" and not named(text)] == []
    for language, text in blocks(page):
        if language == "bash":  # a job's file: its last line is a command of efface
            assert text.splitlines()[-1].split()[:2] == ["efface", "all"]


@pytest.mark.long
def test_the_metric_of_a_function_runs_as_the_page_has_it():
    ((_, text),) = [block for block in blocks("how-to/own-metric.md") if block[0] == "py"]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(16, 3))
    names = {"efface": efface, "model": model, "images": torch.rand(6, 3, 8, 8), "labels": torch.arange(6) % 3}
    exec(compile(text, "own-metric.md", "exec"), names)  # noqa: S102
    table = names["result"].table
    assert set(table.metric) == {"centred", "morf"}
    shares = table[table.metric == "centred"].value
    assert shares.between(0, 1).all()


@pytest.mark.long
def test_files_that_publish_names_are_written(folder):
    text = (DOCS / "how-to/publish.md").read_text()
    study = next(block for language, block in blocks("how-to/publish.md") if language == "yaml")
    (folder / "publish.yml").write_text(study)
    done = run_efface(folder, "all", "publish.yml", "fit.epochs=1")
    assert done.code == 0, done.err
    table = text.split("| file | for |")[1].split("\n\n")[0]
    for name in re.findall(r"`([\w./]+\.\w+)`", table):
        assert (folder / "runs/publish/report" / name).is_file(), name


@pytest.mark.parametrize("page", NEW)
def test_lines_and_links_of_a_page_are_sound(page):
    text = (DOCS / page).read_text()
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    assert [line for line in prose.splitlines() if len(line) > 120 and not line.startswith(("|", "!["))] == []
    assert "—" not in text
    for file, heading in re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", prose):
        other = (DOCS / page).parent / file if file else DOCS / page
        assert other.exists(), file
        assert not heading or heading in anchors(other), f"{file}#{heading}"


def test_what_metrics_show_has_every_family_once():
    from efface.metrics import metric, names

    text = (DOCS / "explanation/what-metrics-show.md").read_text()
    families = re.findall(r"^\| \[(\w+)\]\(#\1\)", text, re.MULTILINE)
    known = {metric(name).family for name in names()} - {"network"}
    assert known <= {*families}, known - {*families}
    assert re.findall(r"^## (\w+)\n", text, re.MULTILINE) == [name.capitalize() for name in families]
