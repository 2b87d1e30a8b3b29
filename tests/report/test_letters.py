"""Letters and ranks from pairs that are shown to differ: against their definition, on patterns of every kind."""

import itertools
import re

import numpy as np
import pytest

from efface.report import between
from efface.report.between import Pairs, pairs, with_ranks
from efface.report.panels import panels
from efface.report.stats import Comparison, Interval, holm, min_p
from small.reports import curve_of

DIFFERENCE = Interval(-1.0, 1.0, -2.0, 0.5, 9)


def pairs_of(significant, count, untested=()):
    """Pairs of so many methods, of which these pairs of numbers differ."""
    names = [f"m{i}" for i in range(count)]
    panel = panels([curve_of([[0.5], [0.6]], name, at=(0.0,)) for name in names])[0]
    found = {}
    for i, j in itertools.combinations(range(count), 2):
        p = np.nan if (i, j) in untested else 0.01 if (i, j) in significant else 0.4
        found[names[i], names[j]] = Comparison(
            "morf", "probability", names[i], names[j], DIFFERENCE, "hall", p, p, 0.0, 0.5
        )
    return Pairs(panel, tuple(names), found)


def check_letters(found):
    letters = found.letters
    assert list(letters) == list(found.methods)
    assert all(letters.values())
    for (one, two), each in found.found.items():
        assert bool(split(letters[one]) & split(letters[two])) == (not each.p_corrected < 0.05), (one, two)


def split(letters):
    """The letters of a method; after z come A to Z, then a2, b2, ..."""
    return {*re.findall(r"[a-zA-Z]\d*", letters)}


@pytest.mark.parametrize("count", [2, 3, 5, 9])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_methods_share_a_letter_if_and_only_if_they_are_not_told_apart(count, share):
    rng = np.random.default_rng(count)
    for _ in range(20):
        every = itertools.combinations(range(count), 2)
        check_letters(pairs_of({pair for pair in every if rng.random() < share}, count))


@pytest.mark.parametrize("reach", [0, 1, 3, 8, 24])
def test_many_methods_in_a_row_get_a_letter_for_each_group(reach):
    """Methods in the order of their means, of which neighbours up to some distance are not told apart."""
    count = 25
    apart = {(i, j) for i, j in itertools.combinations(range(count), 2) if j - i > reach}
    found = pairs_of(apart, count)
    check_letters(found)
    letters = found.letters
    assert letters["m0"] == "a"
    assert "".join(letters.values()).count("a") == reach + 1
    assert len({*"".join(letters.values())}) == count - reach


def test_many_methods_of_any_pattern_have_their_letters():
    rng = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.9):
        every = itertools.combinations(range(25), 2)
        found = pairs_of({pair for pair in every if rng.random() < share}, 25)
        check_letters(found)


def test_a_pair_without_a_test_is_not_told_apart():
    found = pairs_of({(0, 1)}, 3, untested={(0, 2)})
    check_letters(found)
    assert (found.letters["m0"], found.letters["m1"], found.letters["m2"]) == ("a", "b", "ab")
    assert (found.apart, found.tested) == (1, 2)


def level(name, mean, images=60, **changes):
    rng = np.random.default_rng([*map(ord, name)])
    return curve_of(mean + rng.normal(0, 0.1, (images, 1)), name, at=(0.0,), **changes)


def test_a_rank_is_one_and_the_number_of_methods_that_are_shown_to_be_better():
    means = {"a": 0.1, "b": 0.1, "c": 0.5, "d": 0.5, "e": 0.9}
    for direction, expected in (("lower", (1, 1, 3, 3, 5)), ("higher", (4, 4, 2, 2, 1))):
        shown = [level(name, mean, direction=direction) for name, mean in means.items()]
        panel = with_ranks(pairs(panels(shown))[0])
        assert {row.method: row.rank for row in panel.rows} == dict(zip(means, expected, strict=True))


def test_methods_may_share_a_rank_although_one_of_them_is_below_a_third():
    """b is told apart from neither neighbour: it shares the first rank, and c is behind a alone."""
    noise = np.random.default_rng(0).normal(0, 1, (3, 60, 1))
    noise -= noise.mean(axis=1, keepdims=True)
    shown = [curve_of(0.33 * i + noise[i], name, at=(0.0,)) for i, name in enumerate("abc")]
    (compared,) = pairs(panels(shown))
    assert [each.p_corrected < 0.05 for each in compared.found.values()] == [False, True, False]  # ab, ac, bc
    assert {row.method: row.rank for row in with_ranks(compared).rows} == {"a": 1, "b": 1, "c": 2}
    assert compared.letters == {"a": "a", "b": "ab", "c": "b"}


@pytest.mark.parametrize("flipped", [4000, 17])
def test_pairs_are_corrected_for_all_metrics_together(flipped, monkeypatch):
    """By sign-flips; by Holm's correction if there are more comparisons than can be flipped in a few seconds."""
    monkeypatch.setattr(between, "MOST_FLIPPED", flipped)
    shown = [level(name, 0.1 * i, metric=f"metric{m}") for m in range(3) for i, name in enumerate("abcd")]
    compared = pairs(panels(shown))
    found = [each for one in compared for each in one.found.values()]
    p = np.array([each.p for each in found])
    curve = {(each.metric, each.method): each.values[:, 0] for each in shown}
    apart = np.column_stack([curve[each.metric, each.first] - curve[each.metric, each.second] for each in found])
    expected = holm(p) if flipped < 18 else min_p(p, apart, tuple(range(18)), np.zeros(18, dtype=bool))
    np.testing.assert_allclose([each.p_corrected for each in found], expected)
    assert (expected >= p).all()


def test_pairs_of_a_metric_that_trains_are_corrected_with_the_others():
    trained = [level(name, 0.3, 4, sample="repeats", metric="roar") for name in "abc"]
    compared = pairs(panels([*trained, *(level(name, 0.3) for name in "abc")]))
    p = np.array([each.p for one in compared for each in one.found.values()])
    corrected = np.array([each.p_corrected for one in compared for each in one.found.values()])
    assert (corrected >= p).all()
    assert corrected.min() > 2 * p.min()  # six comparisons, of which the three of images are alike
    assert corrected.min() < 7 * p.min()


def test_a_comparison_that_stands_on_three_metrics_counts_as_one():
    values = np.random.default_rng(1).normal(0, 1, (4, 60, 1)) + 0.25 * np.arange(4)[:, None, None]

    def corrected(metrics):
        shown = [
            curve_of(values[i], name, at=(0.0,), metric=f"metric{m}")
            for m in range(metrics)
            for i, name in enumerate("abcd")
        ]
        return [each.p_corrected for one in pairs(panels(shown)) for each in one.found.values()]

    np.testing.assert_allclose(corrected(3), np.tile(corrected(1), 3), atol=0.02)
