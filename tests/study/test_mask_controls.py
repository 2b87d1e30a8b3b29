"""`controls: mask`: which outlines and twins a study measures, and what its page says of them."""

import csv

import pytest
import yaml

from efface.study.mask_controls import outlines
from efface.study.study import InvalidStudyError, check, dump, read
from small.studies import STUDY, write_study
from small.studies import efface as run


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def study(tmp_path, metrics, **changes):
    return read(write_study(tmp_path, metrics=metrics, controls="mask", **changes))


def leaks(found):
    return {entry.name: entry.kwargs.fractions for entry in found.metrics if entry.is_of("mask_leak")}


def test_roar_needs_the_outline_of_what_is_removed_and_kar_that_of_what_is_kept(tmp_path):
    fractions = [0.0, 0.1, 0.6, 1.0]
    assert leaks(study(tmp_path, ["roar"], fractions=fractions)) == {"mask_leak": (0.1, 0.6)}
    assert leaks(study(tmp_path, ["kar"], fractions=fractions)) == {"mask_leak": (0.4, 0.9)}
    both = {"mask_leak": (0.1, 0.4, 0.6, 0.9)}
    assert leaks(study(tmp_path, ["diffroar", "kar", "roar"], fractions=fractions)) == both


def test_metrics_with_settings_of_their_own_have_outlines_of_their_own(tmp_path):
    own = {"name": "by_patch", "metric": "roar", "kwargs": {"unit": {"call": "patch", "kwargs": {"size": 4}}}}
    found = study(tmp_path, ["roar", own, {"name": "few", "metric": "roar", "kwargs": {"fractions": [0.3]}}])
    assert leaks(found) == {"mask_leak": (0.3, 0.7), "mask_leak+by_patch": (0.3, 0.7)}
    known = outlines(found.metrics, found.fractions)
    assert {name: one.leak for name, one in known.items()} == {
        "roar": "mask_leak",
        "by_patch": "mask_leak+by_patch",
        "few": "mask_leak",
    }


def test_an_outline_that_the_study_measures_is_not_measured_twice(tmp_path):
    listed = {"name": "own_leak", "metric": "mask_leak", "kwargs": {"fractions": [0.3, 0.5, 0.7]}}
    found = study(tmp_path, ["roar", listed])
    assert leaks(found) == {"own_leak": (0.3, 0.5, 0.7)}
    assert outlines(found.metrics, found.fractions)["roar"].leak == "own_leak"


@pytest.mark.parametrize("listed", ["mask_leak", {"name": "own_leak", "metric": "mask_leak"}])
def test_nor_is_one_at_the_fractions_of_the_study(tmp_path, listed):
    found = study(tmp_path, ["roar", listed])
    assert len(leaks(found)) == 1
    assert "roar" in outlines(found.metrics, found.fractions)


def test_where_nothing_or_everything_is_removed_there_is_no_outline_to_measure(tmp_path):
    assert study(tmp_path, ["roar"], fractions=[0.0, 1.0]).metric_names() == ["roar"]


@pytest.mark.parametrize(
    ("metric", "changes", "words"),
    [
        ({"name": "roar", "kwargs": 3}, {}, "metrics.roar.kwargs: expected settings found 3"),
        ({"name": "roar", "kwargs": ["pixel"]}, {}, "metrics.roar.kwargs: expected settings found a list"),
        ({"name": "roar", "kwargs": {"fractions": 0.3}}, {}, "metrics.roar.kwargs.fractions: found 0.3"),
        ({"name": "roar", "kwargs": {"fractions": "most"}}, {}, "metrics.roar.kwargs.fractions: found 'most'"),
        ({"name": "roar", "kwargs": {"repeats": [2]}}, {}, "metrics.roar.kwargs.repeats: found a list"),
        ({"name": "mask_leak", "kwargs": {"fractions": [[0.3]]}}, {}, "metrics.mask_leak.kwargs.fractions.0: a list"),
        ({"name": ["roar"]}, {}, "name: valid string found a list"),
        ("roar", {"fractions": 0.3}, "fractions: found 0.3"),
        ("roar", {"fractions": "most"}, "fractions: found 'most'"),
        ("roar", {"fractions": [["most"]]}, "fractions.0: found a list"),
    ],
)
def test_what_is_wrong_is_told_once_and_as_without_it(tmp_path, metric, changes, words):
    with pytest.raises(InvalidStudyError) as raised:
        study(tmp_path, [metric, "kar"], **changes)
    assert all(word in str(raised.value) for word in words.split()), raised.value
    assert len(str(raised.value).splitlines()) == 1


def test_diffroar_needs_both_accuracies(tmp_path):
    alone, both = study(tmp_path, ["diffroar"]), study(tmp_path, ["roar", "kar", "diffroar"])
    assert outlines(alone.metrics, alone.fractions) == {}
    assert alone.metric_names() == ["diffroar"]
    assert outlines(both.metrics, both.fractions)["diffroar"][:3] == ("mask_leak", "kar", "roar")
    assert outlines(both.metrics, both.fractions)["roar"][:3] == ("mask_leak", None, "roar")


def test_without_retrained_metrics_nothing_is_added(tmp_path):
    assert study(tmp_path, ["morf"]).metric_names() == ["morf"]


def test_the_resolved_study_is_read_as_the_same_study(tmp_path):
    found = study(tmp_path, ["roar", "kar"])
    assert check(yaml.safe_load(dump(found)), tmp_path / "study.yml") == found


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"controls": "masks"}, "controls 'mask'"), ({"decide": {"level": 0.05}}, "decide 'controls' drop one")],
)
def test_what_it_cannot_do_is_refused(tmp_path, changes, words):
    with pytest.raises(InvalidStudyError) as raised:
        read(write_study(tmp_path, **{"metrics": ["roar"], "controls": "mask"} | changes))
    assert all(word in str(raised.value) for word in words.split()), raised.value


def test_a_metric_that_does_not_exist_is_told_as_without_it(tmp_path):
    with pytest.raises(InvalidStudyError, match="there is no metric 'roer'; did you mean 'roar'"):
        study(tmp_path, ["roer"])


@pytest.mark.long
def test_the_page_and_its_file_have_the_outline_and_the_twins_and_no_other_table_has_twins(tmp_path):
    write_study(tmp_path, metrics=["roar", "kar", "diffroar", "morf"], controls="mask")
    done = run(tmp_path, "all", "study.yml")
    assert done.code == 0, done.err
    folder = tmp_path / STUDY["out"]
    page = (folder / "report" / "report.html").read_text()
    assert 'id="outline"' in page
    assert page.count('data-share="diffroar"') == 3
    assert 'data-row="mine+blurred"' not in page
    lines = list(csv.DictReader((folder / "report" / "outline.csv").read_text().splitlines()))
    assert [(line["metric"], line["method"]) for line in lines[:3]] != []
    assert {line["method"] for line in lines} == {"mine", "red", "green"}
    assert all(float(line["twin"]) == float(line["twin"]) for line in lines)
    verdicts = (folder / "report" / "verdicts.csv").read_text()
    assert "blurred" not in verdicts
    summary = list(csv.DictReader((folder / "report" / "summary.csv").read_text().splitlines()))
    of_twins = {line["metric"] for line in summary if line["method"].endswith("+blurred")}
    assert of_twins == {"roar", "kar", "diffroar"}
    alone = run(tmp_path, "report", str(folder))
    assert alone.code == 0, alone.err
    assert (folder / "report" / "report.html").read_text().count('data-share="diffroar"') == 3
    assert list(csv.DictReader((folder / "report" / "outline.csv").read_text().splitlines())) == lines
    again = run(tmp_path, "compare", str(folder), str(folder))
    assert "blurred" not in again.out


@pytest.mark.long
def test_the_page_says_that_outline_and_twin_are_of_the_first_of_several_draws(tmp_path):
    said = "their outline and their twin are those of the first draw"
    methods = [
        {"name": "random", "method": "random"},
        {"name": "noisy", "method": "smooth_grad", "kwargs": {"samples": 2}, "draws": 2},
    ]
    for methods_of in (methods, [methods[0], {key: methods[1][key] for key in ("name", "method", "kwargs")}]):
        write_study(tmp_path, metrics=["roar"], controls="mask", attribution_methods=methods_of)
        assert run(tmp_path, "all", "study.yml").code == 0
        page = (tmp_path / STUDY["out"] / "report" / "report.html").read_text()
        assert (said in page) == ("draws" in methods_of[1])
