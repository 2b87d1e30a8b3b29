"""Verdicts of a page: how often they are false if all methods are equal, and what they are corrected for."""

import csv
import re

import numpy as np
import pytest

from efface.report import page
from efface.report.headline import headline
from efface.report.panels import panels
from efface.report.stats import Curve, areas, image_estimates, min_p, summary
from efface.report.words import findings
from small.reports import curve_of, facts_of
from small.tiers import first_short

NAMES = ("random", "a", "b", "c", "d", "e")


def frozen(values, method, metric, score="value", **changes):
    how = {"metric": metric, "score": score, "at": (0.0,), "axis": ""} | changes
    return curve_of(np.reshape(values, (-1, 1)), method, **how)


def retrained(images, method, metric="roar", **changes):
    """The curve of one point of a retrained metric. images: trainings x images."""
    how = {"metric": metric, "score": "accuracy", "at": (0.5,), "sample": "repeats", "bounds": (0.0, 1.0)} | changes
    return curve_of(images.mean(axis=1, keepdims=True), method, images=images[:, None].astype(np.float32), **how)


def equal_methods(rng, images):
    """Curves of methods whose expected scores are equal on five metrics, which are alike on the same images."""
    common = rng.normal(size=(len(NAMES), images))
    found = []
    for metric in range(4):
        scores = 0.7 * common + 0.7 * rng.normal(size=common.shape)
        scores = np.exp(scores) if metric == 1 else scores
        found += [frozen(row, name, f"m{metric}") for row, name in zip(scores, NAMES, strict=True)]
    logit = 1.0 + rng.normal(0, 0.3, (len(NAMES), 3, 1)) + rng.normal(size=(1, 1, images))
    right = rng.random((len(NAMES), 3, images)) < 1 / (1 + np.exp(-logit))
    return found + [retrained(each * 1.0, name) for each, name in zip(right, NAMES, strict=True)]


@pytest.mark.long
@pytest.mark.parametrize("images", first_short(1, [20, 100]))
def test_a_page_of_equal_methods_has_a_false_verdict_as_rarely_as_it_says(images):
    rng = np.random.default_rng(images)
    runs, named, wrong = 60, 0, 0
    for _ in range(runs):
        found = panels(equal_methods(rng, images), ["random"])
        judged = {row.verdict for panel in found for row in panel.rows}
        wrong += bool(judged & {"better", "worse"})
        named += not headline(found)[0].startswith("No method is shown to be better")
        assert judged <= {"better", "worse", "same", "control", "undecided"}
    limit = 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5
    assert wrong / runs <= limit
    assert named / runs <= limit


def test_a_true_difference_is_found_among_equal_methods():
    shown = equal_methods(np.random.default_rng(1), 100)
    shown = [
        frozen(curve.values - 1.2, "a", curve.metric) if (curve.method, curve.metric) == ("a", "m0") else curve
        for curve in shown
    ]
    found = panels(shown, ["random"])
    told = {(panel.metric, row.method): row.verdict for panel in found for row in panel.rows}
    assert [where for where, verdict in told.items() if verdict in ("better", "worse")] == [("m0", "a")]


def test_first_scores_are_corrected_together_and_further_scores_in_their_own_panel():
    rng = np.random.default_rng(2)
    names, images = NAMES[:4], 60
    values = {
        (metric, score): rng.normal(0.3 * np.arange(4)[:, None], 1, (4, images))
        for metric in ("x", "y")
        for score in ("first", "second")
    }
    shown = [
        frozen(row, name, metric, score, direction="higher")
        for (metric, score), table in values.items()
        for row, name in zip(table, names, strict=True)
    ]
    found = {(panel.metric, panel.score): panel for panel in panels(shown, ["random"])}
    groups = [[("x", "first"), ("y", "first")], [("x", "second")], [("y", "second")]]
    for group in groups:
        rows = [row for what in group for row in found[what].rows if row.method != "random"]
        control = {what: areas(found[what].row("random").curve) for what in group}
        apart = np.column_stack([areas(row.curve) - control[row.curve.metric, row.curve.score] for row in rows])
        p = np.array([each.p for each in image_estimates(apart, difference=True)])
        expected = min_p(p, apart, tuple(range(len(p))), np.zeros(len(p), dtype=bool))
        np.testing.assert_allclose([row.p for row in rows], expected)
        assert {found[what].corrected for what in group} == {len(rows)} == {3 * len(group)}


def test_a_test_that_does_not_hold_is_not_corrected_for():
    rng = np.random.default_rng(3)
    random, a = rng.random((2, 40))
    shown = [frozen(random, "random", "m"), frozen(a, "a", "m"), frozen(random + 0.5, "b", "m")]
    (panel,) = panels(shown, ["random"])
    assert (panel.verdict("b"), panel.row("b").tested, panel.corrected) == ("undecided", "few", 1)
    assert panel.row("a").p == pytest.approx(image_estimates((a - random)[:, None], difference=True)[0].p)


def test_images_of_a_curve_must_fit_its_values():
    values = np.ones((3, 2))
    good = {"at": (0.0, 0.5), "sample": "repeats"}
    curve = curve_of(values, images=np.ones((3, 2, 7), np.float32), **good)
    assert curve.over == "trainings and images"
    for shape in ((3, 1, 7), (2, 2, 7)):
        with pytest.raises(TypeError, match="images"):  # the tests check types, a run does not
            curve_of(values, images=np.ones(shape, np.float32), **good)
        object.__setattr__(curve, "images", np.ones(shape, np.float32))
        with pytest.raises(ValueError, match=r"images have shape .* for 3 samples and 2 points; give samples x points"):
            curve.__post_init__()


def test_what_an_interval_is_over_is_said_in_words():
    values = np.ones((3, 1))
    images = {"images": np.ones((3, 1, 7), np.float32)}
    repeats = {"at": (0.0,), "sample": "repeats"}
    assert curve_of(values, at=(0.0,)).over == "images"
    assert curve_of(values, **repeats).over == "trainings"
    assert curve_of(values, **repeats, **images).over == "trainings and images"
    assert curve_of(values, **repeats, trained="networks").over == "networks"
    assert curve_of(values, **repeats, **images, trained="networks").over == "networks and images"
    drawn = {"by_draw": np.ones((2, 3, 1))}
    assert curve_of(values, **repeats, **images, **drawn).over == "trainings and images and draws"


LEFT_OUT = "The values of single test images are not known, so the intervals leave out what other test images"


@pytest.mark.long
def test_the_page_and_the_table_say_what_an_interval_is_over_and_its_corrected_p(tmp_path):
    rng = np.random.default_rng(4)
    right = (rng.random((2, 3, 50)) < np.array([[[0.5]], [[0.9]]])) * 1.0
    crossed = [retrained(each, name) for each, name in zip(right, ("random", "a"), strict=True)]
    alone = [
        Curve("own", "value", name, (0.5,), each.mean(axis=1, keepdims=True), "repeats", "higher", (0, 1, 2))
        for each, name in zip(right, ("random", "a"), strict=True)
    ]
    shown = [*crossed, *alone, *(frozen(each[0], name, "m") for each, name in zip(right, ("random", "a"), strict=True))]
    path = page.write(tmp_path, shown, None, facts_of(), references=["random"])
    with (tmp_path / "summary.csv").open() as file:
        lines = {(line["metric"], line["method"]): line for line in csv.DictReader(file)}
    overs = {metric: lines[metric, "a"]["over"] for metric in ("roar", "own", "m")}
    assert overs == {"roar": "trainings and images", "own": "trainings", "m": "images"}
    found = {panel.metric: panel for panel in panels(shown, ["random"])}
    for metric, panel in found.items():
        assert float(lines[metric, "a"]["random_p"]) == panel.row("a").p
        assert lines[metric, "random"]["random_p"] == ""
    with (tmp_path / "comparisons.csv").open() as file:
        compared = {line["metric"]: line for line in csv.DictReader(file)}
    assert {line["by"] for line in compared.values()} == {"crossed", "hall"}
    assert all(float(line["p"]) <= float(line["p_corrected"]) for line in compared.values())
    text = re.sub("<[^>]*>", "", path.read_text())
    assert text.count(LEFT_OUT) == 1
    assert (
        "means over trainings and images (n = 3), with 95 % intervals. The intervals are made by the variance of"
        in text
    )
    assert "share one correction for all 3 comparisons of this table" in text


def test_two_trainings_have_no_interval_and_the_page_says_why(tmp_path):
    rng = np.random.default_rng(5)
    shown = [retrained((rng.random((2, 50)) < p) * 1.0, name) for name, p in (("random", 0.1), ("a", 0.9))]
    (panel,) = panels(shown, ["random"])
    assert np.isnan([summary(shown[1]).area.low, panel.row("a").difference.low]).all()
    assert panel.verdict("a") == "undecided"
    said = "There is no verdict on a: three trainings or more are needed."
    assert said in findings(panel, [panel])
    text = page.write(tmp_path, shown, None, facts_of(), references=["random"]).read_text()
    assert said in text
    shown = re.sub("<[^>]*>", " ", text.partition("<main")[2].partition("<script")[0])
    assert not re.search(r"\bnan\b", shown)
