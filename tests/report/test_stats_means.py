"""Intervals of means against scipy's, against their own tests, against how often they cover, and draws by hand."""

import numpy as np
import pytest
from scipy import optimize
from scipy import stats as scipy_stats

from efface.report.stats import areas, combine, image_estimates, interval, summaries, summary
from efface.report.stats.proportions import mcnemar_z, tango, wilson
from efface.report.stats.skewed import moments
from small.messages import words
from small.reports import curve_of


def probability_curve(values, sample="images", method="m", **changes):
    return curve_of(values, method, sample=sample, **changes)


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize(("right", "n"), [(0, 5), (3, 20), (19, 20), (20, 20), (400, 500)])
def test_wilson_is_scipys(right, n, level):
    expected = scipy_stats.binomtest(right, n).proportion_ci(level, method="wilson")
    np.testing.assert_allclose(wilson(right / n, n, level), [expected.low, expected.high], atol=1e-12)


@pytest.mark.parametrize(("up", "down", "n"), [(3, 1, 20), (0, 4, 50), (0, 0, 30), (12, 11, 40), (30, 0, 30)])
def test_the_ends_of_tango_are_where_the_score_test_rejects(up, down, n):
    """Oracle: the likelihood of the three cells is maximised numerically under each hypothesis."""

    def statistic(delta):
        def loss(fall):
            rise = fall + delta
            cells = [(up, rise), (down, fall), (n - up - down, 1 - rise - fall)]
            return -sum(count * np.log(max(p, 1e-300)) for count, p in cells if count)

        lowest, highest = max(0.0, -delta), (1 - delta) / 2
        fall = optimize.minimize_scalar(loss, bounds=(lowest, highest), method="bounded", options={"xatol": 1e-12}).x
        return (up - down - n * delta) / np.sqrt(n * (2 * fall + delta - delta**2))

    low, high = tango(up, down, n)
    assert -1 <= low <= (up - down) / n <= high <= 1
    for end, z in ((low, 1.959964), (high, -1.959964)):
        if abs(end) < 1 - 1e-6:
            assert statistic(float(end)) == pytest.approx(z, abs=2e-3)
    assert mcnemar_z(up, down) ** 2 == pytest.approx((up - down) ** 2 / max(1, up + down))


def test_tango_takes_arrays():
    up, down = np.array([3.0, 0, 7.5]), np.array([1.0, 0, 2.25])
    together = np.array(tango(up, down, 30))
    np.testing.assert_allclose(together.T, [tango(u, d, 30) for u, d in zip(up, down, strict=True)], rtol=1e-12)


def test_equal_values_have_an_interval_only_if_the_range_is_known():
    equal = np.full((40, 1), 1.0)
    (known,) = image_estimates(equal, bounds=(0.0, 1.0))
    assert (known.by, known.interval.high) == ("wilson", 1.0)
    assert known.interval.low == pytest.approx(scipy_stats.binomtest(40, 40).proportion_ci(method="wilson").low)
    (unknown,) = image_estimates(equal)
    assert (unknown.by, unknown.interval.mean) == ("few", 1.0)
    assert np.isnan([unknown.interval.low, unknown.p]).all()
    (none,) = image_estimates(equal - 1, bounds=(0.0, 1.0), difference=True)
    assert (none.by, none.p) == ("tango", 1.0)
    assert none.interval.low < 0 < none.interval.high


@pytest.mark.parametrize("n", [7, 15, 60, 400])
@pytest.mark.parametrize("draw", ["standard_normal", "standard_exponential"])
def test_the_test_rejects_what_the_interval_excludes(draw, n):
    values = getattr(np.random.default_rng(n), draw)((n, 30)) + 0.1
    for column, found in zip(values.T, image_estimates(values), strict=True):
        for end in (found.interval.low, found.interval.high):
            (there,) = image_estimates((column - end)[:, None])
            assert np.isnan(there.p) or there.p == pytest.approx(0.05, rel=1e-6)


def test_symmetric_scores_have_students_interval():
    half = np.random.default_rng(0).normal(size=100)
    values = np.concatenate([half, -half]) + 3
    (found,) = image_estimates(values[:, None])
    np.testing.assert_allclose(found.interval, interval(values), rtol=1e-9)
    assert found.p == pytest.approx(scipy_stats.ttest_1samp(values, 0).pvalue, rel=1e-6)
    (few,) = image_estimates(values[:7, None])
    assert (few.by, few.interval) == ("student", pytest.approx(interval(values[:7])))


def test_a_skewed_mean_has_a_skewed_interval():
    values = np.random.default_rng(1).lognormal(sigma=1.5, size=(90, 1))
    (found,) = image_estimates(values)
    low, high = found.interval.mean - found.interval.low, found.interval.high - found.interval.mean
    assert high > 1.3 * low
    assert found.by == "hall"
    (short,) = image_estimates(values[:30])
    assert short.by == "skewed"
    assert np.isnan(short.p)
    assert short.interval.high > short.interval.mean


@pytest.mark.parametrize(
    ("draw", "truth", "bounds"),
    [
        (lambda rng, shape: rng.normal(size=shape), 0.0, None),
        (lambda rng, shape: rng.exponential(size=shape), 1.0, None),
        (lambda rng, shape: rng.beta(1, 0.1, shape), 1 / 1.1, (0.0, 1.0)),
        (lambda rng, shape: (rng.random(shape) < 0.98) * 1.0, 0.98, (0.0, 1.0)),
    ],
)
@pytest.mark.parametrize("n", [20, 50, 200])
def test_intervals_cover_about_as_often_as_they_say(draw, truth, bounds, n):
    runs = 1500
    found = image_estimates(draw(np.random.default_rng(n), (n, runs)), bounds=bounds)
    hits = np.mean([each.interval.low <= truth <= each.interval.high for each in found])
    assert hits == pytest.approx(0.95, abs=0.025 + 3 * (0.95 * 0.05 / runs) ** 0.5)


@pytest.mark.parametrize("n", [20, 50])
@pytest.mark.parametrize("draw", ["lognormal", "beta", "t"])
def test_differences_with_heavy_tails_are_not_told_apart_more_often_than_promised(draw, n):
    rng, runs = np.random.default_rng([n, len(draw)]), 3000
    draws = {
        "lognormal": lambda: rng.lognormal(size=(n, runs)),
        "beta": lambda: rng.beta(0.1, 2, (n, runs)),
        "t": lambda: rng.standard_t(3, (n, runs)),
    }
    found = image_estimates(draws[draw]() - draws[draw](), bounds=(0.0, 1000.0), difference=True)
    p = np.array([each.p for each in found])
    assert (p < 0.05).mean() < 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5
    assert (p < 0.001).mean() < 0.001 + 3 * (0.001 / runs) ** 0.5
    outside = [not each.interval.low <= 0 <= each.interval.high for each in found]
    assert outside == (p < 0.05).tolist()


def test_an_estimate_does_not_depend_on_the_company():
    values = np.random.default_rng(0).lognormal(size=(60, 4))
    values[:20, 1] = np.nan
    values[:, 3] = np.nan
    together = image_estimates(values)
    for column, each in zip(values.T, together, strict=True):
        (alone,) = image_estimates(column[:, None])
        np.testing.assert_allclose([*each.interval, each.p], [*alone.interval, alone.p], rtol=1e-12)
    assert [each.interval.n for each in together] == [60, 40, 60, 0]
    assert image_estimates(np.empty((60, 0))) == ()
    assert image_estimates(np.empty((0, 1)))[0].interval.n == 0


def test_moments_are_scipys():
    values = np.random.default_rng(2).gamma(2, size=(40, 3))
    found = moments(values)
    np.testing.assert_allclose(found.skewness, scipy_stats.skew(values), rtol=1e-10)
    np.testing.assert_allclose(found.std, values.std(axis=0, ddof=1), rtol=1e-12)
    tiny = moments(np.array([[0.1 + 0.2], [0.3], [0.3]]))
    assert (tiny.std[0], tiny.skewness[0]) == (0, 0)  # rounding is no spread


def test_the_interval_suits_the_samples():
    values = np.random.default_rng(0).lognormal(size=(90, 3))
    values[60:, 2] = np.nan
    by_image = summary(probability_curve(values))
    assert by_image.by == "hall"
    (expected,) = image_estimates(areas(probability_curve(values))[:, None])
    assert by_image.area == pytest.approx(expected.interval, rel=1e-12, nan_ok=True)
    assert (by_image.area.n, by_image.points[0].n) == (60, 90)
    by_repeat = summary(probability_curve(values[:5, :2], "repeats", at=(0.0, 0.1)))
    assert by_repeat.by == "crossed"
    assert by_repeat.points == tuple(pytest.approx(interval(column)) for column in values[:5, :2].T)


def test_summaries_are_the_summary_of_each():
    rng = np.random.default_rng(5)
    mixed = [probability_curve(rng.random((n, 3))) for n in (60, 70, 60)]
    mixed.insert(1, probability_curve(rng.random((60, 1)), at=(0.0,)))
    mixed.insert(2, probability_curve(rng.random((3, 3)), "repeats"))
    for one, expected in zip(summaries(mixed), map(summary, mixed), strict=True):
        assert one.by == expected.by
        np.testing.assert_allclose([one.area, *one.points], [expected.area, *expected.points], rtol=1e-12)
    assert summaries([]) == ()


def test_draws_are_combined_by_hand():
    one, two, three = ([[a, a, a], [0.5, 0.5, 0.5]] for a in (0.1, 0.2, 0.6))
    found = combine([probability_curve(each, method=f"noise{i}") for i, each in enumerate((one, two, three))], "noise")
    assert (found.curve.method, found.draws) == ("noise", 3)
    np.testing.assert_allclose(found.curve.values, [[0.3] * 3, [0.5] * 3])
    # mean areas 0.3, 0.35, 0.55: mean 0.4, squared distances 0.01, 0.0025, 0.0225
    assert found.between == pytest.approx((0.035 / 2) ** 0.5)
    assert np.isnan(combine([probability_curve(one)], "noise").between)


def test_draws_widen_the_interval_by_what_lies_between_them():
    rng = np.random.default_rng(6)
    images = rng.normal(0, 0.1, (400, 1))
    drawn = [
        combine([probability_curve(images + shift, method=f"n{i}", at=(0.0,)) for i, shift in enumerate(shifts)], "n")
        for shifts in ((0.0, 0.0, 0.0), (-0.3, 0.0, 0.3))
    ]
    alike, apart = (summary(each.curve).area for each in drawn)
    assert alike == pytest.approx(summary(probability_curve(images, at=(0.0,))).area, rel=1e-9)
    half = (apart.high - apart.low) / 2
    variance = 0.3**2 / 3 + images.var(ddof=1) / 400
    freedom = variance**2 / ((0.3**2 / 3) ** 2 / 2 + (images.var(ddof=1) / 400) ** 2 / 399)
    assert half == pytest.approx(scipy_stats.t.ppf(0.975, freedom) * variance**0.5, rel=0.05)
    assert drawn[0].curve.over == "images and draws"


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
