"""MNIST, FashionMNIST, SVHN and ImageNet-10 from tiny files in the published formats."""

import gzip
import hashlib
import shutil
import struct
import urllib.error

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from torchvision.datasets import MNIST, SVHN, FashionMNIST
from torchvision.datasets import mnist as reader
from torchvision.datasets import svhn as mat_reader
from torchvision.models._meta import _IMAGENET_CATEGORIES

from efface.data.imagenet10 import NUMBERS, imagenet10
from efface.data.vision import fashion_mnist, mnist, svhn
from small.messages import words

GREY = [(mnist, MNIST), (fashion_mnist, FashionMNIST)]


def idx(array):
    """The format of the four files: magic number with type and axes, the lengths of the axes, bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def drawn(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def grey_files(root, kind, monkeypatch, *, packed=True):
    """20 training and 10 test images; torchvision's sums are set to those of these files."""
    images, labels = drawn(30, 28, 28), np.arange(30, dtype=np.uint8) % 10
    contents = [idx(images[:20]), idx(labels[:20]), idx(images[20:]), idx(labels[20:])]
    folder = root / kind.__name__ / "raw"
    folder.mkdir(parents=True)
    resources = []
    for (name, _), content in zip(kind.resources, contents, strict=True):
        archive = gzip.compress(content, mtime=0)
        path = folder / (name if packed else name.removesuffix(".gz"))
        path.write_bytes(archive if packed else content)
        resources.append((name, hashlib.md5(archive).hexdigest()))  # noqa: S324  as published
    monkeypatch.setattr(kind, "resources", resources)
    return torch.from_numpy(images)[:, None], torch.from_numpy(labels).long()


def mat_files(root, monkeypatch):
    """32 x 32 x 3 x n, as the published files have it, the digit 0 labelled 10."""
    images, labels = drawn(32, 32, 3, 30), np.arange(30) % 10
    sums = {}
    for split, rows in (("train", slice(0, 20)), ("test", slice(20, 30))):
        url, name, _ = SVHN.split_list[split]
        written = {"X": images[..., rows], "y": np.where(labels[rows] == 0, 10, labels[rows]).astype(np.uint8)[:, None]}
        scipy.io.savemat(root / name, written)
        sums[split] = [url, name, hashlib.md5((root / name).read_bytes()).hexdigest()]  # noqa: S324
    monkeypatch.setattr(SVHN, "split_list", sums)
    return torch.from_numpy(images).permute(3, 2, 0, 1), torch.from_numpy(labels)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("function", "kind"), GREY)
def test_grey_sets_are_read_from_their_archives(function, kind, packed, tmp_path, monkeypatch):
    images, targets = grey_files(tmp_path, kind, monkeypatch, packed=packed)
    made = function(root=str(tmp_path), validation=0.5, download=packed)
    for name, rows in (("train", slice(0, 20)), ("test", slice(20, 30))):
        assert torch.equal(made[name].images, images[rows])
        assert torch.equal(made[name].targets, targets[rows])
        assert made[name].images.is_contiguous()
    assert made["train"].shape == (1, 28, 28)
    assert made["train"].targets[made["train"].validation].bincount().tolist() == [1] * 10
    assert made["test"].classes == (tuple("0123456789") if kind is MNIST else tuple(FashionMNIST.classes))
    assert len(function(root=str(tmp_path), limit=10, test_limit=3)["test"]) == 3
    larger = function(root=str(tmp_path), size=32, limit=10)["train"]
    assert (len(larger), larger.shape, larger.images.dtype) == (10, (1, 32, 32), torch.uint8)


def test_svhn_is_read_from_its_files(tmp_path, monkeypatch):
    images, targets = mat_files(tmp_path, monkeypatch)
    made = svhn(root=str(tmp_path), validation=0.5)
    assert torch.equal(made["train"].images, images[:20])
    assert torch.equal(made["test"].images, images[20:])
    assert torch.equal(made["train"].targets, targets[:20])
    assert torch.equal(made["test"].targets, targets[20:])
    assert made["train"].images.is_contiguous()
    assert made["train"].classes == tuple("0123456789")
    assert svhn(root=str(tmp_path), limit=10, download=False)["train"].targets.bincount().tolist() == [1] * 10
    assert svhn(root=str(tmp_path), size=16)["test"].shape == (3, 16, 16)


def test_without_network_or_files_it_is_one_sentence(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(reader, "download_and_extract_archive", refuse)
    monkeypatch.setattr(mat_reader, "download_url", refuse)
    with pytest.raises(FileNotFoundError, match=words("MNIST/raw route train-images")):
        mnist(root=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=words("FashionMNIST download")):
        fashion_mnist(root=str(tmp_path), download=False)
    with pytest.raises(FileNotFoundError, match=words("SVHN route train_32x32.mat")):
        svhn(root=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=words("SVHN download")):
        svhn(root=str(tmp_path), download=False)


def test_damaged_files_are_not_read(tmp_path, monkeypatch):
    mat_files(tmp_path, monkeypatch)
    with (tmp_path / "test_32x32.mat").open("r+b") as file:
        file.write(b"x")
    with pytest.raises(FileNotFoundError, match=words("SVHN")):
        svhn(root=str(tmp_path), download=False)
    grey_files(tmp_path, MNIST, monkeypatch, packed=False)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    whole = path.read_bytes()
    for content in (whole[:500], whole[:3], b"", b"no images at all", idx(drawn(19, 28, 28))):
        path.write_bytes(content)
        with pytest.raises((ValueError, FileNotFoundError), match=r"MNIST.*(put|delete)"):
            mnist(root=str(tmp_path), download=False)


# ImageNet-10


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    return thousand(tmp_path_factory.mktemp("imagenet"))


def thousand(root):
    """A thousand class folders; an 8x8 image of one colour in each of the 60 that are needed, nothing in the others."""
    for split in ("train", "val"):
        for number in range(1000):
            (root / split / f"n{number:08}").mkdir(parents=True)
        for number in needed():
            colour = (number // 100, number % 100, split == "val")
            Image.new("RGB", (8, 8), colour).save(root / split / f"n{number:08}" / "0.png")
    return root


def needed():
    return [number for each in NUMBERS.values() for number in each]


def test_imagenet10_takes_six_classes_for_each_of_its_ten(imagenet, tmp_path):
    made = imagenet10(root=str(imagenet), size=8, resize=None, pack=str(tmp_path), validation=0.5)
    for name, split in made.items():
        assert split.classes == ("dog", "bird", "insect", "monkey", "car", "feline", "truck", "fruit", "fungus", "boat")
        colours = split.images.take(torch.arange(60))[:, :, 0, 0].long()
        assert (colours[:, 2] == (name == "test")).all()
        numbers = (100 * colours[:, 0] + colours[:, 1]).tolist()
        expected = {number: list(NUMBERS).index(each) for each, listed in NUMBERS.items() for number in listed}
        assert {number: int(target) for number, target in zip(numbers, split.targets, strict=True)} == expected
        assert split.targets.bincount().tolist() == [6] * 10
    assert made["train"].targets[made["train"].validation].bincount().tolist() == [3] * 10
    squeezed = imagenet10(root=str(imagenet), size=4, resize="squeeze", pack=str(tmp_path))["test"]
    assert torch.equal(
        squeezed.images.take(torch.arange(60))[:, :, :1, :1], split.images.take(torch.arange(60))[:, :, :1, :1]
    )
    assert squeezed.shape == (3, 4, 4)
    few = imagenet10(root=str(imagenet), size=8, resize=None, pack=str(tmp_path), limit=20, test_limit=10)
    assert few["train"].targets.bincount().tolist() == [2] * 10


def test_imagenet10s_classes_are_what_they_are_called():
    names = {
        "dog": {"Chihuahua", "Shih-Tzu", "Pekinese"},
        "bird": {"cock", "hen", "ostrich"},
        "insect": {"ladybug", "tiger beetle"},
        "monkey": {"baboon", "macaque"},
        "car": {"ambulance", "cab", "convertible", "jeep", "limousine", "beach wagon"},
        "feline": {"lion", "leopard", "jaguar"},
        "truck": {"fire engine", "garbage truck", "pickup", "tow truck", "moving van", "police van"},
        "fruit": {"Granny Smith", "acorn", "corn"},
        "fungus": {"agaric", "earthstar"},
        "boat": {"canoe", "gondola", "lifeboat", "speedboat", "yawl", "fireboat"},
    }
    for each, some in names.items():
        assert some <= {_IMAGENET_CATEGORIES[number] for number in NUMBERS[each]}, each
    assert len({*needed()}) == 60


def test_imagenet10_of_a_part_of_the_tree_needs_its_folders(imagenet, tmp_path):
    part = tmp_path / "part"
    for split in ("train", "val"):
        for number in (7, 151, 152, 300):
            shutil.copytree(imagenet / split / f"n{number:08}", part / split / f"n{number:08}")
    small = {"root": str(part), "size": 8, "resize": None}
    with pytest.raises(ValueError, match=words("part/train 4 1000 data.kwargs.folders")):
        imagenet10(**small)
    named = {"dog": ["n00000151", "n00000152"], "bird": ["n00000007"]}
    made = imagenet10(**small, folders=named)["test"]
    assert made.classes == ("dog", "bird")
    assert made.images.take(torch.arange(3))[:, 1, 0, 0].tolist() == [7, 51, 52]
    assert made.targets.tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match=words("1 n1 data.kwargs.folders")):
        imagenet10(**small, folders=named | {"cow": ["n1"]})


def test_imagenet10_names_an_empty_folder(imagenet, tmp_path):
    named = {"dog": ["n00000151", "n00000000"], "bird": ["n00000007"]}
    with pytest.raises(ValueError, match=words("1 3 n00000000")):
        imagenet10(root=str(imagenet), size=8, resize=None, folders=named, pack=str(tmp_path))
