"""A digest of an object in memory changes with all that it computes from, and with nothing else."""

import functools
import importlib
import math
import threading

import numpy as np
import pytest
import torch
from torch import nn

from efface.methods.gradient import gradient
from efface.plug.code_digest import UnknownCodeError, code_digest
from efface.plug.given import give
from efface.plug.path import resolve


def made(source: str, name: str = "f", **names):
    exec(source, names)  # noqa: S102  code as a notebook has it
    return names[name]


PLAIN = "def f(model, images, targets):\n    return images.sum(1) * 2"
SAME = {
    "comment and space": "def f(model, images, targets):\n\n    # double it\n    return images.sum(1)  *  2",
    "the same again": PLAIN,
}
OTHER = {
    "constant": "def f(model, images, targets):\n    return images.sum(1) * 3",
    "attribute": "def f(model, images, targets):\n    return images.mean(1) * 2",
    "default": "def f(model, images, targets, gain=1):\n    return images.sum(1) * 2",
    "operator": "def f(model, images, targets):\n    return images.sum(1) + 2",
}


@pytest.mark.parametrize("source", SAME.values(), ids=SAME)
def test_code_that_computes_the_same_has_one_digest(source):
    assert code_digest(made(source)) == code_digest(made(PLAIN))


@pytest.mark.parametrize("source", OTHER.values(), ids=OTHER)
def test_code_that_computes_otherwise_has_another(source):
    assert code_digest(made(source)) != code_digest(made(PLAIN))


READS_GLOBAL = "def f(x):\n    return helper(x)"


def held_by(value):
    return {
        "closure": lambda: value,
        "default": lambda x=value: x,
        "keyword": functools.partial(print, sep=value),
        "positional": functools.partial(print, value),
        "global": made(READS_GLOBAL, helper=value),
        "nested": lambda: [value for _ in range(2)],
        "attribute": type("Held", (), {"it": value})(),
        "method": type(
            "Held", (), {"__init__": lambda self: setattr(self, "it", value), "go": lambda self: self.it}
        )().go,
    }


@pytest.mark.parametrize("kind", held_by(0))
@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 2), (torch.ones(2), torch.zeros(2)), (np.ones(2), np.ones(3)), ("a", "b"), (len, max), (math.sin, math.cos)],
    ids=["number", "tensor", "array", "text", "built in", "of a package"],
)
def test_what_code_holds_counts(kind, one, other):
    assert code_digest(held_by(one)[kind]) == code_digest(held_by(one)[kind])
    assert code_digest(held_by(one)[kind]) != code_digest(held_by(other)[kind])


def test_a_function_that_a_function_calls_counts():
    first = made("def helper(x):\n    return x\n" + READS_GLOBAL)
    second = made("def helper(x):\n    return -x\n" + READS_GLOBAL)
    assert code_digest(first) != code_digest(second)


def test_a_module_of_the_user_counts_as_it_is_loaded_now(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "helpers_here.py").write_text("def f(x):\n    return x\n")
    module = importlib.import_module("helpers_here")
    uses = made("def g(x):\n    return helpers.f(x)", "g", helpers=module)
    before = code_digest(uses)
    assert code_digest(uses) == before
    (tmp_path / "helpers_here.py").write_text("def f(x):\n    return -2 * x\n")
    importlib.invalidate_caches()
    importlib.reload(module)
    assert code_digest(uses) != before


def test_a_function_that_calls_itself_has_a_digest():
    assert code_digest(made("def f(n):\n    return n and f(n - 1)"))


def network(width=3, slope=0.1):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.LeakyReLU(slope), nn.BatchNorm2d(width), nn.Flatten())


def changed(name):
    other = network()
    with torch.no_grad():
        {
            "a weight": lambda: other[0].weight[0, 0, 0, 0].add_(1e-3),
            "a statistic": lambda: other[2].running_mean.add_(1e-3),
            "a setting": lambda: setattr(other[2], "eps", 1e-2),
            "a slope": lambda: setattr(other[1], "negative_slope", 0.2),
            "a tensor beside its buffers": lambda: setattr(other[1], "gain", torch.ones(2)),
            "a private list": lambda: setattr(other[1], "_sizes", [1, 2]),
            "a function": lambda: setattr(other[1], "act", torch.tanh),
            "a hook": lambda: other[1].register_forward_hook(lambda module, given, output: -output),
            "a forward of its own": lambda: setattr(other[1], "forward", lambda x: -x),
        }[name]()
    return other


CHANGES = ["a weight", "a statistic", "a setting", "a slope", "a forward of its own", "a tensor beside its buffers"]


@pytest.mark.parametrize("name", [*CHANGES, "a private list", "a function", "a hook"])
def test_a_network_is_told_by_all_that_it_computes_with(name):
    assert code_digest(network()) == code_digest(network())
    assert code_digest(changed(name)) != code_digest(network())


def test_training_mode_and_gradients_do_not_count():
    other = network().train()
    other[0].weight.grad = torch.ones_like(other[0].weight)
    assert code_digest(other) == code_digest(network().eval())


def test_efface_and_packages_count_by_their_versions(monkeypatch):
    before = code_digest(gradient)
    assert code_digest(lambda *case: -gradient(*case)) != before
    monkeypatch.setitem(__import__("efface.store.keys", fromlist=["NUMERICS"]).NUMERICS, "method.gradient", 99)
    assert code_digest(gradient) != before


def test_what_cannot_be_told_gets_a_path_of_its_own_each_time():
    lock = threading.Lock()
    with pytest.raises(UnknownCodeError, match="lock"):
        code_digest(lambda: lock)
    value = lambda: lock  # noqa: E731
    one, other = give("method", "a b", value), give("method", "a b", value)
    assert one != other
    assert resolve(one) is resolve(other) is value


def test_the_path_of_a_known_object_is_the_same_again():
    assert give("method", "it", made(PLAIN)) == give("method", "it", made(SAME["comment and space"]))
