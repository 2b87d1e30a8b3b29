"""Agreement against scipy, Krippendorff's own worked example, a plain jackknife, and cases with a known answer."""

import itertools

import numpy as np
import pytest
from scipy import stats as scipy_stats

from efface.report.stats import image_agreement, krippendorff_alpha, metric_agreement
from efface.report.stats.agreement import chance_p, tau_b
from small.messages import words
from small.reports import curve_of

_ = np.nan
# Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section D: 4 observers, 12 units.
OBSERVERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
        [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
    ]
)


def curves(values, metric="morf", sample="images", direction="lower", pairs=None, names="abcdefghij"):
    """A curve a column."""
    how = {"metric": metric, "score": "share", "at": (0.0,), "sample": sample, "direction": direction, "pairs": pairs}
    return [curve_of(column[:, None], names[i], **how) for i, column in enumerate(np.transpose(values))]


@pytest.mark.parametrize(("scale", "expected"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_the_worked_example(scale, expected):
    assert krippendorff_alpha(OBSERVERS, scale) == pytest.approx(expected, abs=5e-4)


def test_alpha_by_hand():
    # Two raters, two units, swapped: observed 1 of 1, expected 2 * 2 * 2 / (4 * 3) = 2/3.
    assert krippendorff_alpha(np.array([[1.0, 2.0], [2.0, 1.0]]), "nominal") == pytest.approx(1 - 1.5)
    assert krippendorff_alpha(np.array([[1.0, 2.0, 5.0]] * 3)) == 1
    assert krippendorff_alpha(np.array([[1e9, 1e9 + 1], [1e9, 1e9 + 1]]), "interval") == 1
    for nothing in (
        np.full((3, 2), np.nan),
        np.ones((3, 2)),
        np.array([[1.0, np.nan], [np.nan, 2.0]]),
        np.empty((0, 2)),
    ):
        assert np.isnan(krippendorff_alpha(nothing))


def test_alpha_is_what_its_definition_sums_to():
    values = np.random.default_rng(0).integers(0, 5, (6, 7)).astype(np.float64)
    values[np.random.default_rng(1).random((6, 7)) < 0.2] = np.nan
    pool = np.concatenate([unit[~np.isnan(unit)] for unit in values.T if (~np.isnan(unit)).sum() > 1])
    observed = 0.0
    for unit in values.T:
        there = unit[~np.isnan(unit)]
        if len(there) > 1:
            observed += ((there[:, None] - there) ** 2).sum() / (len(there) - 1)
    expected = ((pool[:, None] - pool) ** 2).sum() / (len(pool) - 1)
    assert krippendorff_alpha(values, "interval") == pytest.approx(1 - observed / expected, rel=1e-12)


def test_tau_is_scipys():
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 4, (2, 50, 6)).astype(np.float64)
    expected = [scipy_stats.kendalltau(a, b).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(tau_b(one, other), expected, atol=1e-12)
    assert np.isnan(tau_b(np.ones((1, 3)), np.arange(3.0)[None]))
    assert tau_b(np.array([[0.1 + 0.2, 0.3, 1]]), np.array([[2.0, 2, 3]])) == 1  # rounding is no rank


def test_morf_and_lerf_agree_where_they_rank_alike():
    rng = np.random.default_rng(0)
    truth = np.array([0.1, 0.2, 0.3, 0.4])
    morf = curves(truth + rng.normal(0, 0.05, (100, 4)))
    lerf = curves(-truth + rng.normal(0, 0.05, (100, 4)), "lerf", direction="higher")
    found = metric_agreement(morf, lerf)
    assert (found.value, found.n, found.p) == (1, 4, pytest.approx(2 / 24))  # two of the 24 orders are as extreme
    upside_down = curves(truth + rng.normal(0, 0.05, (100, 4)), "lerf", direction="higher")
    assert metric_agreement(morf, upside_down).value == -1
    described = curves(truth + rng.normal(0, 0.05, (100, 4)), "entropy", direction="none")
    assert metric_agreement(morf, described).value == -1


def test_fewer_than_five_methods_have_no_interval_and_cannot_be_shown_to_agree():
    values = np.tile([0.1, 0.2, 0.3, 0.4], (30, 1))
    four = metric_agreement(curves(values), curves(values, "deletion"))
    assert np.isnan([four.low, four.high]).all()
    assert four.p > 0.05
    five = metric_agreement(
        curves(np.tile([0.1, 0.2, 0.3, 0.4, 0.5], (30, 1))),
        curves(np.tile([0.1, 0.2, 0.3, 0.4, 0.5], (30, 1)), "deletion"),
    )
    assert five.low < 0.5 < five.high == 1
    assert five.p == pytest.approx(2 / 120)


@pytest.mark.parametrize("n", [5, 7, 9, 15])
def test_the_test_of_chance_is_scipys(n):
    rng = np.random.default_rng(n)
    one, other = rng.normal(size=(2, n))
    assert chance_p(one, other) == pytest.approx(scipy_stats.kendalltau(one, other, method="exact").pvalue, abs=1e-9)


def test_ties_are_shuffled_with_the_rest():
    one, other = np.array([1.0, 1, 2, 3, 3, 4]), np.array([1.0, 2, 2, 3, 5, 4])
    own = abs(scipy_stats.kendalltau(one, other).statistic)
    orders = itertools.permutations(other)
    expected = np.mean([abs(scipy_stats.kendalltau(one, each).statistic) >= own - 1e-9 for each in orders])
    assert chance_p(one, other) == pytest.approx(expected)
    many = np.concatenate([one, one + 5])
    assert chance_p(many, -many) == pytest.approx(1 / 10_001, abs=2e-4)


@pytest.mark.parametrize("n", [5, 8, pytest.param(15, marks=pytest.mark.long)])
@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.95])
def test_the_interval_of_tau_covers(n, correlation):
    rng = np.random.default_rng(n)
    runs, truth, hits = 400, 2 / np.pi * np.arcsin(correlation), 0
    for _ in range(runs):
        one = rng.normal(size=n)
        other = correlation * one + (1 - correlation**2) ** 0.5 * rng.normal(size=n)
        sides = [
            curves(np.tile(each, (2, 1)), name, names="abcdefghijklmno") for each, name in ((one, "x"), (other, "y"))
        ]
        found = metric_agreement(*sides)
        hits += found.low <= truth <= found.high
    assert hits / runs == pytest.approx(0.95, abs=0.035 + 3 * (0.95 * 0.05 / runs) ** 0.5)  # tau of 5 has 11 values


def test_methods_are_matched_by_name_and_images_by_row():
    rng = np.random.default_rng(2)
    values = rng.random((80, 4)) + np.array([0, 0.3, 0.6, 0.9])
    one = curves(values)
    other = curves(values[40:, [3, 1, 2, 0]], "deletion", pairs=tuple(range(40, 80)), names="dbcaxy")
    found = metric_agreement(one, [*other, *curves(values[40:, :1], "deletion", pairs=tuple(range(40, 80)), names="z")])
    assert (found.value, found.n) == (1, 4)
    assert metric_agreement(one, curves(values, "deletion", pairs=tuple(range(500, 580)))).value == 1


def test_only_samples_of_all_methods_count():
    values = np.tile([0.1, 0.2, 0.3], (30, 1))
    partly = values.copy()
    partly[:10, 0] = np.nan
    partly[:10, 1] = 9.0  # would turn the order if it counted
    assert metric_agreement(curves(values), curves(partly, "deletion"))[:1] == (1,)
    waiting = np.column_stack([values, np.full(30, np.nan)])
    assert metric_agreement(curves(waiting), curves(waiting, "deletion"))[::3] == (1, 3)
    nothing = metric_agreement(curves(np.full((30, 3), np.nan)), curves(values, "deletion"))
    assert nothing.n == 0
    assert np.isnan(nothing[:3]).all()


def test_images_that_rank_alike():
    rng = np.random.default_rng(4)
    alike = np.array([0.1, 0.5, 0.7]) * rng.uniform(0.5, 2, (40, 1))
    found = image_agreement(curves(alike))
    squared = scipy_stats.norm.ppf(0.975) ** 2  # Wilson's interval of 0 of 40; neighbours exchanged cost 24 / (3 * 8)
    assert found[:4] == (1, pytest.approx(1 - squared / (40 + squared)), 1, 3)
    assert found.p < 1e-9
    shuffled = image_agreement(curves(rng.random((300, 5))))
    assert shuffled.low < 0 < shuffled.high < 0.05 + shuffled.value
    assert abs(shuffled.value) < 0.03
    assert shuffled.p > 0.05


def test_agreement_of_images_is_a_jackknife_of_its_inverse_tangent_and_friedmans_test():
    rng = np.random.default_rng(5)
    values = rng.integers(0, 4, (25, 4)) / 4 + np.array([0, 0.25, 0.5, 0.5])
    found = image_agreement(curves(values))
    assert found.p == pytest.approx(scipy_stats.friedmanchisquare(*values.T).pvalue)
    values[rng.random(values.shape) < 0.1] = np.nan
    found = image_agreement(curves(values))
    ranks = scipy_stats.rankdata(values, axis=1, nan_policy="omit")
    assert found.value == krippendorff_alpha(ranks)
    without = np.array([krippendorff_alpha(np.delete(ranks, i, axis=0)) for i in range(25)])
    moved = np.arctanh(without)
    half = scipy_stats.t.ppf(0.975, 24) * (24 / 25 * ((moved - moved.mean()) ** 2).sum()) ** 0.5
    np.testing.assert_allclose(np.arctanh([found.low, found.high]), np.arctanh(found.value) + np.array([-half, half]))


@pytest.mark.parametrize("methods", [4, 8, pytest.param(15, marks=pytest.mark.long)])
@pytest.mark.parametrize("spread", [None, 0.5, 0.1])
def test_the_interval_of_alpha_covers(methods, spread):
    """Promised: 95 %. Unrelated rankings have alpha 0. Where hardly any image differs, it covers more often."""
    rng = np.random.default_rng(methods)

    def drawn(images):
        noise = rng.normal(size=(images, methods))
        return noise if spread is None else np.linspace(0, 1, methods) + spread * noise

    names, runs = "abcdefghijklmno", 150
    truth = 0.0 if spread is None else krippendorff_alpha(scipy_stats.rankdata(drawn(4000), axis=1))
    found = [image_agreement(curves(drawn(50), names=names)) for _ in range(runs)]
    hits = np.mean([each.low <= truth <= each.high for each in found])
    error = 0.025 + 3 * (0.95 * 0.05 / runs) ** 0.5
    assert 0.95 - error <= hits <= (1 if spread == 0.1 else 0.95 + error)


@pytest.mark.parametrize("methods", [2, 4])
@pytest.mark.parametrize("images", [5, 10, 30])
def test_the_interval_of_alpha_holds_0_where_friedmans_test_does_not_reject_chance(methods, images):
    rng = np.random.default_rng(8)
    found = [
        image_agreement(curves(rng.normal(size=(images, methods)) + slope * np.arange(methods)))
        for slope in [0, 0.5, 1] * 30
    ]
    assert {each.low <= 0 <= each.high for each in found} == {True, False}
    assert all((each.low <= 0 <= each.high) == (each.p >= 0.05) for each in found)
    assert all(each.low <= each.value <= each.high for each in found)


def test_what_cannot_be_ranked_is_refused():
    values = np.random.default_rng(0).random((10, 3))
    with pytest.raises(ValueError, match=words("morf/share deletion/share c two")):
        metric_agreement(curves(values), curves(values, "deletion", names="cxy"))
    with pytest.raises(ValueError, match=words("common none")):
        metric_agreement(curves(values), [])
    with pytest.raises(ValueError, match=words("different")):
        metric_agreement([*curves(values[:, :1]), *curves(values, "kar")[1:]], curves(values))
    with pytest.raises(ValueError, match=words("1 curves")):
        image_agreement(curves(values[:, :1]))
    with pytest.raises(ValueError, match=words("images")):
        image_agreement(curves(values, sample="repeats"))
