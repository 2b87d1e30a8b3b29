"""A file that is written as a whole: the earlier one or the new one, whatever happens in between."""

import os
import subprocess
import sys
import time

import pytest

from efface.store.atomic import atomic_write


def names(folder):
    return sorted(each.name for each in folder.iterdir())


@pytest.mark.parametrize("synced", [False, True])
def test_a_file_has_its_name_only_once_it_is_whole(tmp_path, synced):
    path = tmp_path / "made" / "here" / "x.npy"
    with atomic_write(path, synced=synced) as temporary:
        temporary.write_bytes(b"new")
        assert (path.exists(), temporary.parent) == (False, path.parent)
    assert (path.read_bytes(), names(path.parent)) == (b"new", ["x.npy"])


def test_the_content_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    done, replace, path = [], os.fsync, tmp_path / "x"
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(path.exists()), replace(file)))
    with atomic_write(path, synced=True) as temporary:
        temporary.write_bytes(b"new")
    assert done == [False]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_exception_keeps_the_earlier_file(tmp_path, kind):
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def fail():
        with atomic_write(path) as temporary:
            temporary.write_bytes(b"ne")
            raise kind

    with pytest.raises(kind):
        fail()
    assert (path.read_bytes(), names(tmp_path)) == (b"old", ["x"])


KILLED = """
import os, signal, sys
from pathlib import Path
from efface.store.atomic import atomic_write
with atomic_write(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"ne")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_by_the_next_write(tmp_path):
    path = tmp_path / "x"
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode == -9
    (left,) = names(tmp_path)
    running = tmp_path / f"{left.rpartition('-')[0]}-1.new"
    running.write_bytes(b"of a process that still runs")
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"new")
    assert names(tmp_path) == sorted(["x", running.name])


def test_a_large_folder_is_seldom_listed(tmp_path, monkeypatch):
    """A run writes 100,000 files into one folder: to list it before each of them took most of the time."""
    listed, plain, now = [], os.listdir, [0.0]

    def slow(folder):
        listed.append(folder)
        now[0] += 0.05
        return plain(folder)

    monkeypatch.setattr("efface.store.atomic.os.listdir", slow)
    monkeypatch.setattr("efface.store.atomic.time.monotonic", lambda: now[0])
    for number in range(200):
        now[0] += 0.1
        with atomic_write(tmp_path / str(number)) as temporary:
            temporary.write_text("new")
    assert len(listed) == 4  # of 20 s: at first, and every 5 s
    assert len(names(tmp_path)) == 200


def test_what_another_machine_left_is_removed_when_it_is_old(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode == -9
    (own,) = set(tmp_path.iterdir()) - {path}
    left = own.rename(tmp_path / ".x.elsewhere-7.new")
    assert path.read_bytes() == b"old"
    for age, stays in ((60, True), (7200, False)):
        os.utime(left, (time.time() - age,) * 2)
        with atomic_write(path) as temporary:
            assert temporary != left  # another process's
            temporary.write_bytes(b"new")
        assert (path.read_bytes(), left.exists()) == (b"new", stays)
