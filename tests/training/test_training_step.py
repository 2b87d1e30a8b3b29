"""Terms and attacks that a network cannot be trained with are refused before an epoch is spent."""

import pytest
import torch
from torch import nn

from efface.models.small import mlp
from efface.stages.check import check_run
from efface.stages.run.run import Run
from efface.stages.trial.network import try_network
from efface.stages.trial.training_step import has_hessian
from efface.stages.work.training import train_missing
from efface.study.study import check
from efface.training.regularize import Term

SCORE = {"call": "efface.training.regularize.score_matching", "preset": "paper"}
ANTI = {"call": "efface.training.regularize.anti_score_matching", "preset": "paper"}
NORM = {"call": "efface.training.regularize.gradient_norm", "weight": 1e-3}
PGD = {"call": "efface.training.attack.pgd", "kwargs": {"norm": "linf", "eps": 0.1, "steps": 1}}


def dense(bend: str = "Softplus", p: float = 0.0):
    drop = [nn.Dropout(p)] if p else []
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), getattr(nn, bend)(), *drop, nn.Linear(6, 10))


class Once(torch.autograd.Function):
    """Twice the values; its gradient cannot be differentiated again."""

    @staticmethod
    def forward(_, values):
        return 2 * values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(_, slope):
        return 2 * slope


class Doubled(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = dense()

    def forward(self, images):
        return Once.apply(self.body(images).exp()).log()


def doubled(_network, images, _targets):
    return torch.cat([images, images])


def run_of(tmp_path, fit, model=None, **others):
    tree = {
        "out": str(tmp_path / "run"),
        "data": {"call": "efface.data.digits.digits", "kwargs": {"limit": 40, "test_limit": 20}},
        "model": {"call": f"{__name__}.dense", "kwargs": model or {}},
        "fit": {"epochs": 2, "batch_size": 20} | fit,
        "attribution_methods": [{"name": "random", "method": "efface.methods.control.random"}],
        "metrics": ["morf"],
        "executor": "efface.execute.serial",
    }
    return Run(check(tree | others, tmp_path / "study.yml"))


@pytest.mark.parametrize("term", [SCORE, ANTI], ids=["score", "anti"])
def test_dropout_is_refused_before_the_first_epoch(tmp_path, term):
    run = run_of(tmp_path, {"regularizers": [NORM, term]}, {"p": 0.5})
    with pytest.raises(ValueError, match=r"^fit:.*score_matching.*dropout"):
        try_network(run)
    assert not run.first.path.exists()


def test_refit_and_judge_are_tried_too(tmp_path):
    drop, fit = {"call": f"{__name__}.dense", "kwargs": {"p": 0.5}}, {"epochs": 1, "regularizers": [SCORE]}
    with pytest.raises(ValueError, match=r"^refit:.*score_matching"):
        try_network(run_of(tmp_path, {}, {"p": 0.5}, refit=fit))
    with pytest.raises(ValueError, match=r"^second_network\.fit:.*score_matching"):
        try_network(run_of(tmp_path, {}, second_network={"model": drop, "fit": fit}))
    try_network(run_of(tmp_path, {}, {"p": 0.5}, refit={"epochs": 1, "regularizers": [NORM]}))


def test_a_network_that_cannot_be_differentiated_twice_is_refused(tmp_path):
    run = run_of(tmp_path, {"regularizers": [NORM]})
    made = Run(
        run.study.model_copy(update={"model": run.study.model.model_copy(update={"call": f"{__name__}.Doubled"})})
    )
    with pytest.raises(ValueError, match=r"^fit:.*RuntimeError.*twice"):
        try_network(made)


def test_an_attack_that_gives_no_such_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^fit:.*test_training_step\.doubled.*\(4, 1, 8, 8\)"):
        try_network(run_of(tmp_path, {"attack": f"{__name__}.doubled"}))


def darker(images, _seeds, *, by):
    return images - by


def bare(network, images, targets, outputs):
    return outputs.mean()


def bent(value):
    """A term of a wrong value, set after it is made: the tests check the types of what is made."""
    found = Term(torch.zeros(()))
    object.__setattr__(found, "value", value)
    return found


def of_a_number(network, images, targets, outputs):
    return bent(1.0)


def of_each_image(network, images, targets, outputs):
    return bent(outputs.mean(1))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bare", "returned a Tensor; expected an efface.training.regularize.Term of one number"),
        ("of_a_number", "returned a Term of a float; expected an efface.training.regularize.Term of one number"),
        ("of_each_image", r"returned a Term of a Tensor of shape \(2,\); expected"),
    ],
)
def test_a_regulariser_that_gives_no_term_is_named(tmp_path, name, said):
    run = run_of(tmp_path, {"regularizers": [{"call": f"{__name__}.{name}", "weight": 1.0}]})
    with pytest.raises(ValueError, match=rf"^fit: a step .* fails: regularizers: {__name__}\.{name} {said}"):
        try_network(run)


def test_augmentations_are_tried_wherever_they_are_to_be_used(tmp_path):
    dark, fit = {"call": f"{__name__}.darker", "kwargs": {"by": 0.1}}, {"epochs": 1}
    message = r".*test_training_step\.darker.*-0\.1"
    coloured = {"call": "efface.training.augment.colour_jitter", "kwargs": {"saturation": 0.1}}
    with pytest.raises(ValueError, match=rf"^fit:{message}"):
        try_network(run_of(tmp_path, {"augment": [dark]}))
    with pytest.raises(ValueError, match=rf"^refit:{message}"):
        try_network(run_of(tmp_path, {}, refit=fit | {"augment": [dark]}))
    with pytest.raises(ValueError, match=rf"^second_network\.fit:{message}"):
        try_network(
            run_of(tmp_path, {}, second_network={"model": f"{__name__}.dense", "fit": fit | {"augment": [dark]}})
        )
    with pytest.raises(ValueError, match=r"^fit:.*saturation.*0\.1"):
        try_network(run_of(tmp_path, {"augment": [coloured]}))
    weights = tmp_path / "weights.pt"
    torch.save(dense().state_dict(), weights)
    with pytest.raises(ValueError, match=rf"^fit:{message}"):  # of the retrainings
        check_run(run_of(tmp_path, {"augment": [dark]}, weights=str(weights)))
    still = [{"call": f"{__name__}.darker", "kwargs": {"by": 0.0}}, "efface.training.augment.random_resized_crop"]
    try_network(run_of(tmp_path, {"augment": still}))


def test_a_trial_changes_neither_weights_nor_random_numbers(tmp_path):
    run = run_of(tmp_path, {"regularizers": [SCORE, NORM], "attack": PGD})
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    try_network(run)
    assert torch.equal(torch.rand(3), expected)
    assert not run.first.trained()


@pytest.mark.parametrize("term", [SCORE, ANTI], ids=["score", "anti"])
def test_a_network_without_a_hessian_is_told_of(tmp_path, capsys, term):
    for bend, flat in (("ReLU", True), ("Softplus", False)):
        check_run(run_of(tmp_path / bend, {"regularizers": [term]}, {"bend": bend}))
        said = capsys.readouterr().out
        assert ("estimates the Hessian of test_training_step.dense. This Hessian is 0, " in said) == flat
        assert ("warning: fit.regularizers: " in said) == flat
    check_run(run_of(tmp_path / "norm", {"regularizers": [NORM]}, {"bend": "ReLU"}))
    assert "Hessian" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([], False),
        ([nn.ReLU()], False),
        ([nn.LeakyReLU(), nn.BatchNorm1d(6), nn.Dropout(0.5)], False),
        ([nn.Softplus(beta=10)], True),
        ([nn.GELU()], True),
        ([nn.Tanh()], True),
        ([nn.LayerNorm(6)], True),
    ],
    ids=lambda layers: "-".join(type(each).__name__ for each in layers) if isinstance(layers, list) else "",
)
def test_which_networks_are_curved(layers, expected):
    torch.manual_seed(0)
    made = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), *layers, nn.Linear(6, 3)).train()
    assert has_hessian(made, torch.rand(2, 1, 8, 8), torch.tensor([0, 2])) == expected
    assert all(each.training for each in made.modules())


def test_curvature_of_our_own(tmp_path):
    for activation in ("relu", "softplus"):
        made = mlp(in_features=64, widths=[8], num_classes=3, activation=activation)
        assert has_hessian(made, torch.rand(2, 1, 8, 8), torch.tensor([0, 2])) == (activation == "softplus")


def broken(model, images, targets, outputs):
    """A term that fails after the trial: on more than two images."""
    if len(images) > 2:
        raise ValueError("too many images")
    return __import__("efface.training.regularize", fromlist=["Term"]).Term(outputs.sum() * 0)


def test_epochs_that_were_not_finished_are_not_counted(tmp_path, capsys):
    failed = run_of(tmp_path / "failed", {"regularizers": [{"call": f"{__name__}.broken", "weight": 1.0}]})
    assert "too many images" in train_missing([failed])[failed.folder][0]
    assert "trained" not in capsys.readouterr().out
    train_missing([run_of(tmp_path / "well", {})])
    assert "trained 2 epochs in" in capsys.readouterr().out
