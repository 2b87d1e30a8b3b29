"""Maps are kept under their key, and `efface prune` removes what no study asks for."""

import re
import shutil

import h5py
import numpy as np
import pytest
import yaml
from torch import arange, ones

from efface.store.maps import MapWriter, kept_path, partial_path
from small.studies import efface, write_study

MORE = "fit.epochs=3"


def maps(folder):
    """The maps of each finished file, by its path in the folder of maps."""
    found = {}
    for path in sorted((folder / "run" / "maps").rglob("*.h5")):
        with h5py.File(path) as file:
            found[path.relative_to(folder / "run" / "maps").as_posix()] = file["maps"][:]
    return found


def done(folder, *words):
    result = efface(folder, *words)
    assert result.code == 0, result.err
    return result.out


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A study that ran as it is, then with other epochs; its maps as they were after the first run."""
    folder = tmp_path_factory.mktemp("ran")
    write_study(folder, metrics=["morf", "roar"], repeats=1, fractions=[0.5])
    done(folder, "all", "study.yml")
    first = maps(folder)
    done(folder, "all", "study.yml", MORE)
    return folder, first


@pytest.fixture
def both(ran, tmp_path):
    """The same in a folder of the test's own."""
    folder, first = ran
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return tmp_path, first


@pytest.mark.long
def test_another_networks_maps_do_not_replace_them(both):
    folder, first = both
    second = maps(folder)
    kept = {name: each for name, each in second.items() if name.startswith("kept/")}
    assert len(kept) == len(first)
    for name, each in kept.items():
        np.testing.assert_array_equal(each, first[re.sub(r"^kept/(.*)-[0-9a-f]{16}\.h5$", r"\1.h5", name)])
    assert not np.array_equal(second["mine-test.h5"], first["mine-test.h5"])
    before = (folder / "run" / "results.jsonl").read_bytes()
    assert "to extract" not in done(folder, "status", "study.yml")
    done(folder, "report", "study.yml")
    assert maps(folder).keys() == second.keys()  # a command that only reads moves nothing
    done(folder, "all", "study.yml")
    third = maps(folder)
    assert (folder / "run" / "results.jsonl").read_bytes() == before
    for name, each in first.items():
        np.testing.assert_array_equal(third[name], each)
    assert third.keys() == second.keys() - kept.keys() | {name for name in third if name.startswith("kept/")}
    assert len(third) == len(second)


def test_unfinished_maps_are_kept_too(tmp_path):
    path = tmp_path / "mine-test.h5"
    one, other = {"network": "a"}, {"network": "b"}
    writer = MapWriter(path, one, arange(4), ones(1, 2, 2))
    writer.write(0, ones(3, 1, 2, 2))
    writer.abandon()
    writer = MapWriter(path, other, arange(4), ones(1, 2, 2))
    writer.write(0, ones(4, 1, 2, 2))
    writer.close()
    assert partial_path(kept_path(path, one)).exists()
    writer = MapWriter(path, one, arange(4), ones(1, 2, 2))
    assert writer.done.tolist() == [True, True, True, False]
    writer.write(3, ones(1, 1, 2, 2))
    writer.close()
    assert kept_path(path, other).exists()
    assert not partial_path(kept_path(path, one)).exists()


@pytest.mark.long
def test_prune_lists_and_removes_what_no_study_asks_for(both):
    folder, _ = both
    before = {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file() and path.name[0] != "."}
    (folder / "run" / "maps" / "notes.txt").write_text("mine")
    listed = done(folder, "prune", "study.yml", MORE)
    assert re.search(r"^\d+ files, [\d.]+ MB that no given study needs", listed, re.MULTILINE)
    assert {path: path.read_bytes() for path in before} == before
    summary = (folder / "run" / "report" / "summary.csv").read_text()
    removed = done(folder, "prune", "study.yml", MORE, "--remove")
    gone = {path for path in before if not path.exists()}
    assert gone == {path for path in before if str(path.relative_to(folder)) in listed}
    assert re.search(rf"^removed {len(gone)} files", removed, re.MULTILINE)
    assert {path.parent.name for path in gone} == {"models", "kept", "scores"}
    assert (folder / "run" / "maps" / "notes.txt").exists()
    assert done(folder, "prune", "study.yml", MORE).startswith("0 files")
    out = done(folder, "all", "study.yml", MORE)
    assert "extracted" not in out
    assert "trained" not in out  # what the study asks for is all there
    assert (folder / "run" / "report" / "summary.csv").read_text() == summary
    done(folder, "all", "study.yml")  # and what was removed is made again


def test_prune_takes_several_studies(both):
    folder, _ = both
    text = (folder / "study.yml").read_text()
    (folder / "more.yml").write_text(re.sub(r"epochs: *\d+", "epochs: 3", text))
    assert done(folder, "prune", "study.yml", "more.yml").startswith("0 files")


def test_prune_refuses_where_it_cannot_know(both):
    folder, _ = both
    result = efface(folder, "prune", "study.yml", "fit.epochs=7", "--remove")
    assert result.code == 1
    assert "is not trained, so it is not known which maps and results belong to it" in result.err
    result = efface(folder, "prune", "study.yml", "out=elsewhere")
    assert result.code == 1
    assert "there is no such folder" in result.err
    assert not (folder / "elsewhere").exists()


SEVERAL = {
    "metrics": ["morf", "roar"],
    "repeats": 1,
    "fractions": [0.5],
    "seeds": [0, 1],
    "variants": {"plain": {}, "long": {"fit.epochs": 3}},
    "second_network": {"model": {"call": "net.network"}},
    "attribution_methods": [
        {"name": "random", "method": "random"},
        {"name": "mine", "method": "mine.brightness"},
        {"name": "lent", "method": "gradient", "network": "second"},
    ],
}


@pytest.fixture(scope="module")
def several_ran(tmp_path_factory):
    """A study of two variants and two seeds, and another one whose run lies in the same folder."""
    folder = tmp_path_factory.mktemp("several")
    text = write_study(folder, **SEVERAL).read_text()
    done(folder, "all", "study.yml")
    single = {"metrics": ["morf"], "fractions": [0.5], "attribution_methods": SEVERAL["attribution_methods"][:2]}
    write_study(folder, **single).rename(folder / "single.yml")
    done(folder, "all", "single.yml")
    (folder / "study.yml").write_text(text)
    return folder


@pytest.fixture
def several(several_ran, tmp_path):
    shutil.copytree(several_ran, tmp_path, dirs_exist_ok=True, symlinks=True)
    return tmp_path


def held(folder):
    names = ("models", "maps", "scores", "learnt", "samples")
    return {path for name in names for path in (folder / "run").rglob(f"{name}/*") if path.is_file()}


@pytest.mark.long
def test_prune_removes_nothing_that_a_study_of_variants_and_seeds_asks_for(several):
    before = held(several)
    for order in (("study.yml", "single.yml"), ("single.yml", "study.yml")):
        assert done(several, "prune", *order, "--remove").startswith("removed 0 files")
    assert held(several) == before
    for study in ("study.yml", "single.yml"):
        out = done(several, "all", study)
        assert not any(word in out for word in ("trained", "extracted", "to run"))


@pytest.mark.long
def test_prune_frees_the_runs_of_other_seeds_and_names_those_of_other_variants(several):
    before = held(several)
    shared = set((several / "run/models").iterdir())
    tree = yaml.safe_load((several / "study.yml").read_text()) | {"seeds": [1], "variants": {"plain": {}}}
    (several / "one.yml").write_text(yaml.safe_dump(tree))
    listed = done(several, "prune", "one.yml", "single.yml")
    assert held(several) == before
    assert "run/long/seed-1: a run that no given study has" in listed
    done(several, "prune", "one.yml", "single.yml", "--remove")
    gone = before - held(several)
    assert {path for path in gone if "plain" in path.parts} == {path for path in before if "plain/seed-0" in str(path)}
    assert not [path for path in gone if "long" in path.parts]
    assert len([path for path in shared if path in gone]) == 1  # the second network of seed 0
    for study in ("one.yml", "single.yml"):
        out = done(several, "all", study)
        assert not any(word in out for word in ("trained", "extracted", "to run"))
