"""Sparseness and complexity: closed forms, another way to the same number, and invariants."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy

from efface.metrics import Point, metric
from efface.metrics.shared.concentration import Concentration, entropy, gini
from efface.metrics.shared.located import pointing_game, relevance_mass
from efface.plug.call import Call
from small.batches import normal_numbers
from small.cases import C, H, N, W, known_case, values_of
from small.messages import words

SUM = (Call(call="efface.erase.post.absolute"), Call(call="efface.erase.post.channel_sum"))


def test_closed_forms():
    one, even, zero = torch.zeros(3, 4, 5)
    one[2, 3], even[:] = -7.0, 0.3
    maps = torch.stack([one, even, zero])
    np.testing.assert_allclose(gini(maps), [1 - 1 / 20, 0, math.nan], atol=1e-12)
    np.testing.assert_allclose(entropy(maps), [0, math.log(20), math.nan], atol=1e-12)
    ramp = torch.arange(1.0, 5.0).reshape(1, 2, 2)
    assert gini(ramp).item() == pytest.approx(0.25)  # (-3 * 1 - 1 * 2 + 1 * 3 + 3 * 4) / (4 * 10)
    assert entropy(ramp).item() == pytest.approx(-sum(each / 10 * math.log(each / 10) for each in (1, 2, 3, 4)))


def test_gini_is_the_mean_difference_and_entropy_that_of_scipy():
    maps = normal_numbers(N, C, H, W)
    sizes = maps.abs().flatten(1).double().numpy()
    differences = np.abs(sizes[:, :, None] - sizes[:, None, :]).mean((1, 2))
    np.testing.assert_allclose(gini(maps), differences / (2 * sizes.mean(1)), rtol=1e-10)
    np.testing.assert_allclose(entropy(maps), scipy_entropy(sizes, axis=1), rtol=1e-10)


def test_scale_sign_and_place_change_nothing_and_blur_spreads():
    maps = normal_numbers(N, H, W)
    moved = maps.flatten(1)[:, torch.randperm(H * W, generator=torch.Generator().manual_seed(1))].reshape(maps.shape)
    for measure in (gini, entropy):
        for other in (maps * 1e-12, -maps, moved):
            np.testing.assert_allclose(measure(other), measure(maps), rtol=1e-6)
    flatter = maps.abs() + 0.5
    assert (gini(flatter) < gini(maps)).all()
    assert (entropy(flatter) > entropy(maps)).all()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # what quantus and what it imports warn of
def test_quantus_agrees():
    """On scores of maps alone: concentration, and localisation of positive relevance."""
    import quantus

    maps = torch.randn(6, 8, 8, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(6, 8, 8, dtype=torch.bool)
    masks[:, 2:6, 1:5] = True
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4)).eval()
    known, asked = {"normalise": False, "disable_warnings": True}, (network, np.zeros((6, 3, 8, 8)), np.zeros(6, int))
    given, objects, positive = maps[:, None].numpy(), masks[:, None].numpy(), maps.clamp(min=0)[:, None].numpy()
    for ours, theirs in (
        (gini(maps), quantus.Sparseness(abs=True, **known)(*asked, given)),
        (entropy(maps), quantus.Complexity(abs=True, **known)(*asked, given)),
        (pointing_game(maps, masks), quantus.PointingGame(abs=False, **known)(*asked, given, objects)),
        (relevance_mass(maps, masks), quantus.RelevanceMassAccuracy(abs=False, **known)(*asked, positive, objects)),
    ):
        np.testing.assert_allclose(ours.numpy(), np.array(theirs, dtype=np.float64), atol=1e-5)


def test_the_probe_reduces_the_maps_by_post_and_unit(tmp_path):
    maps = normal_numbers(N, C, H, W)
    for max_batch in (1, 4, 64):
        found = values_of(Concentration(SUM, "pixel"), known_case(tmp_path, maps, max_batch=max_batch))
        np.testing.assert_array_equal(found["gini"], gini(maps.abs().sum(1)))
    np.testing.assert_array_equal(
        values_of(Concentration((), "feature"), known_case(tmp_path, maps))["entropy"], entropy(maps)
    )
    with pytest.raises(ValueError, match=words("3 post channels")):
        Concentration((), "pixel")(known_case(tmp_path, maps))


def test_both_metrics_share_one_probe(tmp_path):
    groups = Call(call="test_metric_faithfulness.halves")
    probes = set()
    for name in ("sparseness", "complexity"):
        for unit in ("pixel", groups):
            probes |= set(metric(name).probes(Point(0.0, 0, groups, SUM, unit)).values())
    assert probes == {Concentration(SUM, "pixel")}
    score = probes.pop()(known_case(tmp_path, normal_numbers(N, H, W)))
    for name in ("sparseness", "complexity"):
        found = metric(name).value({"map": score})
        assert list(found) == list(metric(name).direction)
        assert set(metric(name).direction.values()) == {"none"}
