"""Studies of several networks: variants, seeds, a second network, claims, and the page that sets them side by side."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from efface.metrics import Metric
from efface.report.between import pairs, with_ranks
from efface.report.claims import answer_claims
from efface.report.panels import panels
from efface.report.stats import interval
from efface.report.words import findings
from efface.stages.page.comparison import answers_of, merged, side_by_side
from efface.stages.run.curves import RunRecord
from efface.study.schema import Claim
from efface.study.study import InvalidStudyError, check
from small.messages import names
from small.reports import curve_of
from small.studies import efface, write_study

CHANGES = {
    "metrics": ["morf", {"name": "counted", "metric": "known.counted"}],
    "fractions": [0.5],
    "repeats": None,
    "attribution_methods": [
        {"name": "random", "method": "efface.methods.control.random"},
        {"name": "own", "method": "efface.methods.gradient.gradient"},
        {"name": "proxy", "method": "efface.methods.gradient.gradient", "network": "second"},
    ],
    "second_network": {"model": {"call": "net.network", "kwargs": {"classes": 5}}},
    "variants": {"short": {}, "long": {"fit.epochs": 6}},
    "seeds": [3, 4],
    "claims": [
        {"says": "longer is better", "metric": "accuracy", "more": {"variant": "long"}, "less": {"variant": "short"}}
    ],
}
KNOWN = """
from dataclasses import dataclass

import numpy as np

from efface.metrics import Metric, Point
from efface.metrics.probes import Needs, Score


@dataclass(frozen=True)
class Counts:
    needs = Needs(maps=False, second_network=True)

    def cost(self, images, training):
        return 1.0

    def identity(self):
        return {"probe": "counts"}

    def __call__(self, case):
        outputs = [module.out_features for module in case.second_network().modules() if hasattr(module, "out_features")]
        return Score({"classes": np.full(3, float(outputs[-1]))})


counted = Metric(
    probes=lambda point: {"counts": Counts()},
    value=lambda scores: {"classes": scores["counts"].values["classes"]},
    direction={"classes": "higher"},
    sample="images",
    caption="How many classes the second network knows.",
    family="control",
    axis="",
    points_for=lambda shape: (0.0,),
    subject="network",
)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("variants")
    write_study(folder, {"known": KNOWN}, **CHANGES)
    done = efface(folder, "all", "study.yml")
    assert done.code == 0, done.err
    return folder, done


@pytest.mark.long
def test_each_variant_and_seed_is_a_run_of_its_own_with_one_judge_a_seed(finished):
    folder, _ = finished
    parts = [f"{name}/seed-{seed}" for name in ("short", "long") for seed in (3, 4)]
    for part in parts:
        run = folder / "run" / part
        assert (run / "report" / "report.html").exists()
        assert len(list((run / "models").glob("network-*.pt"))) == 1
        kept = yaml.safe_load((run / "study.yml").read_text())
        assert (kept["seed"], kept["variants"], kept["seeds"]) == (int(part[-1]), {}, [])
    assert len(list((folder / "run" / "models").glob("second_network-*.pt"))) == 2
    digests = {json.dumps(torch.load(path)["4.bias"].tolist()) for path in (folder / "run").rglob("*-*.pt")}
    assert len(digests) == 6, "six networks, no two alike"


def test_a_value_that_two_variants_share_by_an_anchor_is_changed_in_one_alone():
    shared = {"model": {"call": "efface.models.resnet.resnet8"}, "fit": {"epochs": 1}}
    tree = {
        "out": "run",
        "data": "efface.data.digits.digits",
        "model": "efface.models.resnet.resnet8",
        "fit": {"epochs": 1},
        "attribution_methods": [{"name": "random", "method": "efface.methods.control.random"}],
        "variants": {
            "plain": {"second_network": shared},
            "other": {"second_network": shared, "second_network.fit.epochs": 7},
        },
    }
    study = check(tree, Path("s.yml"))
    for _ in range(2):  # a second reading once saw what the first had changed
        epochs = {name: part.second_network.fit.epochs for name, (part,) in study.parts().items()}
        assert epochs == {"plain": 1, "other": 7}


def test_a_metric_of_the_network_is_measured_once_and_asks_the_judge(finished):
    folder, _ = finished
    rows = [json.loads(line) for line in (folder / "run/short/seed-3/results.jsonl").read_text().splitlines()]
    (counts,) = (row for row in rows if row["probe"]["probe"] == "counts")
    assert counts["method"] is None
    assert counts["classes"] == 5
    summary = pd.read_csv(folder / "run/short/seed-3/report/summary.csv")
    assert summary[summary.metric == "counted"].method.tolist() == ["network"]


def test_proxy_maps_are_the_judges(finished):
    folder, _ = finished
    rows = [json.loads(line) for line in (folder / "run/short/seed-3/results.jsonl").read_text().splitlines()]
    networks = {row["method"]: row["made_from"]["network"] for row in rows if row["probe"]["probe"] == "extract"}
    assert networks["own"] == networks["random"] != networks["proxy"]


def test_the_page_beside_has_means_over_seeds_and_differences_to_the_first_variant(finished):
    folder, _ = finished
    beside = pd.read_csv(folder / "run/report/summary.csv")
    assert set(beside.method) == {"short", "long"}
    ours = beside[(beside.metric == "morf · own") & (beside.score == "accuracy") & (beside.fraction == 0.5)]
    for name in ("short", "long"):
        each = [pd.read_csv(folder / f"run/{name}/seed-{seed}/report/summary.csv") for seed in (3, 4)]
        means = [
            one[(one.metric == "morf") & (one.method == "own") & (one.score == "accuracy") & (one.fraction == 0.5)][
                "mean"
            ].item()
            for one in each
        ]
        line = ours[ours.method == name].iloc[0]
        np.testing.assert_allclose([line["mean"], line["std"]], [np.mean(means), np.std(means, ddof=1)], rtol=1e-6)
        assert (line.n, line.over) == (2, "networks and images")
        assert np.isnan([line.low, line.high, line.random_p]).all()  # two trainings give no interval and no verdict
    text = (folder / "run/report/report.html").read_text()
    assert set(re.findall('data-verdict="([a-z]+)"', text)) == {"control", "undecided"}
    assert "three trainings or more are needed" in text


@pytest.mark.long
def test_a_finished_study_does_nothing_and_compare_reads_the_folders(finished):
    folder, first = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("*.jsonl")}
    again = efface(folder, "all", "study.yml")
    assert again.code == 0
    assert "epochs in" not in again.out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "epochs in" in first.out
    said = re.search(r"claim no verdict: longer is better \((.*)\)", first.out).group(1)
    assert "n = 2 networks; it holds for networks trained like these and images like these; no verdict: " in said
    assert said.endswith("three trainings or more are needed")
    beside = efface(folder, "compare", "run/short/seed-3", "run", "--out", "both", "--trust")
    assert beside.code == 0, beside.err
    assert set(pd.read_csv(folder / "both/summary.csv").method) == {"seed-3", "run short", "run long"}
    assert efface(folder, "compare", "net.py").code == 2


@pytest.mark.long
def test_compare_takes_folders_of_variants_and_tells_folders_of_one_name_apart(finished):
    folder, _ = finished
    variants = efface(folder, "compare", "run/short", "run/long", "--out", "of-variants", "--trust")
    assert variants.code == 0, variants.err
    ours = (folder / "of-variants/summary.csv").read_text()
    assert ours == (folder / "run/report/summary.csv").read_text()
    seeds = efface(
        folder, "compare", "run/short/seed-3", "run/long/seed-3", "run/long/seed-4", "--out", "of-seeds", "--trust"
    )
    assert seeds.code == 0, seeds.err
    named = {"short/seed-3", "long/seed-3", "seed-4"}
    assert set(pd.read_csv(folder / "of-seeds/summary.csv").method) == named
    nothing = efface(folder, "compare", "run/models")
    assert (nothing.code, nothing.err.partition(";")[0]) == (
        2,
        "run/models: there is no study.yml in it, nor in seed-0, seed-1, ...",
    )
    twice = efface(folder, "compare", "run/short/seed-3", "run/short/seed-3", "--trust")
    assert twice.code == 1
    assert names(twice.err, "run/short/seed-3 twice")


def test_a_folder_whose_seeds_differ_in_more_than_the_seed_is_refused(finished, tmp_path):
    folder, _ = finished
    for seed in (3, 4):
        (tmp_path / f"short/seed-{seed}").mkdir(parents=True)
        text = (folder / f"run/short/seed-{seed}/study.yml").read_text()
        (tmp_path / f"short/seed-{seed}/study.yml").write_text(text.replace("max_batch: 16", f"max_batch: {seed}"))
    done = efface(folder, "compare", str(tmp_path / "short"), "--trust")
    assert done.code == 2
    assert names(done.err, "short (3, 4) different")


@pytest.mark.long
def test_what_says_little_without_robust_accuracy_says_so(tmp_path):
    write_study(tmp_path, metrics=["leakage"], repeats=None, variants={"a": {}, "b": {"fit.epochs": 1}})
    said = "Read leakage together with the network's clean and robust accuracy"
    done = efface(tmp_path, "check", "study.yml")
    assert done.out.count(f"warning: {said}") == 1
    attacked = {"name": "robust_accuracy", "kwargs": {"eps": [0.0, 0.1], "steps": 1}}
    assert efface(tmp_path, "all", "study.yml").code == 0
    pages = [tmp_path / "run" / name / "report/report.html" for name in ("a", "b", ".")]
    assert [page.read_text().replace("&#39;", "'").count(said) > 0 for page in pages] == [True] * 3
    write_study(tmp_path, metrics=["leakage", attacked], repeats=None, variants={"a": {}, "b": {"fit.epochs": 1}})
    assert said not in efface(tmp_path, "check", "study.yml").out
    assert efface(tmp_path, "all", "study.yml").code == 0
    assert not any(said in page.read_text().replace("&#39;", "'") for page in pages)
    table = pd.read_csv(pages[0].with_name("summary.csv"))
    clean = table[(table.metric == "robust_accuracy") & (table.fraction == 0)]["mean"].item()
    own = table[table.metric == "accuracy"]
    assert (own.method.item(), own["mean"].item(), own.n.item()) == ("network", clean, 24)
    assert "accuracy" not in re.findall("<h2>([^<]*)</h2>", pages[0].read_text())


def test_retraining_takes_refit_and_by_default_no_attack(tmp_path):
    attack = {"call": "efface.training.attack.pgd", "kwargs": {"norm": "l2", "eps": 0.1}}
    tree = {"out": "o", "data": "efface.data.digits.digits", "model": "efface.models.small.mnist_cnn"}
    tree |= {
        "fit": {"epochs": 2, "attack": attack},
        "attribution_methods": [{"name": "a", "method": "efface.methods.control.random"}],
    }
    from efface.stages.run.run import Run

    run = Run(check(tree, Path("s.yml")))
    assert run.first.fit.attack is not None
    assert run.refit == run.first.fit.plain()
    assert run.refit.attack is None
    run = Run(check(tree | {"refit": {"epochs": 7}}, Path("s.yml")))
    assert run.refit.epochs == 7


CLAIM = {"says": "x", "metric": "morf", "more": {"method": "random"}, "less": 0}
TWO_MAPS = {
    "attribution_methods": [{"name": name, "method": "efface.methods.control.random"} for name in ("one", "two")]
}


def test_a_claim_may_speak_of_what_one_variant_has_alone():
    tree = {
        "out": "o",
        "data": "efface.data.digits.digits",
        "model": "efface.models.small.mnist_cnn",
        "fit": {"epochs": 1},
        "attribution_methods": [{"name": "random", "method": "efface.methods.control.random"}],
        "metrics": ["morf"],
        "variants": {"a": {}, "b": TWO_MAPS | {"metrics": ["lerf"], "fractions": [0.25]}},
        "seeds": [0, 1],
    }
    claim = {"metric": "lerf", "at": 0.25, "more": {"variant": "b", "method": "two"}, "less": 0}
    study = check(tree | {"claims": [CLAIM | claim]}, Path("s.yml"))
    assert study.metric_names() == ["morf", "lerf"]
    both = study.with_metrics(["morf", "lerf"]).parts()
    assert {name: [each.name for each in part.metrics] for name, (part, _) in both.items()} == {
        "a": ["morf"],
        "b": ["lerf"],
    }
    new = study.with_metrics(["road", "lerf"])
    assert {name: [each.name for each in part.metrics] for name, (part, _) in new.parts().items()} == {
        "a": ["road"],
        "b": ["road", "lerf"],
    }
    assert (len(new.claims), len(study.with_metrics(["road"]).claims)) == (1, 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"variants": {"a": {"fit.epoch": 3}}}, "s.yml variants.a fit.epoch epochs"),
        ({"variants": {"a": {"out": "x"}}}, "variants.a out"),
        ({"variants": {"a": {"nothing.at.all": 1}}}, "variants.a nothing"),
        (
            {"claims": [{"says": "x", "metric": "morf", "more": {"variant": "a"}, "less": 0}]},
            "variant a none",
        ),
        (
            {"claims": [{"says": "x", "metric": "mor", "more": {"method": "random"}, "less": 0}]},
            "metric mor accuracy morf",
        ),
        ({"claims": [{"says": "x", "metric": "morf", "more": 1, "less": 0}]}, "claims.x numbers variant"),
        ({"claims": [CLAIM | {"score": "acuracy"}]}, "morf acuracy accuracy"),
        ({"claims": [CLAIM | {"at": 0.2}]}, "morf 0.2 0.1 0.3 0.5 0.7 0.9"),
        ({"claims": [CLAIM | {"metric": "accuracy", "more": {}, "at": 0.1}]}, "accuracy 0.1 0"),
        ({"claims": [CLAIM | {"metric": "accuracy"}]}, "claims.x more accuracy network map"),
        ({"variants": {"a": {}, "b": {}}, "claims": [CLAIM]}, "claims.x more variant a b"),
        (
            {"variants": {"a": {}, "b": {"metrics": ["lerf"]}}, "claims": [CLAIM | {"more": {"variant": "b"}}]},
            "claims.x variant b morf lerf",
        ),
        (
            {"variants": {"a": {}, "b": TWO_MAPS}, "claims": [CLAIM | {"more": {"variant": "b"}}]},
            "claims.x more method morf one two",
        ),
        (
            {"variants": {"a": {}, "b": TWO_MAPS}, "claims": [CLAIM | {"more": {"variant": "a", "method": "two"}}]},
            "claims.x method two variant a random",
        ),
        ({"seeds": [0, 1, 0]}, "s.yml seeds 0 twice"),
        ({"seeds": [0, 1], "variants": {"a": {"seed": 3}}}, "variants.a seed seeds"),
        ({"variants": {"report": {}}}, "variants.report files name"),
        ({"variants": {"Models": {}}}, "variants.Models files name"),
        ({"variants": {"wide": {}, "Wide": {}}}, "variants.Wide wide capital"),
    ],
)
def test_what_is_wrong_with_variants_and_claims_is_said_when_the_study_is_read(change, said):
    tree = {
        "out": "o",
        "data": "efface.data.digits.digits",
        "model": "efface.models.small.mnist_cnn",
        "fit": {"epochs": 1},
    }
    tree |= {
        "attribution_methods": [{"name": "random", "method": "efface.methods.control.random"}],
        "metrics": ["morf"],
    }
    with pytest.raises(InvalidStudyError) as error:
        check(tree | change, Path("s.yml"))
    assert names(str(error.value), said)


def test_a_judge_that_nobody_gave_is_missed_before_anything_is_computed(tmp_path):
    write_study(tmp_path, {"known": KNOWN}, metrics=["morf", {"name": "counted", "metric": "known.counted"}])
    done = efface(tmp_path, "all", "study.yml")
    assert done.code == 1
    assert names(done.err, "metrics.counted second_network")
    assert not list((tmp_path / "run").rglob("*.pt"))


def repeated_curve(values, method="m", at=(0.0, 1.0), sample="repeats"):
    how = {"metric": "x", "score": "s", "direction": "higher"}
    return curve_of(values, method, at=at, sample=sample, **how)


def claim(**changes):
    return Claim.model_validate(
        {"says": "so", "metric": "x", "more": {"method": "a"}, "less": {"method": "b"}} | changes
    )


def test_a_claim_is_the_interval_of_the_paired_difference():
    a, b = repeated_curve([[0, 2], [1, 3], [2, 4.2]]), repeated_curve([[0, 1], [1, 1.8], [2, 2.8]])
    found = {("x", "s", "a"): {"": a}, ("x", "s", "b"): {"": b}}
    expected = interval(np.array([0.5, 0.6, 0.7]))
    (area,) = answer_claims([claim()], found)
    assert area.difference == pytest.approx(expected)
    assert area.verdict == "shown"
    assert answer_claims([claim(more={"method": "b"}, less={"method": "a"})], found)[0].verdict == "opposite"
    (end,) = answer_claims([claim(at=1.0)], found)
    assert end.difference == pytest.approx(interval(np.array([1.0, 1.2, 1.4])))
    (start,) = answer_claims([claim(at=0.0)], found)
    assert start.verdict == "not shown"
    (number,) = answer_claims([claim(less=1.5)], found)
    assert number.difference == pytest.approx(interval(np.array([-0.5, 0.5, 1.6])))
    assert answer_claims([claim(more={"method": "c"})], found)[0].verdict == "not measured"
    (nowhere,) = answer_claims([claim(at=0.5)], found)
    assert nowhere.verdict == "not measured"
    assert nowhere.message.endswith("not measured: x has no point 0.5; it has 0, 1")
    (misnamed,) = answer_claims([claim(score="t")], found)
    assert misnamed.message.endswith("not measured: x has no score 't'; it has s")


def test_the_means_that_are_told_are_of_the_samples_that_both_sides_have():
    a, b = repeated_curve([[1], [2], [np.nan]], at=(0.0,)), repeated_curve([[0], [np.nan], [0]], at=(0.0,))
    found = {("x", "s", "a"): {"": a}, ("x", "s", "b"): {"": b}}
    (told,) = answer_claims([claim()], found)
    assert (told.more, told.less, told.difference.mean, told.difference.n) == (1.0, 0.0, 1.0, 1)
    b = repeated_curve([[np.nan], [np.nan], [0]], at=(0.0,))
    (none,) = answer_claims([claim()], {("x", "s", "a"): {"": a}, ("x", "s", "b"): {"": b}})
    assert none.message.endswith("not measured: no sample has a value on both sides")


def test_a_claim_says_its_verdict_why_and_over_what_it_holds():
    rng = np.random.default_rng(0)
    low, high = rng.random((2, 60, 1)) + np.array([[[0.0]], [[1.0]]])
    skewed = np.exp(np.arange(20.0))[:, None]
    frozen = {"at": (0.0,), "sample": "images"}
    cases = [
        (high, low, frozen, "shown", ""),
        (low, high, frozen, "opposite", ""),
        (low, low[::-1], frozen, "not shown", ""),
        (high, high - 1, frozen, "no verdict", "too few samples differ, so the spread is unknown"),
        (skewed, 0 * skewed, frozen, "no verdict", "the score is too skewed for so few images; take 50 or more"),
        (high[:2], low[:2], {"at": (0.0,)}, "no verdict", "three trainings or more are needed"),
        (high[:3], low[:3], {"at": (0.0,)}, "shown", ""),
    ]
    for more, less, how, verdict, why in cases:
        sides = {("x", "s", name): {"": repeated_curve(each, **how)} for name, each in (("a", more), ("b", less))}
        (told,) = answer_claims([claim()], sides)
        assert told.verdict == verdict
        assert ("no verdict" in told.message) == bool(why)
        assert told.message.endswith(f"; no verdict: {why}" if why else "like these")
        images = how is frozen
        assert (
            f"n = {len(more)} {'images' if images else 'trainings'}; it holds for this network, and for "
            in told.message
        )
        assert told.message.partition("this network, and for ")[2].startswith("images" if images else "retrainings")


class Measured(RunRecord):
    """A run that has these curves. data: digest of its test images."""

    accuracy = None

    def __init__(self, seed, curves, data):
        self.__dict__.update(kept=SimpleNamespace(data=data, seed=seed), curves=curves)


def trained_networks(spread, shift, networks=4, images=40, seed=0):
    """Curves of variants `a` and `b`, each of so many networks: what each network gets right of the same images."""
    rng = np.random.default_rng(seed)
    level = rng.normal(1, 1, (1, images))
    found = {}
    for name, more in (("a", 0.0), ("b", shift)):
        chance = 1 / (1 + np.exp(-(level + more + rng.normal(0, spread, (networks, 1)))))
        right = (rng.random((networks, images)) < chance) * 1.0
        found[name] = [
            Measured(seed, [repeated_curve(each[:, None], "net", (0.0,), "images")], "same")
            for seed, each in enumerate(right)
        ]
    return found


def judged(beside):
    """The verdict and the reason of variant b on a page, and the answer to the claim that b is above a."""
    found = merged(beside)
    (panel,) = panels(side_by_side(found), ("a",), kind="network")
    sides = {"more": {"variant": "b", "method": "net"}, "less": {"variant": "a", "method": "net"}}
    (answer,) = answer_claims([claim(**sides)], found)
    return panel, answer


def test_networks_of_one_training_each_get_no_verdict_and_seeds_do():
    (panel, answer) = judged(trained_networks(0.0, 5.0, networks=1))
    assert (panel.verdict("b"), panel.over) == ("single", "images")
    assert "Each network was trained once, so there is no verdict" in " ".join(findings(panel, [panel]))
    (compared,) = pairs([panel])
    assert (compared.methods, compared.found) == ((), {})
    assert {row.rank for row in with_ranks(compared).rows} == {0}
    assert answer.verdict == "no verdict"
    assert "it holds for these two networks alone; no verdict: each side is one training" in answer.message
    assert answer.difference.low > 0  # over images, which says nothing about other trainings
    (panel, answer) = judged(trained_networks(0.0, 5.0, networks=2))
    assert (panel.verdict("b"), panel.row("b").tested, answer.verdict) == ("undecided", "none", "no verdict")
    (panel, answer) = judged(trained_networks(0.0, 5.0))
    assert (panel.verdict("b"), panel.over, answer.verdict) == ("better", "networks and images", "shown")
    assert "n = 4 networks; it holds for networks trained like these and images like these" in answer.message
    (panel, answer) = judged(trained_networks(2.0, 1.0))
    assert (panel.verdict("b"), answer.verdict) == ("same", "not shown")


def test_networks_are_crossed_with_their_images_only_if_these_are_the_same():
    same = trained_networks(0.2, 5.0)
    (curve,) = (named["b"] for named in merged(same).values())
    assert curve.images.shape == (4, 1, 40)
    np.testing.assert_allclose(curve.images.mean(axis=2), curve.values)
    np.testing.assert_array_equal(curve.images[2, 0], same["b"][2].curves[0].values[:, 0])
    apart = trained_networks(0.2, 5.0)
    for seed, one in enumerate(apart["b"]):
        one.kept.data = f"images {seed}"
    (panel, answer) = judged(apart)
    assert panel.row("b").curve.images is None
    assert panel.over == "networks"
    assert answer.message.endswith("it holds for networks trained like these")


@pytest.mark.parametrize(("networks", "over"), [(1, "60 images"), (3, "3 networks")])
def test_a_claim_about_one_variant_is_paired_by_its_own_images(networks, over):
    rng = np.random.default_rng(3)

    def runs_of(variant):
        for seed in range(networks):
            good, bad = rng.random((2, 60, 1)) + np.array([[[1.0]], [[0.0]]])
            curves = [repeated_curve(good, "good", (0.0,), "images"), repeated_curve(bad, "bad", (0.0,), "images")]
            yield Measured(seed, curves, f"images of {variant}")

    beside = {name: list(runs_of(name)) for name in ("a", "b")}
    within = claim(more={"variant": "a", "method": "good"}, less={"variant": "a", "method": "bad"})
    between = claim(more={"variant": "a", "method": "good"}, less={"variant": "b", "method": "bad"})
    told, apart = answers_of([within, between], beside)
    assert told == answers_of([within], {"a": beside["a"]})[0]
    assert (told.verdict, f"n = {over}; " in told.message) == ("shown", True)
    assert "images like these" in told.message
    assert "images like these" not in apart.message  # other images on each side pair nothing
    gone = claim(more={"variant": "c", "method": "good"}, less={"variant": "c", "method": "bad"})
    assert "there are no results of c" in answers_of([gone], beside)[0].message
    assert apart.verdict == ("no verdict" if networks == 1 else "shown")


@pytest.mark.long
def test_metrics_asked_for_are_measured_by_the_variants_that_have_them(tmp_path):
    changes = {"metrics": ["morf"], "fractions": [0.5], "repeats": None, "seeds": [0, 1]}
    claims = [CLAIM | {"metric": name, "more": {"variant": of, "method": "mine"}} for name, of in CLAIMED.items()]
    write_study(tmp_path, variants={"short": {}, "other": {"metrics": ["lerf"]}}, claims=claims, **changes)
    done = efface(tmp_path, "measure", "study.yml", "--metrics", "morf")
    assert done.code == 0, done.err
    assert "run/other/seed-1: has none of the metrics that are asked for; nothing is measured there" in done.out
    assert not list((tmp_path / "run/other").rglob("*.pt"))
    assert not list((tmp_path / "run/other").rglob("*.h5"))
    beside = pd.read_csv(tmp_path / "run/report/summary.csv")
    assert {*beside.method} == {"short"}
    assert {each.partition(" ")[0] for each in beside.metric} == {"accuracy", "morf"}
    assert efface(tmp_path, "check", "study.yml", "--metrics", "lerf").code == 0
    assert efface(tmp_path, "status", "study.yml", "--metrics", "morf").out.count("probes: ") == 2


CLAIMED = {"morf": "short", "lerf": "other"}


def test_a_claim_at_no_point_is_refused_before_anything_is_trained(tmp_path):
    attacked = {"name": "robust_accuracy", "kwargs": {"eps": [0.0, 0.1], "steps": 1}}
    bad = CLAIM | {"metric": "robust_accuracy", "at": 0.3, "more": {}}
    write_study(tmp_path, metrics=[attacked], repeats=None, claims=[bad])
    done = efface(tmp_path, "all", "study.yml")
    assert done.code == 1
    assert names(done.err, "claims.x robust_accuracy 0.3 0 0.1")
    assert not list((tmp_path / "run").rglob("*.pt"))
    assert efface(tmp_path, "check", "study.yml").err == done.err


def test_metrics_are_of_maps_unless_they_say_otherwise():
    assert Metric(probes=dict, value=dict, direction={}, sample="images", caption="").subject == "maps"
