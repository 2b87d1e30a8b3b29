"""Comparisons of two methods by hand and against scipy's tests, and corrections for many tests against all signs."""

import itertools

import numpy as np
import pytest
from scipy import stats as scipy_stats

from efface.report.stats import compare_methods, difference_columns, holm, image_estimates, min_p
from small.messages import words
from small.reports import curve_of


def number(values, method, sample="images", direction="higher", pairs=None, metric="mass", **changes):
    how = {"metric": metric, "score": "share", "at": (0.0,), "sample": sample, "direction": direction, "axis": ""}
    return curve_of(np.reshape(values, (-1, 1)), method, pairs=pairs, **how | changes)


def pair(one, two, *settings, **changes):
    (found,) = compare_methods([number(one, "one", *settings, **changes), number(two, "two", *settings, **changes)])
    return found


def test_the_test_is_about_the_mean_that_stands_beside_it():
    """A method that loses by much on one image of seven, and wins by little on six, has no better mean."""
    values = np.array([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, -0.9] * 6) + np.random.default_rng(0).normal(0, 0.01, 42)
    found = pair(values, np.zeros(42))
    assert found.difference.mean < 0
    assert found.common_language == pytest.approx(6 / 7)
    assert scipy_stats.wilcoxon(values, zero_method="pratt").pvalue < 0.01  # a test of ranks says the opposite
    assert found.p > 0.05
    assert (found.difference.low < 0 < found.difference.high) == (found.p > 0.05)


def test_few_images_have_the_paired_t_test():
    one, two = np.random.default_rng(0).normal(size=(2, 8))
    found = pair(one, two)
    assert found.by == "student"
    assert found.p == pytest.approx(scipy_stats.ttest_rel(one, two).pvalue, rel=1e-10)
    assert found.effect == pytest.approx((one - two).mean() / (one - two).std(ddof=1))


def test_repeats_of_two_methods_have_the_paired_t_test():
    one, two = np.random.default_rng(1).normal(size=(2, 5))
    found = pair(one, two, "repeats")
    assert found.by == "crossed"
    assert found.p == pytest.approx(scipy_stats.ttest_rel(one, two).pvalue, rel=1e-10)


def test_classifications_have_mcnemars_test():
    rng = np.random.default_rng(2)
    one, two = (rng.random((2, 80)) < np.array([[0.9], [0.7]])) * 1.0
    found = pair(one, two, bounds=(0.0, 1.0))
    up, down = int((one > two).sum()), int((one < two).sum())
    assert found.by == "tango"
    assert found.p == pytest.approx(scipy_stats.chi2.sf((up - down) ** 2 / (up + down), 1))


def test_no_difference_is_no_effect():
    values = np.random.default_rng(0).random(50)
    for settings in ({"bounds": (0.0, 1.0)}, {"sample": "repeats"}):
        found = pair(values, values, **settings)
        assert (found.p, found.effect, found.common_language) == (1.0, 0.0, 0.5)
        assert found.difference.mean == 0
    unknown = pair(values, values)
    assert unknown.by == "few"
    assert np.isnan(unknown.p)


def test_rounding_errors_are_no_difference():
    found = pair([0.1 + 0.2, *[1.0] * 7], [0.3, *[1.5, 0.5] * 3, 1.5])
    assert found.common_language == pytest.approx(3.5 / 8)


def test_better_decides_whom_an_effect_favours():
    low, high = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.9], [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 0.8]
    found = {better: pair(low, high, "images", better) for better in ("higher", "lower", "none")}
    assert found["higher"].effect < 0
    assert found["lower"].effect == -found["higher"].effect
    assert found["none"].effect == found["higher"].effect
    shares = found["higher"].common_language, found["lower"].common_language
    assert shares == (pytest.approx(1 / 7), pytest.approx(6 / 7))
    assert len({each.p for each in found.values()}) == 1
    assert found["lower"].difference.mean < 0  # of the values themselves


def test_what_cannot_be_tested_says_so():
    single = pair([1.0, np.nan, 3.0], [2.0, 1.0, np.nan], "repeats")
    assert (single.by, single.difference.n, single.common_language) == ("none", 1, 0.0)
    assert np.isnan([single.p, single.p_corrected]).all()
    empty = pair([np.nan] * 9, [1.0] * 9)
    assert (empty.by, empty.difference.n) == ("none", 0)
    assert np.isnan([empty.effect, empty.common_language]).all()
    equal = pair([0.5, 0.25, 0.75], [0.25, 0.0, 0.5], "repeats")
    assert equal.by == "few"
    assert np.isnan([equal.p, equal.difference.low]).all()


def test_holm_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, 0.02, 0.03, 0.04])), [0.04, 0.06, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.04, 0.001, 0.6, np.nan])), [0.08, 0.003, 0.6, np.nan])
    np.testing.assert_allclose(holm(np.array([0.4, 0.5])), [0.8, 0.8])
    assert len(holm(np.array([]))) == 0


def p_values(values, **settings):
    found = image_estimates(values, difference=True, **settings)
    by_sign = np.array([each.by == "tango" for each in found])
    return np.array([each.p for each in found]), by_sign


def test_the_smallest_p_is_that_of_all_signs():
    """Oracle: every one of the 2^8 signs of eight images is tried."""
    values = np.random.default_rng(3).normal(0.4, 1, (8, 4))
    wide = {"bounds": (-100.0, 100.0)}
    p, by_sign = p_values(values, **wide)
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=8)))
    drawn = np.array([p_values(values * each[:, None], **wide)[0] for each in signs])
    order = np.argsort(p)
    smallest = np.minimum.accumulate(drawn[:, order][:, ::-1], axis=1)[:, ::-1]
    expected = np.empty(4)
    expected[order] = np.maximum.accumulate((smallest <= p[order] + 1e-12).mean(axis=0))
    found = min_p(p, values, tuple(range(4)), by_sign, flips=20_000)
    np.testing.assert_allclose(found, np.maximum(expected, p), atol=0.015)


def test_tests_that_are_one_count_as_one():
    values = np.random.default_rng(4).normal(0.3, 1, (60, 1))
    p, by_sign = p_values(np.tile(values, 5))
    together = min_p(p, np.tile(values, 5), tuple(range(5)), by_sign)
    assert together == pytest.approx(p, abs=0.012)
    assert holm(p)[0] == pytest.approx(min(1, 5 * p[0]))


def test_tests_without_images_count_as_independent():
    p = np.array([0.01, 0.2, 0.6, np.nan])
    found = min_p(p, np.empty((0, 0)), (), np.zeros(0, dtype=bool), flips=20_000)
    np.testing.assert_allclose(found[:3], [1 - 0.99**3, max(1 - 0.8**2, 0), 0.6], atol=0.015)
    assert np.isnan(found[3])
    assert min_p(np.array([0.03, np.nan]), np.empty((0, 0)), (), np.zeros(0, dtype=bool))[0] == 0.03
    assert len(min_p(np.array([]), np.empty((0, 0)), (), np.zeros(0, dtype=bool))) == 0


@pytest.mark.parametrize(
    "kind",
    ["skewed", *(pytest.param(each, marks=pytest.mark.long) for each in ("normal", "right or wrong", "missing"))],
)
def test_all_tests_together_err_as_often_as_they_say(kind):
    rng = np.random.default_rng(5)
    runs, wrong = 150, 0
    for _ in range(runs):
        common = rng.normal(size=(40, 1)) * rng.normal(size=12)
        values = common + rng.normal(size=(40, 12))
        settings = {}
        if kind == "skewed":
            values = np.exp(values) - np.exp(common + rng.normal(size=(40, 12)))
        elif kind == "right or wrong":
            values = (values > 1) * 1.0 - (common + rng.normal(size=(40, 12)) > 1)
            settings = {"bounds": (0.0, 1.0)}
        elif kind == "missing":
            values[rng.random(values.shape) < 0.3] = np.nan
        p, by_sign = p_values(values, **settings)
        wrong += bool(np.nanmin(min_p(p, values, tuple(range(12)), by_sign, flips=400)) < 0.05)
    assert wrong / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5


def test_all_pairs_of_a_metric_are_corrected_together():
    rng = np.random.default_rng(4)
    base = rng.normal(size=60)
    curves = [
        number(base + rng.normal(shift, 0.5, 60), name) for name, shift in zip("abcd", (0, 0.1, 0.3, 0.3), strict=True)
    ]
    found = compare_methods(curves)
    assert [(each.first, each.second) for each in found] == list(itertools.combinations("abcd", 2))
    np.testing.assert_allclose([each.p_corrected for each in found], holm(np.array([each.p for each in found])))
    for each, (one, two) in zip(found, itertools.combinations(curves, 2), strict=True):
        (expected,) = image_estimates(one.values - two.values, difference=True)
        np.testing.assert_allclose(each.difference, expected.interval, rtol=1e-9)
        assert each.p == pytest.approx(compare_methods([one, two])[0].p)
    assert compare_methods(curves[:1]) == ()


def test_pairs_go_by_name():
    rng = np.random.default_rng(5)
    values = rng.random(60)
    order = rng.permutation(60)
    one = number(values + 0.125, "one")
    two = number(np.append(values[order], 9.0), "two", pairs=(*(int(i) for i in order), 77))
    (found,) = compare_methods([one, two])
    assert found.difference.n == 60
    assert found.difference.mean == pytest.approx(0.125)
    columns, rows = difference_columns([(one, two)])
    assert rows == (*range(60), 77)
    np.testing.assert_allclose(columns[:60, 0], 0.125)


def test_what_cannot_be_compared_is_refused():
    values = [0.1, 0.2, 0.3]
    one = number(values, "one")
    with pytest.raises(ValueError, match=words("different")):
        compare_methods([one, number(values, "two", metric="energy")])
    with pytest.raises(ValueError, match=words("different")):
        compare_methods([one, number(values, "two", sample="repeats")])
    with pytest.raises(ValueError, match=words("one two sample")):
        compare_methods([one, number(values, "two", pairs=(7, 8, 9))])
    with pytest.raises(ValueError, match=words("two curves")):
        compare_methods([one, number(values, "one")])
    with pytest.raises(ValueError, match=words("mass/share/two 3 names")):
        compare_methods([one, number(values, "two", pairs=())])


def pairs_of(values):
    """The differences of every two columns."""
    columns = [values[:, i] - values[:, j] for i in range(values.shape[1]) for j in range(i)]
    return np.stack(columns, axis=1)


def corrected_by_signs(differences, groups):
    p = np.array([each.p for each in image_estimates(differences, bounds=(-1e5, 1e5), difference=True)])
    columns = tuple(range(len(p)))
    return min_p(p, differences, columns, np.zeros(len(p), dtype=bool), groups, flips=999)


def test_few_images_borrow_the_spread_of_the_other_differences_of_their_metric():
    generator = np.random.default_rng(0)
    found = {"alone": 0, "together": 0}
    for _ in range(25):
        values = generator.normal(size=(20, 8))
        values[:, -1] += 1.2
        differences = pairs_of(values)
        found["alone"] += (corrected_by_signs(differences, ()) < 0.05).sum()
        found["together"] += (corrected_by_signs(differences, [3] * 28) < 0.05).sum()
    assert found["together"] > 1.05 * found["alone"] > 0


def test_the_scale_of_a_metric_does_not_matter_and_other_metrics_lend_nothing():
    values = np.random.default_rng(1).normal(size=(20, 5)) + np.arange(5) * 0.4
    differences = pairs_of(values)
    groups = [0] * 10
    one = corrected_by_signs(differences, groups)
    np.testing.assert_allclose(corrected_by_signs(differences * 1000, groups), one)
    two = np.concatenate([differences, 1000 * differences], axis=1)
    apart = corrected_by_signs(two, [0] * 10 + [1] * 10)
    np.testing.assert_allclose(apart[:10], apart[10:], atol=0.01)
    mixed = corrected_by_signs(two, [0] * 20)
    assert np.abs(mixed - apart).max() > 0.01


def test_many_images_keep_their_own_spread():
    values = np.random.default_rng(2).normal(size=(60, 5)) + np.arange(5) * 0.2
    differences = pairs_of(values)
    np.testing.assert_array_equal(corrected_by_signs(differences, [0] * 10), corrected_by_signs(differences, ()))


@pytest.mark.long
@pytest.mark.parametrize("spread", ["equal", "unequal"])
def test_borrowed_spreads_keep_the_level(spread):
    generator = np.random.default_rng([3, len(spread)])
    scale = np.ones(5) if spread == "equal" else np.geomspace(0.2, 5, 5)
    runs = 120
    wrong = sum(
        (corrected_by_signs(pairs_of(generator.normal(size=(20, 5)) * scale), [0] * 10) < 0.05).any()
        for _ in range(runs)
    )
    assert wrong <= 0.05 * runs + 3 * (0.05 * 0.95 * runs) ** 0.5
