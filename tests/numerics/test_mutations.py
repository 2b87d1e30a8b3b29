"""The golden outputs notice small changes of the numerics, and let harmless ones pass."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from numerics.mutations import MUTATIONS, mutated

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def server():
    """A process that makes mutations; see `mutation_server`."""
    surroundings = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, str(HERE / "mutation_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=surroundings,
    ) as process:
        yield process
        process.stdin.close()


def said(server, number):
    server.stdin.write(f"{number}\n")
    server.stdin.flush()
    answer = json.loads(server.stdout.readline())
    assert "failed" not in answer, answer["failed"]
    return answer["said"]


def numbered(*, harmless):
    found = [(number, each) for number, each in enumerate(MUTATIONS) if each.harmless == harmless]
    return [pytest.param(number, id=f"{number}-{each.old[:30]}".replace("\n", " ")) for number, each in found]


@pytest.mark.long
@pytest.mark.parametrize("number", numbered(harmless=False))
def test_a_change_of_numerics_is_noticed(server, number):
    told = said(server, number)
    assert any(" gives other numbers" in each or " fails: " in each for each in told)


@pytest.mark.long
@pytest.mark.parametrize("number", numbered(harmless=True))
def test_a_harmless_change_is_not_noticed(server, number):
    assert said(server, number) == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.old[:30].replace("\n", " "))
def test_every_mutation_finds_its_place(mutation):
    path, source = mutated(mutation)
    assert source != path.read_text()
    compile(source, str(path), "exec", dont_inherit=True)


def test_there_are_enough_mutations():
    assert sum(not each.harmless for each in MUTATIONS) >= 45
    assert sum(each.harmless for each in MUTATIONS) >= 22
