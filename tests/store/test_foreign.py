"""Files of maps that were made elsewhere: what they may hold, and what is refused with the file and the row."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

import efface
from efface.store.foreign import open_maps, places
from efface.store.foreign_write import image_digests, write_maps
from small.messages import words

MAPS = np.random.default_rng(0).normal(size=(6, 3, 4, 5)).astype(np.float32)
TARGETS = np.array([0, 2, 1, 1, 0, 2])
IMAGES = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (6, 3, 4, 5), np.uint8))
EVERY = np.arange(6)


def opened(path, split="test", *, alone=True):
    return open_maps(path, split, alone=alone)


@pytest.mark.parametrize("form", ["npz", "h5", "hdf5"])
def test_what_is_written_is_read(form, tmp_path):
    path = efface.write_maps(tmp_path / f"a.{form}", torch.from_numpy(MAPS), torch.from_numpy(TARGETS), IMAGES)
    found = opened(path)
    assert (found.take(EVERY).numpy() == MAPS).all()
    assert (found.take(EVERY[::-1][:4]).numpy() == MAPS[::-1][:4]).all()
    assert (found.targets == TARGETS).all()
    assert found.digests == image_digests(IMAGES)
    assert (places(found, IMAGES) == EVERY).all()


@pytest.mark.parametrize("form", ["npy", "npz", "h5"])
def test_maps_alone_are_in_the_order_of_the_rows(form, tmp_path):
    found = opened(write_maps(str(tmp_path / f"a.{form}"), MAPS[:, 0]))
    assert found.shape == (6, 4, 5)
    assert found.targets is None
    assert (places(found, IMAGES) == EVERY).all()


@pytest.mark.long
def test_writing_is_found_at_the_top_and_imported_only_when_it_is_used():
    code = "import sys, efface; assert 'torch' not in sys.modules; efface.write_maps; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="read_maps"):
        efface.read_maps  # noqa: B018


@pytest.mark.parametrize("name", ["maps", "attribution", "attributions", "mine"])
def test_names_of_the_maps(name, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file[name] = MAPS.astype(np.float64)
    assert (opened(tmp_path / "a.h5").take(EVERY).numpy() == MAPS).all()
    np.savez(tmp_path / "a.npz", **{name: MAPS})
    assert (opened(tmp_path / "a.npz").take(EVERY).numpy() == MAPS).all()


def test_virelays_layout(tmp_path):
    order = [3, 0, 5, 1, 2, 4]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["attribution"] = MAPS[order]
        file["prediction"] = np.eye(3, dtype=np.float32)[TARGETS[order]]
        file["label"] = 0.7 * np.eye(3, dtype=np.float32)[TARGETS[order]]
        file["index"] = np.array(order, np.uint32)
    found = opened(tmp_path / "a.h5")
    at = places(found, IMAGES)
    assert (found.take(at).numpy() == MAPS).all()
    assert (found.targets[at] == TARGETS).all()
    assert (found.prediction[at].argmax(1) == TARGETS).all()


def test_both_splits_in_one_file(tmp_path):
    np.savez(tmp_path / "a.npz", **{"train/maps": MAPS, "test/maps": MAPS[:2], "test/targets": TARGETS[:2]})
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["train/maps"], file["test/maps"], file["test/targets"] = MAPS, MAPS[:2], TARGETS[:2]
    for form in ("npz", "h5"):
        path = tmp_path / f"a.{form}"
        assert opened(path, "train", alone=False).shape[0] == 6
        assert (opened(path).targets == TARGETS[:2]).all()
    np.savez(tmp_path / "b.npz", **{"test/maps": MAPS})
    with pytest.raises(ValueError, match=words("b.npz test train")):
        opened(tmp_path / "b.npz", "train")
    with pytest.raises(ValueError, match=words("c.npy train test file:")):
        opened(write_maps(tmp_path / "c.npy", MAPS), "train", alone=False)


def test_digests_match_rows_whatever_the_order_and_the_rest(tmp_path):
    order = [4, 1, 0, 5, 3, 2]
    found = opened(write_maps(tmp_path / "a.npz", MAPS[order], images=IMAGES[order]))
    few = IMAGES[[2, 0, 4]]
    assert (found.take(places(found, few)).numpy() == MAPS[[2, 0, 4]]).all()
    other = IMAGES.clone()
    other[3] ^= 1
    with pytest.raises(ValueError, match=words("a.npz image 3 1 6")):
        places(found, other)


def test_equal_images_have_their_maps_in_order(tmp_path):
    same = IMAGES[[0, 0, 1]]
    found = opened(write_maps(tmp_path / "a.npz", MAPS[:3], images=same))
    assert places(found, same).tolist() == [0, 1, 2]


def test_digests_of_floats_are_those_of_the_stored_images():
    assert image_digests(IMAGES.float() / 255) == image_digests(IMAGES.numpy())
    for wrong in (IMAGES.float() / 255 - 0.5, IMAGES.float(), torch.rand(2, 3, 4, 5), IMAGES.int()):
        with pytest.raises(ValueError, match=words("images: uint8 255ths")):
            image_digests(wrong)


def test_whole_images_in_place_of_digests(tmp_path):
    np.savez(tmp_path / "a.npz", maps=MAPS[::-1], images=IMAGES.numpy()[::-1])
    found = opened(tmp_path / "a.npz")
    assert (found.take(places(found, IMAGES)).numpy() == MAPS).all()


def test_several_maps_of_one_image_are_refused(tmp_path):
    twice = write_maps(tmp_path / "a.npz", np.concatenate([MAPS, MAPS + 1]), images=torch.cat([IMAGES, IMAGES]))
    with pytest.raises(ValueError, match=words("a.npz 0, 6 digest one")):
        places(opened(twice), IMAGES)


def test_an_index_that_contradicts_the_digests_is_refused(tmp_path):
    digests = np.array(image_digests(IMAGES))
    np.savez(tmp_path / "a.npz", maps=MAPS, images=digests, index=np.arange(6))
    assert places(opened(tmp_path / "a.npz"), IMAGES).tolist() == [0, 1, 2, 3, 4, 5]
    np.savez(tmp_path / "a.npz", maps=MAPS, images=digests, index=np.arange(6)[::-1])
    with pytest.raises(ValueError, match=words("a.npz row 0 image 5 'index' 'images'")):
        places(opened(tmp_path / "a.npz"), IMAGES)


def test_class_numbers_in_a_column_are_class_numbers(tmp_path):
    np.savez(tmp_path / "a.npz", maps=MAPS, targets=TARGETS[:, None])
    assert (opened(tmp_path / "a.npz").targets == TARGETS).all()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"maps": MAPS[0, 0]}, "a.npz maps (4, 5) n h w"),
        ({"maps": np.array(["x"] * 6)}, "a.npz maps numbers"),
        ({"maps": MAPS, "targets": TARGETS[:5]}, "a.npz targets (5,) 6"),
        ({"maps": MAPS, "targets": TARGETS - 1}, "a.npz row 0 targets -1"),
        ({"maps": MAPS, "targets": TARGETS + 0.5}, "a.npz row 0 targets 0.5"),
        ({"maps": MAPS, "targets": np.ones((6, 3))}, "a.npz row 0 targets 3 one"),
        ({"maps": MAPS, "images": TARGETS}, "a.npz images (6,) digests"),
        ({"maps": MAPS, "prediction": TARGETS}, "a.npz prediction (6,)"),
        ({"one": MAPS, "two": MAPS}, "a.npz one, two maps"),
        ({"maps": MAPS, "attributions": MAPS + 1}, "a.npz 'maps' 'attributions' leave"),
        ({"maps": MAPS, "targets": TARGETS, "labels": TARGETS}, "a.npz 'targets' 'labels' leave"),
        ({"maps": np.array([None] * 6)}, "a.npz readable"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(arrays, said, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=words(said)):
        opened(tmp_path / "a.npz")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
@pytest.mark.parametrize("form", ["npy", "npz", "h5"])
def test_a_value_that_is_not_finite_names_its_row(form, value, tmp_path):
    wrong = MAPS.astype(np.float64)
    wrong[4, 1, 2, 3] = value
    path = tmp_path / f"a.{form}"
    if form == "npy":
        np.save(path, wrong)
    elif form == "npz":
        np.savez(path, maps=wrong)
    else:
        with h5py.File(path, "w") as file:
            file["maps"] = wrong
    with pytest.raises(ValueError, match=words(f"a.{form} row 4")):
        opened(path).take(EVERY)


@pytest.mark.parametrize("form", ["npy", "npz", "h5"])
@pytest.mark.parametrize("content", [b"", b"no file", None])
def test_damaged_files_are_refused_in_one_sentence(form, content, tmp_path):
    path = write_maps(tmp_path / f"a.{form}", MAPS)
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    with pytest.raises(ValueError, match=words(f"a.{form} readable")):
        opened(path).take(EVERY)


def test_an_array_in_place_of_a_group_and_the_reverse(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["attribution/first"] = MAPS[0]
    with pytest.raises(ValueError, match=words("a.h5 attribution group")):
        opened(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["maps"] = ["a", "b"]
    with pytest.raises(ValueError, match=words("b.h5 maps texts object numbers")):
        opened(tmp_path / "b.h5")


ODD = {
    "a group": lambda file, name: file.create_group(name),
    "maps one by one": lambda file, name: file.create_group(name).create_dataset("0", data=MAPS[0]),
    "texts": lambda file, name: file.create_dataset(name, data=["a"] * 6),
    "rows of varying length": lambda file, name: file.create_dataset(name, (6,), dtype=h5py.vlen_dtype(np.int32)),
    "compound values": lambda file, name: file.create_dataset(name, data=np.zeros(6, dtype=[("a", "f4")])),
    "a link to nothing": lambda file, name: file.__setitem__(name, h5py.SoftLink("/gone")),
    "a link to another file": lambda file, name: file.__setitem__(name, h5py.ExternalLink("gone.h5", "x")),
    "nothing": lambda file, name: file.create_dataset(name, data=h5py.Empty("f")),
    "a single number": lambda file, name: file.create_dataset(name, data=3.0),
    "NaN": lambda file, name: file.create_dataset(name, data=np.full((6, 3), np.nan)),
    "too few rows": lambda file, name: file.create_dataset(name, data=np.zeros((2, 3))),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", ["attribution", "label", "index", "prediction"])
def test_a_file_of_virelay_with_an_odd_part_names_the_part(kind, name, tmp_path):
    whole = {"attribution": MAPS, "prediction": np.eye(3)[TARGETS], "label": np.eye(3)[TARGETS], "index": range(6)}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for each, values in whole.items():
            if each == name:
                ODD[kind](file, each)
            else:
                file[each] = np.asarray(values)
    with pytest.raises(ValueError, match=rf"a\.h5.*'{name}'"):
        opened(tmp_path / "a.h5")


def test_whole_numbers_as_maps_and_parts_that_are_missing(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["attribution"] = np.arange(MAPS.size).reshape(MAPS.shape)
    found = opened(tmp_path / "a.h5")
    assert found.targets is None
    assert (found.take(EVERY).numpy() == np.arange(MAPS.size).reshape(MAPS.shape)).all()


def test_counts_and_an_index_that_do_not_fit(tmp_path):
    found = opened(write_maps(tmp_path / "a.npz", MAPS[:4]))
    with pytest.raises(ValueError, match=words("a.npz 4 6 images=")):
        places(found, IMAGES)
    for index in ([0, 1, 2, 3, 4, 4], [0, 1, 2, 3, 4, 9]):
        np.savez(tmp_path / "b.npz", maps=MAPS, index=index)
        with pytest.raises(ValueError, match=words("b.npz index 5 6")):
            places(opened(tmp_path / "b.npz"), IMAGES)


@pytest.mark.parametrize(
    ("name", "maps", "others", "said"),
    [
        ("a.pt", MAPS, {}, "a.pt .npz"),
        ("a.npz", MAPS[0, 0], {}, "a.npz (4, 5)"),
        ("a.npz", np.where(MAPS > 2, np.nan, MAPS), {}, "a.npz NaN row"),
        ("a.npz", MAPS, {"targets": TARGETS[:3]}, "a.npz 3 targets 6"),
        ("a.npz", MAPS, {"targets": -TARGETS}, "a.npz row 1 targets -2"),
        ("a.npz", MAPS, {"images": IMAGES[:3]}, "a.npz 3 images 6"),
        ("a.npy", MAPS, {"targets": TARGETS}, "a.npy .npz"),
    ],
)
def test_what_is_wrong_is_not_written(name, maps, others, said, tmp_path):
    with pytest.raises(ValueError, match=words(said)):
        write_maps(tmp_path / name, maps, **others)
    assert not list(tmp_path.iterdir())
