"""MNIST, FashionMNIST and SVHN, read by torchvision into one uint8 tensor for each split."""

import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torchvision.datasets import MNIST, SVHN, FashionMNIST

from efface.base.types import Split
from efface.data.published import published
from efface.data.subset import check_choice
from efface.plug.shared_settings import with_settings_of

_DAMAGED = (
    AssertionError,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    zlib.error,
)  # exceptions of torchvision's readers for damaged files


@with_settings_of(published)
def mnist(**settings: Any) -> dict[str, Split]:
    """60,000 training and 10,000 test handwritten digits, 28x28, grey; 55 MB of memory.

    root: folder of `MNIST/raw`, existing or new.
    download: True to download the four archives (12 MB) if the folder does not hold them yet. Their MD5 sums are
        checked after the download.
    size: height and width of the resized images, in pixels; None: no resizing. All chosen images are kept in memory.
    interpolation: how images are resized, `bilinear` or `bicubic`, both antialiased.
    limit: number of training images, a balanced choice; None takes all.
    test_limit: number of test images, a balanced choice; None takes all.
    validation: share of the training images that is held out, stratified, in [0, 1).
    seed: seeds both choices and the validation images.

    Source: LeCun, Bottou, Bengio & Haffner 1998, Gradient-based learning applied to document recognition.
    """
    return published(partial(_grey, MNIST), **settings)


@with_settings_of(published)
def fashion_mnist(**settings: Any) -> dict[str, Split]:
    """Images of 10 kinds of clothes, with the settings of `mnist`.

    The folder is `FashionMNIST/raw`. The archives take 31 MB.

    Source: Xiao, Rasul & Vollgraf 2017 (arXiv:1708.07747).
    """
    return published(partial(_grey, FashionMNIST), **settings)


@with_settings_of(published)
def svhn(**settings: Any) -> dict[str, Split]:
    """73,257 training and 26,032 test digits of house numbers, 32x32 RGB, of 10 classes; 305 MB of memory.

    The 531,131 extra images are left out. The other settings are those of `mnist`.

    root: folder of `train_32x32.mat` and `test_32x32.mat`, existing or new.
    download: True to download the two files (246 MB) if the folder does not hold them yet. Their MD5 sums are always
        checked.

    Source: Netzer, Wang, Coates, Bissacco, Wu & Ng 2011, Reading digits in natural images with unsupervised feature
        learning.
    """
    return published(_coloured, **settings)


check_mnist = check_fashion_mnist = check_svhn = check_choice


def _grey(published: type[MNIST], root: str, *, train: bool, download: bool) -> Split:
    dataset = _read(
        lambda: published(root, train=train, download=download),
        published.__name__,
        str(Path(root) / published.__name__ / "raw"),
        f"{', '.join(name for name, _ in published.resources)} of {published.mirrors[0]}",
        download=download,
    )
    images, targets = dataset.data[:, None].contiguous(), dataset.targets.long()
    _agree(published.__name__, root, len(images), len(targets))
    return Split(images, targets, tuple(name.partition(" - ")[0] for name in dataset.classes))


def _coloured(root: str, *, train: bool, download: bool) -> Split:
    split = "train" if train else "test"
    url, name, _ = SVHN.split_list[split]
    dataset = _read(
        lambda: SVHN(root, split=split, download=download), "SVHN", root, f"{name}, {url}", download=download
    )
    images, targets = torch.from_numpy(dataset.data).contiguous(), torch.from_numpy(dataset.labels)
    _agree("SVHN", root, len(images), len(targets))
    return Split(images, targets, tuple("0123456789"))


def _read(read: Callable[[], Any], name: str, place: str, files: str, *, download: bool) -> Any:
    """Return the data set that torchvision reads. FileNotFoundError: one sentence about missing or damaged files."""
    try:
        return read()
    except (OSError, RuntimeError, *_DAMAGED) as error:  # URLError is an OSError, a bad sum a RuntimeError
        why = " ".join(str(error).split())  # torchvision lists its mirrors on lines of their own
        got = "could not be downloaded, or is damaged" if download else "is missing or damaged, and download is false"
        raise FileNotFoundError(
            f"{place}: {name} {got} ({why}); put {files} there"
            + (", or delete the present files and try again" if download else ", unpacked, or set download: true")
        ) from error


def _agree(name: str, root: str, images: int, targets: int) -> None:
    if images != targets:
        raise ValueError(
            f"{root}: {name} has {images} images and {targets} labels; delete its files and fetch them again"
        )
