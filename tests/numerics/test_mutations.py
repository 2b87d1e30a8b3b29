"""The golden outputs notice small changes of the numerics, and let harmless ones pass, which change no key either."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from numerics.keyed import keys
from numerics.mutations import MUTATIONS, SOURCE, mutated

HERE = Path(__file__).parent
WORST = next(number for number, each in enumerate(MUTATIONS) if "max(self.accuracies" in each.old)
"""The change that keeps the worst epoch as the best."""
SMOKE = ("max(self.accuracies", "_mix(rows.long() + 1)", "gradients.relu()", "_checksum", "return maps.abs()")
"""Parts of those mutations that both tiers of tests make."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A process that makes mutations; see `mutation_server`. Its forks leave their folders in a folder of pytest's."""
    surroundings = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    surroundings["TMPDIR"] = str(tmp_path_factory.mktemp("mutations"))
    with subprocess.Popen(
        [sys.executable, str(HERE / "mutation_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=surroundings,
    ) as process:
        yield process
        process.stdin.close()


def said(server, number, what="numbers"):
    server.stdin.write(f"{number} {what}\n")
    server.stdin.flush()
    answer = json.loads(server.stdout.readline())
    assert "failed" not in answer, answer["failed"]
    return answer["said"]


def numbered(*, harmless):
    found = [(number, each) for number, each in enumerate(MUTATIONS) if each.harmless == harmless]
    return [
        pytest.param(
            number,
            id=f"{number}-{each.old[:30]}".replace("\n", " "),
            marks=() if any(part in each.old for part in SMOKE) else pytest.mark.long,
        )
        for number, each in found
    ]


@pytest.mark.parametrize("number", numbered(harmless=False))
def test_a_change_of_numerics_is_noticed(server, number):
    told = said(server, number)
    assert any(" gives other numbers" in each or " fails: " in each for each in told)


def test_who_keeps_the_worst_epoch_is_told_to_raise_the_version_of_training(server):
    (told,) = said(server, WORST)
    assert told.startswith("train gives other numbers (")
    assert "raise NUMERICS['train'] in src/efface/store/keys.py" in told


@pytest.fixture(scope="module")
def keys_of_today(server):
    return said(server, -1, "keys")


@pytest.mark.long
@pytest.mark.parametrize("number", numbered(harmless=True))
def test_a_harmless_change_is_not_noticed_and_changes_no_key(server, keys_of_today, number):
    assert said(server, number) == []
    assert said(server, number, "keys") == keys_of_today


@pytest.mark.long
def test_a_module_that_moves_changes_no_key(tmp_path):
    """A method, a metric's shared part and the training loop are in other files, a class has another name."""
    copy = tmp_path / "src" / "efface"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    moves = {"methods.occlusion": "methods.covering", "metrics.shared.located": "metrics.shared.in_object"}
    moves |= {"training.checkpoint": "training.kept", "models.resnet": "models.residual"}
    for before, after in moves.items():
        (copy / f"{before.replace('.', '/')}.py").rename(copy / f"{after.replace('.', '/')}.py")
    for file in copy.rglob("*.py"):
        text = file.read_text()
        for before, after in moves.items():
            text = re.sub(rf"\befface\.{re.escape(before)}\b", f"efface.{after}", text)
        file.write_text(text)
    path = os.pathsep.join([str(copy.parent), str(HERE.parent)])
    asked = "import json; from numerics.keyed import keys; print(json.dumps(keys()))"
    surroundings = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", asked], cwd=tmp_path, env=surroundings, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == json.loads(json.dumps(keys()))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.old[:30].replace("\n", " "))
def test_every_mutation_finds_its_place(mutation):
    path, source = mutated(mutation)
    assert source != path.read_text()
    compile(source, str(path), "exec", dont_inherit=True)


def test_there_are_enough_mutations():
    assert sum(not each.harmless for each in MUTATIONS) >= 45
    assert sum(each.harmless for each in MUTATIONS) >= 22
