"""Paired tests against scipy, R's documented examples, all signs tried by hand, and their own error rate."""

import itertools

import numpy as np
import pytest
from scipy import stats as scipy_stats

from efface.report.stats import bootstrap, compare_methods, holm, interval
from efface.report.stats.paired import wilcoxon_p
from small.messages import words
from small.reports import curve_of

# Hollander & Wolfe 1973, page 29: the example of R's ?wilcox.test.
DEPRESSION = (
    (1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30),
    (0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29),
)


def number(values, method, sample="images", direction="higher", pairs=None, metric="mass"):
    how = {"metric": metric, "score": "share", "at": (0.0,), "sample": sample, "direction": direction, "axis": ""}
    return curve_of(np.reshape(values, (-1, 1)), method, pairs=pairs, **how)


def pair(one, two, *settings):
    (found,) = compare_methods([number(one, "one", *settings), number(two, "two", *settings)])
    return found


def test_the_signed_rank_test_of_the_book():
    found = pair(*DEPRESSION)
    assert (found.test, found.first, found.second, found.says) == ("wilcoxon", "one", "two", "")
    assert found.p == pytest.approx(0.0390625)  # R: V = 40, two-sided
    assert found.p_holm == found.p
    assert found.rank_biserial == pytest.approx((40 - 5) / 45)
    assert found.common_language == pytest.approx(7 / 9)
    assert found.difference == interval(np.subtract(*DEPRESSION))


@pytest.mark.parametrize("n", [6, 10, 13])
def test_few_differences_are_exact_as_scipys(n):
    apart = np.random.default_rng(n).normal(0.3, 1, n)
    assert wilcoxon_p(apart) == pytest.approx(scipy_stats.wilcoxon(apart, method="exact").pvalue, rel=1e-12)


def test_zeros_and_ties_by_all_signs():
    apart = np.array([0, 0, 0, 1, 1, -1, 2, 3, 3])
    ranks = np.array([5, 5, 5, 7, 8.5, 8.5])  # after those of the three zeros: Pratt
    sums = [abs(np.dot(signs, ranks)) for signs in itertools.product((-1, 1), repeat=6)]
    expected = np.mean(np.array(sums) >= 5 - 5 + 5 + 7 + 17)
    assert wilcoxon_p(apart.astype(np.float64)) == pytest.approx(expected)
    found = pair(apart, np.zeros(9))
    assert found.p == pytest.approx(expected)
    assert found.rank_biserial == pytest.approx(29 / 45)
    assert found.common_language == pytest.approx((5 + 3 / 2) / 9)


def test_many_differences_are_scipys():
    rng = np.random.default_rng(0)
    apart = rng.integers(-3, 5, 500) / 8
    expected = scipy_stats.wilcoxon(apart, zero_method="pratt").pvalue
    assert pair(apart, np.zeros(500)).p == pytest.approx(expected, rel=1e-12)


def test_no_difference_is_no_effect():
    values = np.random.default_rng(0).random(50)
    for over, test in (("images", "wilcoxon"), ("repeats", "t")):
        found = pair(values, values, over)
        assert (found.test, found.p, found.rank_biserial, found.common_language) == (test, 1.0, 0.0, 0.5)
        assert found.difference[:4] == (0, 0, 0, 0)


def test_rounding_errors_are_no_difference():
    assert pair([0.1 + 0.2] * 8, [0.3] * 8).p == 1.0
    found = pair([0.1 + 0.2, *[1.0] * 7], [0.3, *[1.5, 0.5] * 3, 1.5])
    assert found.common_language == pytest.approx(3.5 / 8)
    assert found.rank_biserial == pytest.approx(-5 / 36)  # the sevenths are tied: ranks 5, but for the zero's


def test_better_decides_whom_an_effect_favours():
    low, high = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.9], [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 0.8]
    found = {better: pair(low, high, "images", better) for better in ("higher", "lower", "none")}
    assert found["higher"].rank_biserial == pytest.approx((1.5 - 26.5) / 28)
    assert found["lower"].rank_biserial == -found["higher"].rank_biserial
    assert found["none"].rank_biserial == found["higher"].rank_biserial
    assert (found["higher"].common_language, found["lower"].common_language) == (
        pytest.approx(1 / 7),
        pytest.approx(6 / 7),
    )
    assert len({each.p for each in found.values()}) == 1
    assert found["lower"].difference.mean < 0  # of the values themselves


def test_repeats_and_few_images_are_tested_by_t():
    rng = np.random.default_rng(0)
    for n, over in ((3, "repeats"), (8, "repeats"), (5, "images")):
        one, two = rng.normal(size=(2, n))
        found = pair(one, two, over)
        assert found.test == "t"
        assert found.p == pytest.approx(scipy_stats.ttest_rel(one, two).pvalue, rel=1e-10)
        assert found.says
        assert ("no p below" in found.says) == (n < 6)
    assert "3 pairs" in pair([1, 2, 4], [1, 1, 1], "repeats").says
    assert "below 0.25" in pair([1, 2, 4], [1, 1, 1], "repeats").says


def test_what_cannot_be_tested_says_so():
    single = pair([1.0, np.nan, 3.0], [2.0, 1.0, np.nan], "repeats")
    assert (single.test, single.difference.n, single.rank_biserial) == ("none", 1, -1.0)
    assert "at least 2" in single.says
    assert np.isnan([single.p, single.p_holm]).all()
    empty = pair([np.nan] * 9, [1.0] * 9)
    assert (empty.test, empty.difference.n) == ("none", 0)
    assert np.isnan([empty.rank_biserial, empty.common_language]).all()
    equal = pair([0.5, 0.25, 0.75], [0.25, 0.0, 0.5], "repeats")
    assert equal.test == "none"
    assert "All 3 differences are equal" in equal.says


def test_holm_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, 0.02, 0.03, 0.04])), [0.04, 0.06, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.04, 0.001, 0.6, np.nan])), [0.08, 0.003, 0.6, np.nan])
    np.testing.assert_allclose(holm(np.array([0.4, 0.5])), [0.8, 0.8])
    assert len(holm(np.array([]))) == 0


def test_all_pairs_of_a_metric_are_corrected_together():
    rng = np.random.default_rng(4)
    base = rng.normal(size=60)
    curves = [
        number(base + rng.normal(shift, 0.5, 60), name) for name, shift in zip("abcd", (0, 0.1, 0.3, 0.3), strict=True)
    ]
    found = compare_methods(curves)
    assert [(each.first, each.second) for each in found] == list(itertools.combinations("abcd", 2))
    np.testing.assert_allclose([each.p_holm for each in found], holm(np.array([each.p for each in found])))
    for each, (one, two) in zip(found, itertools.combinations(curves, 2), strict=True):
        apart = one.values - two.values
        np.testing.assert_allclose(each.difference, bootstrap(apart)[0], rtol=1e-9)
        assert each.p == compare_methods([one, two])[0].p
    assert compare_methods(curves[:1]) == ()


def test_pairs_go_by_name():
    rng = np.random.default_rng(5)
    values = rng.random(60)
    order = rng.permutation(60)
    one = number(values + 0.125, "one")
    two = number(np.append(values[order], 9.0), "two", pairs=(*(int(i) for i in order), 77))
    (found,) = compare_methods([one, two])
    assert found.difference.n == 60
    np.testing.assert_allclose(found.difference[:4], [0.125, 0, 0.125, 0.125], atol=1e-12)


@pytest.mark.parametrize("draw", [lambda rng, n: rng.normal(size=n), lambda rng, n: rng.integers(-2, 3, n) * 1.0])
def test_the_test_errs_as_often_as_it_says(draw):
    rng = np.random.default_rng(6)
    wrong = np.mean([wilcoxon_p(draw(rng, 40)) <= 0.05 for _ in range(500)])
    assert wrong == pytest.approx(0.05, abs=3.5 * (0.05 * 0.95 / 500) ** 0.5)


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
