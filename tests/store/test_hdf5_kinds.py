"""HDF5 and sealed files that hold something else than numbers: one error with the file and what is wrong in it."""

import contextlib

import h5py
import numpy as np
import pytest
import torch

from efface.store.arrays import StoredArray, pack, packed
from efface.store.foreign import open_maps
from efface.store.foreign_write import write_maps
from efface.store.maps import MapStore, MapWriter, finished_rows, partial_path
from efface.store.sealed import read_arrays, read_tensors, write_arrays, write_sealed
from efface.store.tensors import read_learnt, write_learnt
from small.messages import words

N, MADE_FROM = 6, {"method": "a"}
MAPS = torch.randn(N, 4, 5, generator=torch.Generator().manual_seed(0))


def written(path, rows=MAPS):
    writer = MapWriter(path, MADE_FROM, torch.arange(len(rows)), rows[0])
    writer.write(0, rows)
    writer.close()
    return path


def compound(file, name):
    file[name] = np.zeros(N, [("a", "f4"), ("b", "i4")])


def references(file, name):
    file[name] = np.array([file.ref] * N, h5py.ref_dtype)


def ragged(file, name):
    file.create_dataset(name, (N,), h5py.vlen_dtype(np.float32))


def elsewhere(file, name):
    with h5py.File(file.filename + ".other", "w") as other:
        other["secret"] = np.zeros((N, 4, 5), np.float32)
    file[name] = h5py.ExternalLink(file.filename + ".other", "/secret")


def soft(file, name):
    file["kept_elsewhere"] = np.zeros((N, 4, 5), np.float32)
    file[name] = h5py.SoftLink("/kept_elsewhere")


def virtual(file, name):
    layout = h5py.VirtualLayout((N, 4, 5), np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "secret", (N, 4, 5))
    file.create_virtual_dataset(name, layout)


def external(file, name):
    file.create_dataset(name, (N, 4, 5), np.float32, external=[(file.filename + ".raw", 0, h5py.h5f.UNLIMITED)])


KINDS = {
    "texts": lambda file, name: file.create_dataset(name, data=["a"] * N),
    "bytes": lambda file, name: file.create_dataset(name, data=np.array([b"ab"] * N, "S2")),
    "opaque": lambda file, name: file.create_dataset(name, data=np.zeros(N, "V8")),
    "named": lambda file, name: file.create_dataset(name, data=np.zeros(N, bool)),
    "complex": lambda file, name: file.create_dataset(name, data=np.zeros((N, 4, 5), np.complex64)),
    "group": lambda file, name: file.create_group(name),
    "empty": lambda file, name: file.create_dataset(name, data=h5py.Empty("f4")),
    "scalar": lambda file, name: file.create_dataset(name, data=np.float32(1)),
    "axes": lambda file, name: file.create_dataset(name, data=np.zeros((N, 1, 1, 1, 1, 1), np.float32)),
    "compound": compound,
    "references": references,
    "ragged": ragged,
    "elsewhere": elsewhere,
    "soft": soft,
    "virtual": virtual,
    "external": external,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["maps", "targets", "crc", "done"])
def test_a_map_file_with_another_kind_of_data_names_file_and_data_set(kind, name, tmp_path):
    path = written(tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        del file[name]
        KINDS[kind](file, name)
    with pytest.raises(ValueError, match=words(f"x.h5 {name} delete")):
        MapStore(path, MADE_FROM, N)
    if name == "done":
        path.rename(partial_path(path))
        assert finished_rows(partial_path(path)) == 0


@pytest.mark.parametrize("dtype", ["f8", ">f4", "f2", "i4"])
def test_numbers_of_another_type_name_both_types(dtype, tmp_path):
    path = written(tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        del file["maps"]
        file["maps"] = np.zeros((N, 4, 5), dtype)
    with pytest.raises(ValueError, match=words("x.h5 maps expected float32 delete")):
        MapStore(path, MADE_FROM, N)


def test_an_unfinished_file_of_another_kind_is_begun_again(tmp_path):
    path = tmp_path / "x.h5"
    written(path).rename(partial_path(path))
    with h5py.File(partial_path(path), "r+") as file:
        del file["maps"]
        file["maps"] = np.zeros((N, 4, 5), "S4")
    written(path)
    assert torch.equal(MapStore(path, MADE_FROM, N).take(torch.arange(N)), MAPS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["maps", "targets"])
def test_foreign_maps_of_another_kind_name_file_and_data_set(kind, name, tmp_path):
    path = write_maps(tmp_path / "x.h5", MAPS, torch.zeros(N, dtype=torch.long))
    with h5py.File(path, "r+") as file:
        del file[name]
        KINDS[kind](file, name)
    with pytest.raises(ValueError, match=words(f"x.h5 {name}")):
        open_maps(path, "test", alone=True)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"scalar", "axes"}))  # any rank may be learnt; the digest differs
def test_learnt_tensors_and_packed_images_of_another_kind(kind, tmp_path):
    write_learnt(tmp_path / "x.h5", {"a": MAPS})
    pack(tmp_path / "y.h5", "images", (N, 3), [np.zeros((N, 3), np.uint8)], {"k": 1})
    for path, name in ((tmp_path / "x.h5", "a"), (tmp_path / "y.h5", "images")):
        with h5py.File(path, "r+") as file:
            del file[name]
            KINDS[kind](file, name)
    with pytest.raises(ValueError, match=words("x.h5 delete")):
        read_learnt(tmp_path / "x.h5")
    with pytest.raises(ValueError, match=words("y.h5 delete")):
        packed(tmp_path / "y.h5", "images", {"k": 1})


@pytest.mark.parametrize("value", [[1, 2], "x", b"\xff", 3.5, "[]", np.zeros((2, 2)), h5py.Empty("f4")])
@pytest.mark.parametrize("name", ["format", "provenance"])
def test_attributes_of_another_kind_name_the_file(name, value, tmp_path):
    path = written(tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    with contextlib.suppress(ValueError) if name == "format" else pytest.raises(ValueError, match=words("x.h5")):
        MapStore(path, MADE_FROM, N)


def test_an_unknown_filter_names_the_file(tmp_path):
    space, plist = h5py.h5s.create_simple((N, 4, 5)), h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((N, 4, 5))
    plist.set_filter(32_099, h5py.h5z.FLAG_OPTIONAL, (1,))
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        h5py.h5d.create(file.id, b"maps", h5py.h5t.NATIVE_FLOAT, space, plist)
        file["maps"].id.write_direct_chunk((0, 0, 0), bytes(N * 80), 0)
    with pytest.raises(ValueError, match=words("x.h5 maps chunked")):
        StoredArray(path, "maps")
    with pytest.raises(ValueError, match=words("x.h5 anew")):
        open_maps(path, "test", alone=True).take(np.arange(N))


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bytes_and_cuts_give_the_rows_or_an_error_with_the_file(seed, tmp_path):
    draw = np.random.default_rng(seed)
    path = written(tmp_path / "x.h5")
    write_learnt(tmp_path / "y.h5", {"a": MAPS, "b": torch.ones(())})
    write_maps(tmp_path / "z.h5", MAPS, torch.zeros(N, dtype=torch.long))
    readers = {
        "x.h5": lambda path: (store := MapStore(path, MADE_FROM, N), store.verify())[0].take(torch.arange(N)),
        "y.h5": lambda path: read_learnt(path)["a"],
        "z.h5": lambda path: open_maps(path, "test", alone=True).take(np.arange(N)),
    }
    whole = {name: (tmp_path / name).read_bytes() for name in readers}
    for _ in range(60):
        for name, read in readers.items():
            content = bytearray(whole[name])
            for _ in range(int(draw.integers(1, 9))):
                content[int(draw.integers(len(content) // 4))] = int(draw.integers(256))
            path = tmp_path / f"bad-{name}"
            path.write_bytes(content[: int(draw.integers(len(content)))] if draw.random() < 0.2 else content)
            said = ""
            try:
                found = read(path)
            except (ValueError, FileNotFoundError) as error:
                said = str(error)
            if said:
                assert f"bad-{name}" in said
            else:
                assert name == "z.h5" or torch.equal(found, MAPS)  # foreign files carry no digest


def test_sealed_files_of_objects_and_texts_name_the_file(tmp_path):
    write_arrays(tmp_path / "a.npz", "k", {"accuracy": np.array(["x"])})
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
    write_sealed(tmp_path / "b.npz", "k", lambda path: path.write_bytes((tmp_path / "objects.npz").read_bytes()))
    write_sealed(tmp_path / "c.pt", "k", lambda path: torch.save({"a": contextlib.nullcontext()}, path))
    for name, read in (("a.npz", read_arrays), ("b.npz", read_arrays), ("c.pt", read_tensors)):
        with pytest.raises(ValueError, match=words(f"{name} expected")):
            read(tmp_path / name, "k")


def test_what_a_method_learnt_in_another_run_is_refused_under_another_name(tmp_path):
    write_learnt(tmp_path / "mine-1.h5", {"a": torch.ones(2)})
    (tmp_path / "mine-1.h5").rename(tmp_path / "mine-2.h5")
    with pytest.raises(ValueError, match=words("mine-2.h5 written as mine-1 another study extract")):
        read_learnt(tmp_path / "mine-2.h5")
