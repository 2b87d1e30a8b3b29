"""Trained scores: closed forms, scipy's paired test, Smyth's variances, and false differences among equal methods."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import special
from scipy import stats as scipy_stats

from efface.report.stats import (
    Trained,
    compare_methods,
    difference_of_trainings,
    interval,
    mean_of_trainings,
    spreads,
    summary,
)
from small.reports import curve_of


def retrained(images, method="m", **changes):
    """The curve of one point of a retrained metric. images: trainings x images."""
    how = {"metric": "roar", "score": "accuracy", "at": (0.5,), "sample": "repeats", "direction": "lower"}
    images = np.asarray(images, np.float64)
    curve = curve_of(images.mean(axis=1, keepdims=True), method, **how | changes)
    return replace(curve, images=images[:, None].astype(np.float32), bounds=(0.0, 1.0))


def test_two_methods_without_images_have_the_paired_t_test():
    one, other = np.random.default_rng(0).normal(size=(2, 5))
    spread = spreads(np.stack([one - other]), paired=False) + spreads(np.zeros((1, 5)), paired=False)
    found = difference_of_trainings(Trained(one, None), Trained(other, None), (spread[0], spread[1]))
    expected = scipy_stats.ttest_rel(one, other)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-10)
    ends = expected.confidence_interval(0.95)
    np.testing.assert_allclose([found.interval.low, found.interval.high], [ends.low, ends.high], rtol=1e-10)
    whole = mean_of_trainings(Trained(one, None), spreads(one[None], paired=False)[0])
    np.testing.assert_allclose(whole.interval, interval(one), rtol=1e-12)


def test_two_trainings_give_no_verdict():
    found = compare_methods(
        [retrained(np.eye(2, 9), "a"), retrained(np.ones((2, 9)), "b"), retrained(np.zeros((2, 9)), "c")]
    )
    assert all(np.isnan(each.p) and each.by == "none" and each.difference.n == 2 for each in found)
    assert np.isnan(summary(retrained(np.eye(2, 9))).area.low)


def test_spreads_of_methods_that_vary_alike_become_one():
    rng = np.random.default_rng(1)
    means = rng.normal(size=(40, 4))
    found = spreads(means, paired=False)
    own = means.var(axis=1, ddof=1)
    moved = np.array([each.variance for each in found])
    assert moved.std() < own.std() / 3
    assert all(each.freedom > 3 for each in found)
    assert len({*spreads(np.tile([0.0, 1.0, 2.0], (5, 1)), paired=False)}) == 1


def test_spreads_of_methods_that_vary_differently_stay_their_own():
    rng = np.random.default_rng(2)
    sizes = np.repeat([0.01, 1.0], 20)
    means = sizes[:, None] * rng.normal(size=(40, 8))
    found = np.array([each.variance for each in spreads(means, paired=False)])
    np.testing.assert_allclose(np.log(found), np.log(means.var(axis=1, ddof=1)), atol=0.6)


def test_moved_spreads_are_smyths():
    """Oracle: the prior's equations hold for what was found (Smyth 2004, section 6.2)."""
    means = np.random.default_rng(3).standard_t(3, size=(30, 6))
    own, d = means.var(axis=1, ddof=1), 5.0
    found = spreads(means, paired=False)
    prior_freedom = found[0].freedom - d
    slope = np.polyfit(own, [each.variance for each in found], 1)
    assert slope[0] == pytest.approx(d / (d + prior_freedom))
    logs = np.log(own) - special.digamma(d / 2) + np.log(d / 2)
    assert special.polygamma(1, prior_freedom / 2) == pytest.approx(logs.var(ddof=1) - special.polygamma(1, d / 2))
    prior = slope[1] * (d + prior_freedom) / prior_freedom
    expected = logs.mean() + special.digamma(prior_freedom / 2) - np.log(prior_freedom / 2)
    assert np.log(prior) == pytest.approx(expected)


def test_what_all_methods_share_in_a_training_is_no_spread_of_a_difference():
    rng = np.random.default_rng(4)
    own = rng.normal(0, 0.01, (6, 8))
    found = spreads(own + rng.normal(0, 1, 8), paired=True)
    expected = spreads(own, paired=True)
    np.testing.assert_allclose(np.array(found), np.array(expected), rtol=1e-9)


def test_more_trainings_do_not_shrink_what_the_images_leave_open():
    rng = np.random.default_rng(5)
    right = rng.random(60) < 0.7  # every training finds the same images right
    for trainings in (3, 8, 100):
        area = summary(retrained(np.tile(right, (trainings, 1)))).area
        alone = scipy_stats.binomtest(int(right.sum()), 60).proportion_ci(method="wilson")
        assert area.low == pytest.approx(alone.low, abs=0.02)
        assert area.high == pytest.approx(alone.high, abs=0.02)
    alone = interval(np.full(100, right.mean()))  # what trainings alone say
    assert alone.high - alone.low < 1e-9


def test_the_variance_of_a_crossed_table_is_right_on_average():
    rng = np.random.default_rng(6)
    trainings, images, runs = 5, 80, 400
    by_training, by_image, rest = 0.05, 0.4, 0.3
    halves, means = [], []
    for _ in range(runs):
        table = (
            by_training * rng.normal(size=(trainings, 1))
            + by_image * rng.normal(size=(1, images))
            + rest * rng.normal(size=(trainings, images))
        )
        found = mean_of_trainings(
            Trained(table.mean(axis=1), table), spreads(table.mean(axis=1)[None], paired=False)[0]
        )
        halves.append(found.interval.high - found.interval.mean)
        means.append(found.interval.mean)
    assert np.mean(np.abs(means) <= halves) == pytest.approx(0.95, abs=0.025 + 3 * (0.95 * 0.05 / runs) ** 0.5)


@pytest.mark.parametrize("trainings", [3, pytest.param(5, marks=pytest.mark.long)])
def test_equal_methods_are_rarely_told_apart(trainings):
    rng = np.random.default_rng(trainings)
    runs, pairs, families = 120, [], []
    for _ in range(runs):
        logit = (
            rng.normal(1.5, 1.5, (1, 1, 150)) + rng.normal(0, 0.2, (8, trainings, 1)) + rng.normal(0, 0.3, (8, 1, 150))
        )
        right = rng.random((8, trainings, 150)) < 1 / (1 + np.exp(-logit))
        found = compare_methods([retrained(each, f"m{i}") for i, each in enumerate(right)])
        pairs += [each.p < 0.05 for each in found]
        families.append(any(each.p_corrected < 0.05 for each in found))
    assert np.mean(pairs) <= 0.05 + 0.02
    assert np.mean(families) <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5


def test_a_clear_difference_is_found_by_three_trainings():
    rng = np.random.default_rng(8)
    right = rng.random((5, 3, 300)) < np.array([0.8, 0.8, 0.8, 0.8, 0.4])[:, None, None]
    found = compare_methods([retrained(each, f"m{i}") for i, each in enumerate(right)])
    assert [each.p_corrected < 0.05 for each in found] == ["m4" in (each.first, each.second) for each in found]


def test_methods_that_train_alike_have_no_test():
    same = [retrained(np.ones((3, 20)), name) for name in "abc"]
    assert {(each.by, each.p) for each in compare_methods(same)} == {("crossed", 1.0)}
    alone = [replace(each, images=None) for each in same]
    assert {(each.by, each.p) for each in compare_methods(alone)} == {("few", 1.0)}
