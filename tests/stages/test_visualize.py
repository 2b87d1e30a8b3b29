"""Stages samples and visualize on a small study: files, killed and gone on from, done twice; the picture."""

import base64
import io

import h5py
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from efface.base import draws
from efface.report import grid
from efface.report.gallery import paint
from efface.stages.page.pictures import picture, shown_rows
from efface.stages.run.curves import planned_run
from efface.stages.run.map_files import map_store
from efface.stages.run.run import Run
from efface.stages.work.sampling import (
    aims,
    make_samples,
    sampled,
    samples_of,
    samples_path,
    samples_provenance,
    some_samples,
)
from efface.study.study import read
from efface.training import generate
from efface.training.generate import Sampling
from small.messages import words
from small.studies import efface, ended, files, start, write_study
from small.tiers import first_short

SAMPLES = {"count": 40, "steps": 3}
SETTINGS = Sampling(**SAMPLES)


@pytest.fixture
def sampled_study(tmp_path, monkeypatch):
    """A study whose network needs no training: its samples are what takes time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    write_study(tmp_path, samples=SAMPLES, metrics=["morf"], max_batch=8, fit=None)
    return tmp_path


def made(folder):
    """The file of samples, and a run to ask about it."""
    run = Run(read(folder / "study.yml"))
    return run, samples_path(run, SETTINGS)


def test_samples_are_kept_with_the_classes_they_are_aimed_at(sampled_study):
    done = efface(sampled_study, "samples", "study.yml")
    assert done.code == 0, done.err
    run, path = made(sampled_study)
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


def test_done_twice_is_nothing_done(sampled_study):
    efface(sampled_study, "samples", "study.yml")
    before = files(sampled_study / "run" / "samples")
    again = efface(sampled_study, "samples", "study.yml")
    assert again.code == 0
    assert "40 images" in again.out
    assert files(sampled_study / "run" / "samples") == before


@pytest.mark.parametrize("kill_at", first_short(1, [3, 6, 9]))
def test_killed_samples_go_on_and_are_the_same(sampled_study, kill_at):
    efface(sampled_study, "samples", "study.yml", "out=whole")
    killed = ended(start(sampled_study, "samples", "study.yml", kill_at=kill_at), sampled_study)
    assert killed.code == -9
    assert efface(sampled_study, "samples", "study.yml").code == 0
    _, path = made(sampled_study)
    with h5py.File(path) as file, h5py.File(sampled_study / "whole" / "samples" / path.name) as other:
        assert (file["images"][:] == other["images"][:]).all()


def test_finished_blocks_are_not_made_again(sampled_study, monkeypatch):
    run, path = made(sampled_study)
    efface(sampled_study, "samples", "study.yml")
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
    assert make_samples(run) == []
    assert asked == [8]
    torch.testing.assert_close(samples_of(run, SETTINGS).images, torch.from_numpy(kept), atol=0, rtol=0)


def test_missing_samples_name_the_stage(sampled_study):
    run, _ = made(sampled_study)
    with pytest.raises(FileNotFoundError, match=words("samples stage")):
        samples_of(run, SETTINGS)


def test_what_samples_depend_on(sampled_study):
    run, _ = made(sampled_study)
    told = samples_provenance(run, SETTINGS)
    assert told != samples_provenance(run, Sampling(count=40, steps=4))
    assert told != samples_provenance(Run(read(sampled_study / "study.yml", ["seed=1"])), SETTINGS)
    assert torch.equal(aims(run, torch.tensor([0, 24])), run.data["test"].targets[[0, 0]])


def test_wrong_settings_are_said(sampled_study):
    tree = yaml.safe_load((sampled_study / "study.yml").read_text()) | {"samples": {"step": 3, "lr": -1}}
    (sampled_study / "wrong.yml").write_text(yaml.safe_dump(tree))
    said = efface(sampled_study, "samples", "wrong.yml")
    assert said.code == 2
    assert "samples.step: unknown key; did you mean 'steps'?" in said.err
    assert "samples.lr: input should be greater than 0" in said.err


LINES = ["images", "samples", "noisy", "denoised"]


def see(folder, *words):
    shown = ["visualize.count=4", "visualize.steps=2", "visualize.noise=0.3"]
    done = efface(folder, "visualize", "study.yml", *shown, *words)
    assert done.code == 0, done.err
    return done, Run(read(folder / "study.yml", [*shown, *words]))


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


def column(picture, number):
    """A column of a line's file, as it was before it was enlarged sixfold."""
    left = number * (96 + grid.GAP)
    return picture[::6, left : left + 96 : 6]


def test_pictures_are_written_and_stand_in_the_page(sampled_study):
    done, _ = see(sampled_study)
    folder = sampled_study / "run" / "figures"
    kinds = [f"{name}-{kind}" for name in ("random", "mine", "red", "green") for kind in ("signed", "absolute")]
    assert {each.name for each in folder.glob("*.png")} == {f"{name}.png" for name in ["grid", *LINES, *kinds]}
    rows = (0, 8, 15, 23)
    whole = {f"row-{row}-{kind}.png" for row in rows for kind in [*LINES, *kinds]}
    assert {each.name for each in (folder / "full").iterdir()} == whole
    assert "run/figures/grid.png" in done.out
    page = (sampled_study / "run" / "report" / "report.html").read_text()
    assert base64.b64encode((folder / "grid.png").read_bytes()).decode() in page
    whole = pixels(folder / "grid.png")
    assert whole.shape[0] > 12 * 96
    assert whole.shape[1] > 4 * 96


def test_pictures_are_the_images_and_the_maps(sampled_study):
    _, run = see(sampled_study)
    folder, rows = sampled_study / "run" / "figures", torch.tensor([0, 8, 15, 23])
    assert torch.equal(shown_rows(run), rows)
    stored = run.data["test"].images[rows].permute(0, 2, 3, 1)
    drawn = {name: pixels(folder / f"{name}.png") for name in [*LINES, "mine-signed", "mine-absolute"]}
    for number, row in enumerate(rows.tolist()):
        assert (column(drawn["images"], number) == stored[number].numpy()).all()
        made = sampled(run, SETTINGS, torch.tensor([row]))[0].permute(1, 2, 0)
        assert np.abs(column(drawn["samples"], number) - made.mul(255).numpy()).max() <= 0.51
    noisy, denoised = (np.stack([column(drawn[each], k) for k in range(4)]) / 255 for each in ("noisy", "denoised"))
    assert 0.1 < np.abs(noisy - stored.numpy() / 255).mean() < 0.3
    test = run.data["test"]
    seeds = draws.seeds_of("0 visualize", rows)
    found = generate.denoise(
        run.network, test.images[rows] / 255, test.targets[rows], seeds=seeds, noise=0.3, steps=2, lr=0.01
    )
    assert np.abs(found.images.permute(0, 2, 3, 1).numpy() - denoised).max() < 0.003
    maps = map_store(run, "mine", "test").take(rows).numpy()
    for number in range(4):
        signed, absolute = (column(drawn[f"mine-{kind}"], number) for kind in ("signed", "absolute"))
        assert (signed == paint(maps[number], signed=True)).all()
        assert (pixels(folder / "full" / f"row-{rows[number]}-mine-signed.png") == signed).all()
        assert (absolute == paint(np.abs(maps[number]), signed=False)).all()


@pytest.mark.long
def test_drawn_once_and_again_when_something_changes(sampled_study):
    see(sampled_study)
    before = files(sampled_study / "run" / "figures")
    see(sampled_study)
    assert files(sampled_study / "run" / "figures") == before
    _, run = see(sampled_study, "visualize.rows=[3, 1]")
    assert pixels(sampled_study / "run" / "figures" / "images.png").shape == (96, 2 * 96 + grid.GAP, 3)
    assert picture(run) is not None
    assert (
        picture(Run(read(sampled_study / "study.yml", ["visualize.percentile=90"]))) is None
    )  # a report shows no stale one


def test_samples_that_the_stage_made_are_taken(sampled_study, monkeypatch):
    efface(sampled_study, "samples", "study.yml")
    run, _ = made(sampled_study)
    monkeypatch.setattr(generate, "samples", None)
    kept = samples_of(run, SETTINGS).images
    assert torch.equal(some_samples(run, SETTINGS, torch.tensor([5, 2])), kept[[5, 2]])


def test_rows_that_there_are_not_are_said(sampled_study):
    said = efface(sampled_study, "visualize", "study.yml", "visualize.rows=[3, 24]")
    assert said.code == 1
    assert "visualize.rows: there is no test image 24; expected rows below 24" in said.err


@pytest.mark.parametrize(("percentile", "end"), [(100.0, 8.0), (50.0, 2.0)])
def test_colours_end_at_the_percentile_of_the_magnitude(percentile, end):
    relevance = np.array([[-8.0, -2.0, 0.0], [1.0, 2.0, 4.0]])
    found = paint(relevance, percentile=percentile, signed=True)
    red, white, blue = ((103, 0, 31), (247, 247, 247), (5, 48, 97))
    assert tuple(found[0, 0]) == blue
    assert tuple(found[0, 2]) == white
    assert (tuple(found[1, 1]) == red) == (end <= 2)
    middle = paint(np.array([[end / 2, -end]]), percentile=100.0, signed=True)
    assert tuple(middle[0, 0]) == (214, 96, 77)  # half of the scale


def test_large_pictures_are_averaged_and_all_headings_are_there():
    lines = [grid.PictureLine("a", "large", [np.full((200, 300, 3), 7, np.uint8)] * 2)]
    found = grid.grid(lines, ["12: a very long name of a class", "13: x"], "mark")
    assert set(found) == {"grid.png", "a.png", "full/0-a.png", "full/1-a.png"}
    assert Image.open(io.BytesIO(found["full/1-a.png"])).size == (300, 200)
    assert Image.open(io.BytesIO(found["a.png"])).size == (2 * 96 + grid.GAP, 64)
    assert grid.read_made_from(found["grid.png"]) == "mark"
    assert grid.read_made_from(b"no picture") == ""


JUDGED = {
    "metrics": [
        {"name": "gan_test", "kwargs": {"count": 40, "steps": 3}},
        {"name": "density_ratio", "kwargs": {"levels": [0.1, 0.3], "samples": 2}},
    ],
    "second_network": {"model": {"call": "net.network"}, "seed": 7},
}


@pytest.mark.long
def test_metrics_of_the_network_are_measured_once_and_share_the_samples(sampled_study):
    write_study(sampled_study, samples=SAMPLES, max_batch=8, fit=None, **JUDGED)
    done = efface(sampled_study, "measure", "study.yml")
    assert done.code == 0, done.err
    run, path = made(sampled_study)
    assert [each.name for each in (sampled_study / "run" / "samples").iterdir()] == [path.name]
    found = {(each.metric, each.score): each for each in planned_run(run).curves}
    assert {each.method for each in found.values()} == {"network"}
    images, targets = samples_of(run, SETTINGS)
    with torch.no_grad():
        for score, network in (("share", run.second.module), ("own_share", run.network)):
            right = network(images).argmax(1) == targets
            assert found["gan_test", score].values[:, 0].tolist() == right.double().tolist()
    ratio = found["density_ratio", "ratio"]
    assert ratio.at == (0.1, 0.3)
    assert ratio.values.shape == (24, 2)
    assert np.isfinite(ratio.values).all()
    page = (sampled_study / "run" / "report" / "report.html").read_text()
    assert "noise level" in page
    assert "gan_test" in page
    again = efface(sampled_study, "measure", "study.yml")
    assert "probes to run" not in again.out


def test_gan_test_without_a_judge_is_refused_before_any_work(sampled_study):
    write_study(sampled_study, samples=SAMPLES, max_batch=8, fit=None, metrics=["gan_test"])
    said = efface(sampled_study, "measure", "study.yml")
    assert said.code == 1
    assert "metrics.gan_test: needs a second network" in said.err
    assert not (sampled_study / "run" / "samples").exists()


@pytest.mark.long
def test_each_variant_has_samples_and_pictures_of_its_own(sampled_study):
    variants = {"plain": {}, "other": {"seed": 3}}
    write_study(sampled_study, samples=SAMPLES, max_batch=8, fit=None, metrics=["morf"], variants=variants)
    assert efface(sampled_study, "samples", "study.yml").code == 0
    done = efface(sampled_study, "visualize", "study.yml", "visualize.count=2", "visualize.steps=2")
    assert done.code == 0, done.err
    for name in variants:
        assert len(list((sampled_study / "run" / name / "samples").glob("*.h5"))) == 1
        assert (sampled_study / "run" / name / "figures" / "grid.png").is_file()
        assert "pictures" in (sampled_study / "run" / name / "report" / "report.html").read_text()
