"""Agreement against scipy, Krippendorff's own worked example, a plain bootstrap, and cases with a known answer."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from efface.draws import seed_of
from efface.report.stats import image_agreement, krippendorff_alpha, metric_agreement
from efface.report.stats.agreement import tau_b
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
    assert metric_agreement(morf, lerf) == (1, 1, 1, 4)
    upside_down = curves(truth + rng.normal(0, 0.05, (100, 4)), "lerf", direction="higher")
    assert metric_agreement(morf, upside_down)[:3] == (-1, -1, -1)
    described = curves(truth + rng.normal(0, 0.05, (100, 4)), "entropy", direction="none")
    assert metric_agreement(morf, described)[:3] == (-1, -1, -1)


def test_methods_that_cannot_be_told_apart_widen_the_interval():
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.1, (60, 4))
    truth = np.array([0.1, 0.1, 0.5, 0.9])
    found = metric_agreement(curves(truth + noise), curves(truth + rng.normal(0, 0.1, (60, 4)), "deletion"))
    assert found.low == pytest.approx(4 / 6)
    assert found.high == 1
    assert metric_agreement(curves(truth + noise), curves(truth + noise, "deletion"))[:3] == (1, 1, 1)  # drawn as one


def test_methods_are_matched_by_name_and_images_by_row():
    rng = np.random.default_rng(2)
    values = rng.random((80, 4)) + np.array([0, 0.3, 0.6, 0.9])
    one = curves(values)
    other = curves(values[40:, [3, 1, 2, 0]], "deletion", pairs=tuple(range(40, 80)), names="dbcaxy")
    found = metric_agreement(one, [*other, *curves(values[40:, :1], "deletion", pairs=tuple(range(40, 80)), names="z")])
    assert (found.value, found.n) == (1, 4)
    assert metric_agreement(one, curves(values, "deletion", pairs=tuple(range(500, 580)))).value == 1


def test_repeats_vary_as_students_t():
    rng = np.random.default_rng(3)
    frozen = curves(np.array([0.1, 0.2, 0.3]) + rng.normal(0, 0.01, (50, 3)))
    clear = curves(np.array([0.1, 0.2, 0.3]) + rng.normal(0, 0.0005, (3, 3)), "roar", "repeats")
    assert metric_agreement(frozen, clear)[:3] == (1, 1, 1)
    unsure = metric_agreement(frozen, curves(np.array([0.1, 0.2, 0.3]) + rng.normal(0, 0.2, (3, 3)), "roar", "repeats"))
    assert (unsure.low, unsure.high) == (-1, 1)
    once = metric_agreement(frozen, curves([[0.1, 0.2, 0.3]], "roar", "repeats"))
    assert once.value == 1
    assert np.isnan([once.low, once.high]).all()
    both = metric_agreement(clear, curves(np.array([0.1, 0.2, 0.3]) + rng.normal(0, 0.0005, (4, 3)), "kar", "repeats"))
    assert both[:3] == (1, 1, 1)


def test_only_samples_of_all_methods_count():
    values = np.tile([0.1, 0.2, 0.3], (30, 1))
    partly = values.copy()
    partly[:10, 0] = np.nan
    partly[:10, 1] = 9.0  # would turn the order if it counted
    assert metric_agreement(curves(values), curves(partly, "deletion"))[:1] == (1,)
    waiting = np.column_stack([values, np.full(30, np.nan)])
    assert metric_agreement(curves(waiting), curves(waiting, "deletion")) == (1, 1, 1, 3)
    nothing = metric_agreement(curves(np.full((30, 3), np.nan)), curves(values, "deletion"))
    assert nothing.n == 0
    assert np.isnan(nothing[:3]).all()


def test_images_that_rank_alike():
    rng = np.random.default_rng(4)
    alike = np.array([0.1, 0.5, 0.7]) * rng.uniform(0.5, 2, (40, 1))
    assert image_agreement(curves(alike)) == (1, 1, 1, 3)
    shuffled = image_agreement(curves(rng.random((300, 5))))
    assert shuffled.low < 0 < shuffled.high < 0.05 + shuffled.value
    assert abs(shuffled.value) < 0.03


def test_agreement_of_images_is_a_plain_bootstrap():
    rng = np.random.default_rng(5)
    values = rng.integers(0, 4, (25, 4)) / 4 + np.array([0, 0.25, 0.5, 0.5])
    values[rng.random(values.shape) < 0.1] = np.nan
    found = image_agreement(curves(values), resamples=200)
    ranks = scipy_stats.rankdata(values, axis=1, nan_policy="omit")
    assert found.value == krippendorff_alpha(ranks)
    drawn = np.random.default_rng(seed_of("bootstrap")).integers(0, 25, (200, 25))
    expected = np.quantile([krippendorff_alpha(ranks[rows]) for rows in drawn], [0.025, 0.975])
    np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-9)


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
