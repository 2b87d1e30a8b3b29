"""Linear interpolation of many images at once: multigrid on the removed pixels of a batch, any mask, any device.

A removed pixel is the weighted mean of its neighbours, with weight 2 for an edge and 1 for a corner. This is the
Laplacian of a graph, with the kept pixels as its boundary. Each coarser grid keeps every second pixel. Corrections are
interpolated bilinearly between grids, and only at removed pixels. The coarser equations follow from this interpolation
(Galerkin), so they include every kept pixel. All operations are elementwise or sums in a fixed order. So the result for
an image does not depend on the batch.

Source: Trottenberg, Oosterlee & Schüller 2001, Multigrid, sections 2.4 and 7.7.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

_OFFSETS = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1))
_DIRECT = 64  # a grid with at most this many unknowns is solved by its inverse instead of a coarser grid
_AFTER = (1.308, 0.809)  # factors of two Jacobi steps that damp short waves best: Chebyshev's for 2/3 to 4/3
_BEST = 0.1  # least remaining part of the error assumed after a cycle; measured on many masks: 0.04 to 0.35


@dataclass(frozen=True)
class Level:
    """One level: its equations, and the factors of its smoothing.

    inside: 1 where there is an unknown.
    damped: factor of a residual in one Jacobi step; 0 where there is no unknown.
    stencil: the nine coefficients of each unknown's equation; None for the image itself, whose coefficients are fixed.
    total: sum of the weights of each pixel's neighbours, for the image itself.
    inverse: inverse of the whole matrix, for the coarsest grid.
    """

    inside: Float[Tensor, "n 1 h w"]
    damped: Float[Tensor, "n 1 h w"]
    stencil: Float[Tensor, "n 9 h w"] | None = None
    total: Float[Tensor, "1 1 h w"] | None = None
    inverse: Float[Tensor, "n 1 hw hw"] | None = None


def interpolate(
    start: Float[Tensor, "n c h w"],
    removed: Bool[Tensor, "n h w"],
    total: Float[Tensor, "1 1 h w"],
    *,
    tolerance: float,
    cycles: int = 60,
) -> tuple[Float[Tensor, "n c h w"], Bool[Tensor, " n"]]:
    """Return the weighted mean of its neighbours for each removed pixel, float64, and True for each image in tolerance.

    start: the images, with a first guess at the removed pixels. Each image has a kept pixel.
    total: sum of the weights of each pixel's neighbours, `neighbours` of ones; smaller at the image's border.
    tolerance: largest error of a pixel, as estimated from the last two corrections.
    cycles: most cycles. An image within the tolerance does not change any more.
    """
    images = start.double()
    where, total = removed[:, None], total.double()
    grids = _grids(removed, total.float())
    going = torch.ones(len(images), dtype=torch.bool, device=images.device)
    before = torch.full((len(images),), torch.inf, device=images.device)
    for _ in range(cycles):
        residual = neighbours(images).addcmul_(total, images, value=-1)
        correction = _cycle(grids, residual.float().mul_(grids[0].inside), 0)
        if len(images) > 1:
            correction.mul_(going[:, None, None, None])
        images += correction
        size = correction.abs().amax((1, 2, 3))
        rate = (size / before.clamp_min(1e-30)).clamp(_BEST, 0.99)
        going &= ~(size * rate <= tolerance * (1 - rate))
        before = size
        if not going.any():
            break
    return torch.where(where, images, start.double()), ~going & images.isfinite().all((1, 2, 3))


def neighbours(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Return the sum of the eight neighbours, edges twice: [1 2 1] along both axes minus 4 times the pixel itself."""
    wide = F.pad(images, (1, 1, 1, 1))
    for axis in (2, 2, 3, 3):
        size = wide.shape[axis] - 1
        wide = wide.narrow(axis, 0, size) + wide.narrow(axis, 1, size)
    return wide.sub_(images, alpha=4)


def _grids(removed: Bool[Tensor, "n h w"], total: Float[Tensor, "1 1 h w"]) -> list[Level]:
    """Return the grids from the image itself to a grid that is small enough for its inverse."""
    inside = removed[:, None].float()
    # factor 1 damps the short waves of this stencil best; along a single line the best factor is 2/3
    damping = 2 / 3 if min(removed.shape[1:]) == 1 else 1.0
    grids = [Level(inside, damping * inside / total.clamp_min(1), total=total)]
    while inside[0].numel() > _DIRECT:
        inside = (_coarser(inside) > 0).float()
        stencil = _galerkin(grids[-1], inside)
        # a grid may have redundant unknowns; then the sum of the row limits a step
        diagonal = torch.maximum(stencil[:, 4:5], stencil.abs().sum(1, keepdim=True) / 2)
        grids.append(Level(inside, torch.where(inside > 0, damping / diagonal, 0.0), stencil))
    grids[-1] = _inverted(grids[-1])
    return grids


def _galerkin(fine: Level, inside: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 9 h w"]:
    """Return the coarser grid's equations: the effect of each unknown on its neighbours.

    The unknowns form nine sets whose members do not share a neighbour, so each set is computed at once.
    """
    h, w = inside.shape[2:]
    rows, columns = (torch.arange(size, device=inside.device) % 3 for size in (h, w))
    kind = 3 * rows[:, None] + columns
    single = (kind == torch.arange(9, device=inside.device)[:, None, None]) * inside
    finer = _finer(single, fine.inside.shape).mul_(fine.inside)
    answer = _coarser(_residual(fine, None, finer)).neg_()
    kinds = torch.stack([3 * ((rows + i) % 3)[:, None] + (columns + j) % 3 for i, j in _OFFSETS])
    return answer.gather(1, kinds.expand_as(answer))


def _inverted(grid: Level) -> Level:
    count = grid.inside[0].numel()
    unit = torch.eye(count, device=grid.inside.device).reshape(1, count, *grid.inside.shape[2:]) * grid.inside
    matrix = -_residual(grid, None, unit).flatten(2).double()
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    # redundant unknowns make the matrix singular; adding 1e-5 of its diagonal does not harm a correction
    diagonal += torch.where(diagonal > 0, 1e-5 * diagonal, 1.0)
    inside = grid.inside.flatten(2)
    inverse = torch.linalg.inv(matrix).float() * inside * inside.mT
    return Level(grid.inside, grid.damped, grid.stencil, grid.total, inverse[:, None])


def _cycle(grids: list[Level], residual: Tensor, level: int) -> Tensor:
    """Return a correction: one Jacobi step, the correction of the coarser grids, two more Jacobi steps."""
    grid = grids[level]
    if grid.inverse is not None:
        return (grid.inverse * residual.flatten(2)[:, :, None]).sum(3).reshape(residual.shape)
    correction = grid.damped * residual
    coarse = _cycle(grids, _coarser(_residual(grid, residual, correction)), level + 1)
    correction.addcmul_(_finer(coarse, residual.shape), grid.inside)
    for factor in _AFTER:
        correction.addcmul_(grid.damped, _residual(grid, residual, correction), value=factor)
    return correction


def _residual(grid: Level, target: Tensor | None, values: Tensor) -> Tensor:
    """Return the target (0 without one) minus the equations' result for the values."""
    if grid.total is not None:
        left = neighbours(values).addcmul_(grid.total, values, value=-1)
        return (left if target is None else left.add_(target)).mul_(grid.inside)
    assert grid.stencil is not None
    h, w = values.shape[2:]
    wide = F.pad(values, (1, 1, 1, 1))
    left = torch.zeros_like(values) if target is None else target.clone()
    for k, (i, j) in enumerate(_OFFSETS):
        left.addcmul_(grid.stencil[:, k : k + 1], wide[..., 1 + i : 1 + i + h, 1 + j : 1 + j + w], value=-1)
    return left


def _finer(coarse: Tensor, shape: torch.Size) -> Tensor:
    """Interpolate bilinearly: every second pixel is a coarse pixel; the last coarse pixel may lie beyond the border."""
    h, w = shape[2:]
    rows = coarse.new_empty(*coarse.shape[:2], h, coarse.shape[3])
    rows[:, :, ::2] = coarse[:, :, : h - h // 2]
    torch.add(coarse[:, :, : h // 2], coarse[:, :, 1 : h // 2 + 1], out=rows[:, :, 1::2]).mul_(0.5)
    fine = coarse.new_empty(*coarse.shape[:2], h, w)
    fine[..., ::2] = rows[..., : w - w // 2]
    torch.add(rows[..., : w // 2], rows[..., 1 : w // 2 + 1], out=fine[..., 1::2]).mul_(0.5)
    return fine


def _coarser(fine: Tensor) -> Tensor:
    """Apply the transpose of `_finer`."""
    h, w = fine.shape[2:]
    columns = fine.new_zeros(*fine.shape[:3], w // 2 + 1)
    columns[..., : w - w // 2] = fine[..., ::2]
    columns[..., : w // 2].add_(fine[..., 1::2], alpha=0.5)
    columns[..., 1:].add_(fine[..., 1::2], alpha=0.5)
    coarse = fine.new_zeros(*fine.shape[:2], h // 2 + 1, w // 2 + 1)
    coarse[:, :, : h - h // 2] = columns[:, :, ::2]
    coarse[:, :, : h // 2].add_(columns[:, :, 1::2], alpha=0.5)
    coarse[:, :, 1:].add_(columns[:, :, 1::2], alpha=0.5)
    return coarse
