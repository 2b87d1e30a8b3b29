"""ROAD's fill: each removed pixel is the weighted mean of its neighbours, plus a little noise."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from efface.base.types import Images, Mask, Seeds
from efface.impute.draw import Noise, noise_of
from efface.impute.fill import Colour, for_channels, unknown
from efface.impute.multigrid import interpolate, neighbours
from efface.impute.near import KINDS, reach, settle

ALONE_FROM = 96 * 96
"""Pixels of an image from which a CPU solves it alone. Measured: it fills a processor's cache."""
_PIXELS = {"cpu": 1 << 16, "cuda": 1 << 22}  # pixels solved at once: about 300 bytes per pixel of three channels
_FEW, _PART = 1500, 0.12  # measured: SciPy is faster up to this many removed pixels, plus this part of their box


def noisy_linear(
    images: Images,
    removed: Mask,
    *,
    seeds: Seeds | None = None,
    mean: Colour | None = None,
    noise: Noise = 0.01,
    tolerance: float = 3e-5,
) -> Images:
    """Solution of a system in which each removed pixel is the weighted mean of its eight neighbours, plus noise.

    Formula: x_p = sum over neighbours q of w_q x_q, with w = 1/6 for edge neighbours and 1/12 for corner neighbours.

    At the image's border, the weights of the existing neighbours are scaled to sum 1. This gives one linear system per
    image, shared by its channels. If single features are removed, each channel has its own system. Every mask is solved
    to `tolerance`. Before the noise, the fill lies between the least and the greatest kept value of its channel. After
    the noise, values are clipped to [0, 1].

    seeds: one integer per image. An image's noise depends only on its seed, not on the batch.
    mean: the data set's channel means, the colour of an image without kept pixels (0.5 without them). A single kept
        pixel determines all removed pixels.
    noise: standard deviation, at least 0, in units of the image's [0, 1]. Or the noise itself, n c h w; then no seeds
        are needed.
    tolerance: target for the largest error of a pixel, above 0. Where kept pixels are near everywhere, a strict bound
        keeps the error below three times the tolerance. Elsewhere multigrid's own estimate controls it. A tenth of the
        tolerance costs about two more cycles, of about seven. SciPy solves directly if both fail, and for large
        images with few removed pixels.

    Source: Rong et al. 2022, section 4.2 (arXiv:2202.00449).
    Differs: solved on the images' device, a batch at a time, by Chebyshev's steps or multigrid. The weights at the
        border are scaled. The noise leaves no value outside [0, 1].
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance}; expected the largest error of a pixel, above 0, such as 3e-5")
    mask = for_channels(removed)
    added = noise_of(images, seeds, noise)
    if mask.shape[1] == 1:
        filled = _systems(images, mask[:, 0], unknown(images, mean), tolerance)
    else:
        flat = [part.flatten(0, 1) for part in (images, mask, unknown(images, mean))]
        filled = _systems(flat[0][:, None], flat[1], flat[2][:, None], tolerance).reshape(images.shape)
    return torch.where(mask, (filled + added).clamp_(0, 1), images)


def _systems(
    images: Images, removed: Bool[Tensor, "n h w"], blank: Images, tolerance: float
) -> Float[Tensor, "n c h w"]:
    """Solve all systems in groups. An image without kept pixels becomes `blank`."""
    filled = torch.where(removed.flatten(1).all(1)[:, None, None, None], blank, images)
    some = removed.flatten(1).any(1) & ~removed.flatten(1).all(1)
    kind, pixels = images.device.type, removed[0].numel()
    # on a CPU, a large image is solved alone, cut to its removed pixels; a GPU would be idle most of the time
    alone = kind == "cpu" and pixels >= ALONE_FROM
    size = 1 if alone else max(1, _PIXELS.get(kind, _PIXELS["cuda"]) // pixels)
    solve = solve_alone if alone else _together
    for rows in some.nonzero().flatten().split(size) if some.any() else ():
        filled[rows] = solve(images[rows], removed[rows], tolerance)
    return filled


def solve_alone(image: Images, removed: Bool[Tensor, "1 h w"], tolerance: float) -> Float[Tensor, "1 c h w"]:
    """Solve one image, cut to the box around its removed pixels and their neighbours.

    tolerance: see `noisy_linear`. Few removed pixels are solved directly.
    """
    total = neighbours(torch.ones(1, 1, *removed.shape[1:]))
    rows, columns = (removed[0].any(axis).nonzero().flatten().tolist() for axis in (1, 0))
    cut = (..., slice(max(0, rows[0] - 1), rows[-1] + 2), slice(max(0, columns[0] - 1), columns[-1] + 2))
    if removed.sum() <= _FEW + _PART * removed[cut].numel():
        return solve_directly(image, removed)
    filled = image.clone()
    filled[cut] = _together(image[cut], removed[cut], tolerance, total[cut])
    return filled


def _together(
    images: Images, removed: Bool[Tensor, "n h w"], tolerance: float, total: Tensor | None = None
) -> Float[Tensor, "n c h w"]:
    """Solve a block of images: by a few steps if kept pixels are near, else by multigrid; directly if both fail."""
    if total is None:
        total = neighbours(torch.ones(1, 1, *removed.shape[1:], device=images.device))
    where = removed[:, None]
    low = torch.where(where, torch.inf, images).amin((2, 3), keepdim=True)
    high = torch.where(where, -torch.inf, images).amax((2, 3), keepdim=True)
    filled = torch.where(where, (low + high) / 2, images).float()
    kinds, bound = reach(removed, total)
    settled = torch.zeros_like(kinds, dtype=torch.bool)
    for kind in range(KINDS):
        for rows in _rows(kinds == kind):
            filled[rows], left = settle(filled[rows], removed[rows], total, kind, tolerance=tolerance)
            settled[rows] = left * bound[rows] <= 3 * tolerance
    for rows in _rows(~settled):
        solved, settled[rows] = interpolate(filled[rows], removed[rows], total, tolerance=tolerance)
        filled[rows] = solved.float()
    for row in (~settled).nonzero().flatten().tolist():
        filled[row] = solve_directly(images[row][None], removed[row][None], total)[0]
    # the mean of neighbours lies within their range, so any value outside is an error
    return filled.to(images.dtype).clamp_(low, high)


def _rows(chosen: Bool[Tensor, " n"]) -> list[slice | Tensor]:
    """Return an index of the chosen rows in a list: a slice without a copy for all rows, an empty list for none."""
    if chosen.all():
        return [slice(None)]
    return [chosen.nonzero().flatten()] if chosen.any() else []


def solve_directly(
    image: Images, removed: Bool[Tensor, "1 h w"], total: Tensor | None = None
) -> Float[Tensor, "1 c h w"]:
    """Solve one image by a sparse factorisation in double precision.

    total: 1 1 h w, the sum of the weights of each pixel's neighbours; computed if it is not given.
    """
    from scipy.sparse import csc_matrix
    from scipy.sparse.linalg import splu

    h, w = removed.shape[1:]
    if total is None:
        total = neighbours(torch.ones(1, 1, h, w))
    known = torch.where(removed[:, None], 0.0, image.double())
    places = removed[0].cpu().numpy().ravel().nonzero()[0]
    number = np.full((h + 2) * (w + 2), -1)
    spots = (places // w + 1) * (w + 2) + places % w + 1
    number[spots] = np.arange(len(spots))
    rows, columns, weights = (
        [np.arange(len(spots))],
        [np.arange(len(spots))],
        [total.double().cpu().numpy().ravel()[places]],
    )
    for i, j in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
        other = number[spots + i * (w + 2) + j]
        inside = (other >= 0).nonzero()[0]
        rows.append(inside)
        columns.append(other[inside])
        weights.append(np.full(len(inside), -1.0 if i and j else -2.0))
    matrix = csc_matrix((np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))))
    given = neighbours(known)[0].flatten(1).cpu().numpy()[:, places]
    # the matrix is symmetric and diagonally dominant, so no pivots are needed
    factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    filled = image.double().flatten(2)
    filled[..., torch.from_numpy(places).to(image.device)] = torch.from_numpy(factors.solve(given.T).T).to(filled)
    return filled.reshape(image.shape).to(image.dtype)
