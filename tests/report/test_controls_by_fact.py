"""Controls, the reference and draws are found by what they are, whatever a study calls them."""

import csv

import numpy as np
import pytest

from efface.methods import control, smooth
from efface.methods.nested import FittedInner
from efface.plug.call import Call
from efface.report.between import agreements
from efface.report.headline import headline
from efface.report.panels import panels
from efface.report.words import findings, leaks
from efface.stages.run.views import views_of
from efface.study.schema import MethodEntry
from efface.study.study import InvalidStudyError, read
from small.messages import words
from small.reports import curve_of
from small.studies import efface, write_study

CONTROL = "efface.methods.control"
OWN = {
    "own": """
import torch
from efface.base import draws
from efface.methods.control import control


@control(of_chance=True)
def coin(model, images, targets, *, seeds):
    return draws.uniform(seeds.to(images.device), tuple(images.shape[2:])).round() + images[:, 0] / 1000


def flat(model, images, targets):
    return images[:, 0]


flat.is_control = True
"""
}
MINE = {"name": "mine", "method": "mine.brightness"}
CHANCE = {"name": "chance", "method": f"{CONTROL}.random"}
ANEW = {"name": "anew", "method": f"{CONTROL}.random_resampled"}


def entry(method, **kwargs):
    return MethodEntry(name="x", method=method, kwargs=kwargs)


@pytest.fixture
def study_of(tmp_path, monkeypatch):
    """A function that writes a study of these methods and reads it."""
    monkeypatch.syspath_prepend(tmp_path)

    def made(methods, **changes):
        return read(write_study(tmp_path, OWN, attribution_methods=methods, **changes))

    return made


def test_each_control_says_what_it_is():
    names = {"random": (True, True), "random_resampled": (True, True), "sobel": (True, False), "centre": (True, False)}
    names |= dict.fromkeys(("explain_with", "true_mask", "laplace", "exact_map", "greedy"), (True, False))
    for name, facts in names.items():
        call = Call(call=f"{CONTROL}.{name}")
        assert (control.is_control(call), control.is_random(call)) == facts, name
        assert (control.is_control(getattr(control, name)), control.is_random(getattr(control, name))) == facts, name
    assert not control.is_control(smooth.smooth_grad)
    known = {name: control.known_to(Call(call=f"{CONTROL}.{name}")) for name in names}
    assert {name: what for name, what in known.items() if what != "nothing"} == {
        "exact_map": "truth",
        "greedy": "metric",
    }
    assert not entry("efface.methods.smooth.smooth_grad", base=f"{CONTROL}.random").is_control


def test_within_around_it_is_what_is_there():
    learner = {"call": "efface.methods.path.expected_gradients", "kwargs": {}}
    other = {"call": f"{CONTROL}.explain_with", "kwargs": {"network": "net.network", "method": learner}}
    assert control.is_control(Call(call="efface.methods.nested.FittedInner", kwargs={"method": other}))
    smooth_one = {"call": "efface.methods.smooth.smooth_grad", "kwargs": {"base": learner}}
    assert not control.is_control(Call(call="efface.methods.nested.FittedInner", kwargs={"method": smooth_one}))
    assert not control.is_control(FittedInner)


def test_a_control_of_chance_is_the_reference_under_any_name(study_of):
    assert study_of([MINE, CHANCE]).references() == ("chance",)
    assert study_of([MINE, ANEW, CHANCE]).references() == ("chance", "anew")  # what trainings see anew comes second
    assert study_of([MINE, {"name": "random", "method": "own.flat"}]).references() == ()
    assert study_of([MINE, {"name": "coin", "method": "own.coin"}]).references() == ("coin",)
    assert study_of([MINE, CHANCE], reference="mine").references() == ("mine",)


def test_a_function_of_ones_own_may_be_a_control(study_of):
    found = {each.name: each for each in study_of([MINE, {"name": "a", "method": "own.flat"}]).attribution_methods}
    assert (found["a"].is_control, found["a"].is_random) == (True, False)
    assert not found["mine"].is_control


def test_the_text_that_seeds_a_control_of_chance_is_the_same_as_ever(study_of):
    from efface.stages.run.method_calls import seed_text
    from efface.stages.run.run import Run

    run = Run(study_of([MINE, {**CHANCE, "draws": 2}, ANEW]))
    texts = {each.name: seed_text(run, each, "test") for each in run.entries}
    assert texts["chance"] == texts["anew"] == "0 test random"
    assert texts["chance~2"] == "0 test random draw 2"
    assert texts["mine"] == '0 test {"call": "mine.brightness", "kwargs": {}}'


def test_views_know_their_draw_and_whose_they_are(study_of):
    view = {"name": "soft", "maps": "chance", "post": ["efface.erase.post.absolute"]}
    found = {each.name: each for each in views_of(study_of([MINE, {**CHANCE, "draws": 2}, view]))}
    told = {name: (each.maps, each.draw, each.draw_of, each.control) for name, each in found.items()}
    assert {each.knows for each in found.values()} == {"nothing"}
    assert told == {
        "mine": ("mine", 1, "", False),
        "chance": ("chance", 1, "", True),
        "chance~2": ("chance~2", 2, "chance", True),
        "soft": ("chance", 1, "", True),
        "soft~2": ("chance~2", 2, "soft", True),
    }


def test_what_a_control_knows_reaches_its_views(study_of):
    view = {"name": "soft", "maps": "greedy", "post": ["efface.erase.post.absolute"]}
    found = views_of(study_of([MINE, CHANCE, {"name": "greedy", "method": f"{CONTROL}.greedy", "draws": 2}, view]))
    known = {each.name: each.knows for each in found if each.knows != "nothing"}
    assert known == dict.fromkeys(("greedy", "greedy~2", "soft", "soft~2"), "metric")


def test_a_word_that_says_of_no_control_what_it_knows_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "wise.py").write_text(OWN["own"] + 'flat.knows = "all"\n')
    with pytest.raises(InvalidStudyError, match=words("knows all truth")):
        read(write_study(tmp_path, attribution_methods=[MINE, {"name": "flat", "method": "wise.flat"}]))


def test_a_draw_goes_by_the_names_of_the_first():
    first = MethodEntry(name="a.b", method="efface.methods.gradient.gradient", draws=3)
    assert [each.undrawn.name for each in first.each_draw()] == ["a.b"] * 3
    assert first.undrawn is first


def test_a_reference_without_a_row_is_refused(tmp_path, study_of):
    with pytest.raises(InvalidStudyError, match=r"reference: no row 'none'; there are mine, chance"):
        study_of([MINE, CHANCE], reference="none")
    with pytest.raises(InvalidStudyError, match=words("reference metric anew epoch retrains")):
        study_of([MINE, ANEW], reference="anew", metrics=["morf"])
    assert study_of([MINE, ANEW], reference="anew", metrics=["morf", "roar"]).reference == "anew"
    with pytest.raises(InvalidStudyError, match=words("reference mine network")):
        study_of([MINE], reference="mine", metrics=["robust_accuracy"])
    # one metric may be asked for alone, even one that does not have the row
    assert study_of([MINE, ANEW], reference="anew", metrics=["morf", "roar"]).with_metrics(["morf"]).reference == "anew"
    assert study_of([MINE], reference="mine", metrics=[]).reference == "mine"


def test_each_variant_has_the_reference(study_of):
    variants = {"one": {"seed": 1}, "two": {"attribution_methods": [MINE]}}
    with pytest.raises(InvalidStudyError, match=r"variants.two: reference: no row 'chance'; there are mine"):
        study_of([MINE, CHANCE], reference="chance", variants=variants)
    variants["two"]["reference"] = "mine"
    parts = study_of([MINE, CHANCE], reference="chance", variants=variants).parts()
    assert {name: part.references() for name, (part,) in parts.items()} == {"one": ("chance",), "two": ("mine",)}


def level_curve(method, level, metric="morf", **facts):
    noise = np.random.default_rng([*map(ord, method)]).normal(0, 0.01, (60, 3))
    how = {"metric": metric, "score": "accuracy", "family": "erasure"}
    return curve_of(level + noise, method, **how | facts)


def test_a_panel_goes_by_facts_and_not_by_names():
    shown = [
        level_curve("random", 0.2),
        level_curve("chance", 0.5, control=True),
        level_curve("edges", 0.4, control=True),
    ]
    (panel,) = panels(shown, ("chance",))
    assert (panel.reference, panel.verdict("chance"), panel.verdict("random")) == ("chance", "control", "better")
    assert [row.method for row in panel.rows if row.is_control] == ["edges", "chance"]
    assert headline([panel])[0] == "random is shown to be better than chance on morf."
    assert any("better than chance" in said for said in findings(panel, [panel]))
    (alone,) = panels(shown)
    assert (alone.reference, alone.verdict("random")) == ("", "alone")
    assert findings(alone, [alone])[0].startswith("No random control was measured")


def test_leakage_is_suspected_where_methods_stay_above_a_control_alone():
    retrained = {"sample": "repeats", "family": "retraining"}
    shown = [level_curve("chance", 0.5, control=True, **retrained), level_curve("mine", 0.8, **retrained)]
    (panel,) = panels(shown, ("chance",))
    text = " ".join(findings(panel, [panel]))
    assert "mine stays above chance" in text
    assert "worse than chance. The outline of the erased pixels" in text
    assert "random control" not in text
    assert "beats random" not in text
    shown[0] = level_curve("chance", 0.5, **retrained)
    (panel,) = panels(shown, ("chance",))
    assert "mine is worse than chance." in findings(panel, [panel])
    shown[0] = level_curve("chance", 0.5, control=True, **retrained)
    (panel,) = panels(shown, ("mine",))
    assert leaks(panel), "also if the methods are compared with one of them"
    assert any("chance is better than mine, although its maps" in line for line in findings(panel, [panel]))


def test_controls_of_any_name_have_no_say_in_whether_metrics_agree():
    shown = [
        level_curve(name, 0.1 * i, metric, control=name == "odd")
        for metric in ("morf", "lerf")
        for i, name in enumerate(("odd", "one", "two", "three"))
    ]
    assert {each.n for each in agreements(panels(shown, ("odd",))).tau.values()} == {3}


def test_draws_are_told_by_their_curves_and_not_by_their_names():
    shown = [level_curve("mine", 0.4), level_curve("again", 0.2, draw_of="mine"), level_curve("a~b", 0.3)]
    (panel,) = panels(shown)
    assert {row.method: row.draws for row in panel.rows} == {"mine": 2, "a~b": 1}


@pytest.mark.long
def test_a_study_with_a_control_of_another_name_has_differences_verdicts_and_a_page_that_names_it(tmp_path):
    write_study(tmp_path, attribution_methods=[MINE, CHANCE], metrics=["morf"])
    found = efface(tmp_path, "check", "study.yml")
    assert "random control" not in found.out
    assert "the map is the same whatever class is explained" not in found.out
    assert efface(tmp_path, "all", "study.yml").code == 0
    with (tmp_path / "run" / "report" / "summary.csv").open() as file:
        lines = {line["method"]: line for line in csv.DictReader(file) if line["metric"] == "morf"}
    assert lines["mine"]["random_difference"]
    text = (tmp_path / "run" / "report" / "report.html").read_text()
    assert "minus chance" in text
    assert "minus random" not in text
    assert "<small>control</small>" in text
    assert efface(tmp_path, "report", "study.yml", "reference=mine").code == 0
    text = (tmp_path / "run" / "report" / "report.html").read_text()
    assert "minus mine" in text
    with (tmp_path / "run" / "report" / "summary.csv").open() as file:
        own = {line["method"]: line for line in csv.DictReader(file) if line["metric"] == "morf"}
    assert float(own["chance"]["random_difference"]) == pytest.approx(-float(lines["mine"]["random_difference"]))


@pytest.mark.long
def test_check_asks_for_a_control_of_chance_whatever_methods_are_named(tmp_path):
    write_study(tmp_path, OWN, attribution_methods=[MINE, {"name": "random", "method": "own.flat"}], metrics=["morf"])
    assert "warning: no method is a random control" in efface(tmp_path, "check", "study.yml").out
