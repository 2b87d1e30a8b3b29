"""Maps that were made elsewhere are measured as all maps are; what would ask their method again is refused."""

import json
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

import efface
from efface.data.patches import patches
from small.messages import names
from small.studies import STUDY, files, write_study
from small.studies import efface as run_efface
from small.tiers import first_short

RANDOM, MINE = STUDY["attribution_methods"][:2]
THEIRS = {"name": "theirs", "file": "theirs.npz"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished study; its network is kept as theirs.pt, its maps as files of all forms."""
    folder = tmp_path_factory.mktemp("finished")
    done = run_efface(folder, "all", str(write_study(folder, attribution_methods=[RANDOM, MINE])))
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "study")
    return tmp_path / "study"


def images():
    """The study's test images."""
    return patches(**STUDY["data"]["kwargs"])["test"].images


def mine(folder, split="test"):
    with h5py.File(folder / "run" / "maps" / f"mine-{split}.h5") as file:
        return file["maps"][:], file["targets"][:]


def study(folder, *entries, **changes):
    return str(write_study(folder, attribution_methods=[RANDOM, *entries], **{"metrics": ["morf", "lerf"]} | changes))


def same_scores(folder, metric):
    """The lines of two methods of one metric, without their names."""
    lines = pd.read_csv(folder / "run" / "report" / "summary.csv").query("metric == @metric")
    theirs, own = (
        lines[lines.method == name].drop(columns="method").reset_index(drop=True) for name in ("theirs", "mine")
    )
    return len(own) > 1 and own.equals(theirs)


@pytest.mark.long
@pytest.mark.parametrize("form", first_short(1, ["npz", "h5", "npy"]))
def test_the_same_maps_have_the_same_scores_from_a_file(form, folder, monkeypatch):
    monkeypatch.chdir(folder)
    maps, targets = mine(folder)
    others = {} if form == "npy" else {"targets": targets, "images": images()}
    efface.write_maps(f"theirs.{form}", maps, **others)
    path = study(folder, MINE, THEIRS | {"file": f"theirs.{form}"})
    done = run_efface(folder, "check", path)
    assert done.code == 0, done.err
    done = run_efface(folder, "all", path)
    assert done.code == 0, done.err
    assert same_scores(folder, "morf")
    assert same_scores(folder, "lerf")
    before = files(folder / "run" / "maps")
    again = run_efface(folder, "all", path)
    assert again.code == 0, again.err
    assert files(folder / "run" / "maps") == before


def test_rows_in_another_order_are_matched_by_their_images(folder, monkeypatch):
    monkeypatch.chdir(folder)
    maps, targets = mine(folder)
    order = np.random.default_rng(0).permutation(len(maps))
    efface.write_maps("theirs.npz", maps[order], targets[order], images()[torch.from_numpy(order)])
    done = run_efface(folder, "all", study(folder, MINE, THEIRS))
    assert done.code == 0, done.err
    assert same_scores(folder, "morf")


def test_virelays_files_are_measured(folder, monkeypatch):
    monkeypatch.chdir(folder)
    maps, targets = mine(folder)
    kept = [np.load(path)["logits"] for path in (folder / "run" / "models").glob("logits-*.npz")]
    (logits,) = [each for each in kept if len(each) == len(targets)]
    with h5py.File("theirs.h5", "w") as file:
        file["attribution"], file["prediction"] = maps[:, None], logits
        file["label"] = np.eye(4, dtype=np.float32)[targets]
    done = run_efface(folder, "all", study(folder, MINE, THEIRS | {"file": "theirs.h5"}))
    assert done.code == 0, done.err
    assert same_scores(folder, "morf")
    with h5py.File("theirs.h5", "r+") as file:
        file["prediction"][5] = -file["prediction"][5]
    done = run_efface(folder, "check", study(folder, MINE, THEIRS | {"file": "theirs.h5"}))
    assert done.code == 1
    assert names(done.err, "theirs.h5 row 5 predicts network")


def test_retraining_takes_maps_of_both_splits(folder, monkeypatch):
    monkeypatch.chdir(folder)
    both = {split: mine(folder, split)[0] for split in ("train", "test")}
    for split, maps in both.items():
        efface.write_maps(f"{split}.npz", maps)
    np.savez("both.npz", **{f"{split}/maps": maps for split, maps in both.items()})
    each = {split: f"{split}.npz" for split in both}
    entries = [MINE, THEIRS | {"file": each}, {"name": "whole", "file": "both.npz"}]
    path = study(folder, *entries, metrics=["roar"], repeats=1)
    done = run_efface(folder, "all", path)
    assert done.code == 0, done.err
    assert same_scores(folder, "roar")
    done = run_efface(folder, "check", study(folder, MINE, THEIRS | {"file": "test.npz"}, metrics=["roar"]))
    assert done.code == 1
    assert names(done.err, "attribution_methods.theirs test.npz train file:")
    done = run_efface(folder, "check", study(folder, THEIRS | {"file": {"test": "test.npz"}}, metrics=["roar"]))
    assert done.code == 1
    assert names(done.err, "attribution_methods.theirs.file train")


@pytest.mark.long
def test_a_second_view_a_post_and_the_network_of_another_study(folder, monkeypatch):
    monkeypatch.chdir(folder)
    efface.write_maps("theirs.npz", mine(folder)[0])
    entries = [THEIRS | {"post": []}, {"name": "size", "maps": "theirs", "post": ["absolute"]}]
    path = study(folder, *entries, post=[])
    for word in ("extract", "status", "measure", "report", "visualize"):
        done = run_efface(folder, word, path, "visualize.steps=2", "samples.steps=2", "samples.count=2")
        assert done.code == 0, (word, done.err)


@pytest.mark.long
def test_another_file_of_that_name_makes_its_maps_and_scores_anew(folder, monkeypatch):
    monkeypatch.chdir(folder)
    maps, _ = mine(folder)
    efface.write_maps("theirs.npz", maps)
    path = study(folder, MINE, THEIRS)
    assert run_efface(folder, "all", path).code == 0
    assert same_scores(folder, "morf")
    efface.write_maps("theirs.npz", maps[:, ::-1].copy())
    done = run_efface(folder, "all", path)
    assert done.code == 0, done.err
    assert not same_scores(folder, "morf")


def test_the_line_of_the_results_tells_the_file(folder, monkeypatch):
    monkeypatch.chdir(folder)
    efface.write_maps("theirs.npz", mine(folder)[0])
    assert run_efface(folder, "extract", study(folder, THEIRS)).code == 0
    lines = [json.loads(each) for each in (folder / "run" / "results.jsonl").read_text().splitlines()]
    (line,) = [each for each in lines if each.get("method") == "theirs"]
    assert len(line["made_from"]["file"]) == 16


@pytest.mark.parametrize(
    "metric",
    [
        "randomisation",
        "max_sensitivity",
        pytest.param("random_logit", marks=pytest.mark.long),
        pytest.param("efficient_randomisation", marks=pytest.mark.long),
        pytest.param("local_lipschitz", marks=pytest.mark.long),
        pytest.param("grid_pointing_game", marks=pytest.mark.long),
        pytest.param("data_randomisation", marks=pytest.mark.long),
        pytest.param("convergence", marks=pytest.mark.long),
    ],
)
def test_metrics_that_ask_the_method_again_are_refused_by_check(metric, folder, monkeypatch):
    monkeypatch.chdir(folder)
    efface.write_maps("theirs.npz", mine(folder)[0])
    done = run_efface(folder, "check", study(folder, MINE, THEIRS, metrics=["morf", metric]))
    assert done.code == 1
    assert names(done.err, f"metrics.{metric}: 'theirs' file")


WRONG = {
    "count": (lambda maps, targets: {"maps": maps[:20]}, "theirs.npz 20 24"),
    "shape": (lambda maps, targets: {"maps": maps[:, :8]}, "theirs.npz (24, 8, 16) (n, 16, 16)"),
    "channels": (lambda maps, targets: {"maps": np.stack([maps] * 2, 1)}, "theirs.npz (24, 2, 16, 16) (n, 3, 16, 16)"),
    "nan": (
        lambda maps, targets: {"maps": np.where(np.arange(24)[:, None, None] == 7, np.nan, maps)},
        "theirs.npz row 7",
    ),
    "targets": (
        lambda maps, targets: {"maps": maps, "targets": (targets + (np.arange(24) == 9)) % 4},
        "theirs.npz row 9",
    ),
    "images": (lambda maps, targets: {"maps": maps, "images": np.array(["0" * 16] * 24)}, "theirs.npz image 0 24"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("word", ["check", "extract"])
def test_maps_that_do_not_fit_are_refused_with_file_and_row(kind, word, folder, monkeypatch):
    monkeypatch.chdir(folder)
    arrays, said = WRONG[kind]
    np.savez("theirs.npz", **arrays(*mine(folder)))
    done = run_efface(folder, word, study(folder, MINE, THEIRS))
    assert done.code == 1
    assert names(done.err, f"attribution_methods.theirs: {said}"), done.err
    assert not (folder / "run" / "maps" / "theirs-test.h5").exists()


def test_classes_are_compared_once_the_network_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    efface.write_maps("theirs.npz", np.random.default_rng(0).normal(size=(24, 16, 16)), targets=[9] * 24)
    path = study(tmp_path, MINE, THEIRS)
    assert run_efface(tmp_path, "check", path).code == 0, "an untrained network explains no class yet"
    done = run_efface(tmp_path, "extract", path)
    assert done.code == 1
    assert names(done.err, "theirs, test: theirs.npz row 0 class 9 (24 of 24 rows differ)")


def test_a_file_that_is_not_there_is_named(folder):
    done = run_efface(folder, "check", study(folder, MINE, THEIRS))
    assert done.code == 1
    assert names(done.err, "attribution_methods.theirs.file: theirs.npz")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"name": "theirs", "file": "theirs.pt"}, "theirs.pt .npz"),
        (THEIRS | {"method": "mine.brightness"}, "method maps file"),
        (THEIRS | {"draws": 2}, "file post"),
        (THEIRS | {"kwargs": {"a": 1}}, "file post"),
        ({"name": "theirs", "file": {"train": "a.npz"}}, "file: test"),
        ({"name": "theirs", "maps": "theirs.h5", "post": []}, "'theirs.h5' 'file' function"),
    ],
)
def test_entries_that_cannot_be_are_refused_when_the_study_is_read(entry, said, tmp_path):
    done = run_efface(tmp_path, "check", study(tmp_path, MINE, entry))
    assert done.code == 2
    assert names(done.err, f"attribution_methods.theirs {said}"), done.err
