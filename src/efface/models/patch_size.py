"""Size of the patches that a network cuts its images into.

A network with patches begins with a convolution whose kernel is its stride, which reads each pixel once: ViT, Swin,
ConvNeXt, mixers. Where it begins in another way, the network's own words or the study's tell the size, or the number of
its tokens if it has no convolution at all.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.base.types import Images
from efface.models.hook_watch import is_scripted, look_in, run_once
from efface.models.tokens import own_grid, stated_grid, token_grid


def patch_size(model: nn.Module, images: Images) -> tuple[int, int]:
    """Return height and width in pixels of the network's patches, for images of this size.

    What the study states as `tokens` counts more than the first convolution. It costs one forward pass of two images.

    ValueError: the network has no patches, or the images are not cut into whole ones.
    """
    name = type(model).__name__
    if is_scripted(model):
        raise ValueError(f"{name} is made by torch.jit, so its patches cannot be seen; {_OWN}")
    stated = stated_grid(model, images)
    first = _first_layer(model, images)
    if isinstance(first, _Patches) and (stated is None or first.grid == (stated.rows, stated.columns)):
        return first.checked(images.shape[2:])
    grid = stated or own_grid(model, images)
    if grid is None and first is not None:
        raise ValueError(f"{name} begins with {first}, which cuts no patches; {_OWN}")
    try:
        grid = grid or token_grid(model, images)
    except ValueError as error:
        raise ValueError(f"{name} has no patches that are known ({error}); {_OWN}") from error
    height, width = images.shape[2:]
    if height % grid.rows or width % grid.columns:
        raise ValueError(
            f"{name} has {grid.rows} x {grid.columns} patches, into which images of {height} x {width} cannot be cut "
            f"evenly; {_OWN}"
        )
    return height // grid.rows, width // grid.columns


_OWN = "give a size of your own, such as unit: {call: patch, kwargs: {size: 16}}"


class _Patches(NamedTuple):
    """What the first convolution does with the images.

    size: height and width of a patch. read: height and width of what it reads, which may be padded. grid: rows and
    columns of its output.
    """

    size: tuple[int, int]
    read: tuple[int, int]
    grid: tuple[int, int]

    def checked(self, image: Sequence[int]) -> tuple[int, int]:
        """Return the size of a patch. ValueError: patches do not cover the image."""
        if all(length == side * count for length, side, count in zip(self.read, self.size, self.grid, strict=True)):
            return self.size
        (height, width), (tall, wide) = image, self.size
        whole = f"{max(1, height // tall) * tall} x {max(1, width // wide) * wide}"
        raise ValueError(
            f"images of {height} x {width} are no whole patches of {tall} x {wide}, the network's own; give images of "
            f"{whole}, or {_OWN}"
        )


def _first_layer(model: nn.Module, images: Images) -> _Patches | str | None:
    """Return what the first convolution cuts; in words, if it cuts no patches; None if the network has none."""
    image = images[:1].detach()
    changed = torch.rand(image.shape[2:], generator=torch.Generator().manual_seed(0)).to(image.device) < 0.5
    pair = torch.cat([image, torch.where(changed, (image + 0.5) % 1, image)])
    seen: list[tuple[nn.Module, Tensor, tuple[int, ...]]] = []

    def see(module: nn.Module, inputs: tuple[object, ...], output: Tensor) -> None:
        if not seen and inputs and isinstance(inputs[0], Tensor):
            seen.append((module, inputs[0].detach(), tuple(output.shape)))

    run_once(model, pair, [look_in(module, see) for module in model.modules() if isinstance(module, nn.Conv2d)])
    if not seen:
        return None
    (layer, read, shape), (height, width) = seen[0], changed.shape
    assert isinstance(layer, nn.Conv2d)
    (tall, wide), kernel = layer.stride, " x ".join(map(str, layer.kernel_size))
    if not _cuts(layer):
        return f"a convolution of {kernel} at stride {tall} x {wide}"
    grown = read.shape[2] - height >= tall or read.shape[3] - width >= wide
    if grown or not _as_they_are(read, changed):
        return f"a convolution of {kernel} that does not read the pixels at their places"
    return _Patches((tall, wide), (read.shape[2], read.shape[3]), (shape[2], shape[3]))


def _cuts(layer: nn.Conv2d) -> bool:
    """Return whether each pixel of the input belongs to one place of the output alone."""
    plain = layer.padding in ("valid", (0, 0)) and layer.dilation == (1, 1)
    return plain and layer.kernel_size == layer.stride and max(layer.stride) > 1


def _as_they_are(read: Float[Tensor, "2 c tall wide"], changed: Tensor) -> bool:
    """Return whether exactly the changed pixels changed, at their own places, before a padding below and at the right.

    Otherwise the images were resized, cropped or moved on their way.
    """
    if read.ndim != 4 or len(read) != 2 or read.shape[2] < changed.shape[0] or read.shape[3] < changed.shape[1]:
        return False
    where = torch.zeros(read.shape[2:], dtype=torch.bool, device=read.device)
    where[: changed.shape[0], : changed.shape[1]] = changed
    return torch.equal((read[1] != read[0]).any(0), where)
