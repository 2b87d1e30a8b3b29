"""Links in a run folder: nothing is written through them."""

import os
import shutil

import pytest

from efface.store.links import refuse_links
from small.messages import words
from small.studies import efface, files, write_study


def planted(folder, name, to):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to)


@pytest.mark.parametrize(
    "name",
    [
        *("study.yml", "results.jsonl", ".lock", ".owner", ".report-lock", "failures.log", "plan.json"),
        *("maps/mine-test.h5", "maps/mine-test.h5.partial", "report/report.html", "report/.made-from", "scores/a.npz"),
        *("models/network-a.pt", "models", "scores", "kept", "figures/deep/grid.png"),
    ],
)
def test_a_link_is_refused_with_its_path_and_target(name, tmp_path):
    planted(tmp_path / "run", name, tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=words(f"run/{name} elsewhere delete")):
        refuse_links(tmp_path / "run", [])


@pytest.mark.parametrize("name", ["network", "second_network"])
def test_the_plain_name_of_a_network_is_no_link_to_refuse(name, tmp_path):
    planted(tmp_path / "run", f"models/{name}.pt", f"{name}-0123456789abcdef.pt")  # its file may be gone
    refuse_links(tmp_path / "run", [])
    (tmp_path / "run/models" / f"{name}-0123456789abcdef.pt").write_bytes(b"weights")
    refuse_links(tmp_path / "run", [])


@pytest.mark.parametrize(
    ("name", "to"),
    [
        ("models/network.pt", "/elsewhere/network-0123456789abcdef.pt"),
        ("models/network.pt", "../network-0123456789abcdef.pt"),
        ("models/network.pt", "./network-0123456789abcdef.pt/../../maps"),
        ("models/network.pt", "logits-0123456789abcdef.npz"),
        ("models/network.pt", "network.pt"),
        ("models/network.pt", "second_network-0123456789abcdef.pt"),
        ("models/other.pt", "network-0123456789abcdef.pt"),
        ("models/deep/network.pt", "network-0123456789abcdef.pt"),
        ("maps/network.pt", "network-0123456789abcdef.pt"),
        ("models/network-0123456789abcdef.pt", "network-fedcba9876543210.pt"),
    ],
)
def test_any_other_link_in_its_place_or_elsewhere_is_refused(name, to, tmp_path):
    planted(tmp_path / "run", name, to)
    with pytest.raises(ValueError, match=words(f"run/{name} delete")):
        refuse_links(tmp_path / "run", [])


def test_links_above_and_unknown_entries_are_left_alone(tmp_path):
    (tmp_path / "disk" / "maps").mkdir(parents=True)
    planted(tmp_path, "run", tmp_path / "disk")
    planted(tmp_path / "run", "notes.txt", tmp_path / "elsewhere")
    refuse_links(tmp_path / "run", [tmp_path / "run" / "seed-0"])


def test_a_link_in_place_of_the_folder_of_a_seed_is_refused(tmp_path):
    (tmp_path / "disk").mkdir()
    planted(tmp_path / "run", "softplus", tmp_path / "disk")
    with pytest.raises(ValueError, match=words("run/softplus disk")):
        refuse_links(tmp_path / "run", [tmp_path / "run" / "softplus" / "seed-0"])


@pytest.mark.parametrize("name", [".owner", "results.jsonl", "maps", "report"])
def test_a_command_leaves_what_a_link_points_to_as_it_was(name, tmp_path):
    write_study(tmp_path, out="run")
    victim = tmp_path / "victim"
    victim.mkdir() if name in ("maps", "report") else victim.write_text("mine")
    planted(tmp_path / "run", name, victim)
    before = files(tmp_path / "run") | files(victim) if victim.is_dir() else {"victim": victim.read_text()}
    found = efface(tmp_path, "all", "study.yml")
    assert found.code == 1
    assert f"run/{name}: is a symbolic link" in found.err
    assert before == (files(tmp_path / "run") | files(victim) if victim.is_dir() else {"victim": victim.read_text()})


@pytest.mark.long
def test_a_copy_made_of_hard_links_stays_as_it_was_while_the_run_goes_on(tmp_path):
    write_study(tmp_path, out="run")
    assert efface(tmp_path, "measure", "study.yml").code == 0
    half = (tmp_path / "run/results.jsonl").read_bytes().splitlines(keepends=True)[:-1]
    (tmp_path / "run/results.jsonl").write_bytes(b"".join(half))
    (tmp_path / "run/maps/x-test.h5.partial").write_bytes(b"begun")
    shutil.copytree(tmp_path / "run", tmp_path / "backup", copy_function=os.link)
    before = files(tmp_path / "backup")
    assert efface(tmp_path, "measure", "study.yml", "max_batch=32").code == 0
    assert files(tmp_path / "backup") == before
    after = (tmp_path / "run/results.jsonl").read_bytes()
    assert after.startswith(b"".join(half))
    assert len(after.splitlines()) > len(half)
    own = ("study.yml", "results.jsonl", "maps/x-test.h5.partial")
    assert all((tmp_path / "run" / name).stat().st_nlink == 1 for name in own)
