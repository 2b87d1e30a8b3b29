"""Stages samples and visualize on a small study: files, killed and gone on from, done twice; the picture."""

import h5py
import pytest
import torch
import yaml

from efface import generate
from efface.config import read
from efface.generate import Sampling
from efface.stages.run import Run
from efface.stages.samples import aims, provenance, sampled, samples_of, samples_path
from small_study import efface, ended, files, start, write_study

SAMPLES = {"count": 40, "steps": 3}
SETTINGS = Sampling(**SAMPLES)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study whose network needs no training: its samples are what takes time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    write_study(tmp_path, samples=SAMPLES, metrics=["morf"], rows=8, fit=None)
    return tmp_path


def made(folder):
    """The file of samples, and a run to ask about it."""
    run = Run(read(folder / "study.yml"))
    return run, samples_path(run, SETTINGS)


def test_samples_are_kept_with_the_classes_they_are_aimed_at(study):
    done = efface(study, "samples", "study.yml")
    assert done.code == 0, done.err
    run, path = made(study)
    assert str(path) in done.out
    with h5py.File(path) as file:
        images, targets = torch.from_numpy(file["images"][:]), torch.from_numpy(file["targets"][:])
    assert images.shape == (40, 3, 16, 16)
    assert images.dtype == torch.float32
    test = run.data["test"].targets  # 24 of them: after the last row comes the first again
    assert torch.equal(targets, torch.cat([test, test])[:40])
    torch.testing.assert_close(images, sampled(run, SETTINGS, torch.arange(40)), atol=1e-6, rtol=0)
    again = sampled(run, SETTINGS, torch.tensor([24]))
    assert not torch.equal(again[0], images[0])  # the same class, from other noise


def test_done_twice_is_nothing_done(study):
    efface(study, "samples", "study.yml")
    before = files(study / "run" / "samples")
    again = efface(study, "samples", "study.yml")
    assert again.code == 0
    assert "40 images" in again.out
    assert files(study / "run" / "samples") == before


@pytest.mark.parametrize("kill_at", [3, 9, 12])
def test_killed_samples_go_on_and_are_the_same(study, kill_at):
    efface(study, "samples", "study.yml", "out=whole")
    killed = ended(start(study, "samples", "study.yml", kill_at=kill_at), study)
    assert killed.code == -9
    assert efface(study, "samples", "study.yml").code == 0
    _, path = made(study)
    with h5py.File(path) as file, h5py.File(study / "whole" / "samples" / path.name) as other:
        assert (file["images"][:] == other["images"][:]).all()


def test_finished_blocks_are_not_made_again(study, monkeypatch):
    run, path = made(study)
    efface(study, "samples", "study.yml")
    with h5py.File(path, "r+") as file:
        kept = file["images"][:]
        file["done"][16:24] = 0
        file["images"][16:24] = 0.0
    path.rename(path.with_name(path.name + ".partial"))
    asked = []
    before = generate.samples

    def counted(network, targets, *rest, **more):
        asked.append(len(targets))
        return before(network, targets, *rest, **more)

    monkeypatch.setattr(generate, "samples", counted)
    from efface.stages.samples import make_samples

    assert make_samples(run) == []
    assert asked == [8]
    torch.testing.assert_close(samples_of(run, SETTINGS).images, torch.from_numpy(kept), atol=0, rtol=0)


def test_missing_samples_name_the_stage(study):
    run, _ = made(study)
    with pytest.raises(FileNotFoundError, match="run the samples stage"):
        samples_of(run, SETTINGS)


def test_what_samples_depend_on(study):
    run, _ = made(study)
    told = provenance(run, SETTINGS)
    assert told != provenance(run, Sampling(count=40, steps=4))
    assert told != provenance(Run(read(study / "study.yml", ["seed=1"])), SETTINGS)
    assert torch.equal(aims(run, torch.tensor([0, 24])), run.data["test"].targets[[0, 0]])


def test_wrong_settings_are_said(study):
    tree = yaml.safe_load((study / "study.yml").read_text()) | {"samples": {"step": 3, "lr": -1}}
    (study / "wrong.yml").write_text(yaml.safe_dump(tree))
    said = efface(study, "samples", "wrong.yml")
    assert said.code == 2
    assert "samples.step: unknown key; did you mean 'steps'?" in said.err
    assert "samples.lr: input should be greater than 0" in said.err
