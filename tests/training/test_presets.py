"""Presets of `fit`: rules of the short recipe, and a preset and its written-out form are one training."""

import math

import pytest
import torch
import yaml

from efface.stages.run.curves import planned_run
from efface.stages.run.runs import runs_of
from efface.stages.trial.presets import presets_said, resolved
from efface.study.study import check, dump, read
from efface.study.yaml_file import InvalidStudyError
from efface.training import presets
from efface.training.settings import TrainingSettings
from small.messages import words
from small.studies import STUDY, efface, write_study
from test_fit import linear, train

ONE_CYCLE = "torch.optim.lr_scheduler.OneCycleLR"
FIT = STUDY["fit"]


@pytest.fixture(params=[False, True], ids=["fp32", "bf16"])
def fast(request, monkeypatch):
    """Whether the processor computes in bf16."""
    monkeypatch.setattr(presets, "computes_in_bf16", lambda: request.param)
    return request.param


@pytest.fixture
def slow(monkeypatch):
    monkeypatch.setattr(presets, "computes_in_bf16", lambda: False)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def study_of(folder, **changes):
    return read(write_study(folder, **changes))


def keys(study):
    """The keys of the network and of every result of each run."""
    runs = [planned_run(run) for run in runs_of(study)]
    return [(one.run.first.path.name, [task.key for task in one.plan.tasks]) for one in runs]


@pytest.mark.parametrize(("epochs", "left"), [(1, 1), (2, 1), (5, 2), (10, 4), (50, 20)])
def test_short_takes_two_fifths_of_the_epochs_rounded_up(epochs, left):
    assert presets.short({"epochs": epochs})["epochs"] == left
    assert presets.short({"epochs": epochs}, share=1.0)["epochs"] == epochs


def test_short_without_a_recipe_is_that_of_ten_epochs_of_the_default_optimizer(fast):
    alone, usual = TrainingSettings(preset="short"), TrainingSettings(epochs=10)
    assert alone.epochs == 4
    assert alone.schedule.kwargs == {"max_lr": 10 * usual.optimizer.kwargs["lr"]}
    assert alone.precision == ("bf16" if fast else "fp32")
    unchanged = {name for name, value in alone.resolved().items() if value == getattr(usual, name)}
    assert {*TrainingSettings.model_fields} - unchanged <= {
        "preset",
        "epochs",
        "schedule",
        "schedule_each",
        "precision",
    }


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [
        ({"call": "torch.optim.SGD", "kwargs": {"lr": 0.1, "momentum": 0.9}}, 1.0),
        ({"call": "torch.optim.SGD", "kwargs": {"lr": 0.1}}, 1.0),
        ("torch.optim.AdamW", 0.01),
        ({"call": "torch.optim.Adagrad", "kwargs": {"lr": 0.01}}, 0.1),
    ],
)
def test_the_learning_rate_rises_to_ten_times_the_optimizers_and_falls_to_nearly_0(optimizer, rate, slow):
    choices = TrainingSettings(preset="short", epochs=5, optimizer=optimizer)
    made = choices.optimizer([torch.nn.Parameter(torch.zeros(1))])
    schedule, rates = choices.schedule(made, total_steps=100), []
    for _ in range(100):
        rates.append(made.param_groups[0]["lr"])
        made.step()
        schedule.step() if len(rates) < 100 else None
    assert max(rates) == pytest.approx(rate)
    assert rates.index(max(rates)) == 29
    assert rates[0] == pytest.approx(rate / 25)
    assert rates[-1] < rate / 1e4


def test_the_maximum_of_a_recipe_with_a_one_cycle_of_its_own_stays():
    own = {"call": ONE_CYCLE, "kwargs": {"max_lr": 0.3, "pct_start": 0.1}}
    assert presets.short({"schedule": own})["schedule"] == own


def test_regularizers_keep_fp32(monkeypatch):
    monkeypatch.setattr(presets, "computes_in_bf16", lambda: True)
    terms = [{"call": "gradient_norm", "weight": 0.1}]
    assert TrainingSettings(preset="short", regularizers=terms).precision == "fp32"


def test_keys_beside_the_preset_win(slow):
    own = {"epochs": 7, "schedule": None, "precision": "bf16", "batch_size": 8}
    made = TrainingSettings(preset="short", **own)
    assert {name: getattr(made, name) for name in own} == own
    assert made.schedule_each == "step"


def test_a_preset_trains_as_its_written_out_form():
    short = TrainingSettings(preset="short", epochs=2, precision="fp32", batch_size=16)
    written = TrainingSettings(**short.resolved())
    assert short.identity() == written.identity()
    one, other = train(linear, short), train(linear, written)
    assert one.losses == other.losses
    assert all(torch.equal(a, b) for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True))


def test_a_preset_and_its_written_out_form_are_the_same_cells(folder, fast):
    asked = study_of(folder, fit={"preset": "short", "batch_size": 16})
    stored = yaml.safe_load(dump(asked))
    assert "preset" not in stored["fit"]
    assert stored["fit"]["epochs"] == 4
    assert stored["fit"]["schedule"]["call"] == ONE_CYCLE
    assert keys(asked) == keys(check(stored, folder / "stored.yml"))
    assert keys(asked) != keys(study_of(folder, fit={"epochs": 4, "batch_size": 16}))


def test_a_null_beside_the_preset_is_kept_in_the_stored_study(folder, slow):
    asked = study_of(folder, fit={"preset": "short", "schedule": None})
    again = check(yaml.safe_load(dump(asked)), folder / "stored.yml")
    assert again.fit.schedule is None
    assert again.fit.identity() == asked.fit.identity()


def of_variants(study):
    return {name: part for name, (part, *_) in study.parts().items()}


def test_a_variant_shortens_the_recipe_of_the_study_and_its_other_keys_win(folder, slow):
    fit = FIT | {"epochs": 10}
    variants = {
        "full": {},
        "short": {"fit.preset": "short"},
        "own": {"fit.preset": "short", "fit.epochs": 3, "fit.optimizer.kwargs.lr": 0.5},
        "retrained": {"refit.preset": "short"},
        "less": {"refit.preset": {"call": "short", "kwargs": {"share": 0.2}}, "refit.batch_size": 8},
    }
    parts = of_variants(study_of(folder, fit=fit, variants=variants))
    assert parts["full"].fit == TrainingSettings(**fit)
    assert parts["short"].fit.identity() == TrainingSettings(preset="short", **fit | {"epochs": 4}).identity()
    assert (parts["own"].fit.epochs, parts["own"].fit.schedule.kwargs) == (3, {"max_lr": 5.0})
    assert parts["retrained"].fit == parts["full"].fit
    assert parts["retrained"].refit.identity() == parts["short"].fit.identity()
    assert (parts["less"].refit.epochs, parts["less"].refit.batch_size) == (2, 8)
    assert parts["less"].refit.crop == fit["crop"]


def test_keys_that_a_variant_changes_reach_what_the_preset_fills_in(folder, slow):
    study = study_of(folder, fit={"preset": "short"}, variants={"fast": {"fit.optimizer.kwargs.lr": 0.5}, "usual": {}})
    rates = {name: part.fit.schedule.kwargs["max_lr"] for name, part in of_variants(study).items()}
    assert rates == {"fast": 5.0, "usual": 0.01}


def test_the_command_line_shortens_the_recipe_of_the_file_and_its_other_keys_win(folder, slow):
    path = write_study(folder, fit=FIT | {"epochs": 10})
    assert read(path, ["fit.preset=short"]).fit.epochs == 4
    for words_given in (["fit.epochs=3", "fit.preset=short"], ["fit.preset=short", "fit.epochs=3"]):
        assert read(path, words_given).fit.epochs == 3
    assert read(path, ["refit.preset=short"]).refit.epochs == 4
    assert read(path, ["refit.preset=short"]).fit.epochs == 10
    assert read(path, ["fit.preset={call: short, kwargs: {share: 0.7}}"]).fit.epochs == 7


def test_the_second_network_and_refit_start_from_fit_without_attack_and_regularizers(folder, slow):
    fit = FIT | {"epochs": 10, "attack": {"call": "pgd", "kwargs": {"norm": "l2", "eps": 0.1}}}
    second = {"model": "net.network", "fit": {"preset": "short"}}
    study = study_of(folder, fit=fit, refit={"preset": "short"}, second_network=second)
    for made in (study.refit, study.second_network.fit):
        assert (made.epochs, made.crop, made.attack) == (4, FIT["crop"], None)
        assert math.isclose(made.schedule.kwargs["max_lr"], 10 * FIT["optimizer"]["kwargs"]["lr"])


def test_the_metrics_of_a_command_keep_the_preset(folder, slow):
    study = study_of(folder, fit=FIT | {"epochs": 10}, refit={"preset": "short"})
    assert study.with_metrics(["roar"]).refit == study.refit


OWN = """
import torch


def longer(recipe, *, factor: int = 2):
    return {"epochs": factor * recipe["epochs"]}


def wrong(recipe):
    return {"epoch": 3}


def listed(recipe):
    return [3]


def failing(recipe):
    return {"epochs": recipe["none"]}


def unrated(params):
    return torch.optim.Adam(params)
"""


def test_a_function_of_ones_own_is_a_preset(folder):
    study = {"fit": {"epochs": 3}, "variants": {"long": {"fit.preset": "my_presets.longer"}}}
    path = write_study(folder, {"my_presets": OWN}, **study)
    assert of_variants(read(path))["long"].fit.epochs == 6


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        ({"preset": "shrt"}, "fit.preset: 'shrt' there are short dotted path"),
        ({"preset": 3}, "fit.preset found 3"),
        ({"preset": ["short"]}, "fit.preset"),
        ({"preset": {"call": "short", "kwargs": {"share": 0.0}}}, "fit.preset: short share 0.0 above 0"),
        ({"preset": {"call": "short", "kwargs": {"shard": 0.5}}}, "fit.preset: shard did you mean share"),
        ({"preset": "short", "epoch": 3}, "fit.epoch: unknown key epochs"),
        ({"preset": "short", "optimizer": "torch.optim.Addam"}, "fit.optimizer Addam adam"),
        (
            {"preset": "short", "optimizer": {"call": "torch.optim.Adam", "kwargs": {"lr": "high"}}},
            "fit.optimizer lr high",
        ),
        (
            {"preset": "short", "optimizer": {"call": "my_presets.unrated"}},
            "fit: preset: short optimizer.kwargs.lr number",
        ),
        ({"preset": "my_presets.wrong"}, "fit: preset: my_presets.wrong returns 'epoch' expected epochs"),
        ({"preset": "my_presets.listed"}, "fit: preset: my_presets.listed returns a list"),
        ({"preset": "my_presets.failing"}, "fit: preset: my_presets.failing fails KeyError none"),
    ],
)
def test_a_wrong_preset_is_one_clear_error(folder, fit, message):
    for study in ({"fit": fit}, {"variants": {"one": {f"fit.{name}": value for name, value in fit.items()}}}):
        if "variants" in study and "epoch" in fit:
            continue
        path = write_study(folder, {"my_presets": OWN}, **study)
        with pytest.raises(InvalidStudyError, match=words(message)) as found:
            read(path)
        assert len(str(found.value).splitlines()) == 1, found.value


RETRAINED = {"fit": FIT | {"epochs": 10}, "refit": {"preset": "short", "precision": "fp32"}}
SAID = (
    "refit: preset short: epochs 4, batch_size 16, optimizer torch.optim.Adam(lr=0.01), "
    "schedule torch.optim.lr_scheduler.OneCycleLR(max_lr=0.1), schedule_each step, crop 1, precision fp32"
)


def test_a_preset_is_said_with_what_it_resolved_to(folder):
    study = study_of(folder, **RETRAINED)
    assert [*presets_said(study)] == [SAID]
    assert resolved(study)["refit"]["epochs"] == 4


@pytest.mark.long
def test_check_says_what_the_presets_resolved_to(tmp_path):
    write_study(tmp_path, **RETRAINED)
    done = efface(tmp_path, "check", "study.yml")
    assert done.code == 0, done.err
    assert SAID in done.out
