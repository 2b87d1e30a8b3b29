"""Tetrominoes: their places, the moments of the backgrounds, and which classifier can tell the classes."""

import math

import pytest
import torch
from PIL import Image
from scipy.stats import binomtest, chisquare, norm

from efface.data.tris import ALPHA, REACH, TETROMINOES, check_tris, tris
from small.messages import words

FIXED = ("linear", "multiplicative", "xor")
T_CELLS = [(1, 1), (2, 1), (2, 2), (3, 1)]
L_CELLS = [(4, 5), (5, 5), (6, 5), (6, 6)]


def x_of(split):
    """What an image holds, exactly as it was before it was kept, in the units of 8 bits."""
    return (split.images[:, 0].double() - 128) / 127


def made(n=4000, **settings):
    return tris(n_train=n, n_test=2, **settings)["train"]


def signs(split):
    return 2.0 * split.targets.double() - 1


@pytest.mark.parametrize("scenario", FIXED)
def test_the_mask_has_the_cells_of_both_tetrominoes_where_places_are_fixed(scenario):
    masks = made(6, scenario=scenario).masks
    cells = torch.zeros(8, 8, dtype=torch.bool)
    for y, x in T_CELLS + L_CELLS:
        cells[y, x] = True
    assert torch.equal(masks, cells.expand(6, 8, 8))
    large = made(4, scenario=scenario, size=64).masks
    assert torch.equal(large[0], cells.repeat_interleave(8, 0).repeat_interleave(8, 1))


@pytest.mark.parametrize(("size", "cell"), [(8, 1), (64, 4)])
def test_a_moved_tetromino_has_four_cells_in_every_turn_and_is_anywhere_evenly(size, cell):
    n = 4000 if size == 8 else 400
    split = made(n, scenario="translations_rotations", size=size)
    assert (split.masks.sum((1, 2)) == 4 * cell**2).all()
    turned = {
        (*torch.rot90(shape, k).flatten().tolist(), *torch.rot90(shape, k).shape): (kind, k)
        for kind, shape in enumerate(TETROMINOES)
        for k in range(4)
    }
    counts, rows = torch.zeros(2, 4), torch.zeros(size)
    for mask, target in zip(split.masks, split.targets, strict=True):
        y, x = mask.nonzero(as_tuple=True)
        stencil = mask[y.min() : y.max() + 1 : cell, x.min() : x.max() + 1 : cell].int()
        kind, turn = turned[(*stencil.flatten().tolist(), *stencil.shape)]
        assert kind == target
        counts[kind, turn] += 1
        if stencil.shape == (3, 2):
            rows[y.min()] += 1
    assert chisquare(counts.flatten().numpy()).pvalue > 0.001
    assert chisquare(rows[: size - 3 * cell + 1].numpy()).pvalue > 0.001
    assert rows[size - 3 * cell + 1 :].sum() == 0


def test_classes_differ_in_the_mean_of_the_cells_alone_and_by_twice_the_weight():
    split = made(8000)
    alpha = ALPHA[8]["linear"][0]
    height, reach = alpha * 8 / 2, (1 - alpha) * REACH + alpha * 8 / 2  # four cells of one norm together
    x = x_of(split)
    difference = x[split.targets == 0].mean(0) - x[split.targets == 1].mean(0)
    expected = torch.zeros(8, 8).double()
    for sign, cells in ((1, T_CELLS), (-1, L_CELLS)):
        for y, column in cells:
            expected[y, column] = sign * height / reach
    error = (1 - alpha) / reach * math.sqrt(2 / 4000)
    torch.testing.assert_close(difference, expected, atol=4.5 * error, rtol=0)


def test_white_noise_has_one_variance_and_no_correlation():
    alpha, split = 0.2, made(8000, alpha=0.2)
    noise = x_of(split).flatten(1)[:, ~split.masks[0].flatten()]
    deviation = (1 - alpha) / ((1 - alpha) * REACH + alpha * 4)
    torch.testing.assert_close(noise.mean(0), torch.zeros(56).double(), atol=4.5 * deviation / 8000**0.5, rtol=0)
    torch.testing.assert_close(noise.std(0), torch.full((56,), deviation).double(), rtol=0.04, atol=0)
    off = torch.corrcoef(noise.T) - torch.eye(56)
    assert off.abs().max() < 5 / 8000**0.5


@pytest.mark.parametrize(("size", "sigma", "n"), [(8, 3.0, 8000), (64, 10.0, 1000)])
def test_the_correlation_of_the_smooth_background_falls_as_a_gaussian_and_its_variance_nowhere(size, sigma, n):
    split = made(n, background="correlated", scenario="translations_rotations", size=size, alpha=0.001)
    x = x_of(split)[:, :: size // 8, :: size // 8].flatten(1)
    at = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij"), -1).flatten(0, 1) * size / 8
    expected = torch.exp(-torch.cdist(at, at).double().square() / (4 * sigma**2))
    torch.testing.assert_close(torch.corrcoef(x.T), expected, atol=5 / n**0.5, rtol=0)
    torch.testing.assert_close(x.std(0) * REACH, torch.ones(64).double(), rtol=4 / (2 * n) ** 0.5, atol=0)


def test_where_it_is_multiplied_the_pattern_tells_itself_by_the_variance_and_not_by_the_mean():
    alpha = ALPHA[8]["multiplicative"][0]
    split = made(8000, scenario="multiplicative")
    x = x_of(split) * REACH
    for kind, weak, strong in ((0, T_CELLS, L_CELLS), (1, L_CELLS, T_CELLS)):
        own = x[split.targets == kind]
        for cells, deviation in ((weak, 1 - alpha), (strong, 1.0)):
            values = torch.stack([own[:, y, column] for y, column in cells], 1)
            torch.testing.assert_close(values.std(0), torch.full((4,), deviation).double(), rtol=0.06, atol=0)
    torch.testing.assert_close(x.mean(0), torch.zeros(8, 8).double(), atol=4.5 / 8000**0.5, rtol=0)


def test_the_matched_filter_reaches_the_accuracy_that_the_weight_allows():
    """Linear on white noise: the two means are sqrt(2) alpha apart, the noise has (1 - alpha) / 8 along any line."""
    alpha = ALPHA[8]["linear"][0]
    split = made(8000)
    x = x_of(split)
    filtered = sum(x[:, y, c] for y, c in L_CELLS) - sum(x[:, y, c] for y, c in T_CELLS)
    right = int(((filtered > 0).double() * 2 - 1 == signs(split)).sum())
    best = norm.cdf(math.sqrt(2) * alpha / 2 / ((1 - alpha) / 8))
    assert best == pytest.approx(0.88, abs=0.02)
    assert binomtest(right, 8000, best).pvalue > 0.001


def test_xor_has_all_signs_evenly_and_only_their_product_tells_the_class():
    split = made(8000, scenario="xor")
    x, target = x_of(split), signs(split)
    first, second = (sum(x[:, y, c] for y, c in cells) for cells in (T_CELLS, L_CELLS))
    counts = torch.bincount(2 * (first > 0) + (second > 0), minlength=4)
    assert chisquare(counts.numpy()).pvalue > 0.001
    assert ((first * second < 0) == (target > 0)).double().mean() > 0.99
    values = torch.cat([x.flatten(1), torch.ones(len(x), 1)], 1)
    weights = torch.linalg.lstsq(values[:4000], target[:4000, None]).solution
    right = int(((values[4000:] @ weights)[:, 0].sign() == target[4000:]).sum())
    assert binomtest(right, 4000, 0.5).pvalue > 0.001
    assert (split.targets.bincount() == 4000).all()


def test_image_i_depends_on_the_settings_the_split_and_i_alone():
    few, many, other = (
        tris(n_train=n, n_test=10, seed=seed, background="correlated") for n, seed in ((20, 3), (600, 3), (20, 4))
    )
    for part in ("images", "targets", "masks"):
        assert torch.equal(getattr(few["train"], part), getattr(many["train"], part)[:20])
    assert torch.equal(few["test"].images, many["test"].images)
    assert (few["train"].images != other["train"].images).flatten(1).any(1).all()
    assert (few["train"].images[:10] != few["test"].images).flatten(1).any(1).all()


def test_natural_backgrounds_are_crops_of_the_photographs_less_their_mean(tmp_path):
    ramp = torch.arange(40).repeat(30, 1).mul(6).byte().numpy()
    (tmp_path / "in").mkdir()
    Image.fromarray(ramp).save(tmp_path / "in" / "ramp.png")
    split = made(200, background="natural", natural=str(tmp_path), scenario="translations_rotations", alpha=1e-3)
    x = x_of(split) * REACH
    line = torch.arange(8.0).double()
    line = (line - line.mean()) / line.std(correction=0)
    # a crop of a ramp is a ramp; at the border its resized pixels are nearer to each other
    torch.testing.assert_close(x[:, :, 2:6], line[2:6].expand(200, 8, 4), atol=0.15, rtol=0)
    assert x.mean((1, 2)).abs().max() < 0.03
    again = made(200, background="natural", natural=str(tmp_path), scenario="translations_rotations", alpha=1e-3)
    assert torch.equal(split.images, again.images)


def test_a_photograph_of_one_colour_is_no_background(tmp_path):
    Image.new("L", (9, 12), 77).save(tmp_path / "flat.png")
    x = x_of(made(4, background="natural", natural=str(tmp_path), alpha=0.5))
    assert (x[:, 0, 0] == 0).all()
    assert (x != 0).sum() == 4 * 4


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"scenario": "rotations"}, "scenario rotations translations_rotations"),
        ({"background": "pink"}, "background pink correlated"),
        ({"size": 16}, "size 16 8 64"),
        ({"alpha": 0.0}, "alpha 0.0"),
        ({"alpha": 1.0}, "alpha 1.0"),
        ({"background": "natural"}, "natural folder photographs"),
        ({"natural": "data/photographs"}, "natural data/photographs white drop"),
        ({"n_train": 1}, "n_train 1 2"),
        ({"n_test": 0}, "n_test 0 2"),
        ({"validation": 1.0}, "validation 1.0"),
    ],
)
def test_what_cannot_be_is_refused_with_the_setting(settings, says):
    with pytest.raises(ValueError, match=words(says)):
        check_tris(**settings)


def test_folders_without_photographs_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=words("natural expected folder")):
        tris(background="natural", natural=str(tmp_path / "none"))
    with pytest.raises(ValueError, match=words("natural holds no image .png")):
        tris(background="natural", natural=str(tmp_path))
