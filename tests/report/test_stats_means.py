"""Bootstrap intervals against scipy's, against how often they cover, and draws combined by hand."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from efface.draws import seed_of
from efface.report.stats import areas, bootstrap, combine, interval, mean_intervals, summaries, summary
from efface.report.stats.means import RESAMPLES
from small.messages import words
from small.reports import curve_of


def probability_curve(values, sample="images", method="m", **changes):
    return curve_of(values, method, sample=sample, **changes)


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize("n", [20, 137])
def test_bootstrap_is_the_bca_of_scipy(n, level):
    rng = np.random.default_rng(n)
    columns = np.stack([rng.normal(size=n), rng.lognormal(size=n), rng.integers(0, 2, n)], axis=1).astype(np.float64)
    for column, found in zip(columns.T, bootstrap(columns, level), strict=True):
        same = np.random.default_rng(seed_of("bootstrap"))
        expected = scipy_stats.bootstrap(
            (column,), np.mean, confidence_level=level, n_resamples=RESAMPLES, method="BCa", rng=same
        ).confidence_interval
        np.testing.assert_allclose([found.low, found.high], [expected.low, expected.high], rtol=1e-9)
        assert (found.mean, found.n) == (pytest.approx(column.mean()), n)
        assert found.std == pytest.approx(column.std(ddof=1))


def test_bootstrap_does_not_depend_on_the_company_or_the_run():
    values = np.random.default_rng(0).lognormal(size=(300, 4))
    together = np.array(bootstrap(values))
    np.testing.assert_array_equal(together, bootstrap(values))
    np.testing.assert_allclose(together, [bootstrap(column[:, None])[0] for column in values.T], rtol=1e-12)


def test_bootstrap_of_many_images_is_drawn_in_blocks():
    values = np.random.default_rng(0).normal(size=(3000, 1))
    found = bootstrap(values)[0]
    expected = interval(values[:, 0])
    np.testing.assert_allclose(
        [found.low, found.high], [expected.low, expected.high], atol=0.1 * expected.std / 3000**0.5
    )


def test_bootstrap_takes_what_is_there():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(400, 3))
    values[rng.permutation(400)[:200], 0] = np.nan
    values[:, 1], values[:, 2] = np.nan, 0.1
    part, none, flat = bootstrap(values)
    expected = interval(values[:, 0])
    assert (part.mean, part.n) == (pytest.approx(expected.mean), 200)
    np.testing.assert_allclose([part.low, part.high], [expected.low, expected.high], atol=0.015)
    assert none.n == 0
    assert np.isnan(none.mean)
    assert (flat.low, flat.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert bootstrap(np.empty((0, 1)))[0].n == 0


@pytest.mark.parametrize("draw", ["standard_normal", "standard_exponential"])
def test_bootstrap_covers_about_as_often_as_it_says(draw):
    rng = np.random.default_rng(0)
    mean, runs = float(draw == "standard_exponential"), 600
    found = bootstrap(getattr(rng, draw)((40, runs)), resamples=1000)
    hits = np.mean([each.low <= mean <= each.high for each in found])
    assert hits == pytest.approx(0.95, abs=0.02 + 3 * (0.95 * 0.05 / runs) ** 0.5)


def test_a_skewed_mean_has_a_skewed_interval():
    values = np.random.default_rng(1).lognormal(sigma=1.5, size=(50, 1))
    found = bootstrap(values)[0]
    assert found.high - found.mean > 1.3 * (found.mean - found.low)


def test_the_interval_suits_the_samples():
    values = np.random.default_rng(0).lognormal(size=(90, 3))
    values[60:, 2] = np.nan
    by_image, by_repeat = summary(probability_curve(values)), summary(probability_curve(values, "repeats"))
    assert (by_image.by, by_repeat.by) == ("bootstrap", "t")
    assert by_image.area == pytest.approx(
        bootstrap(areas(probability_curve(values))[:, None])[0], rel=1e-12, nan_ok=True
    )
    assert by_image.points[0] == pytest.approx(bootstrap(values[:, :1])[0], rel=1e-12)
    assert by_repeat.points == tuple(interval(column) for column in values.T)
    assert (by_image.area.n, by_image.points[0].n) == (60, 90)
    few = summary(probability_curve(values[:49]))
    assert few.by == "t"
    assert few.area == interval(areas(probability_curve(values[:49])))


def test_summaries_are_the_summary_of_each():
    rng = np.random.default_rng(5)
    mixed = [
        probability_curve(rng.random((n, 3)), over)
        for n, over in [(60, "images"), (3, "repeats"), (70, "images"), (60, "images")]
    ]
    mixed.insert(1, probability_curve(rng.random((60, 1)), at=(0.0,)))
    for one, expected in zip(summaries(mixed), map(summary, mixed), strict=True):
        assert one.by == expected.by
        np.testing.assert_allclose([one.area, *one.points], [expected.area, *expected.points], rtol=1e-12)
    assert summaries([]) == ()
    assert mean_intervals(np.empty((60, 0)), "images") == ()


def test_draws_are_combined_by_hand():
    one, two, three = ([[a, a, a], [0.5, 0.5, 0.5]] for a in (0.1, 0.2, 0.6))
    found = combine([probability_curve(each, method=f"noise{i}") for i, each in enumerate((one, two, three))], "noise")
    assert (found.curve.method, found.draws) == ("noise", 3)
    np.testing.assert_allclose(found.curve.values, [[0.3] * 3, [0.5] * 3])
    # mean areas 0.3, 0.35, 0.55: mean 0.4, squared distances 0.01, 0.0025, 0.0225
    assert found.between == pytest.approx((0.035 / 2) ** 0.5)
    assert np.isnan(combine([probability_curve(one)], "noise").between)


def test_a_sample_that_a_draw_lacks_is_lacking():
    found = combine(
        [probability_curve([[0.1] * 3, [0.5] * 3]), probability_curve([[0.3] * 3, [0.5, np.nan, 0.5]])], "noise"
    )
    np.testing.assert_allclose(areas(found.curve), [0.2, np.nan])
    assert found.between == pytest.approx(0.2 / 2**0.5)  # of the sample that both have
    assert np.isnan(combine([probability_curve([[np.nan] * 3])] * 2, "noise").between)


def test_draws_of_different_things_are_refused():
    one = probability_curve([[0.1] * 3, [0.5] * 3])
    with pytest.raises(ValueError, match=words("noise draws")):
        combine([], "noise")
    with pytest.raises(ValueError, match=words("different")):
        combine([one, probability_curve([[0.1] * 3, [0.5] * 3], "repeats")], "noise")
    with pytest.raises(ValueError, match=words("different")):
        combine([one, probability_curve([[0.1] * 3])], "noise")


def test_two_images_are_enough_for_the_bootstrap():
    (found,) = bootstrap(np.array([[0.0], [1.0]]))
    assert found.n == 2
    assert (found.low, found.high) != (interval(np.array([0.0, 1.0])).low, interval(np.array([0.0, 1.0])).high)
    assert 0 <= found.low < found.mean < found.high <= 1, "a mean of drawn rows lies between the two"
