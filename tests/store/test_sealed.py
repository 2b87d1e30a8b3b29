"""Sealed files are read by torch and NumPy as ever, and by efface only if they fit their key."""

import os

import numpy as np
import pytest
import torch

from efface.store.sealed import (
    BrokenSealError,
    check_seal,
    is_whole,
    read_arrays,
    read_tensors,
    write_arrays,
    write_sealed,
    write_tensors,
)

ARRAYS = {"a": np.arange(5), "b": np.zeros((0, 3), dtype=np.float32)}


def test_other_programs_read_sealed_files(tmp_path):
    write_tensors(tmp_path / "w.pt", "key", {"a": torch.arange(5)})
    write_arrays(tmp_path / "a.npz", "key", ARRAYS)
    assert torch.load(tmp_path / "w.pt", weights_only=True)["a"].tolist() == [0, 1, 2, 3, 4]
    with np.load(tmp_path / "a.npz") as found:
        assert {name: found[name].tolist() for name in found.files} == {"a": [0, 1, 2, 3, 4], "b": []}
    assert read_tensors(tmp_path / "w.pt", "key")["a"].tolist() == [0, 1, 2, 3, 4]
    assert read_arrays(tmp_path / "a.npz", "key")["b"].shape == (0, 3)


@pytest.mark.parametrize(
    "array",
    [
        np.float64(3.5),
        np.zeros((0, 3), dtype=np.float32),
        np.asfortranarray(np.arange(12, dtype=np.int16).reshape(3, 4)),
        np.arange(12, dtype=">i4").reshape(2, 3, 2),
        np.array([True, False]),
        np.array([[np.nan, np.inf]], dtype=np.float16),
    ],
)
def test_arrays_are_those_that_numpy_reads(tmp_path, array):
    path = tmp_path / "a.npz"
    write_arrays(path, "key", {"first": np.arange(3), "an array": array})
    found = read_arrays(path, "key")["an array"]
    with np.load(path) as file:
        expected = file["an array"]
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.flags.f_contiguous == expected.flags.f_contiguous
    np.testing.assert_array_equal(found, expected)
    found[...] = 0  # they can be written


@pytest.mark.parametrize(("save", "array"), [(np.savez_compressed, np.arange(3)), (np.savez, np.array(["text"]))])
def test_other_arrays_are_refused_with_the_file(tmp_path, save, array):
    def write(temporary):
        with temporary.open("wb") as file:
            save(file, a=array)

    write_sealed(tmp_path / "a.npz", "key", write)
    with pytest.raises(BrokenSealError, match=r"a\.npz: .*delete it"):
        read_arrays(tmp_path / "a.npz", "key")


def test_every_changed_byte_and_every_cut_is_found(tmp_path):
    path = tmp_path / "a.npz"
    write_arrays(path, "key", {"a": np.arange(3)})
    content = path.read_bytes()
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 0x10
        path.write_bytes(changed)
        with pytest.raises(BrokenSealError, match=r"does not fit|no seal"):
            check_seal(path, "key")
        path.write_bytes(content[:at])
        with pytest.raises(BrokenSealError, match=r"does not fit|no seal"):
            check_seal(path, "key")
    path.write_bytes(content + b"more")
    with pytest.raises(BrokenSealError):
        check_seal(path, "key")
    path.write_bytes(content)
    check_seal(path, "key")


def test_a_file_of_another_key_is_found_and_nothing_is_lost(tmp_path, capsys):
    path = tmp_path / "w.pt"
    for _ in range(2):
        write_tensors(path, "mine", {"a": torch.arange(5)})
        assert is_whole(path, "mine", "it is made again")
        assert not is_whole(path, "yours", "it is made again")
        assert "made again" in capsys.readouterr().err
        assert not path.exists()
    assert {each.name for each in tmp_path.iterdir()} == {"w.pt.damaged-1", "w.pt.damaged-2"}
    assert not is_whole(path, "mine", "it is made again")
    assert capsys.readouterr().err == ""


def test_a_file_that_changes_after_a_check_is_read_again(tmp_path):
    path = tmp_path / "a.npz"
    write_arrays(path, "key", ARRAYS)
    check_seal(path, "key")
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(0, 0))
    with pytest.raises(BrokenSealError):
        check_seal(path, "key")


def test_only_archives_are_sealed(tmp_path):
    with pytest.raises(ValueError, match="no ZIP archive"):
        write_sealed(tmp_path / "a.txt", "key", lambda path: path.write_text("text that is long enough for a seal"))
    assert list(tmp_path.iterdir()) == []
