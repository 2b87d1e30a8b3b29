"""Folders of runs from somebody else: what is read of them, what runs of them, and what is refused."""

import json
import re
import shutil

import pandas as pd
import pytest
from scipy.stats import binomtest

from efface.stages.run.kept_plan import KeptMetric, own_formula, read_kept
from efface.store.keys import key
from efface.study.yaml_file import InvalidStudyError
from small.messages import names, words
from small.studies import efface, files, write_study

CHANGES = {"metrics": ["morf"], "repeats": None, "fractions": [0.3, 0.7], "seeds": [3, 4]}
MARK = "import pathlib\npathlib.Path(r'{}').write_text(__name__)\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folders")
    write_study(folder, **CHANGES)
    done = efface(folder, "all", "study.yml")
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def foreign(finished, tmp_path):
    """The run in another place, with modules beside and inside it that leave a mark when they are imported."""
    shutil.copytree(finished / "run", tmp_path / "run")
    for place in (tmp_path, tmp_path / "run", tmp_path / "run/seed-3"):
        for name in ("net", "mine", "pair", "skimage", "tensorboard", "captum", "zennit"):
            (place / f"{name}.py").write_text(MARK.format(tmp_path / "mark"))
    return tmp_path


@pytest.mark.long
def test_a_folder_is_compared_reported_and_its_status_told_without_its_code(finished, foreign):
    for words_ in (
        ("status", "run"),
        ("report", "run"),
        ("report", "run/seed-3", "--metrics", "morf"),
        ("compare", "run", "run/seed-3", "--out", "both"),
    ):
        done = efface(foreign, *words_)
        assert (done.code, done.err) == (0, ""), words_
        assert not (foreign / "mark").exists(), words_
    told = efface(foreign, "status", "run").out
    assert "to be trained" not in told
    assert "to extract" not in told
    assert told.count(", 0 left") == 2
    assert pd.read_csv(foreign / "both/summary.csv").method.unique().tolist() == ["run", "seed-3"]
    for name in ("report/summary.csv", "seed-4/report/summary.csv", "seed-4/report/comparisons.csv"):
        assert (foreign / "run" / name).read_text() == (finished / "run" / name).read_text()
    page = (foreign / "run/seed-4/report/report.html").read_text()
    assert "data:image/png" in page, "the pictures that were drawn there are kept"
    assert "% of the test images right" in page


@pytest.mark.long
def test_numbers_by_the_plan_are_those_by_the_study(finished, tmp_path):
    by_plan = efface(finished, "compare", "run", "run/seed-3", "--out", str(tmp_path / "plan"))
    by_study = efface(finished, "compare", "run", "run/seed-3", "--out", str(tmp_path / "study"), "--trust")
    assert (by_plan.code, by_study.code) == (0, 0), by_plan.err + by_study.err
    for name in ("summary.csv", "comparisons.csv", "agreement.csv"):
        assert (tmp_path / "plan" / name).read_text() == (tmp_path / "study" / name).read_text()


@pytest.mark.parametrize("command", ["status", "report", "compare"])
def test_a_folder_without_plan_is_refused_with_what_it_would_import(command, foreign):
    for path in (foreign / "run").rglob("plan.json"):
        path.unlink()
    before = files(foreign / "run")
    refused = efface(foreign, command, "run/seed-3")
    assert refused.code == 2
    assert all(word in refused.err for word in ("plan.json", "net.network", "mine.brightness", "pair.two", "--trust"))
    assert not (foreign / "mark").exists()
    assert files(foreign / "run") == before
    efface(foreign, command, "run/seed-3", "--trust")
    assert (foreign / "mark").exists()


def changed(path, change):
    """Change a plan, with a digest that fits."""
    tree = json.loads(path.read_text())
    del tree["digest"]
    change(tree)
    path.write_text(json.dumps(tree | {"digest": key(tree)}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tree: tree["metrics"][0].update(path="net.metric"), "metrics.morf net.metric trust"),
        (lambda tree: tree["metrics"][0].update(path="efface.store.arrays.os.system"), "efface.store.arrays.os.system"),
        (lambda tree: tree["metrics"][0].update(settings={"inner": {"call": "net.network"}}), "net.network trust"),
        (lambda tree: tree["curves"][0].update(metric="../x"), "plan.json curves"),
        (lambda tree: tree["tasks"].append("../../etc"), "plan.json tasks"),
        (lambda tree: tree.update(format=2), "plan.json format"),
        (lambda tree: tree.pop("curves"), "plan.json curves"),
        (lambda tree: tree.update(right="zz"), "plan.json right"),
        (lambda tree: tree["metrics"][0].update(caption="a\x0bb"), "plan.json metrics.0.caption \\x0b"),
        (lambda tree: tree["metrics"][0].update(axis="a\ud800"), "plan.json metrics.0.axis \\ud800"),
        (lambda tree: tree["metrics"][0].update(caption="a" * 20_000), "plan.json metrics.0.caption 20,000"),
        (lambda tree: tree["facts"]["versions"].update({"a\0": ""}), "plan.json facts.versions \\x00"),
        (lambda tree: tree.update(said=["\x1b[31m"]), "plan.json said.0 \\x1b"),
        (lambda tree: tree["curves"][0].update(at=[0.0, 1e30, 0.7]), "plan.json curves.0.at ascend"),
    ],
)
def test_a_plan_that_would_lead_elsewhere_is_refused(change, said, foreign):
    changed(foreign / "run/seed-3/plan.json", change)
    refused = efface(foreign, "status", "run/seed-3")
    assert (refused.code, refused.out) == (2, "")
    assert all(word in refused.err for word in said.split())
    assert not (foreign / "mark").exists()


def test_parts_of_a_study_lie_in_its_folder(foreign):
    changed(foreign / "run/plan.json", lambda tree: tree.update(parts={"": ["../elsewhere"]}))
    with pytest.raises(InvalidStudyError, match=words("plan.json parts elsewhere")):
        read_kept(foreign / "run")


def test_a_damaged_plan_and_seeds_of_different_studies_are_refused(foreign):
    path = foreign / "run/seed-3/plan.json"
    whole = path.read_text()
    for text in (whole[:-20], whole.replace('"seed": 3', '"seed": 5'), "[]", "\xff"):
        path.write_text(text)
        refused = efface(foreign, "compare", "run/seed-3")
        assert refused.code == 2
        assert "run/seed-3/plan.json: is damaged" in refused.err
    path.write_text(whole)
    (foreign / "run/plan.json").unlink()
    assert efface(foreign, "status", "run").code == 0
    changed(path, lambda tree: tree.update(settings="0" * 16))
    assert "different settings" in efface(foreign, "status", "run").err


def test_a_folder_takes_no_overrides_and_only_its_metrics(foreign):
    assert "fit.epochs=3" in efface(foreign, "report", "run", "fit.epochs=3").err
    refused = efface(foreign, "status", "run", "--metrics", "roar")
    assert refused.code == 1
    assert "roar; it has morf" in refused.err


def test_scores_that_do_not_fit_name_the_metric_and_the_files(foreign):
    from efface.store.sealed import read_arrays, write_arrays

    for path in (foreign / "run/seed-3/scores").glob("*.npz"):
        arrays = read_arrays(path, path.stem)
        write_arrays(path, path.stem, {f"other_{name}": each for name, each in arrays.items()})
    said = efface(foreign, "report", "run/seed-3").err
    assert said.startswith("efface: metrics.morf: its values cannot be put together from run/seed-3/scores/")


@pytest.mark.long
def test_runs_of_other_fractions_are_compared_at_the_common_points(tmp_path):
    for name, fractions in (("a", [0.3, 0.7]), ("b", [0.3, 0.5]), ("c", [0.9])):
        write_study(tmp_path, metrics=["morf"], repeats=None, out=name, fractions=fractions)
        done = efface(tmp_path, "all", "study.yml")
        assert done.code == 0, done.err
    done = efface(tmp_path, "compare", "a", "b", "--out", "both")
    assert done.code == 0, done.err
    assert "metrics.morf: fractions: a also has 0.7, which another run lacks: left out" in done.out
    assert "metrics.morf: fractions: b also has 0.5, which another run lacks: left out" in done.out
    assert "also has 0.7" in (tmp_path / "both/report.html").read_text()
    table = pd.read_csv(tmp_path / "both/summary.csv")
    assert set(table.query("metric != 'accuracy'").method) == {"a", "b"}
    none = efface(tmp_path, "compare", "a", "c", "--out", "none")
    assert none.code == 1
    assert "metrics.morf: fractions: a has 0, 0.3, 0.7; c has 0, 0.9: they have only the point 0 in common" in none.err


def test_a_study_of_a_run_that_is_no_utf8_text_is_one_error_with_its_place(finished, tmp_path):
    shutil.copytree(finished / "run", tmp_path / "run")
    path = tmp_path / "run" / "study.yml"
    path.write_bytes(b"# caf\xe9\n" + path.read_bytes())
    for words_ in (("status", "run", "--trust"), ("compare", "run", "--trust")):
        done = efface(tmp_path, *words_)
        assert done.code in (1, 2)
        assert names(done.err, "run/study.yml 1 0xe9 UTF-8")


def test_a_plan_of_before_without_ranges_is_read(foreign):
    plan = foreign / "run/seed-3/plan.json"
    ranges = {metric["name"]: metric["ranges"] for metric in json.loads(plan.read_text())["metrics"]}
    assert ranges["morf"]["accuracy"] == [0.0, 1.0]
    assert "logit_ratio" not in ranges["morf"]

    def older(tree):
        for metric in tree["metrics"]:
            del metric["ranges"]

    before = pd.read_csv(foreign / "run/seed-3/report/summary.csv")
    for line in before[before.score == "accuracy"].itertuples():
        wilson = binomtest(round(line.mean * line.n), line.n).proportion_ci(method="wilson")
        assert (line.low, line.high) == pytest.approx((wilson.low, wilson.high))
    changed(plan, older)
    done = efface(foreign, "report", "run/seed-3")
    assert (done.code, done.err) == (0, "")
    after = pd.read_csv(foreign / "run/seed-3/report/summary.csv")
    pd.testing.assert_frame_equal(before[["metric", "score", "mean", "n"]], after[["metric", "score", "mean", "n"]])


def test_a_run_folder_in_place_of_a_study_is_said_to_be_one(tmp_path):
    write_study(tmp_path, metrics=["morf"])
    assert efface(tmp_path, "train", "study.yml").code == 0
    for stage in ("check", "all", "measure", "visualize", "extract", "train", "prune"):
        done = efface(tmp_path, stage, "run")
        assert done.code == 2, (stage, done.err)
        assert names(done.err, "run: folder of a run, run/study.yml. report, status compare"), done.err
    (tmp_path / "run/study.yml").write_text("model: {call: efface_given.model_x_0123456789abcdef}\n")
    assert names(efface(tmp_path, "check", "run").err, "same call of efface.evaluate out='run'.")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/a.yml").write_text("")
    assert names(efface(tmp_path, "check", "configs").err, "configs: is a folder, configs/a.yml")


@pytest.mark.long
@pytest.mark.parametrize("of", ["study.yml", "run"])
def test_a_name_that_is_no_method_is_refused_with_those_there_are(of, tmp_path):
    write_study(tmp_path, metrics=["morf"], fit=None, repeats=None)
    assert efface(tmp_path, "all", "study.yml").code == 0
    done = efface(tmp_path, "report", of, "--against", "nothere")
    assert done.code in (1, 2)
    assert names(done.err, "--against: no method 'nothere'; random, mine, red, green")


def test_the_value_of_a_function_handed_over_is_read_from_its_folder(tmp_path):
    kept = read_kept_metric(
        path="efface.metrics.shared.of_function.of_function", settings={"function": "evil.import_me"}
    )
    (tmp_path / "evil.py").write_text(MARK.format(tmp_path / "mark"))
    formula = own_formula(kept, tmp_path)
    assert formula.direction == {"value": "lower"}
    assert not (tmp_path / "mark").exists()
    with pytest.raises(InvalidStudyError, match=words("metrics.own: handed over in Python, efface.evaluate out=")):
        own_formula(read_kept_metric(path="efface_given.metric_own_0123456789abcdef", settings={}), tmp_path)


def read_kept_metric(**changes):
    given = {"name": "own", "sample": "images", "direction": {"value": "lower"}, "caption": "", "axis": ""}
    given |= {"summary": "mean", "by_mean": (), "family": "own", "may_lack_points": False, "value_units": {}}
    return KeptMetric(**given | {"opposite": "", "read_with": ()} | changes)


@pytest.mark.long
def test_a_page_by_the_folder_alone_keeps_pictures_and_facts(tmp_path):
    write_study(tmp_path, metrics=["roar"], repeats=2)
    assert efface(tmp_path, "visualize", "study.yml").code == 0
    assert efface(tmp_path, "all", "study.yml").code == 0
    path = tmp_path / "run/report/report.html"
    before = path.read_text()
    assert 'id="gallery"' in before
    assert 'id="pictures"' in before
    (tmp_path / "study.yml").unlink()
    done = efface(tmp_path, "report", "run", "--against", "mine")
    assert done.code == 0, done.err
    after = path.read_text()
    for part in ('id="gallery"', 'id="pictures"', "2 trainings of each point"):
        assert part in after, part
    shown = [re.findall('<img [^>]*src="(data:[^"]+)"', text) for text in (before, after)]
    assert shown[0] == shown[1]
    assert "no pictures of maps" not in after


@pytest.mark.long
def test_a_page_without_pictures_names_the_command_that_makes_them(tmp_path):
    write_study(tmp_path, metrics=["morf"], fit=None)
    assert efface(tmp_path, "all", "study.yml").code == 0
    kept = tmp_path / "run/report/pictures.json"
    whole = kept.read_text()
    for content in (None, "[", whole.replace("data:image/png;base64,", "javascript:alert(1)//")):
        kept.unlink(missing_ok=True)
        if content is not None:
            kept.write_text(content)
        assert efface(tmp_path, "report", "run").code == 0
        page = (tmp_path / "run/report/report.html").read_text()
        assert "efface report STUDY" in page
        assert 'id="gallery"' not in page
        assert "javascript:alert" not in page
