"""The 1,797 handwritten digits of the UCI repository that come with scikit-learn."""

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from efface.base.types import Split
from efface.data.subset import check_choice, splits, stratified
from efface.plug.facts import states

TEST_IMAGES = 500


@states(is_synthetic=True)
def digits(
    *, limit: int | None = None, test_limit: int | None = None, validation: float = 0.0, seed: int = 0
) -> dict[str, Split]:
    """Real digits, 8x8, grey: 1,297 for training and 500 for test, always the same 500. They need no download.

    limit: number of training images, a balanced choice of 10 to 1,297; None takes all.
    test_limit: number of test images, a balanced choice of 1 to 500; None takes all.
    validation: share of the training images that is held out, stratified, in [0, 1).
    seed: seeds both choices and the validation images, but not the split.

    Source: Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits; the test part of that set.
    """
    table = _table()
    # The values 0 .. 16 count the inked pixels of a 4x4 block. They are scaled to the whole range of 8 bits.
    images = table[:, :-1].reshape(-1, 1, 8, 8).mul(255 / 16).round().to(torch.uint8)
    targets = table[:, -1].long()
    held_out = torch.zeros(len(targets), dtype=torch.bool)
    held_out[stratified(targets, TEST_IMAGES / len(targets), seed=0, setting="digits test")] = True
    classes = tuple(map(str, range(10)))
    train, test = (Split(images[part], targets[part], classes) for part in (~held_out, held_out))
    return splits(train, test, limit=limit, test_limit=test_limit, validation=validation, seed=seed)


check_digits = check_choice


def _table() -> Float64[Tensor, "1797 65"]:
    """Return the 64 numbers of each image and its class, from scikit-learn's file. Its import would take seconds.

    ModuleNotFoundError: scikit-learn is not installed.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the digits come with scikit-learn, which is not installed: pip install scikit-learn")
    with gzip.open(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        return torch.from_numpy(np.loadtxt(file, delimiter=","))
