"""Curves that are measured in rounds: their tests allow for every round, and the page says what was decided."""

from dataclasses import replace

import numpy as np
import pytest

from efface.report import page
from efface.report.between import pairs
from efface.report.decided import decisions, rounds
from efface.report.panels import panels
from efface.report.stats import Looks, compare_methods, differences, holm, summary
from efface.report.stats.betting import anytime_interval, anytime_p
from efface.report.stats.in_rounds import up_to
from efface.report.stats.looks import of_any_look, of_one_look
from efface.report.stats.power import shown_by_betting, shown_by_images, shown_by_repeats
from small.reports import curve_of, facts_of

ROUNDS = (20, 30, 45, 68, 100)
BETTING, SPENDING = Looks(ROUNDS, "betting"), Looks(ROUNDS, "spending")
ORDER = tuple(int(each) for each in np.random.default_rng(0).permutation(100))


def images(method, shift, looks, count=100, seed=1, **changes):
    """A curve of `count` images of a plan of 100, in a shuffled order. Methods share the difficulty of an image."""
    common = np.random.default_rng(seed).uniform(0.3, 0.6, (100, 1))
    own = np.random.default_rng([seed, *map(ord, method)]).normal(0, 0.1, (100, 3))
    values = (common + own + shift).clip(0, 1)[:count]
    given = {"looks": looks, "bounds": (0.0, 1.0), "pairs": ORDER[:count]}
    return curve_of(values, method, **given | changes)


def trained(method, shift, repeats=8, planned=(3, 5, 8)):
    generator = np.random.default_rng([3, *map(ord, method)])
    values = 0.5 + shift + generator.normal(0, 0.01, (repeats, 3))
    given = {"metric": "roar", "score": "accuracy", "sample": "repeats"}
    return curve_of(values, method, looks=Looks(planned, "spending"), **given)


def test_a_bounded_score_is_tested_by_betting_in_the_order_of_its_rounds():
    one, other = images("a", 0.0, BETTING), images("b", 0.05, BETTING, count=68)
    (found,) = differences([(one, other)])
    apart = (one.area_of_each[:68] - other.area_of_each)[:, None]
    assert found.by == "betting"
    assert found.p == pytest.approx(float(anytime_p(apart, 100)[0]))
    low, high = anytime_interval((apart + 1) / 2, 100)
    assert found.interval[2:] == pytest.approx((2 * low[0] - 1, 2 * high[0] - 1, 68))
    shuffled = np.argsort(ORDER)
    fixed = replace(one, values=one.values[shuffled], pairs=tuple(range(100)), looks=None)
    assert differences([(fixed, other)])[0] == found  # the other curve tells the order


def test_pairs_with_different_orders_keep_all_their_images():
    other = tuple(int(each) for each in np.random.default_rng(5).permutation(100))
    pairs_ = [
        (images("a", 0, BETTING, count=45), images("b", 0.1, BETTING, count=45)),
        (images("c", 0, BETTING, count=30, pairs=other[:30]), images("d", 0.1, BETTING, count=30, pairs=other[:30])),
    ]
    together, alone = differences(pairs_), [differences([pair])[0] for pair in pairs_]
    assert [each.interval.n for each in together] == [45, 30]
    assert list(together) == alone


def test_other_scores_are_tested_at_the_same_level_in_each_round():
    one, other = images("a", 0.0, SPENDING), images("b", 0.03, SPENDING, count=68)
    (found,) = differences([(one, other)])
    fixed = [differences([(up_to(one, n), up_to(other, n))], 1 - of_one_look(0.05, ROUNDS))[0] for n in ROUNDS[:4]]
    assert found.by == "spent"
    smallest = min(each.p for each in fixed)
    assert found.p == pytest.approx(of_any_look(np.array([smallest]), ROUNDS)[0])
    assert smallest < found.p < 5 * smallest
    assert found.interval == fixed[-1].interval


def test_repeats_are_tested_in_the_rounds_that_both_methods_have():
    several = [trained("a", 0), trained("b", 0.1), trained("c", 0.05, repeats=5), trained("d", 0.2, repeats=3)]
    found = differences([(several[0], each) for each in several[1:]], 0.95)
    assert [each.interval.n for each in found] == [8, 5, 3]
    start = up_to(several[0], 3)
    first = differences([(start, up_to(each, 3)) for each in several[1:]])
    assert found[2].p == pytest.approx(3 * first[2].p)
    assert all(each.p <= 3 * early.p * (1 + 1e-9) for each, early in zip(found, first, strict=True))


def test_before_the_first_round_there_is_no_verdict_on_repeats():
    (found,) = differences([(trained("a", 0, repeats=2), trained("b", 0.3, repeats=2))])
    assert np.isnan(found.p)


def test_without_a_known_range_betting_gives_way_to_spending():
    (found,) = differences([(images("a", 0, BETTING, bounds=None), images("b", 0.1, BETTING, bounds=None))])
    assert found.by == "spent"


@pytest.mark.parametrize("looks", [BETTING, pytest.param(SPENDING, marks=pytest.mark.long)])
def test_ten_equal_methods_are_told_apart_in_few_of_many_studies(looks):
    studies = 40
    wrong = 0
    for study in range(studies):
        several = [images(name, 0.0, looks, seed=100 + study) for name in "abcdef"]
        wrong += any(each.p < 0.05 for each in decisions(several))
    assert wrong <= 0.05 * studies + 3 * (0.05 * 0.95 * studies) ** 0.5


@pytest.mark.parametrize("looks", [BETTING, SPENDING])
def test_an_interval_of_a_single_mean_is_wider_than_one_for_a_fixed_number(looks):
    one = images("a", 0.0, looks)
    fixed, found = summary(replace(one, looks=None)), summary(one)
    assert found.area.mean == pytest.approx(fixed.area.mean)
    assert found.area.high - found.area.low > 1.1 * (fixed.area.high - fixed.area.low)
    assert found.by == ("betting" if looks is BETTING else "hall")


def test_the_decisions_are_those_of_the_page():
    several = [images(name, shift, BETTING) for name, shift in (("a", 0.0), ("b", 0.01), ("c", 0.2), ("d", 0.4))]
    several += [trained(name, shift) for name, shift in (("a", 0.0), ("b", 0.1), ("c", 0.1))]
    found = decisions(several)
    on_page = [each for pair in pairs(panels(several)) for each in pair.found.values()]
    assert {(each.metric, frozenset((each.first, each.second))): round(each.p, 12) for each in found} == {
        (each.metric, frozenset((each.first, each.second))): round(each.p_corrected, 12) for each in on_page
    }
    own = [each.p for part in (several[:4], several[4:]) for each in compare_methods(part)]
    assert [each.p for each in found] == pytest.approx(holm(np.array(own)))


def test_a_pair_that_was_told_apart_stays_so():
    counts = (20, 30, 45, 68, 100)
    names = {"a": 0.0, "b": 0.05, "c": 0.1, "d": 0.15}
    before = set()
    for n in counts:
        found = decisions([images(name, shift, BETTING, count=n) for name, shift in names.items()])
        apart = {(each.first, each.second) for each in found if each.p < 0.05}
        assert before <= apart
        before = apart
    assert before


def test_the_page_says_what_was_decided_and_with_how_much(tmp_path):
    several = [images("a", 0.0, BETTING), images("b", 0.01, BETTING), images("c", 0.3, BETTING, count=45)]
    (found,) = rounds(pairs(panels(several)))
    assert found[:6] == ("morf", "images", 2, 3, 45, 100)
    assert found.share == pytest.approx((100 + 100 + 45) / 300)
    assert found.together == (("a", "b"),)
    text = page.write(tmp_path, several, None, facts_of(passes=0.78)).read_text()
    assert "2 of 3 pairs of methods are told apart." in text
    assert "Its metrics in rounds took 78 % of the forward passes" in text
    assert "have a level of" not in text
    assert 'data-metric="morf" data-decided="2" data-pairs="3"' in text
    assert "45 to 100 of 100 images" in text
    assert 'id="between-metrics"' not in text


def test_another_level_than_that_of_the_letters_is_said(tmp_path):
    looks = BETTING._replace(level=0.2)
    several = [images("a", 0.0, looks), images("b", 0.3, looks)]
    text = page.write(tmp_path, several, None, facts_of()).read_text()
    assert "is at most 0.2, for" in text
    assert "The letters, ranks and verdicts below have a level of 0.05." in text


def test_the_page_of_a_fixed_study_has_no_such_section(tmp_path):
    several = [replace(images(name, 0, BETTING), looks=None) for name in "ab"]
    assert 'id="decided"' not in page.write(tmp_path, several, None, facts_of()).read_text()


def test_a_difference_of_the_announced_size_is_found_four_times_out_of_five():
    runs, n, tests = 400, 60, 12
    size = shown_by_images(n, tests)
    generator = np.random.default_rng(8)
    values = generator.normal(0.5, 0.01, (runs, n, 1))
    more = values + size * 0.01 + generator.normal(0, 0.01, (runs, n, 1))
    p = [
        differences([(curve_of(b, "b", at=(0.0,)), curve_of(a, "a", at=(0.0,)))])[0].p
        for a, b in zip(values, more, strict=True)
    ]
    assert np.mean(np.array(p) < 0.05 / tests) == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize(("repeats", "methods"), [(3, 6), (5, 2), (8, 4)])
def test_so_it_is_with_trainings(repeats, methods):
    runs, tests = 300, 6
    size = shown_by_repeats(repeats, methods, tests)
    generator = np.random.default_rng([9, repeats])
    hits = 0
    for _ in range(runs):
        values = generator.normal(0.5, 0.01, (methods, repeats, 1))
        values[1] += size * 0.01
        several = [curve_of(each, str(i), at=(0.0,), sample="repeats") for i, each in enumerate(values)]
        hits += (
            differences([(several[1], several[0]), *((several[0], each) for each in several[2:])])[0].p < 0.05 / tests
        )
    assert hits / runs == pytest.approx(0.8, abs=0.08)


def test_a_difference_of_the_size_for_betting_is_found_if_it_uses_the_range():
    n, tests = 500, 21
    size = shown_by_betting(n, tests)
    values = np.random.default_rng(10).normal(size * 0.2, 0.2, (n, 400)).clip(-1, 1)
    assert 0.75 < (anytime_p(values, n) < 0.05 / tests).mean() < 0.97
    assert size > 1.15 * shown_by_images(n, tests)


def test_too_few_samples_show_nothing():
    assert shown_by_images(1, 3) == shown_by_repeats(2, 5, 3) == float("inf")
    assert shown_by_repeats(3, 2, 100) > shown_by_repeats(3, 6, 100) > shown_by_repeats(8, 6, 100)
