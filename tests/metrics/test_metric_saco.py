"""SaCo and magnitude-aligned scoring: linear networks, curves worked out by hand, and definitions as plain loops."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from efface.base import draws
from efface.base.types import Split
from efface.metrics import Point, metric
from efface.metrics.magnitude_aligned import aligned
from efface.metrics.saco import RankedGroups, coefficients
from efface.plug.call import Call
from small.batches import normal_numbers
from small.cases import (
    BLACK,
    IMAGES,
    WEIGHTS,
    Curved,
    H,
    Known,
    N,
    W,
    case_of,
    known_case,
    stored_maps,
    values_of,
)
from small.messages import words

CHANNELS = (Call(call="efface.erase.post.channel_sum"),)
PATCH = Call(call="efface.erase.units.patch", kwargs={"size": 2})


def saco_of(here, unit="pixel", groups=5, score="logit", imputer=BLACK):
    post = () if unit == "feature" else CHANNELS
    return values_of(RankedGroups(groups, score, imputer, post, unit), here)["coefficient"]


# SaCo


@pytest.mark.parametrize("unit", ["pixel", "feature", PATCH])
def test_contributions_of_a_linear_network_agree_fully(tmp_path, unit):
    for sign in (1, -1):
        np.testing.assert_allclose(saco_of(known_case(tmp_path, sign * WEIGHTS * IMAGES), unit), sign, atol=1e-9)


def test_the_opposite_network_has_the_opposite_coefficient(tmp_path):
    opposite = Known()
    opposite.fc.weight.data.neg_()
    maps = normal_numbers(N, H, W)
    found, reversed_ = (saco_of(known_case(tmp_path, maps, given_network=each)) for each in (Known(), opposite))
    np.testing.assert_allclose(found, -reversed_, atol=1e-9)
    assert np.abs(found).min() > 0.01


def test_coefficients_are_the_papers_loop():
    sums, left = (normal_numbers(6, 5, seed=seed).double() for seed in (1, 2))
    left[3, :3] = left[3, 0]  # equal effects agree
    for row in range(6):
        total, whole = 0.0, 0.0
        for i in range(5):
            for j in range(i + 1, 5):
                weight = (sums[row, i] - sums[row, j]).item()
                total += weight if -left[row, i] >= -left[row, j] else -weight
                whole += abs(weight)
        assert coefficients(sums, left)[row].item() == pytest.approx(total / whole)


def test_it_is_zero_on_average_over_all_orders_of_effects():
    sums = torch.tensor([3.0, 1.5, 1.0, -2.0]).double()
    left = torch.tensor(list(itertools.permutations([0.0, 1.0, 2.0, 3.0]))).double()
    found = coefficients(sums.expand(24, -1), left)
    assert found.mean().item() == pytest.approx(0, abs=1e-12)
    assert (found.max().item(), found.min().item()) == (1, -1)


def test_groups_by_hand(tmp_path):
    """Six pixels, three groups of two; the score is the sum of the pixels, each weighed."""
    weights = torch.tensor([[[1.0, 1.0, 5.0, 5.0, 2.0, 2.0]]])
    network = nn.Sequential(nn.Flatten(), nn.Linear(6, 2, bias=False))
    network[1].weight.data = torch.stack([weights.flatten(), torch.zeros(6)])
    split = Split(torch.full((1, 1, 1, 6), 255, dtype=torch.uint8), torch.tensor([0]))
    maps = torch.tensor([[[9.0, 8.0, 5.0, 4.0, 1.0, 1.0]]])  # sums 17, 9, 2; effects 2, 10, 4
    here = case_of({"test": split}, network, maps={"test": stored_maps(tmp_path, maps)})
    found = RankedGroups(3, "logit", BLACK, (), "pixel")(here).values["coefficient"]
    # 17 over 9: wrong; 17 over 2: wrong; 9 over 2: right
    assert found[0] == pytest.approx((-8 - 15 + 7) / (8 + 15 + 7))


def test_a_constant_map_has_no_coefficient(tmp_path):
    maps = normal_numbers(N, H, W)
    maps[1] = 0.7  # 30 pixels in 4 groups: their sums differ
    found = saco_of(known_case(tmp_path, maps), groups=4)
    assert np.isnan(found).tolist() == [False, True, False, False, False, False]


def test_groups_of_a_noisy_fill_do_not_depend_on_the_batch(tmp_path):
    noisy, maps = Call(call="efface.metrics.sensitivity_n.uniform"), normal_numbers(N, H, W)
    whole = saco_of(known_case(tmp_path, maps, given_network=Curved()), score="probability", imputer=noisy)
    for size in (1, 4, 60):
        here = known_case(tmp_path, maps, given_network=Curved(), max_batch=size)
        np.testing.assert_allclose(saco_of(here, score="probability", imputer=noisy), whole, atol=1e-6)
    here = known_case(tmp_path, maps, given_network=Curved(), rows=torch.tensor([3, 0]))
    probe = RankedGroups(5, "probability", noisy, CHANNELS, "pixel")
    np.testing.assert_allclose(probe(here).values["coefficient"], whole[[3, 0]], atol=1e-6)


def test_more_groups_than_units_are_refused(tmp_path):
    probe = RankedGroups(31, "logit", BLACK, CHANNELS, "pixel")
    for call in (lambda: probe.check(Known(), IMAGES), lambda: probe(known_case(tmp_path, normal_numbers(N, H, W)))):
        with pytest.raises(ValueError, match=words("saco groups 31 30 units")):
            call()
    with pytest.raises(ValueError, match=words("saco groups 1 2")):
        metric("saco", {"groups": 1})


# Magnitude-aligned scoring


def curves_by_loop(heights, density, *, deleting):
    """The score of one image, written out step by step from the empty or the whole image."""
    whole, empty = heights[0], heights[-1]
    points = range(len(heights)) if deleting else range(len(heights) - 1, -1, -1)
    response, corrected, extreme = {}, {}, 1.0 if deleting else 0.0
    for k in points:
        scaled = min(1.0, max(0.0, (heights[k] - empty) / (whole - empty)))
        extreme = min(extreme, scaled) if deleting else max(extreme, scaled)
        response[k] = extreme
        penalty = abs(extreme - density[k])
        corrected[k] = min(1.0, max(0.0, extreme + penalty if deleting else extreme - penalty))
    low, high = min(corrected.values()), max(corrected.values())
    score = [(corrected[k] - low) / (high - low) for k in range(len(heights))]
    flat = [response[k] for k in range(len(heights))]
    off = [abs(response[k] - density[k]) for k in range(len(heights))]
    return [
        sum((one + other) / 2 for one, other in itertools.pairwise(each)) / (len(each) - 1)
        for each in (score, flat, off)
    ]


@pytest.mark.parametrize("deleting", [True, False])
def test_curves_are_those_of_a_plain_loop(deleting):
    heights = np.sort(draws.uniform(torch.arange(9), (6,)).double().numpy(), 1)[:, ::-1].copy()
    heights[:5, 1:-1] = heights[:5, [3, 1, 4, 2]]  # some that rise in between
    density = np.sort(draws.uniform(torch.arange(20, 29), (6,)).double().numpy(), 1)[:, ::-1].copy()
    density[:, 0], density[:, -1] = 1, 0
    found = np.stack(aligned(heights, density, deleting=deleting), 1)
    for row in range(9):
        np.testing.assert_allclose(
            found[row], curves_by_loop(heights[row], density[row], deleting=deleting), atol=1e-12
        )


def test_curves_by_hand():
    heights = np.array([[1.0, 0.5, 0.0]])
    for density, score, penalty in (
        ([1.0, 0.5, 0.0], 0.5, 0.0),
        ([1.0, 0.1, 0.0], 0.7, 0.2),
        ([1.0, 0.9, 0.0], 0.7, 0.2),
    ):
        found = aligned(heights, np.array([density]), deleting=True)
        assert [each[0] for each in found] == pytest.approx([score, 0.5, penalty])
    found = aligned(heights, np.array([[1.0, 0.1, 0.0]]), deleting=False)
    assert [each[0] for each in found] == pytest.approx([0.3, 0.5, 0.2])


def test_no_value_where_the_probability_does_not_fall_or_the_map_is_empty():
    heights = np.array([[0.2, 0.5, 0.2], [0.1, 0.5, 0.3], [0.9, 0.5, 0.1]])
    density = np.array([[1, 0.5, 0], [1, 0.5, 0], [np.nan, np.nan, np.nan]])
    for deleting in (True, False):
        score = aligned(heights, density, deleting=deleting)[0]
        assert np.isnan(score).all()


class Proportional(nn.Module):
    """The probability of class 0 is the weighted mean brightness of the pixels."""

    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", weights / weights.sum())

    def forward(self, images):
        share = (images.mean(1) * self.weights).sum((1, 2)).clamp(1e-6, 1 - 1e-6)
        return torch.stack([torch.logit(share), torch.zeros_like(share)], 1)


@pytest.mark.parametrize("way", ["insertion", "deletion"])
@pytest.mark.parametrize("unit", ["pixel", PATCH])
def test_a_map_of_the_effects_has_no_penalty(tmp_path, way, unit):
    weights = draws.uniform(torch.arange(1), (6, 6))[0] ** 3
    white = Split(torch.full((2, 3, 6, 6), 255, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    maps = torch.stack([weights, weights.sqrt()])
    here = case_of({"test": white}, Proportional(weights), maps={"test": stored_maps(tmp_path, maps)})
    formula = metric("magnitude_aligned", {"way": way, "steps": 7})  # 36 pixels: parts are not equal
    probes = formula.probes(Point(0.0, 0, BLACK, (), unit))
    found = formula.value({name: probe(here) for name, probe in probes.items()})
    assert found["penalty"][0] == pytest.approx(0, abs=1e-5)
    assert found["score"][0] == pytest.approx(found["response"][0], abs=1e-4)
    assert found["penalty"][1] > 0.01
    better = 1 if way == "insertion" else -1
    assert better * found["score"][0] > better * found["score"][1]


@pytest.mark.parametrize("way", ["insertion", "deletion"])
def test_its_passes_are_those_of_insertion_or_deletion_and_its_response_their_area(tmp_path, way):
    formula, other = metric("magnitude_aligned", {"way": way}), metric(way)
    imputer = Call.model_validate(formula.defaults["imputer"])
    assert imputer == Call.model_validate(other.defaults["imputer"])
    plain = {
        probe.identity()["fraction"]: probe
        for at in other.defaults["fractions"]
        for probe in other.probes(Point(at, 0, imputer, CHANNELS, "pixel")).values()
    }
    probes = formula.probes(Point(0.0, 0, imputer, CHANNELS, "pixel"))
    kept = probes.pop("kept")
    assert sorted(map(str, probes.values())) == sorted(map(str, plain.values()))
    here = known_case(tmp_path, WEIGHTS * IMAGES)
    values_of(kept, here)
    assert kept(here).values["step_0"].tolist() == [1.0] * N
    assert kept(here).values["step_20"].tolist() == [0.0] * N


def test_settings_of_the_curve_that_are_none_are_refused():
    with pytest.raises(ValueError, match=words("magnitude_aligned steps 1 2")):
        metric("magnitude_aligned", {"steps": 1})
    with pytest.raises(ValueError, match=words("way both insertion deletion")):
        metric("magnitude_aligned", {"way": "both"})
