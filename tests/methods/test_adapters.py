"""What the adapters share: the model as it was whatever a package does to it, and draws of one seed."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from efface.base import draws
from efface.methods import adapters
from small.networks import hooks


def traces(model):
    """What other packages leave: replaced weights, hooks, attributes, modules, another forward."""
    conv, norm, _ = model.layer1
    conv.weight.data = conv.weight.data * 2
    conv.bias = None
    norm.running_mean.data = torch.zeros(6)
    conv.activations = {"cpu": torch.ones(3)}
    conv.register_forward_hook(lambda *_: None)
    model.canonizer_sum = nn.Identity()
    model.layer2.forward = lambda x: x
    del model.known
    raise RuntimeError("in the middle")


def test_nothing_stays_on_the_model(tiny):
    model = tiny(seed=3)
    model.known = "mine"
    model.layer1[0].weight.grad = torch.ones_like(model.layer1[0].weight)
    handle = model.layer1[0].register_forward_hook(lambda *_: None)
    images = torch.rand(2, 3, 8, 8)
    before = model.eval()(images)
    state = {name: (value.data_ptr(), value.clone()) for name, value in model.state_dict().items()}
    attributes = [set(vars(module)) for module in model.modules()]
    with pytest.raises(RuntimeError, match="in the middle"), adapters.untouched(model):
        traces(model)
    for name, (pointer, value) in state.items():
        assert model.state_dict()[name].data_ptr() == pointer
        assert torch.equal(model.state_dict()[name], value)
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert model.known == "mine"
    assert hooks(model.layer1[0]) == 1
    handle.remove()
    assert hooks(model.layer1[0]) == 0
    assert model.layer1[0].weight.grad.eq(1).all()
    assert torch.equal(model(images), before)


def test_draws_are_the_seeds_and_the_callers_go_on():
    def three():
        return torch.rand(1).item(), float(np.random.rand()), random.random()  # noqa: NPY002, S311

    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    expected = [three(), three()]
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    first = three()
    with draws.seeded(-7):
        one = three()
    with draws.seeded(-7):
        assert three() == one
    with draws.seeded(8):
        assert three() != one
    assert [first, three()] == expected


def test_functions_are_seen_with_the_module_that_calls_them(tiny):
    model, found = tiny(seed=3).eval(), []

    def seen(name, module, func, args, kwargs):
        found.append((name, adapters.module_name(model, module)))
        return func(*args, **kwargs)

    images = torch.rand(2, 3, 8, 8)
    expected = model(images)
    with adapters.watching(model, seen):
        torch.relu(images)  # not the model's
        assert torch.equal(model(images), expected)
    assert [each for each in found if each[0] in ("relu", "add", "sub", "mean")] == [
        ("sub", "Tiny"),
        ("relu", "'layer1.2' (ReLU)"),
        ("relu", "'layer2.2' (ReLU)"),
        ("add", "Tiny"),
        ("mean", "Tiny"),
    ]
    assert hooks(model) == 0


def test_exception_in_a_watched_network_passes_through(tiny):
    model = tiny(seed=3).eval()
    model.fc.register_forward_pre_hook(lambda *_: 1 / 0)
    with (
        pytest.raises(ZeroDivisionError),
        adapters.watching(model, lambda name, module, func, args, kwargs: func(*args)),
    ):
        model(torch.rand(2, 3, 8, 8))
    assert hooks(model.layer1[0]) == 0


def test_near_names_come_first():
    near = adapters.nearest("deeplift", ["Saliency", "DeepLift", "DeepLiftShap"])
    assert near == "nearest are DeepLift, DeepLiftShap"
    assert adapters.nearest("x", ["Saliency", "DeepLift"]) == "it has Saliency, DeepLift"
