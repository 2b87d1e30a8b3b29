"""MNIST, FashionMNIST and SVHN from tiny files in the published formats."""

import gzip
import hashlib
import struct
import urllib.error

import numpy as np
import pytest
import scipy.io
import torch
from torchvision.datasets import MNIST, SVHN, FashionMNIST
from torchvision.datasets import mnist as reader
from torchvision.datasets import svhn as mat_reader

from efface.data.vision import fashion_mnist, mnist, svhn

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


def test_without_network_or_files_it_is_one_sentence(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(reader, "download_and_extract_archive", refuse)
    monkeypatch.setattr(mat_reader, "download_url", refuse)
    with pytest.raises(
        FileNotFoundError, match=r"MNIST/raw: MNIST could not be downloaded.*no route.*put train-images"
    ):
        mnist(root=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"FashionMNIST is not there whole.*set download: true"):
        fashion_mnist(root=str(tmp_path), download=False)
    with pytest.raises(FileNotFoundError, match=r"SVHN could not be downloaded.*no route.*put train_32x32.mat"):
        svhn(root=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"SVHN is not there whole.*set download: true"):
        svhn(root=str(tmp_path), download=False)


def test_damaged_files_are_not_read(tmp_path, monkeypatch):
    mat_files(tmp_path, monkeypatch)
    with (tmp_path / "test_32x32.mat").open("r+b") as file:
        file.write(b"x")
    with pytest.raises(FileNotFoundError, match="SVHN is not there whole"):
        svhn(root=str(tmp_path), download=False)
    grey_files(tmp_path, MNIST, monkeypatch, packed=False)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    whole = path.read_bytes()
    for content in (whole[:500], whole[:3], b"", b"no images at all", idx(drawn(19, 28, 28))):
        path.write_bytes(content)
        with pytest.raises((ValueError, FileNotFoundError), match=r"MNIST .*; (put|delete)"):
            mnist(root=str(tmp_path), download=False)
