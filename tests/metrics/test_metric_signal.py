"""Leakage and signal rank: maps made by hand, networks whose gradient is known, and a study from end to end."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from efface.data.synthetic import one_signal
from efface.metrics import Point, metric
from efface.metrics.leakage import leaked
from efface.metrics.signal_rank import ranked
from efface.plug.call import Call
from efface.stages.run.curves import planned_run
from efface.stages.run.run import Run
from efface.stages.work.extraction import extract_missing
from efface.stages.work.measuring import measure_missing
from efface.stages.work.training import train_missing
from efface.study.study import check
from small.batches import normal_numbers
from small.messages import words

MEAN = Call(call="efface.impute.channel_mean")


def block(n=1, h=4, w=2, *, above=True):
    masks = torch.zeros(n, h, w, dtype=torch.bool)
    masks[:, : h // 2] = above
    masks[:, h // 2 :] = not above
    return masks


def test_leakage_by_hand():
    maps = torch.tensor([[[4.0, -3.0], [0.0, 1.0], [2.0, 0.0], [0.0, -5.0]]])
    for above, expected in ((True, 7 / 15), (False, 8 / 15)):
        mass, top = leaked(maps, block(above=above), top=0.25)  # -5 and 4
        assert mass.item() == pytest.approx(expected)
        assert top.item() == 0.5
    assert leaked(maps, block(), top=0.01)[1].item() == 1  # the largest alone is below
    assert leaked(maps, block(), top=0.5)[1].item() == 0.5
    assert leaked(maps, block(), top=5 / 8)[1].item() == pytest.approx(2 / 5)
    assert leaked(maps, block(), top=6 / 8)[1].item() == pytest.approx((2 + 2 / 3) / 6)  # of three zeros two below
    flat = torch.ones(1, 4, 2)
    for each in leaked(flat, block(), top=0.3):
        assert each.item() == pytest.approx(0.5)  # chance
    for each in leaked(block().float(), block(), top=0.5):
        assert each.item() == 0
    for each in leaked(-(~block()).float(), block(), top=0.5):
        assert each.item() == 1
    assert all(each.isnan().all() for each in leaked(torch.zeros(1, 4, 2), block()))
    assert all(each.isnan().all() for each in leaked(flat, torch.zeros(1, 4, 2, dtype=torch.bool)))


def test_leakage_is_that_of_a_plain_loop():
    maps, masks = normal_numbers(9, 6, 5), normal_numbers(9, 6, 5, seed=1) < 0.5
    mass, top = leaked(maps, masks, top=0.2)
    for i in range(9):
        size, off = np.abs(maps[i].numpy()).ravel(), ~masks[i].numpy().ravel()
        assert mass[i].item() == pytest.approx(size[off].sum() / size.sum(), rel=1e-5)
        assert top[i].item() == pytest.approx(off[np.argsort(-size)[:6]].mean())


def row(*values):
    return torch.tensor(values, dtype=torch.float32)[None, None, None]


def test_signal_rank_by_hand():
    signal = torch.tensor([False, True, False, False])[None, None, None]
    x = row(0.0, -1.0, 0.0, 0.0)
    for maps, expected in (
        (row(0.1, -0.9, 0.2, 0.3), (1, 1, 0, 0.9 / np.sqrt(0.95))),  # the signal first
        (row(0.5, 0.1, -0.6, 0.3), (-1, 0, 1, 0.1 / np.sqrt(0.71))),  # last
        (row(0.5, 0.2, -0.6, 0.1), (0, 0, 0, 0.2 / np.sqrt(0.66))),  # neither
        (row(1.0, 1.0, -1.0, 1.0), (0, 0.25, 0.25, 0.5)),  # all alike
        (row(0.0, -2.0, 2.0, 0.0), (0.5, 0.5, 0, np.sqrt(0.5))),  # shared with another
    ):
        assert [each.item() for each in ranked(x, maps, signal)] == pytest.approx(expected)
    zero = ranked(x, row(0, 0, 0, 0), signal)
    assert [each.item() for each in zero[:3]] == [0, 0.25, 0.25]
    assert zero[3].isnan()
    without = ranked(x, row(1, 2, 3, 4), torch.zeros_like(signal))
    assert all(each.isnan().all() for each in without[:3])


def test_signal_rank_of_several_signals_and_channels_counts_coordinates():
    signal = torch.zeros(1, 2, 1, 3, dtype=torch.bool)
    signal[:, :, :, 0] = True  # a pixel with both its channels
    maps = torch.tensor([[[[1.0, 5.0, 2.0]], [[-9.0, 3.0, 4.0]]]])
    difference, top, bottom, _ = ranked(normal_numbers(1, 2, 1, 3), maps, signal)
    assert (difference.item(), top.item(), bottom.item()) == (0, 1, 1)


def test_random_maps_are_at_chance():
    signal = nn.functional.one_hot(torch.arange(4000) % 10, 10).bool()[:, None, None]
    difference, top, bottom, cosine = ranked(signal.float(), normal_numbers(4000, 1, 1, 10), signal)
    assert abs(difference.mean()) < 0.03
    assert abs(top.mean() - 0.1) < 0.02
    assert abs(bottom.mean() - 0.1) < 0.02
    assert abs(cosine.square().mean() - 0.1) < 0.01


class Peeking(nn.Module):
    """Knows where the signal is: its logits are the signal's value cubed and summed, whose gradient is 0 elsewhere."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images):
        found = self.scale * ((images * 255 - 128) / 127).pow(3).flatten(1).sum(1, keepdim=True)
        return torch.cat([-found, found], dim=1)


def tree(tmp_path):
    return {
        "out": str(tmp_path / "run"),
        "data": {"call": "efface.data.synthetic.one_signal", "kwargs": {"d": 6, "n_train": 20, "n_test": 40}},
        "model": f"{__name__}.Peeking",
        "attribution_methods": [
            {"name": "gradient", "method": "efface.methods.gradient.gradient"},
            {"name": "random", "method": "efface.methods.control.random", "kwargs": {"per_channel": True}},
        ],
        "post": ["efface.erase.post.absolute", "efface.erase.post.channel_sum"],
        "metrics": ["leakage", "signal_rank"],
        "max_batch": 16,
        "device": "cpu",
        "executor": "efface.execute.serial",
    }


def test_a_study_of_a_network_that_looks_at_the_signal_alone(tmp_path):
    run = Run(check(tree(tmp_path), Path("test")))
    train_missing([run])
    assert not extract_missing(run)
    assert not measure_missing(planned_run(run))
    means = {(each.metric, each.score, each.method): float(np.nanmean(each.values)) for each in planned_run(run).curves}
    expected = {"difference": 1, "top": 1, "bottom": 0, "cosine": 1}
    for score, value in expected.items():
        assert means["signal_rank", score, "gradient"] == pytest.approx(value, abs=1e-6)
    assert means["leakage", "mass", "gradient"] == pytest.approx(0, abs=1e-6)
    assert means["leakage", "top", "gradient"] == 0
    assert means["leakage", "mass", "random"] == pytest.approx(5 / 6, abs=0.1)
    assert abs(means["signal_rank", "difference", "random"]) < 0.4


def test_batches_change_nothing(tmp_path):
    found = []
    for max_batch in (7, 40):
        run = Run(check(tree(tmp_path / str(max_batch)) | {"max_batch": max_batch}, Path("test")))
        train_missing([run])
        extract_missing(run)
        measure_missing(planned_run(run))
        found.append({(each.metric, each.score, each.method): each.values for each in planned_run(run).curves})
    for name, values in found[0].items():
        np.testing.assert_array_equal(values, found[1][name])


def test_probes_say_what_they_need_and_what_they_depend_on():
    point = Point(0.0, 0, MEAN, (Call(call="efface.erase.post.absolute"),), "pixel")
    for name, settings, other in (("leakage", {"top": 0.1}, {"top": 0.2}), ("signal_rank", {}, {"centre": 0.5})):
        (probe,) = metric(name, settings).probes(point).values()
        (changed,) = metric(name, other).probes(point).values()
        assert probe.needs.masks
        assert probe.needs.maps
        assert dataclasses.is_dataclass(probe)
        assert hash(probe) != hash(changed)
        assert probe.identity() != changed.identity()
    with pytest.raises(ValueError, match=words("top 0.0")):
        metric("leakage", {"top": 0.0})


def test_published_setting_has_the_chance_that_it_should():
    split = one_signal(n_train=4, n_test=400)["test"]
    x = ((split.images.double() - 128) / 127).float()
    difference, top, bottom, cosine = ranked(x, x, split.masks[:, None])
    assert difference.eq(1).all()
    assert top.eq(1).all()
    assert bottom.eq(0).all()
    torch.testing.assert_close(cosine, torch.ones(400))
    even = ranked(x, torch.ones_like(x), split.masks[:, None])[3]
    torch.testing.assert_close(even, torch.full((400,), 10**-0.5))
