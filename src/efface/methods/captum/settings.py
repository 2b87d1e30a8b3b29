"""Conversion of a study's numbers and lists to the tensors and tuples that Captum takes."""

from typing import Any

import torch
from torch import Tensor

from efface.methods.captum.plan import CaptumMethod
from efface.types import Images


def settings_of(method: CaptumMethod, images: Images) -> dict[str, Any]:
    """Return the settings of `attribute` in the form that Captum needs."""
    found = {name: _tuples(value) for name, value in method.attribute.items()}
    if method.compares or method.attribute.get("baselines") is not None:
        found["baselines"] = _baselines(method, method.attribute.get("baselines", 0.0), images)
    if isinstance(window := found.get("sliding_window_shapes"), int):
        found["sliding_window_shapes"] = (images.shape[1], window, window)
    if "stdevs" in found:
        found["stdevs"] = float(found["stdevs"])
    if method.outer is not method.inner:
        found.setdefault("nt_samples_batch_size", 1)
    if method.cells is not None:
        found["feature_mask"] = _grid(method.cells, images)
    return found


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _baselines(method: CaptumMethod, value: Any, images: Images) -> Tensor:
    """Return the images to compare with: one for all images, or the images of a distribution."""
    c = images.shape[1]
    if isinstance(value, Tensor):
        found = value.to(images)
    elif method.compares:
        each = [images.new_tensor(one).reshape(-1) for one in (value if isinstance(value, list | tuple) else [value])]
        found = torch.stack([one.expand(c) if one.numel() == 1 else one for one in each])[:, :, None, None]
    else:
        found = images.new_tensor(value).reshape(1, -1, 1, 1)
    if found.ndim != 4 or found.shape[1] not in (1, c):
        raise ValueError(
            f"attribute: baselines have shape {tuple(found.shape)}; expected a number, or one for each of the images' "
            f"{c} channels{', or a list of these' if method.compares else ''}"
        )
    if method.name.endswith("DeepLiftShap") and len(found) < 2:
        raise ValueError("attribute: baselines hold 1 image; DeepLiftShap expects 2 at least: use DeepLift for one")
    return found.expand(-1, *images.shape[1:])


def _grid(cells: int, images: Images) -> Tensor:
    """Return for each pixel the number of its square."""
    h, w = images.shape[2:]
    if not 1 <= cells <= min(h, w):
        raise ValueError(f"cells is {cells}; expected 1 to {min(h, w)}, the pixels of the shorter side")
    down, right = (torch.arange(size, device=images.device) * cells // size for size in (h, w))
    return (down[:, None] * cells + right)[None, None]


def of_block(method: CaptumMethod, settings: dict[str, Any], block: slice, count: int) -> dict[str, Any]:
    """Return the settings for a block of images; tensors with one row per image are cut to the block."""

    def cut(name: str, value: Any) -> Any:
        each = isinstance(value, Tensor) and value.ndim == 4 and len(value) == count
        return value[block] if each and not (name == "baselines" and method.compares) else value

    return {name: cut(name, value) for name, value in settings.items()}
