"""Noisy linear imputation: the same numbers as a sparse direct solve, on any mask."""

import pytest
import torch
from scipy import sparse
from scipy.sparse.linalg import spsolve

from efface import impute
from efface.impute import linear
from efface.impute.multigrid import interpolate, neighbours
from efface.impute.near import KINDS, reach, settle

GENERATOR = torch.Generator().manual_seed(0)
SEEDS = torch.arange(4)


def uniform(*shape):
    return torch.rand(shape, generator=GENERATOR)


def clean(images, removed, **settings):
    return impute.noisy_linear(images, removed, noise=0.0, **settings)


def solved(image, removed):
    """The equations as the paper writes them, pixel by pixel."""
    c, h, w = image.shape
    places = {place: row for row, place in enumerate(map(tuple, removed.nonzero().tolist()))}
    matrix, right = sparse.lil_matrix((len(places), len(places))), torch.zeros(len(places), c, dtype=torch.float64)
    for (y, x), row in places.items():
        for i, j in ((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i or j) and 0 <= y + i < h and 0 <= x + j < w):
            weight = 1 / 12 if i and j else 1 / 6
            matrix[row, row] += weight
            if (y + i, x + j) in places:
                matrix[row, places[y + i, x + j]] -= weight
            else:
                right[row] += weight * image[:, y + i, x + j].double()
    found = image.double().clone()
    found[:, removed] = torch.from_numpy(spsolve(matrix.tocsc(), right.numpy())).reshape(len(places), c).T
    return found.float()


def masks(h, w):
    rows, columns = torch.arange(h)[:, None], torch.arange(w)
    blob = torch.nn.functional.interpolate(uniform(1, 1, 4, 4), (h, w), mode="bicubic")[0, 0]
    middle = torch.ones(h, w, dtype=torch.bool)
    middle[2:-2, 2:-2] = False
    one, two = torch.ones(h, w, dtype=torch.bool), torch.ones(h, w, dtype=torch.bool)
    one[h // 3, w // 4] = two[0, 0] = two[-1, -1] = False
    found = {f"random {part}": uniform(h, w) < part for part in (0.1, 0.5, 0.8, 0.9, 0.99)}
    found |= {f"blob {part}": blob > blob.flatten().quantile(1 - part) for part in (0.1, 0.5, 0.9)}
    return found | {
        "all but one": one,
        "all but two corners": two,
        "frame": middle,
        "all but a frame": ~middle,
        "column": (columns == w // 2).expand(h, w),
        "all but a column": (columns != w // 2).expand(h, w),
        "checkerboard": (rows + columns) % 2 == 0,
        "corridors": (rows % 2 == 1).expand(h, w),
        "wide corridors": (rows % 4 != 1).expand(h, w),
        "all but a grid": ~((rows % 4 == 0) & (columns % 4 == 0)),
        "all but islands": ~((rows % 7 < 2) & (columns % 7 < 2)),
        "one corner": (rows + columns == 0).expand(h, w),
        "maze": ~((rows % 2 == 0) & (uniform(h, w) < 0.8)),
    }


@pytest.mark.long
@pytest.mark.parametrize(("h", "w"), [(24, 24), (17, 31)])
def test_it_is_the_direct_solution_on_any_mask(h, w):
    image = uniform(3, h, w)
    for name, removed in masks(h, w).items():
        expected = solved(image, removed)
        found = clean(image[None], removed[None])[0]
        assert (found - expected).abs().max() < 1e-4, name
        one_by_one = linear.solve_alone(image[None], removed[None], 3e-5)[0]
        assert (one_by_one - expected).abs().max() < 1e-4, name
        directly = linear.solve_directly(image[None], removed[None])[0]
        assert (directly - expected).abs().max() < 1e-6, name


@pytest.mark.parametrize(("h", "w"), [(1, 40), (40, 1), (2, 33), (5, 3), (3, 70), (2, 2)])
def test_narrow_images(h, w):
    image = uniform(3, h, w)
    for part in (0.3, 0.7, 0.9):
        removed = uniform(h, w) < part
        removed[0, 0] = False
        assert (clean(image[None], removed[None])[0] - solved(image, removed)).abs().max() < 1e-4


def test_multigrid_and_the_few_steps_agree_and_keep_their_bounds():
    """Each of the two on its own, where both apply; multigrid where only it does."""
    image = uniform(1, 3, 40, 40)
    total = neighbours(torch.ones(1, 1, 40, 40))
    seen = set()
    for part in (0.1, 0.5, 0.6, 0.7, 0.75, 0.97):
        removed = uniform(1, 40, 40) < part
        start, expected = torch.where(removed[:, None], 0.5, image), solved(image[0], removed[0])
        found, settled = interpolate(start, removed, total, tolerance=3e-5)
        assert settled.all()
        assert (found - expected).abs().max() < 1e-4
        kind, bound = reach(removed, total)
        seen.add(int(kind))
        if kind < KINDS:
            near, left = settle(start, removed, total, int(kind), tolerance=3e-5)
            error = (near - expected).abs().max()
            assert error <= left * bound + 1e-6
            assert left * bound <= 9e-5
    assert seen == {0, 1, 2, 3}


def test_what_multigrid_does_not_settle_is_solved_directly(monkeypatch):
    image, removed = uniform(2, 3, 20, 20), torch.ones(2, 20, 20, dtype=torch.bool)
    removed[:, 5, 5] = removed[:, 17, 11] = False
    monkeypatch.setattr(
        linear,
        "interpolate",
        lambda start, removed, total, tolerance: interpolate(start, removed, total, tolerance=tolerance, cycles=1),
    )
    found = clean(image, removed)
    for row in range(2):
        torch.testing.assert_close(found[row], solved(image[row], removed[row]), atol=1e-6, rtol=0)


def test_a_large_image_is_cut_to_what_is_removed():
    image = uniform(1, 1, 100, 104)
    removed = torch.zeros(1, 100, 104, dtype=torch.bool)
    removed[:, 3:60, 50:104] = True
    assert linear.ALONE_FROM <= 100 * 104
    torch.testing.assert_close(clean(image, removed), linear.solve_directly(image, removed), atol=1e-4, rtol=0)


def test_flat_images_stay_flat_and_ramps_stay_ramps():
    rows = torch.linspace(0, 1, 32)[:, None].expand(32, 32)
    images = torch.stack([torch.full((32, 32), 0.3), rows, rows.T, (rows + rows.T) / 2])[None]
    removed = uniform(1, 32, 32) < 0.8
    removed[:, 0] = removed[:, -1] = removed[:, :, 0] = removed[:, :, -1] = False  # a ramp's border is no mean
    found = clean(images, removed)
    assert (found[:, 0] == images[:, 0]).all()
    assert (found - images).abs().max() < 1e-4


def test_the_fill_lies_within_the_kept_values():
    images, removed = uniform(4, 3, 16, 16), uniform(4, 16, 16) < 0.9
    found = clean(images, removed)
    for row in range(4):
        kept = images[row][:, ~removed[row]]
        assert (found[row].amin((1, 2)) >= kept.amin(1)).all()
        assert (found[row].amax((1, 2)) <= kept.amax(1)).all()


def test_an_image_that_kept_nothing_has_a_defined_answer():
    images, removed = uniform(2, 3, 8, 8), torch.ones(2, 8, 8, dtype=torch.bool)
    removed[1, 3, 4] = False
    found = clean(images, removed)
    assert (found[0] == 0.5).all()
    torch.testing.assert_close(found[1], images[1][:, 3, 4, None, None].expand(3, 8, 8))
    assert (clean(images, removed, mean=[0.1, 0.2, 0.3])[0] == torch.tensor([0.1, 0.2, 0.3])[:, None, None]).all()
    assert torch.equal(clean(images, torch.zeros_like(removed)), images)


def test_features_are_a_system_of_each_channel():
    images, removed = uniform(3, 3, 12, 12), uniform(3, 3, 12, 12) < 0.6
    removed[0, 1] = True
    found = clean(images, removed, mean=[0.1, 0.2, 0.3])
    assert (found[0, 1] == 0.2).all()
    for channel in range(3):
        alone = clean(images[:, channel : channel + 1], removed[:, channel], mean=[(0.1, 0.2, 0.3)[channel]])
        assert torch.equal(found[:, channel : channel + 1], alone)


@pytest.mark.parametrize("side", [20, 100])
def test_an_image_is_the_same_in_any_batch(side):
    images = uniform(4, 3, side, side)
    removed = torch.stack([uniform(side, side) < part for part in (0.3, 0.7, 0.9, 0.99)])
    whole = impute.noisy_linear(images, removed, seeds=SEEDS)
    for row in range(4):
        one = slice(row, row + 1)
        assert torch.equal(impute.noisy_linear(images[one], removed[one], seeds=SEEDS[one]), whole[one])


def test_the_noise_is_that_of_the_seeds_or_the_one_given():
    images, removed = uniform(4, 3, 32, 32) / 2 + 0.25, uniform(4, 32, 32) < 0.5
    without = clean(images, removed)
    added = (impute.noisy_linear(images, removed, seeds=SEEDS) - without).movedim(1, -1)
    assert (added[~removed] == 0).all()
    assert added[removed].std() == pytest.approx(0.01, rel=0.05)
    assert added[removed].mean() == pytest.approx(0, abs=5e-4)
    given = torch.full_like(images, 0.125)
    torch.testing.assert_close(
        impute.noisy_linear(images, removed, noise=given), torch.where(removed[:, None], without + 0.125, images)
    )
    bright = torch.ones(1, 3, 8, 8)
    assert impute.noisy_linear(bright, torch.eye(8, dtype=torch.bool)[None], seeds=SEEDS[:1]).max() == 1


@pytest.mark.parametrize("settings", [{"tolerance": 0.0}, {"noise": -0.1}, {}])
def test_what_cannot_be_is_refused(settings):
    with pytest.raises(ValueError, match=r"tolerance|noise"):
        impute.noisy_linear(torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.bool), **settings)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same():
    images = uniform(6, 3, 100, 100)
    removed = torch.stack([uniform(100, 100) < part for part in (0.05, 0.3, 0.7, 0.9, 0.99, 0.999)])
    there = impute.noisy_linear(images.cuda(), removed.cuda(), seeds=torch.arange(6).cuda()).cpu()
    torch.testing.assert_close(there, impute.noisy_linear(images, removed, seeds=torch.arange(6)), atol=1e-4, rtol=0)
