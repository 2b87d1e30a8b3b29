"""Contiguous HDF5 data sets read as memory maps."""

import errno
import os
import pickle
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

from efface.store import arrays as rows
from efface.store.arrays import StoredArray
from small.messages import words

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 3, 5, 7), dtype=np.uint8)


def blocks(size=16):
    return (IMAGES[i : i + size] for i in range(0, len(IMAGES), size))


def names(folder):
    return sorted(each.name for each in folder.iterdir())


def pack(path, **attributes):
    return rows.pack(path, "images", IMAGES.shape, blocks(), attributes)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_memory_map_equals_h5py(tmp_path, dtype):
    path, values = tmp_path / "x.h5", IMAGES.astype(dtype)
    rows.create_file(path, {"a": (values.shape, dtype), "b": ((3,), np.int64)}, {"note": "x"})
    found = StoredArray(path, "a")
    assert (found.numpy() == 0).all()
    with path.open("r+b", buffering=0) as file:
        rows.write(file, found, 0, values[:20])
        rows.write(file, found, 20, values[20:])
    with h5py.File(path) as file:
        assert np.array_equal(file["a"][:], values)
        assert (file["b"][:] == 0).all()
        assert file["a"].chunks is None
        assert file.attrs["note"] == "x"
    assert (found.shape, found.dtype, len(found)) == (values.shape, values.dtype, 50)
    chosen = torch.tensor([7, 0, 49, 7])
    for each in (found, pickle.loads(pickle.dumps(found))):  # noqa: S301
        assert torch.equal(each.take(chosen), torch.from_numpy(values[chosen.numpy()]))
    assert torch.equal(rows.read_rows(found, chosen), rows.read_rows(torch.from_numpy(values), chosen))
    for each in (
        chosen,
        torch.arange(2, 5),
        torch.arange(3),
        torch.tensor([1]),
        torch.arange(0),
        torch.tensor([1, 1, 3]),
    ):
        for source in (found, torch.from_numpy(values)):
            assert torch.equal(rows.view_rows(source, each), torch.from_numpy(values[each.numpy()]))


def test_any_hdf5_tool_may_write_what_is_read(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"] = IMAGES
        file.create_dataset("chunked", data=IMAGES, chunks=True)
    assert np.array_equal(StoredArray(tmp_path / "x.h5", "a").numpy(), IMAGES)
    with pytest.raises(ValueError, match=words("chunked contiguous")):
        StoredArray(tmp_path / "x.h5", "chunked")
    with pytest.raises(ValueError, match=words("b a chunked")):
        StoredArray(tmp_path / "x.h5", "b")


def test_packed_files_are_verified(tmp_path):
    path = tmp_path / "deep" / "x.h5"
    assert rows.packed(path, "images", {"size": 5}) is None
    packed = pack(path, size=5)
    assert np.array_equal(packed.numpy(), IMAGES)
    assert names(path.parent) == ["x.h5"]
    assert np.array_equal(rows.packed(path, "images", {"size": 5}).numpy(), IMAGES)
    assert rows.packed(path, "images", {"size": 6}) is None
    assert rows.digest(packed) == rows.digest(torch.from_numpy(IMAGES))
    with path.open("r+b") as file:
        file.seek(packed.offset + 1000)
        old = file.read(1)
        file.seek(packed.offset + 1000)
        file.write(bytes([old[0] ^ 1]))
    with pytest.raises(ValueError, match=words("x.h5 rows delete")):
        rows.packed(path, "images", {"size": 5})


def test_digests_see_shape_type_and_every_byte():
    some = torch.from_numpy(IMAGES)
    other = some.clone()
    other[49, 2, 4, 6] ^= 1
    digests = [rows.digest(each) for each in (some, other, some.reshape(50, 3, 35), some.to(torch.int16))]
    assert len(set(digests)) == 4
    assert rows.digest(some.transpose(1, 2).contiguous().transpose(1, 2)) == digests[0]


@pytest.mark.parametrize("count", [40, 60])
def test_other_than_the_promised_rows_is_refused_and_leaves_nothing(tmp_path, count):
    with pytest.raises(ValueError, match=f"expected {count}"):
        rows.pack(tmp_path / "x.h5", "images", (count, 3, 5, 7), blocks(), {})
    assert names(tmp_path) == []


def test_a_failing_source_keeps_the_earlier_file(tmp_path):
    pack(tmp_path / "x.h5")

    def failing():
        yield IMAGES[:10]
        raise KeyError

    with pytest.raises(KeyError):
        rows.pack(tmp_path / "x.h5", "images", IMAGES.shape, failing(), {})
    assert names(tmp_path) == ["x.h5"]
    assert np.array_equal(StoredArray(tmp_path / "x.h5", "images").numpy(), IMAGES)


def test_what_cannot_be_read_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=words("none.h5")):
        StoredArray(tmp_path / "none.h5", "images")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(ValueError, match=words("text.h5 HDF5")):
        StoredArray(tmp_path / "text.h5", "images")
    pack(tmp_path / "x.h5")
    whole = (tmp_path / "x.h5").read_bytes()
    for size in (0, 10, 600, 2000, 2500, len(whole) - 1):
        (tmp_path / "short.h5").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"short\.h5.*(HDF5|cut short|damaged)"):
            StoredArray(tmp_path / "short.h5", "images")


def test_what_cannot_be_written_is_the_systems_error(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match="No such file or directory") as found,
        rows.open_file(tmp_path / "none" / "x.h5", "w"),
    ):
        pass
    assert found.value.filename == str(tmp_path / "none" / "x.h5")
    (tmp_path / "folder.h5").mkdir()
    with pytest.raises(OSError, match="Is a directory"), rows.open_file(tmp_path / "folder.h5", "w"):
        pass


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from efface.store import arrays as rows
for limit in (700_000, 1000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        rows.pack(Path(sys.argv[1]), "images", (2000, 3, 16, 16), [np.zeros((2000, 3, 16, 16), np.uint8)], {})
    except OSError as error:
        print(f"{error.filename}: {error.strerror}")
"""


@pytest.mark.long
def test_a_file_size_limit_is_one_error_and_the_earlier_file_stays(tmp_path):
    pack(tmp_path / "x.h5")
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "x.h5")], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")  # HDF5 itself would write pages of noise and crash
    told = re.escape(str(tmp_path / ".x.h5.")) + r"[0-9a-f]{8}-\d+\.new: File too large\n"
    assert re.fullmatch(f"({told}){{2}}", ran.stdout)
    assert names(tmp_path) == ["x.h5"]
    assert np.array_equal(StoredArray(tmp_path / "x.h5", "images").numpy(), IMAGES)


def test_an_error_of_the_system_while_reading_is_that_error(tmp_path):
    pack(tmp_path / "x.h5")
    with pytest.raises(OSError, match="Input/output"), rows.open_file(tmp_path / "x.h5"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    with pytest.raises(ValueError, match=words("x.h5: damaged delete")), rows.open_file(tmp_path / "x.h5"):
        raise OSError("no number: HDF5's own")
    with pytest.raises(KeyError), rows.open_file(tmp_path / "x.h5", "r+"):
        raise KeyError("a mistake while writing is no damage")


def test_a_file_is_created_in_folders_that_do_not_exist_yet(tmp_path):
    path = tmp_path / "runs" / "of today" / "x.h5"
    rows.create_file(path, {"a": ((2, 3), np.float32)})
    assert StoredArray(path, "a").numpy().shape == (2, 3)
