"""The probability that any look at a growing number of images finds a difference by chance."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from efface.report.stats.looks import of_any_look, of_one_look

PS = np.array([0.3, 0.05, 1e-3, 1e-5])


@pytest.mark.parametrize(("looks", "boundary"), [(2, 2.178), (3, 2.289), (5, 2.413), (10, 2.555)])
def test_the_boundaries_are_those_of_pocock_1977(looks, boundary):
    """Table 1 there: equal groups, two-sided level 0.05."""
    after = tuple(50 * each for each in range(1, looks + 1))
    assert norm.isf(of_one_look(0.05, after) / 2) == pytest.approx(boundary, abs=6e-4)


def test_two_looks_are_a_rectangle_of_the_bivariate_normal_distribution():
    after, correlation = (30, 70), (30 / 70) ** 0.5
    both = multivariate_normal([0, 0], [[1, correlation], [correlation, 1]])
    for p, found in zip(PS, of_any_look(PS, after), strict=True):
        z = norm.isf(p / 2)
        inside = both.cdf([z, z], lower_limit=[-z, -z])
        assert found == pytest.approx(1 - inside, rel=2e-3)


def test_one_look_is_the_p_value_itself_and_more_looks_stay_below_bonferroni():
    assert of_any_look(PS, (20,)) == pytest.approx(PS, rel=5e-4)
    after = (20, 30, 45, 68, 102, 128)
    found = of_any_look(np.append(PS, [1e-40, np.nan, 0.0]), after)
    assert (found[:4] > PS).all()
    assert (found[:4] < np.minimum(1, len(after) * PS)).all()
    assert found[4:] == pytest.approx([6e-40, np.nan, 0.0], nan_ok=True)


def test_the_level_of_one_look_is_the_inverse():
    after = (20, 27, 36, 48, 64)
    assert of_any_look(np.array([of_one_look(p, after) for p in PS]), after) == pytest.approx(PS, rel=1e-9)


def test_tests_of_growing_samples_find_as_much_by_chance_as_promised():
    after, p = (20, 27, 36, 48, 64, 86, 115, 154, 206), 0.004
    sums = np.random.default_rng(0).standard_normal((100_000, after[-1])).cumsum(axis=1)
    z = np.abs(sums[:, [n - 1 for n in after]] / np.sqrt(after)).max(axis=1)
    share, promised = (z >= norm.isf(p / 2)).mean(), of_any_look(np.array([p]), after)[0]
    assert share == pytest.approx(promised, abs=4 * (promised / 100_000) ** 0.5)
