"""Which pixels go together."""

import builtins
import importlib.util
import sys

import pytest
import torch

from efface.erase import contract, units
from efface.study.study import read
from small.messages import words
from small.studies import write_study

IMAGES = torch.rand(3, 3, 12, 10, generator=torch.Generator().manual_seed(0))


def test_patches_are_counted_row_by_row():
    labels = units.patch(torch.zeros(2, 1, 4, 4), size=2)
    assert labels.tolist() == [[[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]] * 2


def test_patches_at_the_border_may_be_smaller():
    assert units.patch(torch.zeros(1, 1, 3, 5), size=(2, 3))[0].tolist() == [[0, 0, 0, 1, 1]] * 2 + [[2, 2, 2, 3, 3]]
    assert (units.patch(IMAGES, size=50) == 0).all()
    pixels = units.patch(IMAGES, size=1)[0]
    assert torch.equal(pixels, torch.arange(120).reshape(12, 10))


def test_tokens_are_patches_of_the_size_that_is_handed_over():
    assert torch.equal(units.token(IMAGES, token_size=[3, 5]), units.patch(IMAGES, size=[3, 5]))
    units.check_token()
    with pytest.raises(ValueError, match=words("token_size is 4 patch")):
        units.check_token(token_size=4)


def of_kind(kind):
    """Labels of one kind for `IMAGES`: good ones, or with one fault."""
    whole = units.patch(IMAGES, size=4)
    gap = torch.where(whole == 1, 0, whole)
    kinds = {"int32": whole.int(), "float": whole.float(), "mask": whole > 2, "flat": whole.flatten(1), "none": None}
    return (kinds | {"gap": gap, "from 3": whole + 3, "below 0": whole - 1, "huge": whole + 10**9})[kind]


def test_labels_of_any_whole_numbers_are_int64():
    found = contract.labels_of(lambda _: of_kind("int32"), IMAGES)
    assert found.dtype == torch.int64
    assert torch.equal(found, units.patch(IMAGES, size=4))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("float", "float32 of shape (3, 12, 10)"),
        ("mask", "bool of shape (3, 12, 10)"),
        ("flat", "int64 of shape (3, 120)"),
        ("none", "nothing"),
        ("gap", "image 0 has no pixel of group 1, but one of group 8"),
        ("from 3", "image 0 has no pixel of group 0"),
        ("below 0", "labels from -1"),
        ("huge", "labels from 1000000000"),
    ],
)
def test_labels_that_are_none_are_refused(kind, said):
    with pytest.raises(ValueError, match=words(f"unit: {said}")):
        contract.labels_of(lambda _: of_kind(kind), IMAGES)


@pytest.mark.parametrize("size", [0, (2, 0), (2, 2, 2)])
def test_a_patch_has_a_size(size):
    with pytest.raises(ValueError, match=words("size")):
        units.patch(IMAGES, size=size)


def test_group_means_are_means_of_groups():
    maps = torch.rand(3, 12, 10, generator=torch.Generator().manual_seed(1))
    labels = units.patch(IMAGES, size=(5, 4))
    means = units.group_means(maps, labels)
    assert means.shape == (3, 9)
    for group in range(9):
        torch.testing.assert_close(means[1, group], maps[1][labels[1] == group].mean())


@pytest.mark.parametrize("value", [0.1, 0.3, 1e-7])
def test_groups_of_a_constant_map_tie_whatever_their_sizes(value):
    labels = units.patch(torch.rand(2, 3, 32, 32), size=9)
    means = units.group_means(torch.full((2, 32, 32), value), labels)
    assert (means == torch.tensor(value)).all()


def test_an_image_of_fewer_groups_is_padded_below_everything():
    labels = torch.tensor([[[0, 0], [1, 1]], [[0, 1], [2, 3]]])
    means = units.group_means(torch.tensor([[[1.0, 3], [-4, -6]], [[1, 2], [3, 4]]]), labels)
    assert means.tolist() == [[2, -5, -torch.inf, -torch.inf], [1, 2, 3, 4]]
    assert units.spread(means, labels).tolist() == [[[2, 2], [-5, -5]], [[1, 2], [3, 4]]]


def test_spreading_means_changes_a_map_of_groups_in_nothing():
    labels = units.patch(IMAGES, size=3)
    values = torch.rand(3, 16, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(units.group_means(units.spread(values, labels), labels), values)
    ranks = torch.arange(16, dtype=torch.int16).expand(3, -1)
    assert torch.equal(units.spread(ranks, labels), labels.to(torch.int16))


def test_superpixels_follow_the_colours():
    pytest.importorskip("skimage")
    images = torch.zeros(2, 3, 16, 16)
    images[:, 0, :, :8] = 1
    images[1, 1, 8:] = 1
    labels = units.superpixel(images, segments=4)
    for row in range(2):
        assert labels[row].unique().tolist() == list(range(int(labels[row].max()) + 1))
        for group in labels[row].unique():
            assert len(images[row][:, labels[row] == group].unique(dim=1)[0]) == 1
    alone = units.superpixel(images[1:], segments=4)
    assert torch.equal(labels[1:], alone)


def test_superpixels_of_grey_and_of_tiny_images():
    pytest.importorskip("skimage")
    assert units.superpixel(IMAGES[:, :1], segments=4, compactness=0.1, sigma=1.0).shape == (3, 12, 10)
    assert units.superpixel(IMAGES[:, :, :2, :2], segments=100).max() <= 3


@pytest.mark.parametrize("settings", [{"segments": 0}, {"compactness": 0.0}, {"sigma": -1.0}])
def test_superpixels_refuse_what_cannot_be(settings):
    with pytest.raises(ValueError, match=words(f"{next(iter(settings))} {next(iter(settings.values()))}")):
        units.superpixel(IMAGES, **settings)


def test_superpixels_name_the_package_that_is_missing(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **more):
        if name.startswith("skimage"):
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'efface\[superpixel\]'"):
        units.superpixel(IMAGES)


def test_without_scikit_image_a_study_of_superpixels_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *of: None if name == "skimage" else real(name, *of))
    why = r"superpixel.*scikit-image.*pip install 'efface\[superpixel\]'"
    with pytest.raises(ImportError, match=why):
        units.superpixel(IMAGES)
    with pytest.raises(ValueError, match=why):
        units.check_superpixel()
    with pytest.raises(ValueError, match=rf"unit: .*{why}"):
        read(write_study(tmp_path, unit="superpixel"))
    one = {"name": "irof", "metric": "morf", "kwargs": {"unit": {"call": "superpixel", "kwargs": {"segments": 4}}}}
    with pytest.raises(ValueError, match=rf"metrics.irof.kwargs.unit: .*{why}"):
        read(write_study(tmp_path, metrics=[one]))


def test_one_superpixel_is_the_whole_image():
    pytest.importorskip("skimage")
    assert units.superpixel(torch.rand(2, 3, 8, 8), segments=1).unique().tolist() == [0]
