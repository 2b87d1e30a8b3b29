"""The bare commands of the reference system, in a folder without its data and on a machine without a network."""

import shlex
import shutil
import subprocess
import sys
import urllib.error
from pathlib import Path

import pytest

from efface.__main__ import main
from efface.data import cifar

ROOT = Path(__file__).parents[2]
CIFAR = ("CIFAR10 could not be downloaded", "cifar-10-python.tar.gz", "https://", "into data")
IMAGENET = ("data/imagenet/val: no such folder", "image-net.org", "ILSVRC2012", "a folder for each class")


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("train-cls", CIFAR),
        ("extract-attribution-maps", CIFAR),
        ("evaluate-attribution-maps-roar", CIFAR),
        ("lerf", IMAGENET),
    ],
)
def test_without_the_data_a_command_says_how_to_get_them_and_names_the_demo(
    target, says, tmp_path, monkeypatch, capsys
):
    def refuse(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setitem(cifar.CIFAR10.download.__globals__, "download_and_extract_archive", refuse)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    task = shutil.which("task") or str(Path(sys.executable).parent / "task")
    dry = subprocess.run([task, "--dry", target], cwd=ROOT, capture_output=True, text=True, check=True)
    stage, study, *more = shlex.split(dry.stderr.split("efface ", 1)[1])
    (tmp_path / "configs").mkdir()
    shutil.copy(ROOT / study, tmp_path / study)
    assert main([stage, study, *more, "device=cpu"]) == 1
    said = capsys.readouterr().err
    assert all(each in said for each in (*says, "'./taskw demo' in a checkout, shows efface at work")), said
    assert len(said.splitlines()) == 1
