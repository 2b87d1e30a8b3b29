"""Controls: the middle of the image, and the maps of another network."""

from collections import Counter
from functools import partial

import pytest
import torch
from torch import nn

from efface.methods import control, gradient
from small.batches import with_seeds
from small.caches import forget
from small.messages import words

N, SIZE = 3, 8
inputs = partial(with_seeds, "control", N, dtype=torch.float32)


@pytest.fixture(autouse=True)
def _forgotten():
    forget(control)


def nothing():
    """Stands where no pass of the network is made."""
    return nn.Identity()


# Centre


@pytest.mark.parametrize("width", [5, 8, 9])
def test_centre_is_a_gaussian_at_the_middle(width):
    images, targets, _ = inputs(w=width)
    maps = control.centre(nothing(), images, targets, sigma=0.3)
    y, x = (torch.arange(SIZE) + 0.5) / SIZE - 0.5, (torch.arange(width) + 0.5) / width - 0.5
    expected = torch.exp(-(y[:, None].square() + x.square()) / (2 * 0.3**2))
    torch.testing.assert_close(maps, expected.expand(N, SIZE, width))
    torch.testing.assert_close(maps, maps.flip(1).flip(2))
    if width == 9:
        assert maps[0].argmax() % width == 4
    assert maps.dtype == images.dtype


def test_ranking_of_a_square_is_the_same_for_any_sigma():
    images, targets, _ = inputs()
    narrow, wide = (control.centre(nothing(), images.double(), targets, sigma=s).flatten(1) for s in (0.1, 0.5))
    torch.testing.assert_close(narrow.log() * 0.1**2, wide.log() * 0.5**2)


def test_centre_without_width_is_refused():
    images, targets, _ = inputs()
    with pytest.raises(ValueError, match=words("sigma 0.0")):
        control.centre(nothing(), images, targets, sigma=0.0)


# Another network


def test_maps_are_those_of_the_other_network(tiny):
    images, targets, _ = inputs()
    first, second = tiny(seed=3), tiny(seed=4)
    found = control.explain_with(first, images, targets, network=lambda: second, method=gradient.gradient, max_batch=2)
    torch.testing.assert_close(found, gradient.gradient(second, images, targets))
    assert not torch.allclose(found, gradient.gradient(first, images, targets))


def test_weights_of_the_classes_reach_the_method(tiny):
    images, _, _ = inputs()
    first, second = tiny(seed=3), tiny(seed=4)
    weights = torch.rand(N, 4)
    found = control.explain_with(first, images, weights, network=lambda: second, method=gradient.gradient)
    torch.testing.assert_close(found, gradient.gradient(second, images, weights))


def test_weights_are_read_once_until_their_file_changes(tiny, tmp_path):
    images, targets, _ = inputs()
    first, second, third = tiny(seed=3), tiny(seed=4), tiny(seed=5)
    file, made = tmp_path / "second.pt", Counter()
    torch.save(second.state_dict(), file)

    def network():
        made["networks"] += 1
        return tiny(seed=6)

    settings = {"network": network, "method": gradient.gradient, "weights": str(file)}
    for _ in range(3):
        found = control.explain_with(first, images, targets, **settings)
        torch.testing.assert_close(found, gradient.gradient(second, images, targets))
    assert made["networks"] == 1
    torch.save(third.state_dict(), file)
    found = control.explain_with(first, images, targets, **settings)
    torch.testing.assert_close(found, gradient.gradient(third, images, targets))


def test_seeds_reach_a_method_that_draws(tiny):
    images, targets, seeds = inputs()
    model = tiny(seed=3)
    found = control.explain_with(model, images, targets, network=lambda: model, method=control.random, seeds=seeds)
    assert torch.equal(found, control.random(model, images, targets, seeds=seeds))


@pytest.mark.parametrize("form", ["function", "study"])
def test_fresh_network_is_the_same_in_every_process(form):
    images, targets, _ = inputs()
    path, settings = "efface.models.resnet.resnet8", {"num_classes": 4}
    if form == "study":
        network = {"call": path, "kwargs": settings}
    else:
        from efface.models.resnet import resnet8

        network = partial(resnet8, **settings)
    found = []
    for state in (0, 1):
        torch.manual_seed(state)
        forget(control)
        before = torch.random.get_rng_state()
        model = partial(control.explain_with, network=network, method=gradient.gradient)
        found.append(model(nothing_of(4), images, targets))
        assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(*found)


def nothing_of(classes):
    """A network of so many classes that says nothing."""

    class Silent(nn.Module):
        def forward(self, images):
            return images.new_zeros(len(images), classes)

    return Silent()


def test_both_networks_are_as_before(tiny):
    images, targets, _ = inputs()
    first, second = tiny(seed=3).train(), tiny(seed=4)
    control.explain_with(first, images, targets, network=lambda: second, method=gradient.gradient)
    assert first.training
    for network in (first, second):
        assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())


def test_network_of_other_classes_is_refused(tiny):
    images, targets, _ = inputs()
    with pytest.raises(ValueError, match=words("Tiny 7 4")):
        control.explain_with(tiny(seed=3), images, targets, network=lambda: tiny(classes=7), method=gradient.gradient)


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        ({"network": lambda: "resnet"}, ValueError, "network str torch.nn.Module"),
        ({"network": "efface.models.resnet.resnet9"}, ValueError, "resnet9"),
        ({"weights": "nowhere.pt"}, FileNotFoundError, "nowhere.pt"),
    ],
)
def test_network_that_cannot_be_made_is_refused(tiny, settings, kind, said):
    images, targets, _ = inputs()
    whole = {"network": partial(tiny, seed=3), "method": gradient.gradient} | settings
    with pytest.raises(kind, match=words(said)):
        control.explain_with(tiny(seed=3), images, targets, **whole)
