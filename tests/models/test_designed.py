"""Networks designed by hand: their maps are Shapley values, and their data are classified right."""

import itertools
import math

import pytest
import torch
from torch import nn

from efface.data.designed import AGAINST, BLUE, FOR, check_designed
from efface.data.designed import designed as data
from efface.methods.control import exact_map
from efface.models.designed import CELL, GAIN, designed
from efface.models.fast_copy import fast_copy
from small.batches import all_inputs
from small.messages import words
from small.networks import linear_network

KINDS = ("counter", "or", "and", "contrast")
every_kind = pytest.mark.parametrize("kind", KINDS)


def drawn(kind, n=200, **settings):
    split = data(kind=kind, n_test=n, **settings)["test"]
    return split.images.float() / 255, split.targets, split.masks


def of_cells(values):
    """The sum over each cell, n k."""
    return nn.functional.avg_pool2d(values[:, None], CELL).flatten(1) * CELL**2


@every_kind
def test_a_map_is_the_shapley_value_of_each_cell_for_the_logit_of_the_target(kind):
    """By all coalitions of the cells that do anything, on the network itself; the other cells change nothing."""
    images, targets, _ = drawn(kind, 6, size=8)
    network, size = designed(kind=kind, size=8), 8
    maps = of_cells(network.exact_map(images, targets))
    for image, target, exact in zip(images, targets, maps, strict=True):
        players = exact.nonzero().flatten().tolist()

        def value(cells, image=image, target=target):
            kept = torch.zeros((size // CELL) ** 2, dtype=torch.bool)
            kept[cells] = True
            kept = kept.unflatten(0, (size // CELL, -1)).repeat_interleave(CELL, 0).repeat_interleave(CELL, 1)
            return network((image * kept)[None])[0, target].item()

        everything = [*range((size // CELL) ** 2)]
        idle = [cell for cell in everything if cell not in players]
        for some in (idle, idle[::2], []):
            assert value([*players, *some]) == pytest.approx(value(everything), abs=1e-6)
            assert value([*players[1:], *some]) == pytest.approx(value(players[1:]), abs=1e-6)
        known = {some: value([*some]) for r in range(len(players) + 1) for some in itertools.combinations(players, r)}
        for player in players:
            shapley = 0.0
            for some, without in known.items():
                if player not in some:
                    weight = math.factorial(len(some)) * math.factorial(len(players) - len(some) - 1)
                    gain = known[tuple(sorted([*some, player]))] - without
                    shapley += weight / math.factorial(len(players)) * gain
            assert exact[player].item() == pytest.approx(shapley, abs=1e-5)


@every_kind
def test_maps_sum_up_to_the_logit_and_the_classes_mirror_each_other(kind):
    images, targets, _ = drawn(kind)
    network = designed(kind=kind)
    logits = network(images).detach()
    assert (logits.argmax(1) == targets).all()
    torch.testing.assert_close(logits[:, 0], -logits[:, 1])
    assert network(torch.zeros(1, 3, 16, 16)).abs().max() == 0
    maps = network.exact_map(images, targets)
    torch.testing.assert_close(maps.sum((1, 2)), logits.gather(1, targets[:, None])[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network.exact_map(images, 1 - targets), -maps)


@every_kind
def test_the_mask_holds_the_cells_that_speak_for_the_class(kind):
    images, targets, masks = drawn(kind)
    maps = designed(kind=kind).exact_map(images, targets)
    assert torch.equal(maps > 0, masks)
    for found, (fewest, most) in (((maps > 0), FOR[kind]), ((maps < 0), AGAINST[kind])):
        numbers = of_cells(found.float()).gt(0).sum(1)
        seen = numbers.unique().tolist()
        if kind == "and" and most < FOR["and"][0]:
            assert seen == [0], "too few cells of the other colour tell nothing"
        else:
            assert seen == [*range(fewest, most + 1)]


def test_a_cell_of_a_counter_counts_half_and_of_an_or_and_an_and_its_share():
    for kind in ("counter", "or", "and"):
        images, targets, masks = drawn(kind)
        values = of_cells(designed(kind=kind).exact_map(images, targets))
        numbers = of_cells(masks.float()).gt(0).sum(1, keepdim=True)
        expected = torch.full_like(values, GAIN[kind]) / (1 if kind == "counter" else numbers)
        torch.testing.assert_close(values[values > 0], expected[values > 0])


def test_colours_below_the_ramp_and_blue_are_not_seen_and_above_it_all_is_one():
    network = designed(kind="counter")
    images = torch.zeros(4, 3, 16, 16)
    images[0], images[1, 2], images[2, 0, :2, :2], images[3, 0, :2, :2] = 0.5, 1.0, 0.75, 1.0
    assert network(images)[:2].abs().max() < 1e-6
    torch.testing.assert_close(network(images)[2:, 0], torch.full((2,), GAIN["counter"]))


@every_kind
def test_data_are_even_and_image_i_depends_on_its_settings_the_split_and_i_alone(kind):
    few, many, other = (
        data(kind=kind, n_train=n, n_test=4, seed=seed)["train"] for n, seed in ((10, 1), (90, 1), (10, 2))
    )
    assert torch.equal(few.images, many.images[:10])
    assert torch.equal(few.masks, many.masks[:10])
    assert (few.images != other.images).flatten(1).any(1).all()
    assert many.targets.bincount().tolist() == [45, 45]
    places = many.masks.float().mean(0)
    assert places.min() >= 0
    assert (many.masks.flatten(1).any(0)).float().mean() > 0.9, "cells that speak are anywhere"


def test_clutter_is_dim_and_five_cells_are_blue():
    images, _, _ = drawn("counter")
    bright = of_cells((images > 0.5).any(1).float()).gt(0)
    assert (bright.sum(1) - of_cells((images[:, :2] > 0.5).any(1).float()).gt(0).sum(1) == BLUE).all()
    assert images[:, 0][~(images[:, 0] > 0.5)].max() <= 0.451


@every_kind
def test_it_is_made_of_ordinary_layers_and_its_copy_still_knows_its_map(kind):
    kinds = {type(layer) for layer in designed(kind=kind)}
    assert kinds <= {nn.Conv2d, nn.ReLU, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear}
    images, targets, _ = drawn(kind, 4)
    network = designed(kind=kind)
    torch.testing.assert_close(exact_map(network, images, targets), network.exact_map(images, targets))
    torch.testing.assert_close(fast_copy(network, images)(images), network(images))


def test_a_network_without_a_known_map_is_refused():
    inputs = all_inputs(2)
    with pytest.raises(ValueError, match=words("exact_map Linear designed")):
        exact_map(linear_network(), inputs["images"], inputs["targets"])


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"kind": "xor"}, "kind xor counter"), ({"size": 9}, "size 9 even"), ({"size": 6}, "size 6 8")],
)
def test_kinds_and_sizes_that_there_are_none_of_are_refused(settings, says):
    from efface.models.designed import check_designed as check_network

    for check in (check_designed, check_network):
        with pytest.raises(ValueError, match=words(says)):
            check(**settings)
    with pytest.raises(ValueError, match=words("n_test 1 2")):
        check_designed(n_test=1)
