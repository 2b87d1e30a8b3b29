"""The greedy control: a map of the network's response alone, and what it does to the metric that it is made from."""

import pytest
import torch
from torch import nn

import efface
from efface.data.digits import digits
from efface.methods.control import greedy
from efface.models.designed import designed
from small.batches import images_and_classes, uniform_numbers
from small.messages import words
from small.networks import WeightedSum, linear_network, one_convolution


def cell_values(maps, cells):
    """The value of each cell, which all its pixels share, n k."""
    size = maps.shape[-1] // cells
    folded = maps.unfold(1, size, size).unfold(2, size, size).flatten(3).flatten(1, 2)
    assert torch.equal(folded.amin(2), folded.amax(2))
    return folded[:, :, 0]


def naive(network, image, target, cells, order, value):
    """The same by loops: the cells in the order in which they are taken."""
    size, taken = image.shape[-1] // cells, []
    while len(taken) < cells**2:
        found = {}
        for cell in set(range(cells**2)) - {*taken}:
            mask = torch.zeros(cells**2, dtype=torch.bool)
            mask[[*taken, cell]] = True
            mask = mask.reshape(cells, cells).repeat_interleave(size, 0).repeat_interleave(size, 1)
            shown = torch.where(mask if order == "deletion" else ~mask, torch.tensor(value), image)
            found[cell] = network(shown[None]).softmax(1)[0, target].item()
        taken.append((min if order == "deletion" else max)(found, key=found.get))
    return taken


@pytest.mark.parametrize("order", ["deletion", "insertion"])
@pytest.mark.parametrize("cells", [2, 4])
def test_of_a_linear_network_and_black_it_is_the_order_of_the_cells_contributions(order, cells):
    model, (images, targets) = linear_network(), images_and_classes(5)
    maps = greedy(model, images, targets, cells=cells, order=order, value=0.0, score="logit")
    size = 8 // cells
    contributions = (model.of(targets) * images).sum(1)
    added = contributions.unfold(1, size, size).unfold(2, size, size).sum((3, 4)).flatten(1)
    assert torch.equal(cell_values(maps, cells).argsort(1, descending=True), added.argsort(1, descending=True))
    assert torch.equal(cell_values(maps, cells).sort(1).values[0], torch.arange(1.0, cells**2 + 1).double())


def test_of_two_classes_the_probability_has_the_order_of_the_logit():
    model, (images, _) = WeightedSum(uniform_numbers(3, 8, 8, seed=3) - 0.5), images_and_classes(4)
    targets = torch.zeros(4, dtype=torch.int64)
    by_logit, by_probability = (
        greedy(model, images, targets, value=0.0, score=score) for score in ("logit", "probability")
    )
    assert torch.equal(by_logit, by_probability)


@pytest.mark.parametrize("order", ["deletion", "insertion"])
def test_each_step_takes_the_best_cell_that_is_left(order):
    torch.manual_seed(2)
    model, (images, targets) = one_convolution().double().eval(), images_and_classes(3)
    with torch.no_grad():
        maps = greedy(model, images, targets, cells=2, order=order, value=0.3, max_batch=2)
        taken = cell_values(maps, 2).argsort(1, descending=True)
        assert taken.tolist() == [
            naive(model, image, target, 2, order, 0.3) for image, target in zip(images, targets.tolist(), strict=True)
        ]


def test_cells_need_not_divide_the_image():
    images, targets = images_and_classes(2, 7, 9)
    model = nn.Sequential(nn.Flatten(), nn.Linear(189, 4)).double()
    maps = greedy(model, images, targets, cells=3)
    assert maps.shape == (2, 7, 9)
    assert maps[0].unique().tolist() == [*range(1, 10)]
    rows = (maps[0, 1:] != maps[0, :-1]).any(1).nonzero().flatten() + 1
    assert rows.tolist() == [3, 5]


def test_settings_that_cannot_be_are_refused():
    model, (images, targets) = linear_network(), images_and_classes(2)
    for cells in (0, 9):
        with pytest.raises(ValueError, match=words(f"cells {cells} 8")):
            greedy(model, images, targets, cells=cells)


@pytest.mark.long
def test_on_digits_it_wins_deletion_against_methods_and_knows_it():
    data = digits(limit=800, test_limit=100)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    images, targets = data["train"].images.float() / 255, data["train"].targets
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), targets).backward()
        optimizer.step()
    methods = {
        "gradient": {"method": "gradient"},
        "integrated_gradients": {"method": "integrated_gradients"},
        "greedy": {"method": "greedy", "kwargs": {"cells": 8, "value": 0.0}},
    }
    found = efface.evaluate(
        network,
        data["test"].images,
        data["test"].targets,
        methods,
        [
            {
                "name": "deletion",
                "kwargs": {"imputer": {"call": "constant"}, "fractions": [0.0, 0.1, 0.2, 0.3, 0.5, 1.0]},
            }
        ],
        verbose=False,
        post=["channel_sum"],
    )
    table = found.table.set_index("method")
    assert table["value"].idxmin() == "greedy"
    assert table.loc["greedy", "value"] < 0.9 * table.loc["integrated_gradients", "value"]
    text = found.report().read_text()
    assert "so the metric can be gamed" in text
    assert "so deletion can be gamed" in text


def test_what_it_finds_first_in_an_and_of_cells_is_one_of_them():
    images = torch.zeros(1, 3, 16, 16)
    for cell in (0, 3, 6):
        images[0, 0, 2 * cell : 2 * cell + 2, 2 * cell : 2 * cell + 2] = 1.0
    maps = greedy(designed(kind="and"), images, torch.tensor([0]), cells=8, value=0.0)
    first = (maps[0] == 64).nonzero()[0] // 2
    assert first.tolist() in ([0, 0], [3, 3], [6, 6])
