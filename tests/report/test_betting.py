"""Tests by betting: against wealth that is counted bet by bet, and against what is promised of them."""

import math

import numpy as np
import pytest

from efface.report.stats.betting import anytime_interval, anytime_p

PLANNED = 160


def wealth(values, mean, planned):
    """The most that either player has had, counted bet by bet with plain numbers; each starts with a half."""
    most = 0.5
    for sign in (1, -1):
        for_horizons = [1.0, 1.0]
        seen, squares, running = [], 0.0, 0.5
        for value in values:
            variance = (1 / 16 + squares) / (len(seen) + 1)
            room = mean if sign > 0 else 1 - mean
            for i, part in enumerate((1 / 8, 1 / 2)):
                bet = min(math.sqrt(2 * math.log(1000) / (part * planned * variance)), 0.95 / room)
                for_horizons[i] *= 1 + bet * sign * (value - mean)
            seen.append(value)
            running = (0.5 + sum(seen)) / (len(seen) + 1)
            squares += (value - running) ** 2
            most = max(most, 0.5 * sum(for_horizons) / 2)
    return most


def test_the_p_value_is_one_over_the_most_wealth():
    differences = np.random.default_rng(1).uniform(-0.4, 0.8, (30, 3))
    found = anytime_p(differences, PLANNED)
    for column, p in zip(differences.T, found, strict=True):
        assert p == pytest.approx(min(1.0, 1 / wealth((column + 1) / 2, 0.5, PLANNED)), rel=1e-9)


def test_the_interval_holds_the_means_that_no_player_has_beaten():
    values = np.random.default_rng(2).beta(2, 3, (40, 2))
    for column, low, high in zip(values.T, *anytime_interval(values, PLANNED), strict=True):
        for end, outside in ((low, -0.002), (high, 0.002)):
            assert wealth(column, end + outside, PLANNED) > 20
            assert wealth(column, end - outside, PLANNED) < 20


def test_the_interval_leaves_0_out_exactly_if_p_is_below_its_level():
    differences = np.random.default_rng(3).normal(0.09, 0.2, (60, 200)).clip(-1, 1)
    p = anytime_p(differences, PLANNED)
    low, high = anytime_interval((differences + 1) / 2, PLANNED)
    assert 20 < ((low > 0.5) | (high < 0.5)).sum() < 180
    assert (((low > 0.5) | (high < 0.5)) == (p <= 0.05))[np.abs(p - 0.05) > 0.003].all()


def test_more_images_never_raise_p_and_never_widen_an_interval():
    differences = np.random.default_rng(4).normal(0, 0.3, (PLANNED, 20)).clip(-1, 1)
    rounds = [20, 45, 90, PLANNED]
    p = np.stack([anytime_p(differences[:n], PLANNED) for n in rounds])
    ends = np.stack([anytime_interval((differences[:n] + 1) / 2, PLANNED) for n in rounds])
    assert (np.diff(p, axis=0) <= 0).all()
    assert (np.diff(ends[:, 0], axis=0) >= -1e-4).all()
    assert (np.diff(ends[:, 1], axis=0) <= 1e-4).all()


@pytest.mark.parametrize("shape", ["normal", "rare", "signs"])
def test_equal_methods_are_told_apart_in_few_of_many_studies_at_any_moment(shape):
    generator = np.random.default_rng([5, len(shape)])
    if shape == "normal":
        differences = generator.normal(0, 0.3, (PLANNED, 2000)).clip(-1, 1)
    elif shape == "rare":  # a mean of 0, of which a t test of few images knows nothing
        differences = np.where(generator.random((PLANNED, 2000)) < 0.05, -0.95, 0.05)
    else:
        differences = generator.choice([-1.0, 0.0, 1.0], (PLANNED, 2000), p=[0.1, 0.8, 0.1])
    assert (anytime_p(differences, PLANNED) < 0.05).mean() < 0.05


def test_intervals_cover_at_all_moments():
    values = np.random.default_rng(6).beta(0.5, 2, (PLANNED, 1000))
    low, high = anytime_interval(values, PLANNED)  # the last one lies within all before it
    assert ((low <= 0.2) & (high >= 0.2)).mean() > 0.93


def test_images_without_a_value_do_not_count():
    values = np.random.default_rng(7).normal(0.1, 0.2, (50, 4)).clip(-1, 1)
    gaps = np.insert(values, [0, 10, 10, 50], np.nan, axis=0)
    np.testing.assert_allclose(anytime_p(gaps, PLANNED), anytime_p(values, PLANNED))
    assert anytime_p(np.full((9, 1), np.nan), PLANNED) == 1
    assert [float(end[0]) for end in anytime_interval(np.full((9, 1), np.nan), PLANNED)] == [0, 1]
