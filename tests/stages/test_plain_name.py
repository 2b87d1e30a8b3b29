"""`models/network.pt`: a link to the network of the study that ran last, which is in nobody's way."""

import errno
import shutil
from pathlib import Path

import pytest
import torch

from efface.stages.prune import prune
from efface.stages.train import train
from efface.store.links import refuse_links
from efface.store.plain_name import name_plainly
from efface.study.study import check

TREE = {
    "data": {"call": "digits", "kwargs": {"limit": 20, "test_limit": 10}},
    "model": {"call": "resnet8", "kwargs": {"in_channels": 1}},
    "fit": {"epochs": 1, "batch_size": 10},
    "attribution_methods": [{"name": "random", "method": "random"}],
    "metrics": ["morf"],
    "executor": "serial",
    "device": "cpu",
}


@pytest.fixture
def study(tmp_path):
    """A function that makes the study with keys replaced."""

    def made(**changes):
        return check({"out": str(tmp_path / "run"), **TREE, **changes}, tmp_path / "study.yml")

    return made


@pytest.fixture
def models(tmp_path):
    return tmp_path / "run" / "models"


def longer():
    return {"fit": {"epochs": 2, "batch_size": 10}}


def of_keys(models, name="network"):
    return {path.name for path in models.glob(f"{name}-*.pt")}


def test_the_name_is_a_relative_link_to_the_network_of_the_study(study, models, tmp_path):
    train(study())
    link = models / "network.pt"
    (first,) = of_keys(models)
    assert link.is_symlink()
    assert str(link.readlink()) == first
    train(study(**longer()))
    (second,) = of_keys(models) - {first}
    assert str(link.readlink()) == second
    train(study())  # nothing is trained
    assert str(link.readlink()) == first
    shutil.copytree(tmp_path / "run", tmp_path / "copied", symlinks=True)
    assert (tmp_path / "copied" / "models" / "network.pt").resolve() == tmp_path / "copied" / "models" / first
    weights = torch.load(link, weights_only=True)
    assert {name: value.shape for name, value in weights.items()}
    refuse_links(tmp_path / "run", [])


def test_a_study_may_read_weights_by_the_plain_name(study, models, tmp_path):
    train(study())
    other = study(out=str(tmp_path / "other"), weights=str(models / "network.pt"), fit=None)
    assert train(other) == []
    assert not (tmp_path / "other" / "models" / "network.pt").exists()  # its network is the given file


def test_a_study_with_weights_of_its_own_takes_the_name_away(study, models):
    train(study())
    (file,) = models.glob("network-*.pt")
    train(study(weights=str(file), fit=None))
    assert not (models / "network.pt").is_symlink()
    assert file.is_file()


def test_the_second_network_has_its_name_too(study, models):
    train(study(second_network={"model": TREE["model"], "fit": {"epochs": 1}}))
    (second,) = of_keys(models, "second_network")
    assert str((models / "second_network.pt").readlink()) == second


def test_second_networks_of_several_seeds_in_one_folder_have_no_plain_name(study, models, tmp_path):
    train(study(second_network={"model": TREE["model"], "fit": {"epochs": 1}}, seeds=[0, 1]))
    assert len(of_keys(models, "second_network")) == 2
    assert not (models / "second_network.pt").is_symlink()
    assert all((tmp_path / "run" / f"seed-{seed}" / "models" / "network.pt").is_symlink() for seed in (0, 1))


def test_a_damaged_network_is_trained_again_under_the_same_name(study, models):
    train(study())
    (file,) = models.glob("network-*.pt")
    file.write_bytes(b"damaged")
    train(study())
    assert (models / "network.pt").resolve() == file
    assert torch.load(models / "network.pt", weights_only=True)


def test_a_copy_that_follows_links_gets_its_link_back(study, models, tmp_path, capsys):
    train(study())
    train(study(**longer()))
    shutil.copytree(models, tmp_path / "copied" / "models")
    copied = study(out=str(tmp_path / "copied"), **longer())
    plain = tmp_path / "copied" / "models" / "network.pt"
    assert not plain.is_symlink()
    train(copied)  # the copy is the right network, so nothing need be done
    assert not plain.is_symlink()
    train(study(out=str(tmp_path / "copied")))
    assert plain.is_symlink()
    assert "network.pt" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_somebody_put_there_stays_and_one_line_says_so(study, models, kind, capsys):
    models.mkdir(parents=True)
    plain = models / "network.pt"
    if kind == "link":  # a run refuses it, so the function is called by itself
        plain.symlink_to("/elsewhere")
        (models / "network-a.pt").write_bytes(b"network")
        assert str(plain) in name_plainly(models / "network-a.pt", "network")
        assert str(plain.readlink()) == "/elsewhere"
        return
    plain.write_text("mine") if kind == "file" else plain.mkdir()
    assert train(study()) == []
    (line,) = (line for line in capsys.readouterr().out.splitlines() if f"{plain}:" in line)
    assert "stays as it is; the network is" in line
    assert plain.read_text() == "mine" if kind == "file" else plain.is_dir()


def test_a_disk_without_links_is_one_line_after_a_training(study, models, monkeypatch, capsys):
    def refuse(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    assert train(study()) == []
    assert capsys.readouterr().out.count("this disk takes no links (Operation not permitted)") == 1
    assert not list(models.glob("*.new"))
    assert train(study()) == []
    assert "takes no links" not in capsys.readouterr().out


def test_prune_neither_lists_the_name_nor_leaves_it_to_point_to_nothing(study, models, capsys):
    train(study())
    (first,) = of_keys(models)
    train(study(**longer()))
    prune([study(**longer())], remove=False)
    listed = capsys.readouterr().out
    assert first in listed
    assert "network.pt" not in listed
    prune([study()], remove=True)  # the network that the name points to
    assert of_keys(models) == {first}
    assert not (models / "network.pt").is_symlink()
    train(study())
    assert str((models / "network.pt").readlink()) == first
    prune([study()], remove=True)
    assert str((models / "network.pt").readlink()) == first


def test_prune_leaves_a_file_of_this_name(study, models):
    train(study())
    (models / "network.pt").unlink()
    (models / "network.pt").write_text("mine")
    prune([study()], remove=True)
    assert (models / "network.pt").read_text() == "mine"
