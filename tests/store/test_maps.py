"""MapStore and MapWriter: the files that survive kill -9."""

import hashlib
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch

from efface.store import keys, maps
from efface.store.maps import MapStore, MapWriter, partial_path, verify_once
from small.messages import words

MADE_FROM = {"method": {"call": "a.b", "kwargs": {"k": 1}}, "data": "d1"}
MAPS = torch.randn(40, 4, 6, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(40) % 7


def written(path, made_from=MADE_FROM, rows=MAPS, upto=40, size=8):
    writer = MapWriter(path, made_from, TARGETS[: len(rows)], rows[0])
    for first in range(0, upto, size):
        writer.write(first, rows[first : first + size])
    if upto < len(rows):
        writer.abandon()
    else:
        writer.close()
    return path


def flip(path, at):
    with path.open("r+b") as file:
        file.seek(at)
        old = file.read(1)
        file.seek(at)
        file.write(bytes([old[0] ^ 1]))


@pytest.mark.parametrize("rows", [MAPS, MAPS.reshape(40, 2, 2, 6), torch.arange(40) * 2**40])
def test_memory_map_equals_h5py(tmp_path, rows):
    path = written(tmp_path / "deep" / "x.h5", rows=rows)
    store = MapStore(path, MADE_FROM, 40)
    store.verify()
    assert (store.shape, len(store)) == (tuple(rows.shape), 40)
    assert store.kind == ("maps" if rows.is_floating_point() else "seeds")
    assert torch.equal(store.targets, TARGETS)
    with h5py.File(path) as file:
        assert np.array_equal(file[store.kind][:], rows.numpy())
        assert file[store.kind].chunks is None
        assert file["done"][:].all()
    chosen = torch.tensor([39, 0, 7, 7])
    for each in (store, pickle.loads(pickle.dumps(store))):  # noqa: S301
        assert torch.equal(each.take(chosen), rows[chosen])
    assert len(pickle.dumps(store)) < 5000


def test_a_stopped_writer_goes_on_and_ends_at_the_same_file(tmp_path):
    whole = written(tmp_path / "whole.h5")
    time.sleep(1.1)  # no time of the day stands in the file
    path = written(tmp_path / "x.h5", upto=16)
    assert maps.finished_rows(partial_path(path)) == 16
    with pytest.raises(FileNotFoundError, match=words("x.h5 x.h5.partial 16 40 extract")):
        MapStore(path, MADE_FROM, 40)
    writer = MapWriter(path, MADE_FROM, TARGETS, MAPS[0])
    assert writer.done.tolist() == [True] * 16 + [False] * 24
    writer.write(16, MAPS[16:])
    writer.close()
    assert path.read_bytes() == whole.read_bytes()
    assert not partial_path(path).exists()


@pytest.mark.parametrize("change", ["provenance", "shape", "kind", "noise", "empty", "unfinished layout"])
def test_an_unfinished_file_of_something_else_is_begun_anew(tmp_path, change):
    path, made_from, rows = tmp_path / "made" / "x.h5", MADE_FROM, MAPS
    path.parent.mkdir()
    if change == "provenance":
        made_from = MADE_FROM | {"data": "d2"}
    elif change == "shape":
        rows = MAPS[:, :3]
    elif change == "kind":
        rows = torch.arange(40)
    written(path, made_from, rows, upto=8)
    kept = ["kept"] if change == "provenance" else []
    if change == "noise":
        partial_path(path).write_bytes(b"noise")
    elif change == "empty":
        partial_path(path).write_bytes(b"")
    elif change == "unfinished layout":
        unfinished = partial_path(path).with_name(".x.h5.partial.other-1.new")
        unfinished.write_bytes(partial_path(path).read_bytes()[:900])
        os.utime(unfinished, (0, 0))
        partial_path(path).unlink()
    path = shutil.copytree(path.parent, tmp_path / "found") / "x.h5"  # a folder that this process has not listed yet
    writer = MapWriter(path, MADE_FROM, TARGETS, MAPS[0])
    assert not writer.done.any()
    writer.write(0, MAPS)
    writer.close()
    MapStore(path, MADE_FROM, 40).verify()
    assert {each.name for each in path.parent.iterdir()} == {"x.h5", *kept}


KILLED = """
import sys, time
from pathlib import Path
import torch
from efface.store.maps import MapWriter
maps = torch.randn(4000, 4, 6, generator=torch.Generator().manual_seed(0))
writer = MapWriter(Path(sys.argv[1]), {"a": 1}, torch.arange(4000) % 7, maps[0])
print("ready", flush=True)
for first in range(0, 4000, 8):
    writer.write(first, maps[first : first + 8])
    time.sleep(0.002)
writer.close()
"""


def test_kill_and_resume_gives_the_same_file(tmp_path):
    rows = torch.randn(4000, 4, 6, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(4000) % 7
    path = tmp_path / "x.h5"
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    while maps.finished_rows(partial_path(path)) < 500:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert 500 <= maps.finished_rows(partial_path(path)) < 4000
    for file in (path, tmp_path / "whole.h5"):
        writer = MapWriter(file, {"a": 1}, targets, rows[0])
        for first in range(0, 4000, 8):
            if not writer.done[first : first + 8].all():
                writer.write(first, rows[first : first + 8])
        writer.close()
    first, second = (hashlib.sha256(file.read_bytes()).hexdigest() for file in (path, tmp_path / "whole.h5"))
    assert first == second
    MapStore(path, {"a": 1}, 4000).verify()


def test_foreign_and_swapped_files_say_what_differs(tmp_path):
    path = written(tmp_path / "x.h5")
    asked = {"method": {"call": "a.b", "kwargs": {"k": 2}}, "data": "d1"}
    with pytest.raises(ValueError, match=words("method.kwargs.k 1 2 extract")):
        MapStore(path, asked, 40)
    train, test = written(tmp_path / "a.h5", {"split": "train"}), written(tmp_path / "b.h5", {"split": "test"})
    train.rename(tmp_path / "c.h5")
    test.rename(train)
    with pytest.raises(ValueError, match=words("split test train")):
        MapStore(train, {"split": "train"}, 40)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["maps"] = MAPS.numpy()
    with pytest.raises(ValueError, match=words("other.h5 efface")):
        MapStore(tmp_path / "other.h5", MADE_FROM, 40)
    with h5py.File(path, "r+") as file:
        file.attrs["format"] = 99
    with pytest.raises(ValueError, match=words("format 99 1 delete")):
        MapStore(path, MADE_FROM, 40)


def test_short_unfinished_and_incomplete_files(tmp_path):
    path = written(tmp_path / "x.h5")
    with pytest.raises(ValueError, match=words("x.h5 40 50")):
        MapStore(path, MADE_FROM, 50)
    with pytest.raises(FileNotFoundError, match=words("none.h5 extract")):
        MapStore(tmp_path / "none.h5", MADE_FROM, 40)
    written(tmp_path / "y.h5", upto=24)
    partial_path(tmp_path / "y.h5").rename(tmp_path / "y.h5")
    with pytest.raises(ValueError, match=words("y.h5 24 40 delete extract")):
        MapStore(tmp_path / "y.h5", MADE_FROM, 40)
    whole = path.read_bytes()
    for size in (0, 8, 500, 1500, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.h5").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=words("cut.h5 delete")):
            MapStore(tmp_path / "cut.h5", MADE_FROM, 40)
    with h5py.File(path, "r+") as file:
        del file["targets"]
    with pytest.raises(ValueError, match=words("x.h5 damaged targets delete")):
        MapStore(path, MADE_FROM, 40)


@pytest.mark.parametrize(("name", "item"), [("maps", 4 * 24), ("targets", 8), ("crc", 4)])
def test_every_flipped_byte_is_found(tmp_path, name, item):
    path = written(tmp_path / "x.h5")
    with h5py.File(path) as file:
        start = file[name].id.get_offset()
    for at in (0, item - 1, 13 * item, 40 * item - 1):
        flip(path, start + at)
        with pytest.raises(ValueError, match=words(f"x.h5 {at // item} checksum delete")):
            MapStore(path, MADE_FROM, 40).verify()
        flip(path, start + at)
    MapStore(path, MADE_FROM, 40).verify()


LIMITED = """
import resource, sys
from pathlib import Path
import torch
from efface.store.maps import MapWriter
for limit in (500_000, 2000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        MapWriter(Path(sys.argv[1]), {"a": 2}, torch.zeros(9000, dtype=torch.int64), torch.zeros(4, 6))
    except ValueError as error:
        print(error)
"""


@pytest.mark.long
def test_a_file_size_limit_is_one_error_and_the_earlier_file_stays(tmp_path):
    path = written(tmp_path / "x.h5")
    ran = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    said = r"x\.h5\.partial.*File too large.*limit"
    assert [bool(re.search(said, line)) for line in ran.stdout.splitlines()] == [True, True]
    MapStore(path, MADE_FROM, 40).verify()
    assert [each.name for each in tmp_path.iterdir()] == ["x.h5"]


def test_what_is_written_stays_when_the_disk_refuses_more(tmp_path, monkeypatch):
    path = tmp_path / "x.h5"
    writer = MapWriter(path, MADE_FROM, TARGETS, MAPS[0])
    writer.write(0, MAPS[:8])

    def full(*_):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", full)
        with pytest.raises(ValueError, match="No space left on device"):
            writer.write(8, MAPS[8:16])
    writer.abandon()
    assert maps.finished_rows(partial_path(path)) == 8


def test_no_permission_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"Not a directory|File exists"):
        MapWriter(tmp_path / "file" / "x.h5", MADE_FROM, TARGETS, MAPS[0])


def test_differences_are_told_by_their_keys():
    assert keys.differences(MADE_FROM, MADE_FROM) == ""
    assert keys.differences({"a": 1, "gone": 2}, {"a": 1, "new": None, "b": {"c": [1]}}) == (
        'b is null, expected {"c": [1]}, gone is 2, expected null'
    )
    assert keys.key({"a": 1, "b": 2}) == keys.key({"b": 2, "a": 1}) != keys.key({"a": 1, "b": 3})


def test_a_file_is_verified_once_and_again_when_it_was_written_to(tmp_path, monkeypatch):
    path, stamps, calls = written(tmp_path / "maps" / "x.h5"), tmp_path / "verified.json", []
    verify = MapStore.verify
    monkeypatch.setattr(MapStore, "verify", lambda store: (calls.append(1), verify(store))[1])
    for _ in range(2):
        verify_once(MapStore(path), stamps)
    assert len(calls) == 1
    with h5py.File(path) as file:
        start = file["maps"].id.get_offset()
    flip(path, start + 9)
    for text in (stamps.read_text(), "", "[]", "{"):  # a damaged list of what was verified counts as none
        stamps.write_text(text)
        with pytest.raises(ValueError, match=words("x.h5 row 0 damaged")):
            verify_once(MapStore(path), stamps)
