"""Conversion of a study's numbers and lists to the tensors and tuples that Captum takes."""

from typing import Any

import torch
from torch import Tensor

from efface.base.types import Images
from efface.methods.captum.plan import CaptumMethod


def settings_of(method: CaptumMethod, images: Images) -> dict[str, Any]:
    """Return the settings of `attribute` in the form that Captum needs."""
    settings = {name: _tuples(value) for name, value in method.attribute.items()}
    if method.compares or method.attribute.get("baselines") is not None:
        settings["baselines"] = _baselines(method, method.attribute.get("baselines", 0.0), images)
    if isinstance(window := settings.get("sliding_window_shapes"), int):
        settings["sliding_window_shapes"] = (images.shape[1], window, window)
    if "stdevs" in settings:
        settings["stdevs"] = float(settings["stdevs"])
    if method.outer is not method.inner:
        settings.setdefault("nt_samples_batch_size", 1)
    if method.cells is not None:
        settings["feature_mask"] = _grid(method.cells, images)
    return settings


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _baselines(method: CaptumMethod, value: Any, images: Images) -> Tensor:
    """Return the images to compare with: one for all images, or the images of a distribution."""
    c = images.shape[1]
    if isinstance(value, Tensor):
        baselines = value.to(images)
    elif method.compares:
        colours = [
            images.new_tensor(one).reshape(-1) for one in (value if isinstance(value, list | tuple) else [value])
        ]
        baselines = torch.stack([one.expand(c) if one.numel() == 1 else one for one in colours])[:, :, None, None]
    else:
        baselines = images.new_tensor(value).reshape(1, -1, 1, 1)
    if baselines.ndim != 4 or baselines.shape[1] not in (1, c):
        raise ValueError(
            f"attribute: baselines have shape {tuple(baselines.shape)}; expected a number, or one for each of the "
            f"images' {c} channels{', or a list of these' if method.compares else ''}"
        )
    if method.name.endswith("DeepLiftShap") and len(baselines) < 2:
        raise ValueError("attribute: baselines hold 1 image; DeepLiftShap expects 2 at least: use DeepLift for one")
    return baselines.expand(-1, *images.shape[1:])


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
        per_image = isinstance(value, Tensor) and value.ndim == 4 and len(value) == count
        return value[block] if per_image and not (name == "baselines" and method.compares) else value

    return {name: cut(name, value) for name, value in settings.items()}
