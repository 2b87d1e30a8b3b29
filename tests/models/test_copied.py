"""A copy of a network is what copy.deepcopy makes, and shares nothing that somebody could change."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, swin_t

from efface.models.copied import copied_network
from efface.models.resnet import resnet20


class Lists(nn.Module):
    """Modules in a plain list, a shared weight, a buffer that is not kept, and a setting that can be changed."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight
        self.plain = [self.one, self.two]
        self.register_buffer("own", torch.rand(4), persistent=False)
        self.settings = [1, 2]

    def forward(self, x):
        for each in self.plain:
            x = each(x)
        return x + self.own


class Shared(Lists):
    def __init__(self):
        super().__init__()
        del self.plain

    def forward(self, x):
        return self.two(self.one(x)) + self.own


NETWORKS = {"resnet20": resnet20, "resnet18": resnet18, "swin": swin_t, "lists": Lists, "shared": Shared}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_copy_is_a_deep_copy(name):
    network = NETWORKS[name]()
    next(network.parameters()).requires_grad_(False)
    found, expected = copied_network(network), copy.deepcopy(network)
    assert [each for each, _ in found.named_modules()] == [each for each, _ in expected.named_modules()]
    for mine, theirs, given in zip(found.modules(), expected.modules(), network.modules(), strict=True):
        assert type(mine) is type(theirs)
        assert mine is not given
        assert list(vars(mine)) == list(vars(theirs))
        for each, value in vars(given).items():
            if isinstance(value, dict | list | set):
                assert vars(mine)[each] is not value
    values = dict(network.named_parameters()) | dict(network.named_buffers())
    for each, value in (*found.named_parameters(), *found.named_buffers()):
        assert torch.equal(value, values[each])
        assert value.requires_grad == values[each].requires_grad
        assert value.data_ptr() != values[each].data_ptr()
    assert found.state_dict().keys() == expected.state_dict().keys()
    if isinstance(network, Lists):
        assert found.one.weight is found.two.weight
        assert torch.equal(found(torch.ones(2, 4)), network(torch.ones(2, 4)))
        with torch.no_grad():
            found.one.weight.add_(1)
        assert not torch.equal(found(torch.ones(2, 4)), network(torch.ones(2, 4)))


def test_hooks_come_along():
    network = resnet20()
    network.register_forward_hook(lambda *_: None)
    assert len(copied_network(network)._forward_hooks) == 1  # noqa: SLF001
