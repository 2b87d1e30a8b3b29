"""Shells complete commands, study files, metrics and names; nothing of torch is imported for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import efface
from efface.commands.stages import STAGES
from efface.metrics import names as metric_names

SRC = str(Path(efface.__file__).parents[1])


def asked(folder, shell, *words, code=None):
    """What a shell would be told for the last of these words."""
    before = ["efface", *words]
    env = os.environ | {
        "PYTHONPATH": SRC,
        "_EFFACE_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": " ".join(before),
        "COMP_CWORD": words[-1] if shell == "fish" else str(len(words)),
    }
    program = code or "from efface.__main__ import command; command()"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout


def offered(folder, *words):
    lines = asked(folder, "bash", *words).splitlines()
    return [line.removeprefix("plain,") for line in lines if line.startswith("plain,")]


@pytest.fixture
def folder(tmp_path):
    for name in ("mine.yml", "mine2.yaml", "notes.txt", "configs/a.yml", ".hidden.yml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_commands_files_metrics_and_options_are_completed(folder):
    assert set(offered(folder, "")) >= {*STAGES, "completion"}
    assert offered(folder, "me") == ["measure"]
    assert offered(folder, "check", "") == ["mine.yml", "mine2.yaml"]
    assert offered(folder, "prune", "mine.yml", "configs/") == ["configs/a.yml"]
    assert offered(folder, "status", "--me") == ["--metrics"]
    assert offered(folder, "measure", "mine.yml", "--metrics", "") == sorted(metric_names())
    assert offered(folder, "measure", "mine.yml", "--metrics", "roar,roa") == ["roar,road"]
    assert offered(folder, "show", "grad_") == ["grad_cam", "grad_cam_plus_plus"]
    assert offered(folder, "list", "me") == ["methods", "metrics"]
    assert offered(folder, "new", "--data", "fo") == ["folder:"]
    assert offered(folder, "new", "--model", "resnet8") == ["resnet8", "resnet8_wide"]


def test_folders_are_left_to_the_shell(folder):
    assert asked(folder, "bash", "check", "c").splitlines() == ["dir,c"]


def test_completion_imports_no_torch(folder):
    code = (
        "import atexit, sys\n"
        "from efface.__main__ import command\n"
        "atexit.register(lambda: print('torch' in sys.modules))\n"
        "command()"
    )
    assert asked(folder, "bash", "measure", "--metrics", "ro", code=code).splitlines()[-1] == "False"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script_and_knows_its_words(shell, folder):
    from efface.__main__ import main

    done = subprocess.run(
        [sys.executable, "-m", "efface", "completion", shell],
        env=os.environ | {"PYTHONPATH": SRC},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"_EFFACE_COMPLETE={shell}_complete" in done.stdout
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=done.stdout, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
    assert "measure" in asked(folder, shell, "measu")
    with pytest.raises(SystemExit, match="2"):
        main(["completion"])


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_a_word(folder):
    (folder / "efface").write_text(f'#!/bin/sh\nexec {sys.executable} -m efface "$@"\n')
    (folder / "efface").chmod(0o755)
    script = (
        'eval "$(efface completion bash)"\n'
        'COMP_WORDS=(efface check mine.) COMP_CWORD=2\n_efface_completion efface\necho "${COMPREPLY[@]}"\n'
    )
    env = os.environ | {"PYTHONPATH": SRC, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["mine.yml"], done.stderr


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A command `efface` of this environment, which the shells call."""
    command = tmp_path / "bin/efface"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nPYTHONPATH="{SRC}" exec "{sys.executable}" -m efface "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")


LINES = {
    "efface me": {"measure"},
    "efface check mi": {"mine.yml", "mine2.yaml"},
    "efface measure mine.yml --metrics roar,roa": {"roar,road"},
    "efface list me": {"methods", "metrics"},
}


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.usefixtures("program")
def test_fish_completes_what_efface_offers(folder):
    for line, expected in LINES.items():
        asks = f"efface completion fish | source; complete -C '{line}'"
        done = subprocess.run(["fish", "-c", asks], cwd=folder, capture_output=True, text=True, check=True)
        found = {each.split("\t")[0] for each in done.stdout.splitlines() if each}
        assert expected <= found, (line, done.stdout, done.stderr)


ZSH = """
compdef() { :; }
compadd() { print -l -- ${(P)@[-1]}; }
_describe() { print -l -- ${(P)3}; }
_path_files() { :; }
eval "$(efface completion zsh)"
words=(${=1}); CURRENT=${#words}
_efface_completion
"""
"""The function of the script in a true zsh. What zsh's own parts would show is printed."""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
@pytest.mark.usefixtures("program")
def test_zsh_completes_what_efface_offers(folder):
    for line, expected in LINES.items():
        done = subprocess.run(
            ["zsh", "-f", "-c", ZSH, "zsh", line], cwd=folder, capture_output=True, text=True, check=True
        )
        found = {each.split(":")[0] for each in done.stdout.splitlines()}
        assert expected <= found, (line, done.stdout, done.stderr)
