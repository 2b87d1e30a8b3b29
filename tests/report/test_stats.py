"""Statistics against scipy's own tests and against curves whose areas can be done by hand."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from efface.report.stats import areas, differences, interval
from small.messages import words
from small.reports import curve_of


def retrained(values, pairs=(), **changes):
    """A curve of repeats, which has no pairs unless told."""
    how = {"metric": "roar", "score": "accuracy", "at": (0.0, 0.1, 0.5), "sample": "repeats"}
    return curve_of(values, pairs=pairs, **how | changes)


def difference(ours, theirs):
    (found,) = differences([(ours, theirs)])
    return found.interval


@pytest.mark.parametrize("n", [2, 3, 5, 4000])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_interval_is_the_t_interval(n, level):
    values = np.random.default_rng(n).normal(0.7, 0.1, n)
    found = interval(values, level)
    expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(level)
    np.testing.assert_allclose([found.low, found.high], [expected.low, expected.high], rtol=1e-12)
    np.testing.assert_allclose([found.mean, found.std], [values.mean(), np.sqrt(values.var(ddof=1))], rtol=1e-12)
    assert found.n == n


def test_interval_of_three_by_the_table():
    found = interval(np.array([1.0, 2.0, 3.0]))
    assert (found.mean, found.std) == (2.0, 1.0)
    assert found.high - 2 == pytest.approx(4.302653 / 3**0.5, abs=1e-6)  # t of 2 degrees of freedom at 97.5 %


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = [low <= 0 <= high for _, _, low, high, _ in (interval(rng.normal(size=3)) for _ in range(2000))]
    assert np.mean(hits) == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / 2000) ** 0.5)


def test_interval_takes_what_is_there():
    assert interval(np.array([1.0, np.nan, 3.0])) == interval(np.array([1.0, 3.0]))
    one = interval(np.array([0.25, np.nan]))
    assert (one.mean, one.n) == (0.25, 1)
    assert np.isnan([one.std, one.low, one.high]).all()
    assert interval(np.array([np.nan])).n == 0
    assert interval(np.array([])).n == 0
    assert interval(np.array([0.5, 0.5, 0.5]))[1:4] == (0.0, 0.5, 0.5)


def test_areas_by_hand():
    found = areas(retrained([[1.0, 0.8, 0.4], [0.6, 0.6, 0.6], [1.0, np.nan, 0.4]]))
    # (0.1 * (1 + 0.8) / 2 + 0.4 * (0.8 + 0.4) / 2) / 0.5
    np.testing.assert_allclose(found, [0.66, 0.6, np.nan])


def test_area_of_a_straight_line_is_its_middle():
    at = (0.0, 0.07, 0.2, 0.61, 0.8)
    np.testing.assert_allclose(areas(retrained([[1 - f for f in at]], at=at)), [1 - 0.4])
    np.testing.assert_allclose(areas(retrained([[0.3]], at=(0.0,))), [0.3])
    np.testing.assert_allclose(areas(retrained([[0.3], [0.7]], at=(8.0,))), [0.3, 0.7])  # one number, whatever its axis


def test_difference_is_the_paired_test():
    rng = np.random.default_rng(1)
    shared = rng.normal(0, 0.2, (30, 1))
    ours, theirs = (retrained(rng.normal(mean, 0.05, (30, 3)) + shared, tuple(range(30))) for mean in (0.4, 0.45))
    found = difference(ours, theirs)
    expected = scipy_stats.ttest_rel(areas(ours), areas(theirs)).confidence_interval(0.95)
    np.testing.assert_allclose([found.low, found.high], [expected.low, expected.high], rtol=1e-10)
    unpaired = scipy_stats.ttest_ind(areas(ours), areas(theirs)).confidence_interval(0.95)
    assert found.high - found.low < (unpaired.high - unpaired.low) / 3


def test_difference_pairs_by_name_and_not_by_place():
    values = np.random.default_rng(2).uniform(size=(5, 3))
    ours = retrained(values + 0.125, (7, 3, 9, 4, 1))
    theirs = retrained(values[[4, 2, 0]], (1, 9, 7))
    found = difference(ours, theirs)
    assert found.n == 3
    assert found.mean == pytest.approx(0.125)
    assert found.std == pytest.approx(0, abs=1e-12)
    assert difference(ours, retrained(values, (11, 12, 13, 14, 15))).n == 0
    assert difference(ours, retrained(values)).n == 0


def test_difference_leaves_out_what_is_not_there_yet():
    ours = retrained([[1.0, 1.0, 1.0], [0.5, 0.5, np.nan]], (0, 1))
    theirs = retrained([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]], (0, 1))
    assert difference(ours, theirs)[::4] == (0.5, 1)


def test_wrong_curves_are_refused():
    with pytest.raises(ValueError, match=words("3 2")):
        retrained([[1.0, 1.0, 1.0]], at=(0.0, 0.5))
    for at in [(0.5, 0.1), (0.5, 0.5), (0.5, np.nan)]:
        with pytest.raises(ValueError, match=words("finite ascend")):
            retrained([[1.0, 1.0]], at=at)
    with pytest.raises(ValueError, match=words("finite ascend")):
        retrained(np.empty((1, 0)), at=())
    with pytest.raises(ValueError, match=words("2 1")):
        retrained([[1.0, 1.0, 1.0]], (1, 2))
    with pytest.raises(ValueError, match=words("different")):
        difference(retrained([[1.0, 1.0, 1.0]], (1,)), retrained([[1.0, 1.0, 1.0]], (1,), metric="kar"))
    with pytest.raises(ValueError, match=words("2 pairs 2 samples")):
        retrained([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]], (7, 7))
