"""Block images: the digit's block is masked, and nothing but it knows the class."""

import inspect

import pytest
import torch
from scipy.stats import binomtest
from torchvision.datasets import MNIST

from efface.data.blocks import BLOCK, blocks, null_block
from efface.data.digits import digits
from small.messages import words
from test_vision import grey_files


def parts(split):
    """The digit's block and the null block of each image."""
    halves, above = split.images[:, 0].unflatten(1, (2, BLOCK)), split.masks[:, 0, 0]
    rows = torch.arange(len(split))
    return halves[rows, (~above).long()], halves[rows, above.long()], above


@pytest.fixture(scope="module")
def made():
    return blocks()


def test_an_image_is_two_blocks_of_which_one_is_masked(made):
    for split in made.values():
        assert split.shape == (1, 56, 28)
        whole = split.masks.unflatten(1, (2, BLOCK)).flatten(2)
        assert (whole.all(2) == whole.any(2)).all()  # a block is masked whole or not at all
        assert (whole[:, 0, 0] ^ whole[:, 1, 0]).all()  # and one of the two
        assert split.classes == ("0", "1")
    known = digits()["test"].targets
    assert len(made["test"]) == int((known < 2).sum())
    assert len(made["train"]) == 8 * int((digits()["train"].targets < 2).sum())


def test_the_null_block_is_the_same_everywhere_whatever_the_class(made):
    for split in made.values():
        signal, null, _ = parts(split)
        assert (null == null_block()).all()
        assert not (signal == null_block()).flatten(1).all(1).any()


def test_the_square_is_hollow_with_its_diagonals():
    block = null_block()
    assert block.shape == (28, 28)
    assert torch.equal(block, block.flip(0))
    assert torch.equal(block, block.flip(1))
    assert torch.equal(block, block.T)
    for y in range(28):
        for x in range(28):
            inside = min(y, x) >= 4 and max(y, x) <= 23
            drawn = inside and (y in (4, 23) or x in (4, 23) or y == x or y + x == 27)
            assert block[y, x] == 255 * drawn
    assert not null_block("blank").any()
    assert not parts(blocks(null="blank", limit=8)["train"])[1].any()


def test_the_place_is_a_coin_that_knows_nothing_of_the_class(made):
    _, _, above = parts(made["train"])
    for number in (0, 1):
        mine = above[made["train"].targets == number]
        assert binomtest(int(mine.sum()), len(mine)).pvalue > 0.001
    for split in blocks(position="top").values():
        assert parts(split)[2].all()


def test_digits_are_enlarged_and_moved_but_not_cut(made):
    test, known = made["test"], digits()["test"]
    signal, _, _ = parts(blocks(shift=0)["test"])
    mine = known.images[known.targets < 2].float()
    large = torch.nn.functional.interpolate(mine, size=(20, 20), mode="bilinear").round().byte()[:, 0]
    assert torch.equal(signal[:, 4:24, 4:24], large)
    assert signal.sum() == large.sum()
    assert torch.equal(test.targets, known.targets[known.targets < 2])
    moved, _, _ = parts(test)
    seen = set()
    for each, still in zip(moved, signal, strict=True):
        fits = [(y, x) for y in range(-2, 3) for x in range(-2, 3) if torch.equal(still.roll((y, x), (0, 1)), each)]
        assert len(fits) == 1
        seen |= {*fits}
    assert len(seen) > 20  # of 25
    assert (moved.flatten(1).long().sum(1) == signal.flatten(1).long().sum(1)).all()


def test_classes_are_counted_in_their_order():
    two, ten = blocks(classes=[7, 3])["test"], blocks(classes=list(range(10)), copies=1)["train"]
    known = digits()["test"]
    expected = known.targets[(known.targets == 7) | (known.targets == 3)]
    assert two.classes == ("7", "3")
    assert torch.equal(two.targets, (expected == 3).long())
    assert len(ten) == 1297


def test_copies_of_a_digit_are_set_apart_together():
    split = blocks(copies=4, shift=0, validation=0.25)["train"]
    signal, _, _ = parts(split)
    apart = {tuple(each.flatten().tolist()) for each in signal[split.validation]}
    seen = {tuple(each.flatten().tolist()) for each in signal[split.training]}
    assert not apart & seen
    assert len(split.validation) == pytest.approx(0.25 * len(split), abs=4)
    assert len(split.validation) % 4 == 0


def test_an_image_depends_on_seed_split_and_number_alone():
    every, again, other = blocks(seed=3)["train"], blocks(seed=3)["train"], blocks(seed=4)["train"]
    assert torch.equal(every.images, again.images)
    assert not torch.equal(every.masks, other.masks)
    some = blocks(seed=3, limit=20, test_limit=5)
    assert some["train"].targets.bincount().tolist() == [10, 10]
    assert len(some["test"]) == 5
    for image, mask in zip(some["train"].images, some["train"].masks, strict=True):
        same = (every.images == image).flatten(1).all(1).nonzero().flatten()
        assert any(torch.equal(mask, every.masks[row]) for row in same)


def test_mnist_is_shown_as_it_is(tmp_path, monkeypatch):
    images, targets = grey_files(tmp_path, MNIST, monkeypatch)
    made = blocks(source="mnist", root=str(tmp_path), classes=[1, 4, 2])
    for name, rows in (("train", slice(0, 20)), ("test", slice(20, 30))):
        mine = sum(targets[rows] == number for number in (1, 4, 2)).bool()
        signal, null, _ = parts(made[name])
        assert torch.equal(signal, images[rows][mine, 0])
        assert (null == null_block()).all()
        assert [(1, 4, 2)[k] for k in made[name].targets] == targets[rows][mine].tolist()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"classes": [1]}, "classes [1] two"),
        ({"classes": [1, 1]}, "two different"),
        ({"classes": [1, 10]}, "0 9"),
        ({"copies": 0}, "copies 0"),
        ({"shift": 5}, "shift 5 4"),
        ({"shift": -1}, "shift -1"),
        ({"limit": 1}, "limit 1 2 class"),
        ({"validation": 1.0}, "validation 1.0 259"),
    ],
)
def test_settings_out_of_range(kwargs, message):
    with pytest.raises(ValueError, match=words(message)):
        blocks(**kwargs)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"null": "sqare"}, "blocks null sqare square blank"),
        ({"position": "bottom"}, "blocks position bottom random top"),
        ({"source": "mnst"}, "blocks source mnst digits mnist"),
    ],
)
def test_a_choice_that_there_is_not_is_refused(kwargs, message):
    plain = inspect.unwrap(blocks)  # as it is called where no test checks types
    with pytest.raises(ValueError, match=words(message)):
        plain(**kwargs)
    if "null" in kwargs:
        with pytest.raises(ValueError, match=words(message)):
            inspect.unwrap(null_block)(**kwargs)
