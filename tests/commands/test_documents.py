"""`--json`: one document on stdout, messages on stderr, and every key is described in docs/command-line.md."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

import efface
from efface.commands.document import FORM
from efface.stages.status import status
from efface.study.study import read
from small.studies import STUDY, write_study
from small.studies import efface as run_efface

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "command-line.md").read_text()
DESCRIBED = set(re.findall(r"`(\w+)`", PAGE.partition("## JSON documents")[2]))
BY_NAME = {"images", "networks", "maps", "values", "fixed", "facts", "default"}
"""Keys whose values are by names of the study or of a plug-in, which no page can list."""


def keys(document):
    """Every key of a document that does not stand for a name."""
    if isinstance(document, list):
        return {key for each in document for key in keys(each)}
    if not isinstance(document, dict):
        return set()
    return {*document, *(key for name, value in document.items() if name not in BY_NAME for key in keys(value))}


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    write_study(folder)
    assert run_efface(folder, "extract", "study.yml").code == 0
    return folder


def document(folder, *words, code=0):
    said = run_efface(folder, *words, "--json")
    assert said.code == code, said.err
    found = json.loads(said.out)
    assert (found["form"], found["efface"], found["command"]) == (FORM, efface.__version__, words[0])
    assert found["status"] == code
    assert keys(found) - DESCRIBED == set()
    return found, said


@pytest.mark.long
def test_check_writes_what_it_says(tmp_path):
    write_study(tmp_path)
    found, said = document(tmp_path, "check", "study.yml")
    plain = run_efface(tmp_path, "check", "study.yml")
    (run,) = found["runs"]
    assert run["data"]["images"] == {"train": 48, "test": 24}
    assert {each["name"] for each in run["methods"]} >= {"random", "mine", "pair"}
    (pair,) = [each for each in run["methods"] if each["name"] == "pair"]
    assert pair["maps"] == {"red": [16, 16], "green": [16, 16]}
    left = run["left"]
    assert f"first network: {left['networks']['first network']:,.0f} passes" in plain.out
    assert f"probes: {left['probes_left']} of {left['probes']} to run: {left['trainings']} trainings" in plain.out
    assert found["seconds"] == left["seconds"] > 0
    for warning in [*found["warnings"], *run["warnings"], *(f"pair: {each}" for each in pair["warnings"])]:
        assert f"warning: {warning}" in plain.out
        assert f"warning: {warning}" in said.err
    assert not (tmp_path / "run").exists()


def test_status_writes_what_is_there(extracted):
    (extracted / "run" / "maps" / "mine-test.h5").rename(extracted / "mine-test.h5")
    try:
        found, said = document(extracted, "status", "study.yml")
    finally:
        (extracted / "mine-test.h5").rename(extracted / "run" / "maps" / "mine-test.h5")
    (run,) = found["runs"]
    assert run["networks"] == {"network": True}
    assert run["to_extract"] == [{"method": "mine", "split": "test", "finished": 0, "images": 24}]
    assert run["probes"] == {"planned": 31, "done": 0, "left": 31}
    assert "to extract: mine, test: 0 of 24 maps are there" in said.err


def test_status_of_a_folder_is_that_of_its_plan(extracted):
    of_study, _ = document(extracted, "status", "study.yml")
    of_folder, _ = document(extracted, "status", "run")
    assert of_folder["runs"] == of_study["runs"]


def test_status_of_a_study_in_rounds_says_so(extracted, monkeypatch):
    monkeypatch.chdir(extracted)
    monkeypatch.syspath_prepend(extracted)
    facts = {}
    status(read(Path("study.yml"), ["decide={}", "metrics=[morf]"]), facts=facts)
    (run,) = facts["runs"]
    assert run["at_most"]
    assert run["rounds"] == "0 of 6 pairs of methods are decided, 6 are open"


@pytest.mark.parametrize("words", [("check", "study.yml", "repeat=3"), ("status", "nowhere.yml")])
def test_problems_are_in_the_document_and_on_stderr(words, extracted):
    found, said = document(extracted, *words, code=2)
    assert "\n".join(found["problems"]) == said.err.strip()


def test_a_method_that_fails_is_a_problem(tmp_path):
    write_study(tmp_path, {"mine": "def brightness(model, images, targets):\n    return 1\n"})
    found, said = document(tmp_path, "check", "study.yml", code=1)
    assert said.err.strip().splitlines()[-1] == f"efface: {found['problems'][0]}"


def test_what_a_method_and_its_workers_print_is_not_in_the_document(tmp_path):
    loud = "import os\nprint('loaded')\ndef brightness(model, images, targets):\n    print('called')\n"
    loud += "    os.system('echo from a child')\n    return images.mean(1)\n"
    write_study(tmp_path, {"mine": loud}, executor="efface.execute.processes")
    _, said = document(tmp_path, "check", "study.yml")
    assert all(word in said.err for word in ("loaded", "called", "from a child"))


@pytest.mark.parametrize("words", [("list", "metrics"), ("list", "fills"), ("show", "morf"), ("show", "grad_cam")])
def test_list_and_show_have_described_keys(words, tmp_path):
    document(tmp_path, *words)


def test_a_number_that_is_not_finite_is_null(tmp_path):
    code = (
        "import sys; from efface.commands.document import write\n"
        "write({'a': float('nan'), 'b': [float('inf'), 1.5], 'c': {'d': -float('inf')}}, sys.stdout)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"a": None, "b": [None, 1.5], "c": {"d": None}}


@pytest.mark.parametrize("page", ["README.md", "docs/command-line.md", "docs/choosing.md", "docs/studies.md"])
def test_every_command_of_a_page_is_one(page):
    from efface.commands.program import program

    text = (ROOT / page).read_text()
    lines = re.findall(r"^efface ([^#\n]+)", "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)), re.MULTILINE)
    lines += re.findall(r"`efface ([^`]+)`", text.replace("\n", " "))
    asked = [line for line in lines if not re.search(r"[A-Z]{4}|\.\.\.|\[|^-|COMMAND", line)]
    assert asked
    for line in asked:
        word, *rest = shlex.split(re.split(r" > | .?\| ", line)[0])
        command = program.get_command(click.Context(program), word)
        assert command is not None, line
        if rest:  # else it is only named
            command.make_context(word, rest)  # a UsageError: the words are wrong


def test_the_page_lists_every_command_and_option():
    from efface.commands.program import program

    context = program.make_context("efface", ["check", "x.yml"])
    for word in program.list_commands(context):
        assert f"| `efface {word}" in PAGE, word
        for parameter in program.get_command(context, word).params:
            options = [each for each in parameter.opts if each.startswith("--") and each not in ("--help", "--trust")]
            assert all(each in PAGE for each in options), (word, options)
    assert STUDY["out"] == "run"
