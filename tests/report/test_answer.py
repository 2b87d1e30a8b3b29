"""The answer of the page: which methods are best, how sure that is, and what to know before the numbers."""

import html
import re
from dataclasses import replace

import numpy as np
import pytest

from efface.report import cautions, page, told
from efface.report.answer import (
    against_chance,
    against_own,
    bests,
    controls_sentences,
    is_ahead,
    overall,
    overall_sentences,
)
from efface.report.between import pairs, with_ranks
from efface.report.cells import cell, signed
from efface.report.facts import Origin
from efface.report.glossary import GLOSSARY, anchor, linked
from efface.report.headline import headline
from efface.report.panels import panels
from efface.report.words import findings
from efface.stages.page.report_data import optional_versions
from small.reports import curve_of, facts_of

IMAGES = 300


def scored(metric, direction, means, *, images=IMAGES, controls=("random",), **more):
    """Curves of one number for each image: the same noise for all methods, and their own mean and noise."""
    rng = np.random.default_rng(len(metric))
    shared = rng.normal(0, 0.2, (images, 1))
    return [
        curve_of(
            mean + shared + rng.normal(0, 0.05, (images, 1)),
            name,
            metric=metric,
            direction=direction,
            at=(0.0,),
            family="erasure",
            control=name in controls,
            **more,
        )
        for name, mean in means.items()
    ]


def compared(*metrics):
    found = panels([curve for several in metrics for curve in several], ["random"])
    return [pair for pair in pairs(found) if pair.panel.direction != "none"]


FAR = {"random": 0.5, "good": 0.2, "same": 0.2, "fair": 0.35}


def test_the_best_is_that_of_the_means_and_all_that_no_pair_tells_apart():
    lower, higher = compared(scored("morf", "lower", FAR), scored("lerf", "higher", {k: -v for k, v in FAR.items()}))
    for one in (lower, higher):
        (best,) = bests([one])
        assert set(best.first) == {"good", "same"}
        assert best.leader.area.mean == (min if one.panel.direction == "lower" else max)(
            row.area.mean for row in one.panel.rows
        )
        assert is_ahead(best) == "no: tied with 1 other"
        assert against_chance(best) == "yes"
        for name in ("fair", "random"):
            assert one.better(best.leader.method, name)
        assert not one.better(*best.first)


def test_overall_counts_on_how_many_metrics_a_method_is_first():
    found = bests(
        compared(
            scored("a", "lower", FAR),
            scored("b", "lower", FAR | {"same": 0.3}),
            scored("c", "lower", FAR | {"fair": 0.1}),
        )
    )
    whole = overall(found)
    assert (whole.of, whole.times) == (3, {"good": 2, "fair": 1, "same": 1, "random": 0})
    assert whole.alone == {"good": 1, "fair": 1, "same": 0, "random": 0}
    assert whole.top == ("good",)
    said = overall_sentences(found)
    assert said == ["There is no clear winner: good is among the best on 2 of 3 metrics, same and fair on 1."]
    alone = bests(compared(scored("a", "lower", FAR | {"good": 0.1}), scored("b", "lower", FAR | {"good": 0.1})))
    assert overall_sentences(alone) == ["good is among the best on both metrics."]
    assert [is_ahead(best) for best in alone] == ["yes: ahead of all others"] * 2


def test_equal_leaders_are_all_named_and_one_metric_has_no_overall():
    found = bests(compared(scored("a", "lower", FAR), scored("b", "lower", FAR)))
    assert overall_sentences(found)[0].startswith("There is no clear winner: ")
    apart = bests(
        compared(
            scored("a", "lower", FAR | {"good": 0.1}),
            scored("b", "lower", FAR | {"same": 0.1}),
        )
    )
    (said,) = overall_sentences(apart)
    assert said.startswith("The metrics disagree: no method is among the best on more than one of the 2")


EQUAL = dict.fromkeys(("random", "a", "b"), 0.5)


@pytest.mark.parametrize(
    ("means", "changes", "said"),
    [
        (FAR | {"good": 0.05}, {}, "On morf, good is shown to be better than every other method."),
        (FAR, {}, "is not told apart from it."),
        (EQUAL, {}, "are not told apart from it."),
        ({"random": 0.5}, {}, "random is the only method here, so there is no other to compare it with."),
        (FAR, {"images": 1}, "because there is a single one of the images. So this page cannot say which method is"),
        (FAR, {"missing": (0.0,)}, "No metric is measured for all methods yet. So this page cannot say which method"),
    ],
)
def test_one_metric_is_answered_in_a_sentence(means, changes, said):
    found = bests(compared(scored("morf", "lower", means, **changes)))
    (sentence,) = overall_sentences(found)
    assert said in sentence


@pytest.mark.parametrize(
    ("shown", "changes", "said"),
    [
        ([], {}, "No metric is measured yet. So this page cannot say which method is best."),
        (scored("morf", "lower", {"mine": 0.5}, controls=()), {}, "mine is the only method here"),
        (scored("morf", "lower", {"mine": 0.5}, controls=()), {}, "No control was measured"),
        (scored("morf", "lower", FAR), {}, "On morf, "),
        (scored("morf", "lower", FAR, images=1), {}, "No difference between the methods was tested"),
        (scored("m · a", "lower", FAR, controls=()), {"network": "good"}, "Each network was trained once"),
        (scored("m · a", "lower", FAR, controls=()), {"network": "good"}, "No comparison with good was tested."),
    ],
    ids=["nothing", "one method", "no control", "one metric", "one image", "networks", "no test of networks"],
)
def test_the_answer_of_a_small_page_is_a_sentence(tmp_path, shown, changes, said):
    text = page.write(tmp_path, shown, None, facts_of(), references=["random"], **changes).read_text()
    (lead,) = re.findall(
        '<p class="lead">(.*?)</p>', text.partition('<section id="answer">')[2].partition("</section>")[0]
    )
    plain = html.unescape(re.sub("<[^>]*>", "", lead)).strip()
    assert said in plain
    assert plain.endswith(".")


def test_a_control_among_the_best_is_said_and_one_that_leads_is_in_the_cautions():
    found = bests(compared(scored("a", "lower", FAR | {"random": 0.2}), scored("b", "lower", FAR)))
    assert controls_sentences(found) == [
        "On a, a control is among the best as well (random).",
        "So being among the best there needs no knowledge of the network.",
    ]
    assert controls_sentences(bests(compared(scored("a", "lower", FAR | {"random": 0.01})))) == []


def test_a_sentence_links_each_term_once_and_nothing_that_is_a_name():
    said = "The corrected p of <b> is 0.1, and the corrected p of betting_like is Student's t."
    text = str(linked(said))
    assert html.unescape(re.sub("</?a[^>]*>", "", text)) == said
    assert re.findall(r'href="#([^"]*)"', text) == [anchor("p value"), anchor("Student's t")]
    assert "&lt;b&gt;" in text


def test_metrics_that_do_not_judge_and_values_that_are_not_there_are_said():
    assert overall_sentences([]) == [
        "No metric of this page judges the methods. So this page cannot say which method is best."
    ]
    curves = scored("morf", "lower", FAR, missing=())
    for curve in curves:
        curve.values[:] = np.nan
    (sentence,) = overall_sentences(bests(pairs(panels(curves, ["random"]))))
    assert sentence.startswith("No metric has a value.")


def test_networks_of_one_training_each_are_not_ranked():
    found = panels(scored("accuracy", "higher", {"one": 0.5, "two": 0.8}, controls=()), ["one"], kind="network")
    (sentence,) = overall_sentences(bests(pairs(found)), "network")
    assert sentence.startswith("Each network was trained once, and other trainings of it may differ more.")
    assert headline([with_ranks(one) for one in pairs(found)]) == ["No comparison with one was tested."]


def test_a_control_that_leads_is_said_in_the_table_and_before_the_numbers():
    (one,) = compared(scored("morf", "lower", FAR | {"random": 0.05}))
    (best,) = bests([one])
    assert best.leader.method == "random"
    assert is_ahead(best) == "yes: ahead of all others"
    assert against_chance(best) == "it is the reference itself"
    (said,) = cautions.first_cautions(facts_of(), [best], {})
    assert said.startswith("On morf, a control is ahead of all methods (random).")


@pytest.mark.parametrize("score", [0.05, 0.195])
def test_a_control_that_is_optimised_on_the_response_shows_that_the_metric_can_be_gamed(score):
    curves = scored("morf", "lower", FAR | {"greedy": score}, controls=("random", "greedy"))
    curves = [replace(curve, knows="metric") if curve.method == "greedy" else curve for curve in curves]
    (one,) = compared(curves)
    (best,) = bests([one])
    said = cautions.first_cautions(facts_of(), [best], {})
    if score == 0.05:
        (sentence,) = said
        assert sentence.startswith("On morf, a control is ahead of all methods (greedy).")
        assert sentence.endswith("so the metric can be gamed.")
        assert "depend on the network" not in sentence
        assert any("morf can be gamed" in line for line in findings(best.panel, [best.panel]))
    else:
        assert said == [], "it is not told apart from methods"
        assert controls_sentences([best]) == [], "it does use the network"


def test_an_exact_map_that_leads_is_no_reason_for_a_caution():
    curves = scored("morf", "lower", FAR | {"exact": 0.05}, controls=("random", "exact"))
    curves = [replace(curve, knows="truth") if curve.method == "exact" else curve for curve in curves]
    (one,) = compared(curves)
    (best,) = bests([one])
    assert best.leader.method == "exact"
    assert cautions.first_cautions(facts_of(), [best], {}) == []
    assert not any("gamed" in line for line in findings(best.panel, [best.panel]))


def test_a_method_as_good_as_a_control_is_not_behind_it():
    rng = np.random.default_rng(0)
    values = rng.normal(0.5, 0.1, (40, 1))
    curves = [
        curve_of(values, name, metric="lerf", direction="higher", at=(0.0,), control=name == "random")
        for name in ("random", "equal")
    ]
    (best,) = bests(pairs(panels(curves, ["random"])))
    assert best.leader.method == "equal"
    assert best.together == ("random",)
    assert cautions.first_cautions(facts_of(), [best], {}) == []


def test_all_methods_stand_against_a_reference_of_ones_own():
    (one,) = compared(scored("morf", "lower", FAR))
    assert against_own([with_ranks(one)], "random") == [], "a control is in the other table"
    panels_ = panels(scored("morf", "lower", FAR | {"worst": 0.8}), ["fair"])
    (found,) = against_own(panels_, "fair")
    assert set(found.better) == {"good", "same"}
    assert (found.same, set(found.worse), found.untested) == ((), {"random", "worst"}, ())
    assert not found.gains


def test_few_methods_stand_against_a_reference_of_ones_own_with_their_gains():
    values = {"random": 0.5, "fair": 0.4, "good": 0.2}
    (panel,) = panels(scored("morf", "lower", values), ["fair"])
    (found,) = against_own([panel], "fair")
    assert found.gains
    (good,), (random,) = found.better, found.worse
    for said, gain in ((good, 0.2), (random, -0.1)):
        shown, low, high = map(float, re.findall(r"[+-][\d.]+", said.replace("\N{MINUS SIGN}", "-")))
        assert low <= shown <= high
        assert shown == pytest.approx(gain, abs=0.05)
    assert (good.split()[0], random.split()[0]) == ("good", "random")


def test_images_without_a_value_are_counted():
    rng = np.random.default_rng(2)
    curves = scored("morf", "lower", FAR, images=60)
    for curve in curves:
        curve.values[::2] = np.nan
    (panel,) = panels(curves, ["random"])
    assert "On morf, same, good, fair and random had no value on 30 of the 60 images, which are left out." in findings(
        panel, [panel]
    )
    curves = scored("morf", "lower", FAR, images=60)
    curves[1].values[rng.permutation(60)[:7]] = np.nan
    (panel,) = panels(curves, ["random"])
    assert "On morf, good had no value on 7 of the 60 images, which are left out." in findings(panel, [panel])


def test_nothing_tested_is_no_tie():
    found = bests(compared(*(scored(name, "lower", FAR, images=1) for name in "ab")))
    assert all(best.untested for best in found)
    (said,) = overall_sentences(found)
    assert said.startswith("No difference between the methods was tested, because there is a single one of the images.")
    assert headline([best.panel for best in found]) == [
        "No comparison with random could be tested, because there are too few samples."
    ]


def test_too_few_images_are_not_called_sure():
    (one,) = compared(scored("morf", "lower", {"random": 0.5, "good": 0.2}, images=1))
    (best,) = bests([one])
    assert best.untested
    assert is_ahead(best) == "not tested: too few samples"


def test_an_unfinished_metric_has_no_best():
    curves = scored("morf", "lower", FAR)
    curves[1].values[:] = np.nan
    found = pairs(panels(curves, ["random"]))
    (best,) = bests(found)
    assert best.leader is None
    assert best.first == ()
    assert is_ahead(best) == "not measured to the end"
    assert overall([best]).of == 0


def test_metrics_that_describe_have_no_best():
    found = pairs(panels(scored("entropy", "none", FAR), ["random"]))
    assert bests(found) == []


@pytest.mark.parametrize(("accuracy", "chance", "weak"), [(0.3, 0.1, True), (0.4, 0.1, False), (0.6, 0.5, True)])
def test_a_weak_network_comes_first(accuracy, chance, weak):
    facts = facts_of(accuracy=accuracy, chance=chance, warnings=("the labels do not fit",))
    lines = cautions.first_cautions(facts, [], {})
    assert lines[0].startswith("The network classifies only") is weak
    assert lines[-1] == "the labels do not fit."


@pytest.mark.parametrize(
    ("commit", "said"),
    [("abc", None), ("abc and def", "several versions"), ("abc-dirty", "not committed"), ("", None)],
)
def test_code_that_no_commit_holds_is_said(commit, said):
    lines = cautions.first_cautions(facts_of(origin=Origin(commit=commit)), [], {})
    assert len(lines) == (said is not None)
    assert said is None or said in lines[0]


def test_degenerate_maps_of_the_best_method_are_said_before_the_numbers():
    (best,) = bests(compared(scored("morf", "lower", FAR)))
    lines = cautions.first_cautions(facts_of(), [best], {best.leader.method: ["all is constant"], "fair": ["ties"]})
    assert lines == [f"{best.leader.method}: all is constant."]


def test_gains_are_signed_so_that_plus_is_better():
    lower, higher = (
        with_ranks(one)
        for one in compared(scored("morf", "lower", FAR), scored("lerf", "higher", {k: -v for k, v in FAR.items()}))
    )
    for panel in (lower, higher):
        row = panel.row("good")
        gain = signed(row.difference, panel)
        assert gain.mean == pytest.approx(0.3, abs=0.02)
        assert gain.low < gain.mean < gain.high
        assert abs(row.difference.mean) == gain.mean
        made = cell(row, panel)
        assert (made.mark, made.word, made.shown) == ("▲", "better", f"+{gain.mean:.3f}")
        assert made.order == gain.mean
        ends = made.interval.strip("[]").replace(", ", " to ")
        assert f"The gain over random is {made.shown}, with a 95 % interval from {ends}" in made.details
        assert "Its rank is 1 of 4." in made.details
        assert cell(panel.row("random"), panel).order == 0.0


def test_a_value_stands_where_there_is_no_reference():
    (one,) = compared(scored("morf", "lower", {"a": 0.5, "b": 0.2}))
    made = cell(one.panel.row("b"), one.panel)
    assert made.shown == f"{one.panel.row('b').area.mean:.3f}"
    assert made.order == -one.panel.row("b").area.mean


def test_an_interval_that_excludes_0_without_a_verdict_is_explained():
    rng = np.random.default_rng(8)
    noise = rng.normal(size=(20, 60))
    noise = (noise - noise.mean(1, keepdims=True)) / noise.std(1, ddof=1, keepdims=True)
    shifts = np.array([0, 2.3, *np.zeros(18)]) / np.sqrt(60)  # the second is 2.3 standard errors from the first
    values = 0.5 + np.stack([noise[0] * 0, *(noise[1:] + shifts[1:, None])])
    curves = [
        curve_of(each[:, None], f"m{i}", metric="morf", at=(0.0,), control=i == 0) for i, each in enumerate(values)
    ]
    (panel,) = panels(curves, ["m0"])
    row = panel.row("m1")
    assert row.verdict == "same"
    assert not row.difference.low <= 0 <= row.difference.high
    (said,) = [line for line in findings(panel, [panel]) if "excludes 0" in line]
    assert "m1 excludes 0" in said
    assert "all 19 comparisons" in said


def test_settings_are_told_without_paths_and_formulas():
    settings = {
        "unit": "efface.erase.units.token(token_size=[4, 4])",
        "imputer": "efface.impute.channel_mean",
        "ties": "none",
        "count": "floor(fraction * units + 1e-6)",
    }
    assert told.how(settings) == (
        "In these numbers, the unit is token(token_size=[4, 4]), the fill is channel_mean and the number of removed "
        "units is the fraction of the units, rounded down."
    )
    assert told.how({"imputer": "mine.own(size=3)"}) == "In these numbers, the fill is mine.own(size=3)."


def test_what_made_a_page_is_said_as_far_as_it_is_known():
    facts = facts_of(
        versions={"efface": "1.2"}, origin=Origin(date="2026-11-30", commit="abc", seed=3), seconds={"train": 61.0}
    )
    assert told.made(facts) == [
        "2026-11-30", "efface 1.2", "commit abc", "seed 3", "CPU", "1 min 1 s of work by all workers",
    ]  # fmt: skip
    assert told.made(facts_of()) == ["CPU", "1.0 s of work by all workers"]


def test_versions_of_optional_packages_stand_on_the_page_if_the_study_needs_them():
    assert set(optional_versions("model: {call: efface.models.timm.load}")) == {"timm"}
    assert set(optional_versions("- {name: ig, method: efface.methods.captum.integrated_gradients}")) == {"captum"}
    assert optional_versions("model: {call: efface.models.resnet.resnet8}") == {}


def test_terms_have_places_of_their_own():
    assert len({anchor(word) for word in GLOSSARY}) == len(GLOSSARY)
