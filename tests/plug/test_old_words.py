"""The words of efface 0.1: they work for one release, are noted once, and seed the same random numbers."""

import inspect
import json
import multiprocessing
import sys

import pytest
import torch
import yaml
from torch import nn

import efface.base.types
import efface.execute
from efface.base.types import Split
from efface.methods.calling import MethodCall, attribute
from efface.methods.contrast import contrast
from efface.methods.nested import teach
from efface.plug import moved
from efface.plug.accepts import accepts, offer
from efface.plug.call import Call
from efface.study.metric_entry import MetricEntry
from efface.study.schema import MethodEntry
from efface.study.study import InvalidStudyError, read

STUDY = {
    "out": "runs/test",
    "data": "efface.data.digits.digits",
    "model": {"call": "efface.models.resnet.resnet8", "kwargs": {"num_classes": 10, "in_channels": 1}},
    "fit": {"epochs": 2, "optimizer": "torch.optim.Adam"},
    "attribution_methods": [
        {"name": "loss", "method": "efface.methods.gradient.gradient", "kwargs": {"of": "loss"}},
        {"name": "second", "method": "efface.methods.gradient.gradient", "network": "judge"},
    ],
    "metrics": ["morf", {"name": "completeness", "kwargs": {"of": "probability"}}],
    "rows": 32,
    "judge": {"model": {"call": "efface.models.resnet.resnet8", "kwargs": {"num_classes": 10, "in_channels": 1}}},
}


@pytest.fixture(autouse=True)
def unnoted():
    moved.note.cache_clear()
    yield
    moved.note.cache_clear()


def study_in_old_words(folder, changes=None, overrides=()):
    (folder / "study.yml").write_text(yaml.safe_dump(STUDY | (changes or {})))
    return read(folder / "study.yml", overrides)


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()


def notes(capsys):
    return capsys.readouterr().err.splitlines()


def test_a_study_in_old_words_is_read_and_each_is_noted_once(tmp_path, capsys):
    found = study_in_old_words(tmp_path)
    assert found.max_batch == 32
    assert found.second_network.model.call == "efface.models.resnet.resnet8"
    loss, second = found.attribution_methods
    assert loss.call.kwargs == {"score": "loss"}
    assert second.network == "second"
    assert found.metrics[1].kwargs.model_extra == {"score": "probability"}
    said = notes(capsys)
    assert len(said) == len(set(said)) == 5
    for words in ("'rows' is now 'max_batch'", "'judge' is now 'second_network'", "'network: second'"):
        assert sum(words in line for line in said) == 1
    assert sum("'of' is now 'score'" in line for line in said) == 2  # of the gradient, and of the metric
    assert all(line.startswith("note: ") and line.endswith("until efface 0.3") for line in said)
    study_in_old_words(tmp_path)
    assert notes(capsys) == []


def test_words_of_today_are_not_noted(tmp_path, capsys):
    tree = {moved.STUDY_KEYS.get(key, key): value for key, value in STUDY.items()}
    tree |= {"attribution_methods": [{"name": "x", "method": "efface.methods.gradient.gradient"}], "metrics": ["morf"]}
    (tmp_path / "study.yml").write_text(yaml.safe_dump(tree))
    assert read(tmp_path / "study.yml", ("max_batch=7", "second_network.seed=5")).max_batch == 7
    assert notes(capsys) == []


def test_overrides_and_variants_in_old_words(tmp_path):
    changes = {
        "attribution_methods": [{"name": "x", "method": "efface.methods.gradient.gradient"}],
        "variants": {
            "a": {"rows": 8, "judge.seed": 3, "attribution_methods.x.network": "judge"},
            "b": {"attribution_methods": STUDY["attribution_methods"], "metrics": STUDY["metrics"]},
        },
    }
    found = study_in_old_words(tmp_path, changes, ("rows=64", "judge.seed=5", "fit.epochs=1"))
    assert found.max_batch == 64
    assert found.second_network.seed == 5
    parts = found.parts()
    assert (parts["a"][0].max_batch, parts["a"][0].second_network.seed) == (8, 3)
    assert parts["a"][0].attribution_methods[0].network == "second"
    assert parts["b"][0].attribution_methods[0].call.kwargs == {"score": "loss"}
    assert parts["b"][0].attribution_methods[1].network == "second"


def test_an_override_in_old_words_of_a_study_in_those_of_today(tmp_path):
    tree = {moved.STUDY_KEYS.get(key, key): value for key, value in STUDY.items()}
    (tmp_path / "study.yml").write_text(yaml.safe_dump(tree))
    found = read(tmp_path / "study.yml", ("rows=7", "judge.seed=5", "attribution_methods.loss.network=judge"))
    assert (found.max_batch, found.second_network.seed) == (7, 5)
    assert found.attribution_methods[0].network == "second"


def test_both_words_of_one_key_are_an_error(tmp_path):
    with pytest.raises(InvalidStudyError, match=r"rows: unknown key"):
        study_in_old_words(tmp_path, {"max_batch": 3})


def test_draws_come_from_the_words_of_efface_01():
    path = "efface.methods.smooth.smooth_grad"
    old = json.dumps({"call": path, "kwargs": {"of": "loss", "rows": 3, "samples": 2}}, sort_keys=True)
    assert Call(call=path, kwargs={"score": "loss", "max_batch": 3, "samples": 2}).draw_text == old
    assert Call(call=path, kwargs={"of": "loss", "rows": 3, "samples": 2}).draw_text == old
    within = Call(call=path, kwargs={"base": {"call": "efface.methods.gradient.gradient", "kwargs": {"score": "loss"}}})
    assert within.draw_text == (
        '{"call": "efface.methods.smooth.smooth_grad", "kwargs": '
        '{"base": {"call": "efface.methods.gradient.gradient", "kwargs": {"of": "loss"}}}}'
    )


def test_draws_of_a_moved_path_and_of_a_base_that_learns():
    assert Call(call="efface.erase.post.absolute").draw_text == '{"call": "efface.post.absolute", "kwargs": {}}'
    entry = MethodEntry(
        name="x",
        method="efface.methods.smooth.smooth_grad",
        kwargs={"base": {"call": "efface.methods.path.ExpectedGradients", "kwargs": {"score": "loss"}}},
    )
    assert entry.call.call == "efface.methods.nested.FittedInner"
    assert entry.call.draw_text == (
        '{"call": "efface.methods.within.Around", "kwargs": {"method": {"call": "efface.methods.smooth.smooth_grad", '
        '"kwargs": {"base": {"call": "efface.methods.path.ExpectedGradients", "kwargs": {"of": "loss"}}}}}}'
    )


@pytest.mark.parametrize("name", ["score", "of"])
def test_a_setting_of_ones_own_keeps_its_name_and_its_draws(tmp_path, monkeypatch, capsys, name):
    (tmp_path / f"own_{name}.py").write_text(f"def f(model, images, targets, *, {name}='x'):\n    return {name}\n")
    monkeypatch.syspath_prepend(tmp_path)
    call = Call(call=f"own_{name}.f", kwargs={name: "y"})
    assert (call.kwargs, call(0, 0, 0)) == ({name: "y"}, "y")
    assert f'"{name}": "y"' in call.draw_text
    assert notes(capsys) == []
    sys.modules.pop(f"own_{name}")


def old_method(model, images, targets, *, rows, of="logit"):
    return images * (rows if of == "logit" else -rows)


def test_a_method_of_old_keywords_is_offered_them_by_its_own_names(capsys):
    model, images, targets = linear(), torch.rand(2, 3, 2, 2), torch.tensor([0, 2])
    assert accepts(old_method, "max_batch")
    assert accepts(old_method, "score")
    found = offer(old_method, model, images, targets, max_batch=5, score="loss", seeds=targets)
    assert torch.equal(found, -5 * images)
    call = Call(call=f"{__name__}.old_method", kwargs={"of": "loss"})
    call.check(("model", "images", "targets"), ("max_batch", "seeds"))
    assert (call.wants("max_batch"), call.wants("score")) == (True, False)
    maps = attribute(MethodCall("x", call), model, images, targets, seeds=targets, max_batch=7)
    assert torch.equal(maps["x"], -7 * images)
    # It explains logits, so it is called once, with weights of the classes; class by class the sum would be 0.
    assert torch.equal(
        contrast(model, torch.ones(2, 3, 2, 2), targets, base=old_method, max_batch=4), 4 * torch.ones(2, 3, 2, 2)
    )
    said = notes(capsys)
    assert len(said) == len(set(said))
    assert any("'rows' of its signature is now 'max_batch'" in line for line in said)


class Old:
    def __init__(self):
        self.learnt = {}

    def fit(self, model, data, *, seed, rows):
        self.learnt = {"numbers": torch.tensor([seed, rows])}

    def __call__(self, model, images, targets, *, rows=256):
        return images * rows


def test_a_learning_method_of_the_old_signature_learns_and_explains():
    images, targets = torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    learnt = teach("base", Old(), linear(), Split(images, targets), seed=3, max_batch=9)
    assert learnt[".base.numbers"].tolist() == [3, 9]
    call = Call(call=f"{__name__}.Old")
    seeds = targets = targets[:2]
    maps = attribute(MethodCall("x", call), linear(), torch.ones(2, 3, 2, 2), targets, seeds=seeds, max_batch=7)
    assert torch.equal(maps["x"], torch.full((2, 3, 2, 2), 7.0))


def test_old_settings_of_a_metric_and_unknown_ones():
    assert MetricEntry.model_validate({"name": "sensitivity_n", "kwargs": {"of": "loss"}}).formula.subject == "maps"
    with pytest.raises(ValueError, match=r"kwargs\.of: unknown key"):
        MetricEntry.model_validate({"name": "morf", "kwargs": {"of": "loss"}})
    with pytest.raises(ValueError, match="has no setting 'rows'"):
        Call(call="efface.erase.post.absolute", kwargs={"rows": 1}).check(("maps",))


def test_names_that_were_renamed_in_place_warn():
    for module, old, new in (
        (efface.base.types, "Explained", "Target"),
        (efface.base.types, "Of", "TargetScore"),
        (efface.execute, "settle", "set_torch_defaults"),
    ):
        with pytest.warns(FutureWarning, match=rf"{old} is now .*{new}"):
            assert getattr(module, old) == getattr(module, new)
        with pytest.raises(AttributeError, match="nothing"):
            module.nothing  # noqa: B018


@pytest.mark.parametrize("old", moved.NAMES)
@pytest.mark.filterwarnings("ignore:.*has moved to:FutureWarning")
def test_every_old_name_leads_to_what_it_is_now(old):
    home, _, name = moved.NAMES[old].rpartition(".")
    module = __import__(f"efface.{home}", fromlist=[name])
    assert hasattr(module, name)
    assert moved.current(f"efface.{old}") == f"efface.{moved.NAMES[old]}"
    path, _, word = old.rpartition(".")
    if path in moved.MODULES:
        assert getattr(__import__(f"efface.{path}", fromlist=[word]), word) is getattr(module, name)


def test_a_worker_says_nothing(monkeypatch, capsys):
    monkeypatch.setattr(multiprocessing, "parent_process", object)
    assert moved.accepted(inspect.signature(old_method).parameters, "max_batch", "f") == "rows"
    assert notes(capsys) == []
