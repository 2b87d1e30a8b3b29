"""Localisation: shares counted by hand, mosaics against a plain loop, and networks that cannot see the other cells."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from efface.base.types import Split
from efface.methods.cam import grad_cam
from efface.methods.control import centre, true_mask
from efface.methods.gradient import gradient, input_x_gradient
from efface.metrics import Point, metric
from efface.metrics.di_full import di_full
from efface.metrics.grid_pointing_game import grid_pointing_game
from efface.metrics.pointing_game import pointing_game as pointing
from efface.metrics.shared.located import pointing_game, relevance_mass, relevance_rank
from efface.metrics.shared.mosaic import OneCell, boxes, choose, compose, share_inside
from efface.plug.call import Call
from efface.stages.run.curves import planned_run
from efface.stages.run.run import Run
from efface.stages.work.extraction import extract_missing
from efface.stages.work.measuring import measure_missing
from efface.stages.work.training import train_missing
from small.batches import normal_numbers
from small.cases import case_of
from small.messages import words
from small.studies import checked

MEAN = Call(call="efface.impute.channel_mean")
SUM = (Call(call="efface.erase.post.channel_sum"),)


def drawn(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.3


def only(made, post=SUM):
    (probe,) = made.probes(Point(0.0, 0, MEAN, post, "pixel")).values()
    return probe


# Masks


def test_the_three_scores_by_hand():
    maps = torch.tensor([[[3.0, 1.0, -2.0], [0.0, 3.0, 0.5]]])
    masks = torch.tensor([[[True, True, False], [False, False, False]]])
    assert pointing_game(maps, masks).tolist() == [0.5]  # two largest, one of them on the object
    assert relevance_mass(maps, masks).tolist() == pytest.approx([4 / 7.5])
    assert relevance_rank(maps, masks).tolist() == [0.5]  # the two of 3, one of them on it
    flat = torch.ones_like(maps)
    for score in (pointing_game, relevance_mass, relevance_rank):
        assert score(flat, masks).tolist() == pytest.approx([1 / 3])  # the object's share of the image: chance
        assert score(masks.float(), masks).tolist() == [1]
        assert score((~masks).float(), masks).tolist() == [0]
        assert score(maps, torch.zeros_like(masks)).isnan().all()
    assert relevance_mass(-flat, masks).isnan().all()


def test_ranks_and_masses_are_those_of_a_plain_loop():
    maps, masks = normal_numbers(8, 6, 5), drawn(8, 6, 5)
    for each, mask, mass, rank in zip(
        maps.numpy(), masks.numpy(), relevance_mass(maps, masks), relevance_rank(maps, masks), strict=True
    ):
        best = np.argsort(-each.ravel())[: mask.sum()]
        assert rank.item() == pytest.approx(mask.ravel()[best].mean())
        assert mass.item() == pytest.approx(np.maximum(each, 0)[mask].sum() / np.maximum(each, 0).sum(), rel=1e-6)


def test_ties_of_a_rank_count_by_their_mean_over_all_orders():
    maps, masks = (normal_numbers(4, 4, 4) * 1.2).round(), drawn(4, 4, 4)
    found = relevance_rank(maps, masks)
    generator, sums = np.random.default_rng(0), np.zeros(4)
    for _ in range(4000):
        for i, (each, mask) in enumerate(zip(maps.numpy(), masks.numpy(), strict=True)):
            order = np.lexsort((generator.random(16), -each.ravel()))
            sums[i] += mask.ravel()[order[: mask.sum()]].mean()
    np.testing.assert_allclose(found, sums / 4000, atol=0.02)


def test_a_tolerance_is_a_distance_from_the_object():
    masks = torch.zeros(1, 9, 9, dtype=torch.bool)
    masks[0, 4, 4] = True
    for tolerance in (0, 1, 1.5, 2, 3):
        for y in range(9):
            for x in range(9):
                maps = torch.zeros(1, 9, 9)
                maps[0, y, x] = 1
                near = np.hypot(y - 4, x - 4) <= tolerance
                assert pointing_game(maps, masks, tolerance=float(tolerance)).item() == near
    with pytest.raises(ValueError, match=words("tolerance -1.0")):
        pointing(tolerance=-1.0)


# Mosaics


def test_a_mosaic_has_images_of_distinct_classes_rightly_classified_each_used_once():
    targets = torch.arange(60) % 5
    logits = nn.functional.one_hot(targets, 5) * 4 + normal_numbers(60, 5)
    logits[::7] = -logits[::7]  # wrong
    rows = choose(logits, targets, cells=4, mosaics=100, seed=1)
    assert rows.shape[1] == 4
    assert len(rows.unique()) == rows.numel()
    assert all(len(targets[each].unique()) == 4 for each in rows)
    assert (logits.argmax(1) == targets)[rows].all()
    counts = torch.bincount(targets[logits.argmax(1) == targets], minlength=5)
    best = max(m for m in range(20) if int(counts.clamp(max=m).sum()) >= 4 * m)  # by counting: no more can be filled
    assert len(rows) == best
    sure = logits.softmax(1).amax(1)
    first = choose(logits, targets, cells=4, mosaics=1, seed=1)[0]
    for row in first:
        same = (targets == targets[row]) & (logits.argmax(1) == targets)
        assert sure[row] == sure[same].max()
    assert torch.equal(first, rows[0])
    with pytest.raises(ValueError, match=words("9 classes 5")):
        choose(logits, targets, cells=9, mosaics=1, seed=1)


@pytest.mark.parametrize(("h", "w", "side"), [(6, 8, 2), (7, 5, 2), (9, 10, 3)])
def test_cells_tile_the_mosaic(h, w, side):
    images = torch.rand(2 * side**2, 3, h, w)
    larger, same = compose(images, side, "larger"), compose(images, side, "same")
    assert larger.shape == (2, 3, h * side, w * side)
    assert same.shape == (2, 3, h, w)
    seen = torch.zeros(h, w)
    for cell, (down, across) in enumerate(boxes(side, h, w)):
        seen[down, across] += 1
        i, j = divmod(cell, side)
        for number in (0, 1):
            image = images[number * side**2 + cell]
            assert torch.equal(larger[number, :, i * h : (i + 1) * h, j * w : (j + 1) * w], image)
            small = same[number, :, down, across]
            assert small.mean((1, 2)).tolist() == pytest.approx(image.mean((1, 2)).tolist(), abs=0.12)
    assert (seen == 1).all()
    halves = compose(images[:4], 2, "same") if h == 6 else None
    if halves is not None:  # whole blocks of 2 x 2
        expected = images[0].unfold(1, 2, 2).unfold(2, 2, 2).mean((3, 4))
        torch.testing.assert_close(halves[0, :, :3, :4], expected)


def test_the_share_inside_a_cell():
    maps = torch.tensor([[[1.0, -5.0], [2.0, 1.0]], [[-1.0, 0.0], [0.0, -2.0]]])
    found = share_inside(maps, (slice(1, 2), slice(0, 1)))
    assert found[0] == 0.5
    assert found[1].isnan()


class Quadrants(nn.Module):
    """Four classes, each the brightness of its own channel: the evidence lies where the channel is bright."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1, bias=False)
        self.conv.weight.data = torch.eye(4)[:, :, None, None]
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images):
        return self.pool(self.relu(self.conv(images))).flatten(1)


def coloured(count=16, size=6):
    """Class k is bright in channel k and black elsewhere."""
    targets = torch.arange(count) % 4
    images = torch.zeros(count, 4, size, size, dtype=torch.uint8)
    images[torch.arange(count), targets] = (100 + torch.arange(count))[:, None, None].byte()
    return Split(images, targets, masks=drawn(count, size, size))


def case_and_ticks(network, method, *, max_batch=64):
    """A case of the coloured images, and the list that takes the work that its probe reports."""
    ticks = []

    def explain(network, images, classes, rows, masks=None):
        if method is true_mask:
            return true_mask(network, images, classes, masks=masks)
        return method(network, images, classes)

    data = coloured()
    how = {"mean": torch.zeros(4), "max_batch": max_batch, "advance": ticks.append, "explain": explain}
    return case_of({"test": data}, network.eval(), **how), ticks


@pytest.mark.parametrize("size", ["larger", "same"])
def test_a_network_that_separates_the_classes_has_its_maps_in_their_cells(size):
    probe = only(grid_pointing_game(size=size))
    here, ticks = case_and_ticks(Quadrants(), input_x_gradient)
    np.testing.assert_allclose(probe(here).values["share"], 1, atol=1e-6)
    assert sum(ticks) == probe.cost({"test": 16}, None) == 16 + 16 * (4 if size == "larger" else 1)
    here, _ = case_and_ticks(Quadrants(), centre)  # the same in all cells: chance
    np.testing.assert_allclose(probe(here).values["share"], 0.25, atol=1e-6)
    here, _ = case_and_ticks(Quadrants(), true_mask)  # the object in the cell, and nothing else
    found = probe(here).values["share"]
    assert np.all(found[~np.isnan(found)] == 1)
    assert not np.isnan(found).all()


def test_where_the_network_sees_one_cell_all_gradients_lie_in_it():
    network = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.append(nn.Linear(8, 4))
    torch.manual_seed(0)
    for layer in (network[0], network[4]):
        layer.reset_parameters()
    images = torch.rand(3, 4, 12, 12)
    for box in boxes(2, 12, 12):
        cut = OneCell(network, box, 0.5).eval()
        outside = torch.ones(12, 12, dtype=torch.bool)
        outside[box] = False
        changed = torch.where(outside, torch.rand(3, 4, 12, 12), images)
        assert torch.equal(cut(changed), cut(images))
        for method in (gradient, input_x_gradient):
            assert (method(cut, images, torch.tensor([0, 1, 2]))[:, :, outside] == 0).all()
    here, _ = case_and_ticks(Quadrants(), gradient)
    np.testing.assert_allclose(only(di_full())(here).values["share"], 1, atol=1e-6)
    here, _ = case_and_ticks(Quadrants(), centre)
    assert only(di_full())(here).mean("share") == pytest.approx(0.25, abs=1e-6)


def test_methods_that_name_a_layer_find_it_in_the_cut_network():
    def cam(network, images, classes):
        return grad_cam(network, images, classes, layer="conv")

    here, _ = case_and_ticks(Quadrants(), cam)
    found = only(di_full(fill=0.0))(here).values["share"]
    assert np.isfinite(found).all()
    assert (found > 0.7).all()  # the features are spread a little when they are enlarged


@pytest.mark.parametrize("made", [grid_pointing_game(), di_full(size="same"), grid_pointing_game(mosaics=2)])
def test_rows_change_nothing_and_unused_images_are_missing(made):
    probe, found = only(made), []
    for max_batch in (1, 5, 64):
        here, ticks = case_and_ticks(Quadrants(), input_x_gradient, max_batch=max_batch)
        found.append(probe(here).values["share"])
        assert sum(ticks) == probe.cost({"test": 16}, None)
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-6)
    assert np.isfinite(found[0]).sum() == min(16, 4 * probe.mosaics)


def test_a_network_of_one_size_is_told_to_shrink_the_cells():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4 * 36, 4))
    network[1].weight.data = torch.eye(4).repeat_interleave(36, 1)
    network[1].bias.data.zero_()
    with pytest.raises(ValueError, match=words("12 size same")):
        only(grid_pointing_game())(case_and_ticks(network, gradient)[0])
    found = only(grid_pointing_game(size="same"))(case_and_ticks(network, input_x_gradient)[0]).values["share"]
    np.testing.assert_allclose(found, 1, atol=1e-6)


def test_settings_are_checked_when_they_are_read():
    for name in ("grid_pointing_game", "di_full"):
        for settings, said in (
            ({"side": 1}, f"{name} side 1"),
            ({"mosaics": 0}, f"{name} mosaics 0"),
            ({"size": "small"}, "size small"),
        ):
            with pytest.raises(ValueError, match=words(said)):
                metric(name, settings)
    with pytest.raises(ValueError, match=words("fill 2.0")):
        di_full(fill=2.0)
    assert only(di_full()).identity() != only(grid_pointing_game()).identity()


# A study


def squares():
    """A bright square on the dark: red, green, blue or white."""
    colours = torch.cat([torch.eye(3), torch.ones(1, 3)])

    def made(count, seed):
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(0, 30, (count, 3, 16, 16), generator=generator)
        corners = torch.randint(0, 11, (count, 2), generator=generator)
        masks = torch.zeros(count, 16, 16, dtype=torch.bool)
        for row, (y, x) in enumerate(corners.tolist()):
            masks[row, y : y + 6, x : x + 6] = True
        targets = torch.arange(count) % 4
        bright = masks[:, None] * colours[targets][:, :, None, None]
        return Split((images + 200 * bright).byte(), targets, ("red", "green", "blue", "white"), masks)

    return {"train": made(48, 0), "test": made(24, 1)}


class Answering(nn.Module):
    """Tells the four colours apart from the start; what is dark is dead, so the gradient lies on the square."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(3, 4)
        with torch.no_grad():
            self.conv.weight.zero_()[range(3), range(3), 1, 1] = 1.0
            self.conv.bias.fill_(-0.15)
            self.fc.weight.copy_(20 * torch.cat([3 * torch.eye(3) - 1, torch.ones(1, 3)]))
            self.fc.bias.copy_(torch.tensor([0, 0, 0, -3.0]))

    def forward(self, images):
        return self.fc(self.relu(self.conv(images)).mean((2, 3)))


METRICS = [
    *("pointing_game", "relevance_mass", "relevance_rank", "random_logit", "efficient_randomisation"),
    {"name": "randomisation", "kwargs": {"points": 2}},
    {"name": "convergence", "kwargs": {"points": 1, "pairs": 1}},
    {"name": "data_randomisation", "kwargs": {"epochs": 1}},
    {"name": "grid_pointing_game", "kwargs": {"mosaics": 2}},
    {"name": "di_full", "kwargs": {"mosaics": 2}},
]


@pytest.mark.long
def test_all_of_them_through_a_study(tmp_path):
    tree = {
        "out": str(tmp_path / "run"),
        "data": f"{Path(__file__).stem}.squares",
        "model": f"{Path(__file__).stem}.Answering",
        "fit": {"epochs": 1, "batch_size": 16},
        "attribution_methods": [
            {"name": "true", "method": "efface.methods.control.true_mask"},
            {"name": "gradient", "method": "efface.methods.gradient.gradient"},
        ],
        "post": ["efface.erase.post.absolute", "efface.erase.post.channel_sum"],
        "metrics": METRICS,
        "explain": "true",
        "max_batch": 16,
        "executor": "efface.execute.serial",
    }
    made = checked(tmp_path, tree)
    run = Run(made)
    train_missing([run])
    assert extract_missing(run) == []
    assert measure_missing(planned_run(run)) == []
    found = {(each.metric, each.score, each.method): each for each in planned_run(run).curves}
    for name, score in (("pointing_game", "hit"), ("relevance_mass", "mass"), ("relevance_rank", "overlap")):
        np.testing.assert_array_equal(found[name, score, "true"].values, 1)
        assert found[name, score, "gradient"].values.mean() > 0.9
    for name in ("randomisation", "random_logit", "data_randomisation"):
        np.testing.assert_allclose(found[name, "spearman", "true"].values, 1, atol=1e-6)
    assert found["randomisation", "spearman", "gradient"].at == (0, 0.5, 1)
    np.testing.assert_allclose(found["randomisation", "spearman", "gradient"].values[:, 0], 1, atol=1e-4)
    assert found["convergence", "cosine", "gradient"].values.shape == (24, 2)
    assert np.isfinite(found["efficient_randomisation", "entropy_rise", "gradient"].values).any()
    for name in ("grid_pointing_game", "di_full"):
        values = found[name, "share", "true"].values
        np.testing.assert_array_equal(values[~np.isnan(values)], 1)
    values = found["di_full", "share", "gradient"].values
    np.testing.assert_allclose(values[~np.isnan(values)], 1, atol=1e-6)
    asked = {row["explain"] for row in run.results.records.values() if row["probe"]["probe"] == "signals"}
    assert asked == {"none"}
