"""The wheel alone: its metadata, its files, and the demo in an empty folder, without the repository."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

import efface
from efface.commands import cite
from efface.commands.demo import STUDY

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SMALLEST = ["fit.epochs=1", "fractions=[0.5]", "repeats=1", "metrics=[morf]", "executor=serial", "data.kwargs.limit=40"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel that is built from a copy of the sources, without a network."""
    copy = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "src" / "efface", copy / "src" / "efface", ignore=shutil.ignore_patterns("__pycache__"))
    code = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return copy / "dist" / done.stdout.split()[-1]


def in_empty_folder(site, folder, *words):
    """`efface WORDS` in a folder, with the wheel's files before all others."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env |= {"PYTHONPATH": str(site), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "efface", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600, check=False)


def test_the_study_of_the_demo_is_that_of_the_repository():
    assert STUDY.read_text() == (ROOT / "configs" / "digits.yml").read_text(), (
        "run: cp configs/digits.yml src/efface/commands/digits.yml"
    )


@pytest.mark.long
def test_the_wheel_has_all_that_the_package_reads(wheel):
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
        metadata = Parser().parsestr(opened.read(next(each for each in names if each.endswith("/METADATA"))).decode())
    src = ROOT / "src"
    kept = {str(path.relative_to(src)) for path in (src / "efface").rglob("*") if path.is_file()}
    left_out = {each for each in kept if "__pycache__" in each or each.endswith("README.md")}
    assert kept - left_out <= names
    assert metadata["Name"] == "efface"
    assert metadata.get_payload() == (ROOT / "README.md").read_text()
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["Keywords"] == ",".join(PROJECT["keywords"])
    assert metadata.get_all("Classifier") == PROJECT["classifiers"]
    assert any(each.startswith("click") for each in metadata.get_all("Requires-Dist"))


@pytest.mark.long
def test_the_demo_runs_in_an_empty_folder_and_goes_on_where_it_was(wheel, tmp_path):
    site, folder = tmp_path / "site", tmp_path / "empty"
    folder.mkdir()
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(site)
    where = subprocess.run(
        [sys.executable, "-c", "import efface; print(efface.__file__)"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.strip() == str(site / "efface" / "__init__.py")
    done = in_empty_folder(site, folder, "demo", *SMALLEST)
    assert done.returncode == 0, done.stderr
    page = folder / "runs" / "digits" / "report" / "report.html"
    assert "The page: runs/digits/report/report.html." in done.stdout
    assert page.stat().st_size > 10_000
    assert [each.name for each in folder.iterdir()] == ["runs"]
    trained = (folder / "runs/digits/results.jsonl").read_bytes()
    again = in_empty_folder(site, folder, "demo", *SMALLEST)
    assert again.returncode == 0, again.stderr
    assert "trained" not in again.stdout
    assert (folder / "runs/digits/results.jsonl").read_bytes() == trained
    status = in_empty_folder(site, folder, "status", "runs/digits")
    assert "0 left" in status.stdout
    wrong = in_empty_folder(site, folder, "demo", "fit.epoch=1")
    assert (wrong.returncode, "did you mean 'epochs'?" in wrong.stderr) == (2, True)


@pytest.mark.long
def test_a_new_study_is_written_and_accepted_with_the_wheel_alone(wheel, tmp_path):
    site, folder = tmp_path / "site", tmp_path / "empty"
    folder.mkdir()
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(site)
    assert in_empty_folder(site, folder, "new", "mine.yml").returncode == 0
    done = in_empty_folder(site, folder, "check", "mine.yml", "executor=serial")
    assert done.returncode == 0, done.stderr
    assert [each.name for each in folder.iterdir()] == ["mine.yml"]


def test_the_package_is_typed():
    assert (Path(efface.__file__).parent / "py.typed").is_file()


def test_the_citation_file_has_what_its_form_requires_and_agrees_with_the_package():
    tree = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(tree)
    assert tree["cff-version"] == "1.2.0"
    assert tree["authors"] == PROJECT["authors"] == [{"name": cite.AUTHORS}]
    assert tree["version"] == PROJECT["version"] == efface.__version__
    assert tree["title"] == cite.TITLE
    assert tree["license"] == PROJECT["license"]
    assert tree["keywords"] == PROJECT["keywords"]
    assert f"(c) {cite.YEAR} {cite.AUTHORS}" in (ROOT / "LICENSE").read_text()
