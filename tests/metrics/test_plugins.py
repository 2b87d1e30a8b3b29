"""Plug-ins of a user's own: a metric with its own probe runs, and one that is slightly wrong is refused in words."""

import csv
import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from efface.base.types import Split
from efface.erase.post import absolute, apply_post, channel_sum
from efface.impute import blur, channel_mean, constant
from efface.metrics import Metric, Point, check_metric, metric, misnamed, names, values_of
from efface.metrics.probes import Description, Needs, Perturb, Probe, Score, check_probe
from efface.metrics.probes.description import describe
from efface.plug.call import Call
from efface.plug.facts import fact, states
from efface.report.table import FAMILIES
from efface.stages.page.accuracy import unaccompanied
from efface.stages.trial.keywords import near_keywords
from efface.study.metric_entry import MetricEntry
from efface.study.study import read
from efface.training import regularize
from small.cases import case_of
from small.studies import efface, write_study

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
POINT = Point(0.5, 0, Call(call="efface.impute.channel_mean"), (), "pixel")


def example():
    """The smallest working metric with a probe of its own, as the page shows it."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (found,) = [each for each in blocks if "class Peak" in each]
    return found


# A whole one


def test_the_example_of_the_page_runs_and_has_a_heading_of_its_own(tmp_path):
    entry = {"name": "peak", "metric": "lab.peak"}
    write_study(tmp_path, {"lab": example()}, metrics=[entry], fractions=[0.5])
    done = efface(tmp_path, "all", "study.yml")
    assert done.code == 0, done.err
    with (tmp_path / "run" / "report" / "summary.csv").open() as file:
        lines = {line["method"]: line for line in csv.DictReader(file) if line["metric"] == "peak"}
    assert set(lines) == {"random", "mine", "red", "green"}
    assert {line["family"] for line in lines.values()} == {"peaks"}
    assert "<h2>Peaks</h2>" in (tmp_path / "run" / "report" / "report.html").read_text()


@dataclass(frozen=True)
class Whole:
    """A probe with all that it must have."""

    needs = Needs()

    def identity(self):
        return {"probe": "whole"}

    def cost(self, images, training):
        return float(images["test"])

    def __call__(self, case):
        return Score({"value": np.zeros(len(case.data["test"]))})


def made(probe, **changes):
    settings = {"value": lambda scores: {"value": scores["one"].values["value"]}, "direction": {"value": "higher"}}
    return Metric(
        **({"probes": lambda _: {"one": probe}, "sample": "images", "caption": "Nothing."} | settings | changes)
    )


def test_a_whole_probe_is_accepted():
    assert isinstance(Whole(), Probe)
    assert check_probe("metrics.mine", Whole()) == []
    assert check_metric("metrics.mine", made(Whole()), [POINT]) == []
    assert describe(Whole()) == Description("none", "none", "none", "none")


@pytest.mark.parametrize("name", names())
def test_every_metric_of_ours_is_whole(name):
    found = metric(name)
    points = [dataclasses.replace(POINT, x=at) for at in (found.points_for or (lambda _: (0.0, 0.5, 1.0)))((3, 16, 16))]
    assert check_metric(name, found, points) == []
    for point in points:
        for probe in found.probes(point).values():
            assert isinstance(probe, Probe)
            assert isinstance(probe.needs, Needs)
            assert isinstance(describe(probe), Description)


# One that is slightly wrong


def without(*parts, **others):
    """A probe like `Whole` that lacks some parts and has others."""
    body = {name: vars(Whole)[name] for name in ("needs", "identity", "cost", "__call__") if name not in parts}
    return dataclass(frozen=True)(type("Brightness", (), body | others))()


BROKEN = {
    "no cost": (without("cost"), "has no 'cost'; add cost(images, training) -> float: its work in forward passes"),
    "costs": (
        without("cost", costs=Whole.cost),
        "has 'costs', which nothing reads; did you mean cost(images, training)?",
    ),
    "no identity": (without("identity"), "has no 'identity'; add identity() -> dict"),
    "identify": (
        without("identity", identify=Whole.identity),
        "has 'identify', which nothing reads; did you mean ident",
    ),
    "no needs": (without("needs"), "has no 'needs'; add needs = Needs(...)"),
    "need": (without("needs", need=Needs()), "has 'need', which nothing reads; did you mean needs = Needs(...)?"),
    "need_masks": (
        without(need_masks=True),
        "has 'need_masks', which nothing reads; did you mean needs = Needs(masks=Tr",
    ),
    "needs_map": (without("needs", needs_map=True), "did you mean needs = Needs(maps=...)?"),
    "needs_judge": (without(needs_judge=True), "did you mean needs = Needs(second_network=True)?"),
    "conventions": (without(conventions={"count": "all"}), "did you mean describe() -> Description?"),
    "no call": (without("__call__"), "has no '__call__'; add __call__(case) -> Score"),
    "needs of a dict": (without(needs={"masks": True}), "has a 'needs' that is a dict; expected needs = Needs(...)"),
    "cost of one": (
        without(cost=lambda self, images: 1.0),
        "has a 'cost' that cannot be called as cost(images, training)",
    ),
    "cost of a number": (without(cost=3.0), "has a 'cost' that is a float; expected a method cost(images, training)"),
    "identity of a list": (
        without(identity=lambda self: ["brightness"]),
        "has an 'identity' that returns a list; expected a dict of plain values",
    ),
    "identity of a call": (
        without(identity=lambda self: {"post": [Call(call="efface.erase.post.absolute")]}),
        "has an 'identity' that fails: TypeError: Object of type Call is not JSON serializable; return a dict of plain",
    ),
    "chek": (without(chek=lambda self, network, images: None), "has 'chek', which nothing reads; did you mean check?"),
    "map_values": (without(map_values="pixels"), "has a 'map_values' that is 'pixels'; expected 'pixel' or 'feature'"),
    "explains": (without(explains="all"), "has a 'explains' that is 'all'; expected 'true' or 'none' or 'predicted'"),
    "check of one": (without(check=lambda self, network: None), "cannot be called as check(network, images)"),
    "no dataclass": (object(), "is not a frozen dataclass; write @dataclass(frozen=True)"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_probe_is_refused_with_the_part_named(kind):
    probe, said = BROKEN[kind]
    (told,) = check_probe("metrics.mine", probe)
    name = "object" if kind == "no dataclass" else "Brightness"
    assert told.startswith(f"metrics.mine: the probe {name} ")
    assert said in told
    assert told.endswith("(see docs/extending.md)")


def test_a_name_of_the_probes_own_is_left_alone():
    (told,) = check_probe("metrics.mine", without(sampling=3, described="so", levels=(1,), _cost=2.0))
    assert "has 'described', which nothing reads; did you mean describe?" in told
    assert check_probe("metrics.mine", without(describe=lambda self: Description(), described="so")) == []


def test_a_misspelt_need_is_a_type_error():
    with pytest.raises(TypeError, match="mask"):
        Needs(mask=True)


def more(scores):
    return {"value": scores["one"].values["value"], "other": scores["one"].values["value"]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"value": more}, "'value' returns other, but 'direction' does not name it"),
        ({"direction": {"value": "higher", "drop": "lower"}}, "'value' does not return drop, but 'direction' names it"),
        ({"probes": lambda _: [Whole()]}, "'probes' returns a list; expected a mapping of names to probes"),
        ({"probes": lambda _: {"one": 1 / 0}}, "'probes' fails at 0.5: ZeroDivisionError"),
        ({"probes": lambda _: {"one": without(needs=Needs(training=True))}}, "does not set needs_fit=True"),
        (
            {"probes": lambda _: {"one": without(needs=Needs(network=False))}},
            "sample='repeats' nor needs_fit=True",
        ),
        ({"subject": "network"}, "needs maps, but the metric is of the network"),
        ({"read_with": ("robust_acuracy",)}, "'read_with' names 'robust_acuracy': there is no metric"),
        ({"by_mean": ("drop",)}, "'by_mean' names drop, which 'direction' does not have; it has value"),
        ({"value_units": {"drop": "%"}}, "'value_units' names drop, which 'direction' does not have; it has value"),
        ({"ranges": {"drop": (0.0, 1.0)}}, "'ranges' names drop, which 'direction' does not have; it has value"),
        *(
            ({"ranges": {"value": ends}}, "'ranges' of 'value' is " + told)
            for ends, told in (
                ((1.0, 0.0), "(1.0, 0.0); expected two ascending numbers, such as (0.0, 1.0)"),
                ((0.5, 0.5), "(0.5, 0.5); expected two ascending numbers"),
                ((0.0, float("inf")), "(0.0, inf); expected two ascending numbers"),
                ((0.0, float("nan")), "(0.0, nan); expected two ascending numbers"),
            )
        ),
        ({"value": values_of("two", "value")}, "'value' reads the probe 'two', but its 'probes' has only one; use"),
        (
            {"probes": lambda point: {"one": point.perturb("most_first")}},
            "'value' reads 'value' of the probe 'one', whose score has only accuracy, probability, logit; use",
        ),
        ({"opposite": "lurf"}, "'opposite' names 'lurf': there is no metric 'lurf'; did you mean 'lerf'?"),
    ],
)
def test_a_metric_at_odds_with_itself_is_refused(changes, said):
    (told,) = check_metric("metrics.mine", made(Whole(), **changes), [POINT, POINT])
    assert told.startswith("metrics.mine: ")
    assert said in told


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"direction": {"value": "up"}}, "'direction' of 'value' is 'up'; expected higher, lower or none"),
        ({"direction": ["value"]}, "'direction' is ['value']; expected the direction of each value"),
        ({"sample": "image"}, "'sample' is 'image'; expected repeats or images"),
        ({"summary": "sum"}, "'summary' is 'sum'; expected area or mean"),
        ({"caption": None}, "'caption' is None; expected text"),
        (
            {"read_with": "robust_accuracy"},
            "'read_with' is 'robust_accuracy'; expected several words, such as ('robust_",
        ),
        *(
            ({"ranges": {"value": ends}}, f"'ranges' of 'value' is {ends!r}; expected two ascending numbers, such as")
            for ends in ((0.0, 1.0, 2.0), [0.0, 1.0], (0.0, None), ("a", "b"), 1.0)
        ),
        ({"ranges": None}, "'ranges' is None; expected ends by value, such as {'accuracy': (0.0, 1.0)}"),
    ],
)
def test_a_field_of_unknown_words_is_refused(changes, said):
    found = made(Whole())
    for name, value in changes.items():  # after it is made: the tests check the types of what is made
        object.__setattr__(found, name, value)
    (told,) = check_metric("metrics.mine", found, [POINT])
    assert told.startswith("metrics.mine: ")
    assert said in told


def test_names_are_compared_both_ways():
    assert misnamed(made(Whole()), {"value": 1.0}) == ""
    assert "returns b" in misnamed(made(Whole()), {"value": 1.0, "b": 2.0})
    assert "does not return value" in misnamed(made(Whole()), {})


LAB = """
from dataclasses import dataclass
from efface.metrics import Metric
from efface.metrics.probes import Score

@dataclass(frozen=True)
class Brightness:
    need_masks = True

    def identity(self):
        return {"probe": "brightness"}

    def __call__(self, case):
        return Score({"value": case.masks.float().mean((1, 2)).numpy()})

bright = Metric(
    probes=lambda point: {"one": Brightness()},
    value=lambda scores: {"value": scores["one"].values["value"]},
    direction={"value": "higher"},
    sample="images",
    caption="How much of the image the object is.",
    axis="",
    points_for=lambda shape: (0.0,),
)
"""


@pytest.mark.long
def test_a_study_with_a_broken_probe_is_refused_before_any_work(tmp_path):
    write_study(tmp_path, {"lab": LAB}, metrics=["morf", {"name": "bright", "metric": "lab.bright"}])
    done = efface(tmp_path, "check", "study.yml")
    assert done.code != 0
    assert "metrics.bright: the probe Brightness has 'need_masks'" in done.err
    assert "did you mean needs = Needs(masks=True)?" in done.err
    assert "metrics.bright: the probe Brightness has no 'cost'; add cost(images, training)" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "run" / "results.jsonl").exists()


def test_a_cost_that_is_no_number_is_named_by_check(tmp_path):
    whole = LAB.replace("need_masks = True", "needs = Needs()").replace("import Score", "import Needs, Score")
    for body, said in (
        ("return None", "is None; expected forward passes, a number from 0"),
        ("return images['validation']", "fails: KeyError: 'validation'; return forward passes, a number from 0"),
    ):
        cost = f"    def cost(self, images, training):\n        {body}\n\n    def __call__"
        write_study(
            tmp_path, {"lab": whole.replace("    def __call__", cost)}, metrics=[{"name": "b", "metric": "lab.bright"}]
        )
        done = efface(tmp_path, "check", "study.yml")
        assert done.code != 0
        assert f"metrics.b: the 'cost' of the probe Brightness {said}" in done.err
        assert "Traceback" not in done.err


@pytest.mark.long
@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("{'value': 1.0}", "a dict; expected an efface.metrics.probes.Score"),
        (
            "Score({'value': 1.0})",
            "a Score with a float under 'value'; expected a NumPy array of numbers, one for each",
        ),
    ],
)
def test_a_probe_that_returns_no_score_loses_itself_alone(tmp_path, returned, said):
    whole = LAB.replace("need_masks = True", "needs = Needs()").replace("import Score", "import Needs, Score")
    cost = "    def cost(self, images, training):\n        return 1.0\n\n    def __call__"
    whole = whole.replace("    def __call__", cost)
    whole = re.sub(r"return Score\(.*\)\n", f"return {returned}\n", whole, count=1)
    write_study(tmp_path, {"lab": whole}, metrics=["morf", {"name": "b", "metric": "lab.bright"}])
    done = efface(tmp_path, "all", "study.yml")
    assert done.code != 0
    assert f"metrics.b: the probe Brightness returned {said}" in done.err
    text = (tmp_path / "run" / "results.jsonl").read_text()
    assert "perturb" in text
    assert '"probe": "brightness"' not in text


@pytest.mark.long
def test_a_value_that_the_score_lacks_is_a_fault_of_the_metric(tmp_path):
    whole = LAB.replace("need_masks = True", "needs = Needs()").replace("import Score", "import Needs, Score")
    cost = "    def cost(self, images, training):\n        return 1.0\n\n    def __call__"
    whole = whole.replace("    def __call__", cost).replace('.values["value"]', '.values["valeu"]')
    write_study(tmp_path, {"lab": whole}, metrics=["morf", {"name": "b", "metric": "lab.bright"}])
    assert efface(tmp_path, "check", "study.yml").code == 0
    assert efface(tmp_path, "extract", "study.yml").code == 0
    done = efface(tmp_path, "measure", "study.yml")
    assert done.code != 0
    said = (
        "metrics.b: its values cannot be put together from the first scores: its 'value' fails with KeyError: 'valeu'"
    )
    assert said in done.out, "said while it measures"
    assert "('one' has value); the scores are whole, correct the metric" in done.err
    assert "delete" not in done.out + done.err
    assert '"probe": "brightness"' in (tmp_path / "run" / "results.jsonl").read_text()


PARTS = """
import torch
from efface.metrics import Metric, values_of
from efface.metrics.probes import Erasure, Perturb

def metric(**words):
    return Metric(
        probes=lambda point: {"one": Perturb(Erasure(**{"order": "random", "imputer": point.imputer} | words))},
        value=values_of("one", "accuracy"),
        direction={"accuracy": "lower"},
        sample="images",
        caption="Some pixels are erased.",
    )

order = metric(order="most", fraction=0.5)
shown = metric(shown="masks", fraction=0.5)
pixels = metric(unit="pixels", fraction=0.5)

def flat(maps):
    return maps.flatten(1)

def grouped(images):
    return torch.zeros(len(images), 16, 16)

def apart(images):
    return torch.arange(16).expand(len(images), 16, 16) * 2

def small(images, removed):
    return images[:, :, :2]

def empty(images, removed):
    return images / 0

def named(images, removed):
    raise KeyError("colour")
"""


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("metrics", ["parts.order"], "Erasure: order is 'most'; expected most_first, least_first or random"),
        ("metrics", ["parts.shown"], "Erasure: shown is 'masks'; expected images or mask"),
        ("metrics", ["parts.pixels"], "Erasure: unit is 'pixels'; expected pixel or feature"),
        (
            "post",
            ["parts.flat"],
            "metrics.morf, mine: post: parts.flat gives float32 of shape (2, 256) for maps of (2, ",
        ),
        ("unit", "parts.grouped", "metrics.morf: unit: parts.grouped gives float32 of shape (2, 16, 16)"),
        ("unit", "parts.apart", "metrics.morf: unit: parts.apart gives labels with gaps: image 0 has no pixel of gro"),
        ("imputer", "parts.small", "metrics.morf: imputer: parts.small gives float32 of shape (2, 3, 2, 16) for image"),
        ("imputer", "parts.empty", "metrics.morf: imputer: parts.empty gives NaN or infinity for 256 of 256 removed"),
        ("imputer", "parts.named", "metrics.morf: imputer: parts.named fails: KeyError: 'colour'"),
    ],
)
def test_a_wrong_part_of_an_erasure_is_named_by_check(tmp_path, key, value, said):
    methods = [{"name": "mine", "method": "mine.brightness"}]
    changes = {"metrics": ["morf"], "attribution_methods": methods, key: value}
    write_study(tmp_path, {"parts": PARTS}, **changes)
    done = efface(tmp_path, "check", "study.yml")
    assert done.code != 0
    assert said in done.err
    assert "Traceback" not in done.err


KEYED = """
def mine(model, images, targets, *, seed=None, max_batchs=4):
    return images.mean(1)

def both(model, images, targets, *, seeds, seed=0, needs=1):
    return images.mean(1)

def fill(images, removed, *, means=None):
    return images * 0

class Learnt:
    def __init__(self, mask=0):
        self.learnt = {}

    def fit(self, model, data, *, seed, max_batch):
        pass

    def __call__(self, model, images, targets, *, mask=None):
        return images.mean(1)
"""


def test_keywords_that_are_nearly_those_of_efface_are_warned_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    methods = [
        {"name": "a", "method": "keyed.mine", "kwargs": {"max_batchs": 2}},
        {"name": "b", "method": "keyed.both"},
        {"name": "c", "method": "keyed.Learnt"},
        {"name": "d", "method": "efface.methods.control.random"},
    ]
    metrics = ["morf", {"name": "m", "metric": "lerf", "kwargs": {"imputer": "keyed.fill"}}]
    study = read(write_study(tmp_path, {"keyed": KEYED}, attribution_methods=methods, metrics=metrics))
    told = list(near_keywords(study))
    assert [each.partition(", for which")[0] for each in told] == [
        "attribution_methods.a: keyed.mine has the keyword 'seed'",
        "attribution_methods.c: keyed.Learnt has the keyword 'mask'",
        "metrics.m.kwargs.imputer: keyed.fill has the keyword 'means'",
    ]
    assert [each.partition("did you mean ")[2].partition("?")[0] for each in told] == ["seeds", "masks", "mean"]


# What a case does not have


def blank_case(**changes):
    """A case of two black images, without a network or anything else."""
    zeros = torch.zeros(2, dtype=torch.int64)
    data = {"test": Split(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), zeros)}
    return case_of(**{"data": data, "max_batch": 2} | changes)


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda here: here.network, "needs = Needs(network=True)"),
        (lambda here: here.training, "give the study a 'fit'"),
        (lambda here: here.masks, "needs = Needs(masks=True)"),
        (lambda here: here.explain(None, None, None, None), "needs = Needs(method=True)"),
        (lambda here: here.samples(None), "needs = Needs(samples=Sampling(...))"),
        (lambda here: here.second_network(), "needs = Needs(second_network=True)"),
    ],
)
def test_a_case_says_how_to_ask_for_what_it_does_not_have(read, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        read(blank_case())


def test_a_case_has_what_was_asked_for():
    network = torch.nn.Identity()
    assert blank_case(given_network=network).network is network
    masks = torch.ones(2, 4, 4, dtype=torch.bool)
    split = Split(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), masks=masks)
    assert blank_case(data={"test": split}).masks is masks


# Facts that stand on the plug-in


def test_fills_and_regularisers_say_what_they_are():
    assert fact(channel_mean, "is_flat")
    assert fact(constant, "is_flat")
    assert not fact(blur, "is_flat")
    told = {
        name: (fact(getattr(regularize, name), "cost"), fact(getattr(regularize, name), "estimates_hessian"))
        for name in ("gradient_norm", "score_matching", "anti_score_matching")
    }
    assert told == {"gradient_norm": (6, False), "score_matching": (10, True), "anti_score_matching": (3, True)}


def test_a_user_may_say_a_fact_by_decorator_or_attribute_and_no_other():
    def grey(images, removed):
        return torch.full_like(images, 0.5)

    assert not fact(grey, "is_flat")
    grey.is_flat = True
    assert fact(grey, "is_flat")
    marked = states(cost=2.0)(lambda *_: None)
    assert fact(marked, "cost") == 2.0
    with pytest.raises(TypeError, match="is_plain"):
        states(is_plain=True)


def test_metrics_that_say_little_alone_name_what_to_read_beside_them():
    beside = {name for name in names() if metric(name).read_with}
    assert beside == {"diffroar", "leakage", "signal_rank"}
    assert {metric(name).read_with for name in beside} == {("robust_accuracy",)}


def test_what_to_read_beside_a_metric_is_found_by_the_metric_and_not_by_its_name():
    beside = MetricEntry(name="leakage")
    (said,) = unaccompanied([beside, MetricEntry(name="robust_accuracy", metric="morf")])
    assert said.startswith("Read leakage together with the network's clean and robust accuracy")
    assert list(unaccompanied([beside, MetricEntry(name="attacked", metric="robust_accuracy")])) == []


def test_opposites_are_found_by_the_metric_and_its_settings():
    mine, other = MetricEntry(name="mine", metric="morf"), MetricEntry(name="other", metric="lerf")
    assert mine.opposes(other)
    assert other.opposes(mine)
    assert not mine.opposes(MetricEntry(name="lerf", metric="morf"))
    assert not mine.opposes(MetricEntry(name="other", metric="lerf", kwargs={"imputer": "blur"}))
    assert not MetricEntry(name="lerf", metric="road").opposes(mine)


def test_values_in_percent_are_those_of_relative_change():
    told = {(name, value) for name in names() for value in metric(name).direction if "relative_change" in value}
    assert told == {(name, value) for name in names() for value in metric(name).value_units}


def test_shares_and_accuracies_state_their_range_and_values_without_one_do_not():
    known = {(name, value): ends for name in names() for value, ends in metric(name).ranges.items()}
    for name in names():
        for value in metric(name).direction:
            if value.startswith(("accuracy", "probability", "share")):
                low, high = known[name, value]
                assert (low, high) in ((0.0, 1.0), (-1.0, 1.0), (-0.5, 0.5), (-2.0, 2.0)), (name, value)
            elif value in ("logit_ratio", "relative_change", "infidelity", "distance"):
                assert (name, value) not in known
    assert check_metric("metrics.mine", made(Whole(), ranges={"value": (0.0, 2.5)}), [POINT, POINT]) == []


def test_every_family_of_ours_has_its_place_on_the_page():
    assert {metric(name).family for name in names()} <= set(FAMILIES)


def test_post_is_applied_in_its_order():
    maps = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(apply_post(maps, (absolute, channel_sum)), maps.abs().sum(1))
    assert torch.equal(apply_post(maps, (channel_sum, absolute)), maps.sum(1).abs())
    assert apply_post(maps, ()) is maps


def test_needs_of_an_erasing_probe_follow_its_erasure():
    assert POINT.perturb("most_first").needs == Needs(blocks=True)
    assert POINT.clean().needs == Needs(maps=False, blocks=True)
    assert POINT.retrain("random").needs == Needs(maps=False, network=False)
    assert isinstance(POINT.clean(), Perturb)


@dataclasses.dataclass(frozen=True)
class Forgetful(Whole):
    """Its identity leaves out `power`, and `note`, which may be left out."""

    power: float = 2.0
    note: str = dataclasses.field(default="", compare=False)

    def identity(self):
        return {"probe": "forgetful"}


def test_a_field_that_the_identity_leaves_out_is_told():
    (told,) = check_probe("metrics.mine", Forgetful())
    assert told.startswith("metrics.mine: the probe Forgetful has an 'identity' that leaves out the field 'power'")
