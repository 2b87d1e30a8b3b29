"""What a method learnt, kept and read again; a class that learns, through the stages."""

import functools

import numpy as np
import pytest
import torch

from efface.base import draws
from efface.methods.path.background import ExpectedGradients
from efface.methods.smooth import smooth_grad
from efface.plug.accepts import accepts
from efface.plug.call import Call
from efface.plug.learning import LearningMethod, is_learning
from efface.plug.source import source_digest
from efface.stages.run.map_files import learnt_path, learnt_seed
from efface.stages.run.run import Run
from efface.stages.work.learning import learnt_on_trial
from efface.store.keys import NUMERICS, key
from efface.store.tensors import cached_tensors, learnt_digest, read_learnt, write_learnt
from efface.study.study import read
from small.messages import names, words
from small.studies import STUDY, efface, files, write_study

TENSORS = {
    "images": torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2),
    "moments": torch.linspace(0, 1, 7, dtype=torch.float64),
    "count": torch.tensor(5),
    "none": torch.zeros(0, 3),
}

LEARNER = """
import torch

from efface.store.arrays import read_rows as take


class Background:
    \"\"\"The distance from the mean of some training images, weighed by the answer of the network.\"\"\"

    def __init__(self, *, images: int = 8, gain: float = 1.0):
        if images < 1:
            raise ValueError(f"images is {images}; expected at least 1")
        self.images, self.gain, self.learnt = images, gain, {}

    def learnt_from(self):
        return {"fit": "background", "images": self.images}

    def fit(self, model, data, *, seed, max_batch):
        generator = torch.Generator().manual_seed(seed)
        chosen = data.training[torch.randperm(len(data.training), generator=generator)[: self.images]]
        images = take(data.images, chosen).float().div(255)
        for part in images.split(max_batch):
            model(part)
        print("LEARNING", self.images, len(data))
        self.learnt = {"mean": images.mean(0)}

    def __call__(self, model, images, targets, *, max_batch=256):
        if not self.learnt:
            raise ValueError("not fitted: call fit first")
        return self.gain * (images - self.learnt["mean"].to(images)) * model(images).detach()[:, :1, None, None]
"""


def learners(**more):
    entries = [
        {"name": "one", "method": "learner.Background"},
        {"name": "two", "method": "learner.Background", "kwargs": {"gain": 2.0}},
        {"name": "few", "method": "learner.Background", "kwargs": {"images": 3}},
    ]
    return {"attribution_methods": STUDY["attribution_methods"][:1] + entries, "metrics": ["morf", "roar"]} | more


@pytest.mark.parametrize("changed", [None, "images", "moments", "count"])
def test_learnt_tensors_come_back_bit_for_bit_or_not_at_all(tmp_path, changed):
    path = tmp_path / "deep" / "x.h5"
    write_learnt(path, TENSORS)
    found = read_learnt(path)
    assert list(found) == list(TENSORS)
    for name, each in TENSORS.items():
        assert found[name].dtype == each.dtype
        assert torch.equal(found[name], each)
    if changed:
        other = TENSORS | {changed: TENSORS[changed] + 1}
        write_learnt(tmp_path / "y.h5", other)
        assert learnt_digest(tmp_path / "y.h5") != learnt_digest(path)
        raw = bytearray(path.read_bytes())
        at = raw.find(np.atleast_1d(TENSORS[changed].numpy()).tobytes())
        raw[at] ^= 1
        path.write_bytes(raw)
        with pytest.raises(ValueError, match=words("x.h5 damaged delete")):
            read_learnt(path)


@pytest.mark.long
def test_a_class_learns_once_for_all_entries_that_learn_alike_and_is_not_asked_again(tmp_path):
    write_study(tmp_path, {"learner": LEARNER}, **learners())
    result = efface(tmp_path, "all", "study.yml")
    assert result.code == 0, result.err
    # A trial on the first 48 rows before the training, then each fit once: `two` shares what `one` learnt.
    assert result.out.count("LEARNING 8 48") == 1 + 1, "tried for both entries at once, then taught for both"
    assert result.out.count("LEARNING 3 48") == 1 + 1
    assert "2 of 2 methods learnt in" in result.out
    assert len(list((tmp_path / "run" / "learnt").glob("background-*.h5"))) == 2
    before = files(tmp_path / "run")
    again = efface(tmp_path, "all", "study.yml")
    assert again.code == 0
    assert "LEARNING" not in again.out
    after = files(tmp_path / "run")
    locks = dict.fromkeys((".lock", ".report-lock", ".owner"))
    assert after | locks == before | locks
    # Lost, it is learnt again, and the maps made from it are still good.
    for path in (tmp_path / "run" / "learnt").iterdir():
        path.unlink()
    lost = efface(tmp_path, "all", "study.yml")
    assert "2 of 2 methods learnt" in lost.out
    assert "extracted" not in lost.out
    assert "probes to run" not in lost.out


@pytest.mark.long
def test_other_settings_of_the_fit_make_other_maps(tmp_path):
    write_study(tmp_path, {"learner": LEARNER}, **learners(metrics=["morf"], fractions=[0.5]))
    assert efface(tmp_path, "all", "study.yml").code == 0
    result = efface(tmp_path, "all", "study.yml", "attribution_methods.few.kwargs.images=4")
    assert "1 of 1 methods learnt" in result.out
    assert "extracted 2 of 2" in result.out or "extracted 1 of 1" in result.out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("attribution_methods.few.kwargs.images=0", "attribution_methods.few images 0"),
        ("attribution_methods.few.kwargs.image=3", "learner.Background image images"),
        ("data=learner.no_training", "learner.Background training learner.no_training"),
    ],
)
def test_what_is_wrong_with_a_class_is_said_at_once(tmp_path, change, said):
    more = """

def no_training():
    from efface.data.patches import patches
    return {"test": patches(n_train=48, n_test=24, size=16)["test"]}
"""
    write_study(tmp_path, {"learner": LEARNER + more}, fit=None, **learners(metrics=["morf"]))
    result = efface(tmp_path, "check", "study.yml", change)
    assert result.code != 0
    assert names(result.err, said)
    assert "Traceback" not in result.err


@pytest.mark.long
def test_a_fit_that_fails_stops_its_own_method_alone(tmp_path):
    broken = LEARNER.replace(
        'print("LEARNING", self.images, len(data))',
        'assert self.images < 8 or not __import__("os").path.exists("run/models"), "no"',
    )
    write_study(tmp_path, {"learner": broken}, **learners(metrics=["morf"], fractions=[0.5]))
    result = efface(tmp_path, "all", "study.yml")
    assert result.code == 1
    assert names(result.err, "one learning AssertionError two")
    maps = {path.name for path in (tmp_path / "run" / "maps").glob("*.h5")}
    assert "few-test.h5" in maps
    assert "random-test.h5" in maps
    assert "one-test.h5" not in maps


# One key, one set of tensors


def sharing(*, turned):
    """Three classes of one fit, which draws images and places; and the other order."""
    few = {"pool": 12, "places": 4}
    entries = [
        {"name": name, "method": f"efface.methods.pattern.{method}", "kwargs": few}
        for name, method in (("attribution", "PatternAttribution"), ("guided", "PatternGuided"), ("net", "PatternNet"))
    ]
    return {"attribution_methods": entries[::-1] if turned else entries, "metrics": ["morf"], "fractions": [0.5]}


@pytest.mark.long
def test_methods_that_learn_the_same_learn_it_in_any_order(tmp_path):
    found = []
    for turned in (False, True):
        folder = tmp_path / str(turned)
        folder.mkdir()
        write_study(folder, **sharing(turned=turned))
        result = efface(folder, "extract", "study.yml")
        assert result.code == 0, result.err
        assert "1 of 1 methods learnt" in result.out
        kept = {**files(folder / "run" / "learnt"), **files(folder / "run" / "maps")}
        found.append({name: digest for name, (_, digest) in kept.items()})
    assert len(found[0]) == 1 + 3
    assert found[0] == found[1]


def test_on_trial_methods_that_learn_the_same_learn_the_same(tmp_path):
    model = {"call": "efface.models.resnet.resnet8", "kwargs": {"num_classes": 4}}
    run = Run(read(write_study(tmp_path, **sharing(turned=False), model=model)))
    network = run.first.to_try()
    one, *others = (learnt_on_trial(run, entry, network) for entry in run.entries)
    for other in others:
        assert list(other) == list(one)
        assert all(torch.equal(other[name], each) for name, each in one.items())


def test_a_fit_draws_the_same_by_whatever_it_draws(tmp_path, monkeypatch):
    """Older code draws from the generators of NumPy, Python or torch itself."""
    drawn = "torch.tensor([numpy.random.rand(), random.random(), torch.rand(()).item(), seed % 1000])"
    draws_so = "import random\n\nimport numpy\n" + LEARNER.replace("images.mean(0)}", f"{drawn}}}")
    (tmp_path / "drawing_learner.py").write_text(draws_so)
    monkeypatch.syspath_prepend(tmp_path)
    model = {"call": "efface.models.resnet.resnet8", "kwargs": {"num_classes": 4}}
    entry = {"name": "one", "method": "drawing_learner.Background"}
    run = Run(read(write_study(tmp_path, attribution_methods=[entry], metrics=["morf"], model=model)))
    network = run.first.to_try()
    first, second = (learnt_on_trial(run, *run.entries, network)["mean"] for _ in range(2))
    assert torch.equal(first, second)
    assert len(first.unique()) == 4


def test_what_a_fit_leaves_on_the_network_is_taken_off(tmp_path, monkeypatch):
    leaves = LEARNER.replace(
        'self.learnt = {"mean"',
        'model.train().register_forward_hook(lambda *given: given[-1] * 2)\n        self.learnt = {"mean"',
    )
    (tmp_path / "leaving_learner.py").write_text(leaves)
    monkeypatch.syspath_prepend(tmp_path)
    model = {"call": "efface.models.resnet.resnet8", "kwargs": {"num_classes": 4}}
    entry = {"name": "one", "method": "leaving_learner.Background"}
    run = Run(read(write_study(tmp_path, attribution_methods=[entry], metrics=["morf"], model=model)))
    network, images = run.first.to_try(), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        before = network.eval()(images)
        learnt_on_trial(run, *run.entries, network)
        torch.testing.assert_close(network(images), before)
    assert not any(each.training for each in network.modules())


def test_a_class_that_does_not_say_what_it_learns_from_keeps_its_key_and_its_draws(tmp_path, monkeypatch):
    """The key is as it always was; where a file is named, its bytes are in it."""
    silent = LEARNER.replace("def learnt_from", "def unread").replace("gain: float", "weights: str = '', gain: float")
    (tmp_path / "silent_learner.py").write_text(silent)
    monkeypatch.syspath_prepend(tmp_path)
    model = {"call": "efface.models.resnet.resnet8", "kwargs": {"num_classes": 4}}

    def run_of(**kwargs):
        entry = {"name": "one", "method": "silent_learner.Background", "kwargs": kwargs}
        return Run(read(write_study(tmp_path, attribution_methods=[entry], metrics=["morf"], model=model)))

    run = run_of(images=3)
    (entry,) = run.entries
    what = {
        "from": {"call": "silent_learner.Background", "kwargs": {"images": 3}},
        "code": {"source": [source_digest("silent_learner")]}
        | (
            {"numerics": {name: version for name, version in NUMERICS.items() if version != 1}}
            if "efface" in silent
            else {}
        ),
        "versions": dict.fromkeys(("draws", "store", "explain", "evaluate"), 1),
        "data": run.data_digest["train"],
        "network": run.first.digest,
        "seed": 0,
    }
    assert learnt_path(run, entry).name == f"Background-{key(what)}.h5"
    assert learnt_seed(run, entry) == draws.seed_of("0 learn silent_learner.Background")
    weights, paths = tmp_path / "weights.pt", []
    for content in (b"a", b"b"):
        weights.write_bytes(content)
        run = run_of(weights=str(weights))
        paths.append(learnt_path(run, *run.entries))
    assert paths[0] != paths[1]


WRONG = {
    "wrong": """
import torch


class Mean:
    def __init__(self):
        self.learnt = {}

    def fit(self, model, data, *, seed, max_batch):
        self.learnt = {"mean": torch.zeros(3, 1, 1)}

    def __call__(self, model, images, targets):
        return images - self.learnt["mean"]


class NoRows(Mean):
    def fit(self, model, data, *, seed):
        super().fit(model, data, seed=seed, max_batch=1)


class AsksMore(Mean):
    def fit(self, model, data, labels, *, seed, max_batch):
        super().fit(model, data, seed=seed, max_batch=max_batch)


class Misspelt:
    def __init__(self):
        self.learned = {}

    def fit(self, model, data, *, seed, max_batch):
        self.learned = {"mean": torch.zeros(3, 1, 1)}

    def __call__(self, model, images, targets):
        return images


class LaterMisspelt(Misspelt):
    def __init__(self):
        pass


class Fits:
    def __init__(self):
        self.learnt = {}

    def fits(self, model, data, *, seed, max_batch):
        self.learnt = {"mean": torch.zeros(3, 1, 1)}

    def __call__(self, model, images, targets):
        return images


class Flag(Mean):
    fit = True


class Unsaid(Mean):
    def fit(self, model, data, *, seed, max_batch):
        return {"mean": torch.zeros(3, 1, 1)}


class Arrays(Mean):
    def fit(self, model, data, *, seed, max_batch):
        self.learnt = {"mean": torch.zeros(3, 1, 1).numpy()}


class LearnedFrom(Mean):
    def learned_from(self):
        return {"fit": "mean"}


class FromTensors(Mean):
    def learnt_from(self):
        return {"fit": torch.zeros(3)}


class FromAList(Mean):
    def learnt_from(self):
        return ["mean"]
"""
}


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (
            "NoRows",
            "wrong.NoRows.fit cannot be called with (model, data, seed=..., max_batch=...): got an unexpected keyword ",
        ),
        (
            "AsksMore",
            "wrong.AsksMore.fit cannot be called with (model, data, seed=..., max_batch=...): missing a required ",
        ),
        (
            "Misspelt",
            "wrong.Misspelt has a fit, but no attribute 'learnt' for fit to fill with tensors by name (it has ",
        ),
        ("Fits", "wrong.Fits has 'learnt', but no fit, so it would learn nothing; expected fit(self, model, data, *, "),
        ("Flag", "wrong.Flag.fit is a bool; expected fit(self, model, data, *, seed, max_batch)"),
        ("LearnedFrom", "wrong.LearnedFrom has 'learned_from', which nothing reads; did you mean learnt_from?"),
        ("FromTensors", "wrong.FromTensors has a 'learnt_from' that fails: TypeError: Object of type Tensor is not "),
        ("FromAList", "wrong.FromAList has a 'learnt_from' that returns a list; expected a dict that JSON can write"),
    ],
)
def test_the_part_of_a_learning_method_that_is_wrong_is_named_before_any_work(tmp_path, monkeypatch, kind, why):
    monkeypatch.syspath_prepend(tmp_path)
    file = write_study(tmp_path, WRONG, attribution_methods=[{"name": "it", "method": f"wrong.{kind}"}])
    with pytest.raises(ValueError, match="wrong") as error:
        read(file)
    assert f"attribution_methods.it: {why}" in str(error.value)
    assert "max_batch)" in str(error.value) or kind == "Misspelt" or "learnt_from" in why
    within = {"method": "efface.methods.smooth.smooth_grad", "kwargs": {"base": f"wrong.{kind}"}}
    with pytest.raises(ValueError, match="wrong") as error:
        read(write_study(tmp_path, WRONG, attribution_methods=[{"name": "it", **within}]))
    assert f"base: {why}" in str(error.value)


def test_what_fit_leaves_under_another_name_is_named_by_check(tmp_path):
    write_study(tmp_path, WRONG, attribution_methods=[{"name": "it", "method": "wrong.LaterMisspelt"}])
    found = efface(tmp_path, "check", "study.yml")
    said = "attribution_methods.it: wrong.LaterMisspelt.fit left no dict of tensors in its attribute 'learnt', found "
    assert found.code != 0
    assert f"{said}nothing; set it there (it has 'learned': is that meant?)" in found.out + found.err


@pytest.mark.parametrize(("kind", "left"), [("Unsaid", "an empty dict"), ("Arrays", "a ndarray under 'mean'")])
def test_what_fit_leaves_in_place_of_tensors_is_named_by_check(tmp_path, kind, left):
    write_study(tmp_path, WRONG, attribution_methods=[{"name": "it", "method": f"wrong.{kind}"}])
    found = efface(tmp_path, "check", "study.yml")
    assert found.code != 0
    assert f"attribution_methods.it: wrong.{kind}.fit left no dict of tensors in its attribute 'learnt', " in found.err
    assert f"found {left}; set it there" in found.err
    assert "Traceback" not in found.err


def test_what_learns_is_recognised_in_one_way():
    kind = ExpectedGradients
    path = f"{kind.__module__}.{kind.__qualname__}"
    for each in (kind, kind(), functools.partial(kind, samples=2), Call(call=path)):
        assert is_learning(each)
    assert isinstance(kind(), LearningMethod)
    for each in (
        smooth_grad,
        functools.partial(smooth_grad, base=kind),
        Call(call="efface.methods.smooth.smooth_grad"),
    ):
        assert not is_learning(each)


def test_what_a_callable_accepts_is_asked_in_one_way():
    def one(model, *, seeds, max_batch=3):
        return model

    assert [accepts(one, name) for name in ("seeds", "max_batch", "masks")] == [True, True, False]
    assert [accepts(one, name, needed=True) for name in ("seeds", "max_batch")] == [True, False]
    call = Call(call="efface.methods.control.random", kwargs={"per_channel": True})
    assert [accepts(call, name) for name in ("seeds", "per_channel", "max_batch")] == [True, False, False]
    assert call.wants("seeds", needed=True) is accepts(call, "seeds", needed=True) is True
    assert not accepts(dict.fromkeys, "seeds")  # no signature, or none of that name


INHERITED = """
import torch


class Mean:
    def __init__(self):
        self.learnt = {}

    def learnt_from(self):
        return {"fit": "image"}

    def fit(self, model, data, *, seed, max_batch):
        self.learnt = {"image": torch.as_tensor(data.images[:]).float().mean(0)}

    def __call__(self, model, images, targets):
        return (images - self.learnt["image"].to(images) / 255).mean(1)


class Maximum(Mean):
    def fit(self, model, data, *, seed, max_batch):
        self.learnt = {"image": torch.as_tensor(data.images[:]).float().amax(0)}
"""


def test_classes_with_a_fit_of_their_own_learn_for_themselves(tmp_path):
    methods = [{"name": name, "method": f"inherited.{kind}"} for name, kind in (("a", "Mean"), ("b", "Maximum"))]
    write_study(tmp_path, {"inherited": INHERITED}, attribution_methods=methods, metrics=["morf"])
    result = efface(tmp_path, "extract", "study.yml")
    assert result.code == 0, result.err
    assert "2 of 2 methods learnt" in result.out
    assert len([*(tmp_path / "run" / "learnt").glob("*.h5")]) == 2


def test_tensors_are_computed_once_also_in_folders_that_do_not_exist_yet(tmp_path):
    path, calls = tmp_path / "runs" / "of today" / "shared.pt", []
    for _ in range(2):
        found = cached_tensors(path, lambda: calls.append(1) or {"x": torch.arange(3.0)})
        assert torch.equal(found["x"], torch.arange(3.0))
    assert calls == [1]
