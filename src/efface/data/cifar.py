"""CIFAR-10 and CIFAR-100 as torchvision reads them: each set one uint8 tensor."""

from pathlib import Path

import torch
from torchvision.datasets import CIFAR10, CIFAR100

from efface.data.subset import resized, splits
from efface.types import Split


def cifar10(
    *,
    root: str = "data",
    download: bool = True,
    size: int | None = None,
    limit: int | None = None,
    test_limit: int | None = None,
    validation: float = 0.0,
    seed: int = 0,
) -> dict[str, Split]:
    """50,000 training and 10,000 test photographs, 32x32 RGB, of 10 classes; 184 MB of memory.

    root: the folder that holds `cifar-10-batches-py`, or gets it.
    download: get the 170 MB archive where the folder does not hold it yet.
    size: height and width to resize the chosen images to (bilinear, antialiased), in pixels, all in memory: 9 GB at
        224; None: as they are.
    limit: training images, a balanced choice; None: all.
    test_limit: test images, a balanced choice; None: all.
    validation: the share of the training images set apart, stratified, in [0, 1).
    seed: draws both choices and the validation images.

    Source: Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.
    """
    train, test = (_read(CIFAR10, root, train=train, download=download) for train in (True, False))
    made = splits(train, test, limit=limit, test_limit=test_limit, validation=validation, seed=seed)
    return resized(made, size)


def cifar100(
    *,
    root: str = "data",
    download: bool = True,
    size: int | None = None,
    limit: int | None = None,
    test_limit: int | None = None,
    validation: float = 0.0,
    seed: int = 0,
) -> dict[str, Split]:
    """As `cifar10`, of the 100 fine classes; its folder is `cifar-100-python`."""
    train, test = (_read(CIFAR100, root, train=train, download=download) for train in (True, False))
    made = splits(train, test, limit=limit, test_limit=test_limit, validation=validation, seed=seed)
    return resized(made, size)


def _read(published: type[CIFAR10], root: str, *, train: bool, download: bool) -> Split:
    """One split, its files checked by their MD5 sums before they are unpickled."""
    try:
        known = published(root, train=train, download=download)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; torchvision raises RuntimeError on a bad sum
        got = "could not be downloaded" if download else "not found whole, and download is false"
        raise FileNotFoundError(
            f"{Path(root) / published.base_folder}: {published.__name__} {got} ({error}); "
            f"put {published.filename} of {published.url} into {root}"
            + (" or try again" if download else ", unpacked, or set download: true")
        ) from error
    images = torch.from_numpy(known.data).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.tensor(known.targets), tuple(known.classes))
