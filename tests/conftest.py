"""What several test files share: a network small enough for a test, with everything in it that can go wrong."""

import os

os.environ.setdefault("DNNL_MAX_CPU_ISA", "AVX2")  # the golden numbers are of this: others round otherwise
os.environ["NO_COLOR"] = "1"  # what programs print is read, and has no colours
os.environ["CI"] = os.environ["FORCE_COLOR"] = os.environ["CLICOLOR_FORCE"] = ""

import pytest
import torch

from efface.plug import source
from small.networks import Tiny, seeded, with_drawn_norms

torch.set_num_threads(1)  # on tensors this small two threads wait for each other more than they work


@pytest.fixture
def tiny():
    """Makes the tiny network; with a seed, its weights and BatchNorm statistics are drawn from it."""

    def build(channels=3, classes=4, seed=None):
        if seed is None:
            return Tiny(channels, classes)
        return seeded(lambda: with_drawn_norms(Tiny(channels, classes)), seed)

    return build


@pytest.fixture(autouse=True)
def code_as_it_is_now():
    """Each test is a command of its own: what another one read of a file, and then changed, does not count."""
    source.READ.clear()
