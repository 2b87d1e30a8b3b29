"""Layout of the output of a layer: which of its axes follow the picture.

A CAM reads the output of a layer as n c h w. Layers of transformers also have four axes, but other ones: n h w c, or
heads, tokens and their width; or three, n t c. Four halves of an image are changed in turn: left, right, upper, lower.
An axis along which the centre of the change moves down with the change in the image is the height, and so on. The axis
of the channels does not move.
"""

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.base.types import Images
from efface.models.hook_watch import see_calls

_FOLLOWS = 0.1
"""Share of an axis by which the centre of the change moves, from which on the axis follows the picture."""
HALVES = 5
"""The image, and it with each of four halves changed."""


class Layout(NamedTuple):
    """Behaviour of the axes of a layer's output. `down` and `right` have a number for each axis after the first.

    shape: of the output for one image. each: whether the first axis is that of the images. down, right: how far the
    centre of the change moves along an axis if the change in the image moves down, or to the right. changes: whether
    the output depends on the image at all. at: of three axes, how much each token changes with each half of the image:
    left, right, upper, lower.
    """

    shape: tuple[int, ...]
    each: bool
    down: tuple[float, ...] = (0.0, 0.0, 0.0)
    right: tuple[float, ...] = (0.0, 0.0, 0.0)
    changes: bool = True
    at: Float[Tensor, "4 t"] | None = None

    @property
    def wrong(self) -> str:
        """Return what is known of four axes to be another layout than n c h w; "" where nothing speaks against it."""
        if not self.each:
            return "its first axis is not that of the images"
        (c, h, _), w = self.down, self.right[2]
        if self.is_channels_last:
            return "n h w c: the second and the third axis follow the picture, the fourth does not"
        if self.shape[2:] != (1, 1) and c > max(_FOLLOWS, 2 * h):  # one place follows nothing
            return "the second axis follows the picture from above to below, as tokens do"
        if self.shape[3] > 1 and h > max(_FOLLOWS, 4 * w):
            return "n heads tokens channels: only the third axis follows the picture"
        return ""

    @property
    def is_feature_map(self) -> bool:
        """Return True if there are four axes, and the third and the fourth follow the picture for sure."""
        if len(self.shape) != 4 or not self.each or self.wrong:
            return False
        return self.down[1] > _FOLLOWS and self.right[2] > _FOLLOWS

    @property
    def is_channels_last(self) -> bool:
        """Return True if there are four axes, and the second and the third follow the picture for sure."""
        if len(self.shape) != 4 or not self.each:
            return False
        (c, _, _), (_, across, w) = self.down, self.right
        return across > max(_FOLLOWS, 2 * w) and c > _FOLLOWS

    @property
    def is_channels_first(self) -> bool:
        """Return True if of three axes the last one follows the picture, and the second does not: n c t."""
        if len(self.shape) != 3 or not self.each:
            return False
        second, third = (max(self.down[axis], self.right[axis]) for axis in (0, 1))
        return third > max(_FOLLOWS, 2 * second)


def check_feature_map(model: nn.Module, images: Images, name: str) -> None:
    """Raise ValueError if the output of a layer is laid out in another way than n c h w. It names layers that are so.

    It costs one forward pass of five images in evaluation mode, once for each model and shape of image.
    """
    by_name = layouts(model, images)
    if name not in by_name or len(by_name[name].shape) != 4 or not (wrong := by_name[name].wrong):
        return
    first = next((other for other, module in model.named_modules() if isinstance(module, nn.Conv2d)), "")
    fit = [other for other, layout in by_name.items() if layout.is_feature_map and other != first][-3:]
    shape = " x ".join(map(str, ("n", *by_name[name].shape[1:])))
    remedy = f"layers that are: {', '.join(fit)}" if fit else "no later layer is one: choose a method without a layer"
    raise ValueError(
        f"layer {name!r} of {type(model).__name__} returns {shape}, which is no feature map n c h w ({wrong}); {remedy}"
    )


def layouts(model: nn.Module, images: Images) -> dict[str, Layout]:
    """Return the layout of each layer whose output has three or four axes, by name, in the order in which they finish.

    It costs one forward pass of five images in evaluation mode, once for each model and shape of image.
    """
    kept = _KNOWN.setdefault(model, {})
    seen = identity_of(model, images)
    if seen not in kept:
        kept[seen] = _layouts(model, halves_changed(images[:1]))
    return kept[seen]


_KNOWN: "WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], dict[str, Layout]]]" = WeakKeyDictionary()


def identity_of(model: nn.Module, images: Images) -> tuple[Any, ...]:
    """Return what the layout of layers depends on: the size of the images, and the modules by name and kind."""
    return (*images.shape[1:], *((name, type(module)) for name, module in model.named_modules()))


def halves_changed(image: Float[Tensor, "1 c h w"]) -> Float[Tensor, "5 c h w"]:
    """Return the image, and it with its left, right, upper and lower half changed by half of the range."""
    height, width = image.shape[2:]
    changed, variants = (image + 0.5) % 1, image.repeat(HALVES, 1, 1, 1)
    parts = [(1, 3, 0, width // 2), (2, 3, (width + 1) // 2, width)]
    parts += [(3, 2, 0, height // 2), (4, 2, (height + 1) // 2, height)]
    for row, axis, start, end in parts:
        variants[row].narrow(axis - 1, start, end - start).copy_(changed[0].narrow(axis - 1, start, end - start))
    return variants


def _layouts(model: nn.Module, images: Images) -> dict[str, Layout]:
    by_name: dict[str, Layout] = {}

    def see(name: str, _: nn.Module, output: object) -> None:
        by_name.pop(name, None)  # of a layer that runs several times, the last time counts
        if name and isinstance(output, Tensor) and output.is_floating_point() and output.ndim in (3, 4):
            by_name[name] = _layout(output.detach())

    see_calls(model, images, see)
    return by_name


def _layout(output: Tensor) -> Layout:
    shape, axes = (1, *output.shape[1:]), range(1, output.ndim)
    if len(output) != HALVES:
        return Layout(shape, each=False)
    change = (output[1:] - output[:1]).abs().double()
    down, right = [], []
    changes = False  # found from the sums, which are much smaller than the output
    for axis in axes:
        along = change.sum([other for other in axes if other != axis])
        places = torch.linspace(0, 1, along.shape[1], dtype=along.dtype, device=along.device)
        centres, moved = along @ places / along.sum(1).clamp(min=1e-300), along.sum(1) > 0
        changes = changes or not bool((along == 0).all())
        left, to_right, above, below = centres.tolist()
        down.append(below - above if moved[2:].all() else 0.0)
        right.append(to_right - left if moved[:2].all() else 0.0)
    at = change.sum(2) if output.ndim == 3 else None
    return Layout(shape, each=True, down=tuple(down), right=tuple(right), changes=changes, at=at)
