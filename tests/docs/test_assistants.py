"""AGENTS.md and llms.txt: their links lead somewhere, their commands and files are real, their example runs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from small.studies import efface as run_efface
from test_extending import anchors

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "AGENTS.md").read_text()
LIST = (ROOT / "llms.txt").read_text()


@pytest.mark.parametrize("page", ["AGENTS.md", "llms.txt"])
def test_links_lead_to_a_file_and_a_heading(page):
    found = re.findall(r"\]\(([^)#]+)#?([^)]*)\)", (ROOT / page).read_text())
    assert len(found) > 10
    for file, heading in found:
        assert (ROOT / file).exists(), file
        assert not heading or heading in anchors(ROOT / file), f"{file}#{heading}"


def test_llms_txt_has_the_form_of_the_convention():
    lines = LIST.splitlines()
    assert lines[0] == "# efface"
    assert [line for line in lines if line.startswith("> ")] == [lines[2]]
    assert lines[2].startswith("> efface is ")
    sections = LIST.split("\n## ")[1:]
    assert [section.split("\n")[0] for section in sections][-1] == "Optional"
    for section in sections:
        for line in section.splitlines()[1:]:
            assert not line or re.fullmatch(r"- \[[^\]]+\]\([^)]+\): \S.*", line), line


def test_llms_txt_names_every_page_but_decisions_and_pages_of_the_reference():
    named = set(re.findall(r"\]\((docs/[^)#]+)", LIST))
    pages = {page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").rglob("*.md")}
    left_out = {page for page in pages if re.match(r"docs/(decisions/\d|reference/(?!index)|index|how-to/index)", page)}
    assert named == pages - left_out


def test_commands_of_the_guide_are_known_to_task():
    task = shutil.which("task") or str(Path(sys.executable).parent / "task")
    commands = re.findall(r"`\./taskw ([^`]+)`", GUIDE)
    assert len(commands) >= 9
    for command in commands:
        done = subprocess.run([task, "--dry", *command.split()], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"


def test_folders_of_the_guide_are_there_or_made_by_commands():
    table = GUIDE.split("## Layout")[1].split("##")[0]
    made = {"runs", "data", ".venv", "site"}
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    assert made <= ignored
    rows = re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE)
    folders = set(re.findall(r"`([^`]+)`", " ".join(rows))) - made
    assert len(folders) >= 6
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []


@pytest.mark.long
def test_the_example_of_the_guide_runs_and_its_files_are_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for language, name in (("python", "my_maps.py"), ("yaml", "study.yml")):
        (text,) = re.findall(rf"```{language}\n(# {re.escape(name)}\n.*?)```", GUIDE, re.DOTALL)
        (tmp_path / name).write_text(text)
    for word in ("check", "all"):
        done = run_efface(tmp_path, word, "study.yml")
        assert done.code == 0, done.err
    out = tmp_path / "runs" / "assistant"
    table = GUIDE.split("| file in `out` |")[1].split("\n\n")[0]
    for file in re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE):
        if file != "failures.log":
            assert list(out.glob(file.replace("KEY", "*").replace("METHOD", "mine"))), file
    names: dict[str, pd.DataFrame] = {}
    (code,) = re.findall(r"```py\n(.*?)```", GUIDE, re.DOTALL)
    exec(compile(code, "AGENTS.md", "exec"), names)  # noqa: S102
    assert {"p_corrected", "effect"} <= set(names["rows"].columns)
    assert "mine" in names["verdicts"].to_string()
    assert "random_p" in pd.read_csv(out / "report" / "summary.csv").columns
