"""CIFAR-10 and CIFAR-100, read by torchvision into one uint8 tensor for each split."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torchvision.datasets import CIFAR10, CIFAR100

from efface.base.types import Split
from efface.data.missing import DEMO
from efface.data.published import published
from efface.data.subset import check_choice
from efface.plug.shared_settings import with_settings_of


@with_settings_of(published)
def cifar10(**settings: Any) -> dict[str, Split]:
    """50,000 training and 10,000 test photographs, 32x32 RGB, of 10 classes; 184 MB of memory.

    root: folder of `cifar-10-batches-py`, existing or new.
    download: True to download the archive (170 MB) if the folder does not hold it yet.
    size: height and width of the resized images, in pixels; None: no resizing. All chosen images are kept in memory:
        9 GB at 224.
    interpolation: how images are resized, `bilinear` or `bicubic`, both antialiased.
    limit: number of training images, a balanced choice; None takes all.
    test_limit: number of test images, a balanced choice; None takes all.
    validation: share of the training images that is held out, stratified, in [0, 1).
    seed: seeds both choices and the validation images.

    Source: Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.
    """
    return published(partial(_read, CIFAR10), **settings)


@with_settings_of(published)
def cifar100(**settings: Any) -> dict[str, Split]:
    """The images of the 100 fine classes, with the settings of `cifar10`; the folder is `cifar-100-python`."""
    return published(partial(_read, CIFAR100), **settings)


check_cifar10 = check_cifar100 = check_choice


def _read(published: type[CIFAR10], root: str, *, train: bool, download: bool) -> Split:
    """Return one split. The MD5 sums of its files are checked before the files are unpickled."""
    try:
        known = published(root, train=train, download=download)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; torchvision raises RuntimeError on a bad sum
        got = "could not be downloaded" if download else "is missing or incomplete, and download is false"
        raise FileNotFoundError(
            f"{Path(root) / published.base_folder}: {published.__name__} {got} ({error}); "
            f"put {published.filename} of {published.url} into {root}"
            + (", or try again with a network" if download else ", unpacked, or set download: true")
            + f". {DEMO}"
        ) from error
    images = torch.from_numpy(known.data).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.tensor(known.targets), tuple(known.classes))
