"""The 1,797 handwritten digits of the UCI repository that come with scikit-learn."""

import torch
from sklearn.datasets import load_digits

from efface.data.subset import splits, stratified
from efface.types import Split

TEST_IMAGES = 500


def digits(
    *, limit: int | None = None, test_limit: int | None = None, validation: float = 0.0, seed: int = 0
) -> dict[str, Split]:
    """Real digits, 8x8, grey: 1,297 to train and 500 to test, always the same 500. Needs no download.

    limit: training images, a balanced choice of 10 to 1,297; None: all.
    test_limit: test images, a balanced choice of 1 to 500; None: all.
    validation: the share of the training images set apart, stratified, in [0, 1).
    seed: draws both choices and the validation images, not the split.

    Source: Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits; the test part of that set.
    """
    known = load_digits()
    # 0 .. 16 counts the inked pixels of a 4x4 block: scaled to the whole range of 8 bits.
    images = torch.from_numpy(known.images).mul(255 / 16).round().to(torch.uint8)[:, None]
    targets = torch.from_numpy(known.target).long()
    held_out = torch.zeros(len(targets), dtype=torch.bool)
    held_out[stratified(targets, TEST_IMAGES / len(targets), seed=0, setting="digits test")] = True
    classes = tuple(str(name) for name in known.target_names)
    train, test = (Split(images[part], targets[part], classes) for part in (~held_out, held_out))
    return splits(train, test, limit=limit, test_limit=test_limit, validation=validation, seed=seed)
