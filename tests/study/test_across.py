"""`across`: one metric at several settings, in the study, its plan, its overrides, its files and on its page."""

import csv

import pytest
import yaml

import efface
from efface.study.study import InvalidStudyError, check, dump, read
from small.studies import STUDY, write_study
from small.studies import efface as run

ACROSS = {"imputer": ["channel_mean", {"call": "constant", "kwargs": {"value": 0.5}}], "unit": ["pixel", "feature"]}
NAMES = [
    "srg+channel_mean+pixel",
    "srg+channel_mean+feature",
    "srg+constant-0.5+pixel",
    "srg+constant-0.5+feature",
]


def study(tmp_path, *metrics, **changes):
    return read(write_study(tmp_path, metrics=list(metrics), **changes))


def entry(**changes):
    return {"name": "srg", "kwargs": {"post": ["absolute", "channel_sum"]}, "across": ACROSS} | changes


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_an_entry_stands_for_one_at_each_combination(tmp_path):
    entries = study(tmp_path, "morf", entry(across=ACROSS | {"unit": ["pixel"]})).metrics
    assert [one.name for one in entries] == ["morf", NAMES[0], NAMES[2]]
    assert {one.setting_of for one in entries[1:]} == {"srg"}
    assert entries[0].setting_of is None
    assert [one.kwargs.imputer.call.rpartition(".")[2] for one in entries[1:]] == ["channel_mean", "constant"]
    assert {len(one.kwargs.post) for one in entries[1:]} == {2}


def test_the_resolved_study_is_read_as_the_same_study(tmp_path):
    found = study(tmp_path, entry(across={"imputer": ACROSS["imputer"]}), "lerf")
    assert check(yaml.safe_load(dump(found)), tmp_path / "study.yml") == found


def test_equal_labels_are_told_apart(tmp_path):
    fills = [{"call": "constant", "kwargs": {"value": value}} for value in (0.5, "0.5 ")]
    with pytest.raises(InvalidStudyError, match=r"metrics\.srg\+constant-0\.5\.2\.kwargs\.imputer"):
        study(tmp_path, entry(across={"imputer": fills}))


def test_numbers_keep_their_sign_in_a_label(tmp_path):
    with pytest.raises(InvalidStudyError) as error:
        study(tmp_path, {"name": "morf", "across": {"score": [-0.5, 0.5, 1e20]}})
    assert all(f"metrics.morf+{number}.kwargs.score" in str(error.value) for number in ("-0.5", "0.5", "1e20"))


def test_a_name_selects_the_entry_of_this_name_and_all_settings_of_it(tmp_path):
    both = study(tmp_path, {"name": "morf", "across": {"unit": ["pixel", "feature"]}}, "morf", "lerf")
    assert both.with_metrics(["morf"]).metric_names() == ["morf+pixel", "morf+feature", "morf"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kwargs": 3}, "metrics.srg.kwargs: expected settings found 3"),
        ({"kwargs": ["absolute"]}, "metrics.srg.kwargs: expected settings found a list"),
        ({"kwargs": "absolute"}, "metrics.srg.kwargs: expected settings found 'absolute'"),
        ({"name": None}, "name: valid string found None"),
        ({"name": 3}, "metrics.3.name: valid string found 3"),
        ({"across": {"imputer": [{"call": "blur", "kwargs": [1]}, "blur"]}}, "kwargs.imputer.kwargs: found a list"),
    ],
)
def test_an_entry_that_is_wrong_itself_is_told_as_without_across(tmp_path, changes, words):
    with pytest.raises(InvalidStudyError) as raised:
        study(tmp_path, entry(**changes))
    assert all(word in str(raised.value) for word in words.split()), raised.value


@pytest.mark.parametrize(
    ("across", "words"),
    [
        ({"imputer": "blur"}, "metrics.srg.across.imputer 'blur' list of values"),
        ({"imputer": []}, "metrics.srg.across.imputer list of values"),
        ({}, "metrics.srg.across list of values for each setting"),
        ("imputer", "metrics.srg.across 'imputer' list of values for each setting"),
        ({"imputer": ["blur", "blur"]}, "metrics.srg.across.imputer 'blur' twice"),
        ({"imputer": ["blur", "efface.impute.blur"]}, "metrics.srg.across.imputer 'efface.impute.blur' twice"),
        (
            {"imputer": [{"call": "efface.impute.blur", "kwargs": {}}, "blur"]},
            "metrics.srg.across.imputer 'blur' twice",
        ),
        ({"imputer": ["blur"]}, "metrics.srg.across 1 settings expected 2"),
        ({"post": [["absolute"], []]}, "metrics.srg.across.post kwargs has this setting too"),
        (
            {"fractions": [[0.1 * k] for k in range(1, 10)], "imputer": [f"a.b{k}" for k in range(200)]},
            "1,800 settings",
        ),
        ({"untt": ["pixel", "feature"]}, "metrics.srg+pixel.kwargs.untt unknown key 'unit'"),
        ({"unit": ["pixel", "patches"]}, "metrics.srg+patches.kwargs.unit 'patches' is no unit"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path, across, words):
    with pytest.raises(InvalidStudyError) as raised:
        study(tmp_path, "morf", entry(across=across), "lerf")
    assert all(word in str(raised.value) for word in words.split()), raised.value


def test_a_setting_that_the_metric_does_not_read_is_refused(tmp_path):
    with pytest.raises(InvalidStudyError, match=r"metrics\.sparseness\+blur\.kwargs\.imputer.*does not read it"):
        study(tmp_path, {"name": "sparseness", "across": {"imputer": ["blur", "channel_mean"]}})


def test_the_place_of_a_fault_counts_the_metrics_of_the_word_recommended(tmp_path):
    with pytest.raises(InvalidStudyError, match=r"metrics\.mine\.kwargs\.untt"):
        study(tmp_path, "recommended", {"name": "mine", "metric": "morf", "kwargs": {"untt": 3}})


@pytest.mark.long
def test_the_page_says_how_alike_the_orders_are_and_the_file_has_every_pair(tmp_path):
    write_study(
        tmp_path,
        metrics=["lerf", {"name": "morf", "across": ACROSS | {"unit": ["pixel"]}}],
    )
    assert run(tmp_path, "all", "study.yml").code == 0
    out = tmp_path / str(yaml.safe_load((tmp_path / "study.yml").read_text())["out"])
    page = (out / "report" / "report.html").read_text()
    assert 'href="#between-settings"' in page
    assert "At its 2 settings, morf ranks the 3 methods with a mean correlation of" in page
    (line,) = csv.DictReader((out / "report" / "settings.csv").read_text().splitlines())
    assert (line["metric"], line["setting"], line["other"]) == ("morf", "channel_mean+pixel", "constant-0.5+pixel")
    assert line["n"] == "3"
    again = run(tmp_path, "report", str(out), "--metrics", "morf")
    assert again.code == 0, again.err
    alone = (out / "report" / "report.html").read_text()
    assert "At its 2 settings, morf ranks" in alone
    assert 'id="metric-1"' in alone
    assert ">lerf<" not in alone
    narrowed = read(tmp_path / "study.yml").with_metrics(["morf"])
    assert [one.name for one in narrowed.metrics] == ["morf+channel_mean+pixel", "morf+constant-0.5+pixel"]


@pytest.mark.long
def test_the_page_of_several_seeds_has_the_settings_and_the_outline_too(tmp_path):
    metrics = [{"name": "morf", "across": ACROSS | {"unit": ["pixel"]}}, "roar"]
    write_study(tmp_path, metrics=metrics, seeds=[0, 1, 2], controls="mask", repeats=1, fractions=[0.3, 0.7])
    assert run(tmp_path, "all", "study.yml").code == 0
    report = tmp_path / STUDY["out"] / "report"
    page = (report / "report.html").read_text()
    assert "At its 2 settings, morf ranks the 3 methods" in page
    assert 'id="outline"' in page
    (line,) = csv.DictReader((report / "settings.csv").read_text().splitlines())
    assert line["metric"] == "morf"
    rows = list(csv.DictReader((report / "outline.csv").read_text().splitlines()))
    leaks = {row["method"]: float(row["leak"]) for row in rows}
    means = {}
    for seed in range(3):
        own = (tmp_path / STUDY["out"] / f"seed-{seed}" / "report" / "outline.csv").read_text().splitlines()
        for row in csv.DictReader(own):
            means.setdefault(row["method"], []).append(float(row["leak"]))
    assert leaks == pytest.approx({method: sum(values) / 3 for method, values in means.items()})


def test_a_study_without_it_has_no_such_section(tmp_path):
    write_study(tmp_path, metrics=["lerf"])
    assert run(tmp_path, "all", "study.yml").code == 0
    out = tmp_path / str(yaml.safe_load((tmp_path / "study.yml").read_text())["out"])
    assert "between-settings" not in (out / "report" / "report.html").read_text()
    assert not (out / "report" / "settings.csv").exists()


def test_python_has_it_too():
    made = efface.metric("srg", across={"imputer": ["channel_mean", "blur"]})
    assert made == {"name": "srg", "across": {"imputer": ["channel_mean", "blur"]}}
