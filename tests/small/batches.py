"""Images, classes and maps that a test hands in; all drawn by torch from a seed, so that efface has no part in them."""

import inspect

import torch
from torch import Tensor

from efface.base import draws
from efface.base.types import Split


def uniform_numbers(*shape: int, seed: int = 1, dtype=torch.float64) -> Tensor:
    """Numbers in [0, 1)."""
    return torch.rand(*shape, generator=_generator(seed), dtype=dtype)


def uniform_images(
    count: int, h: int = 8, w: int | None = None, *, channels: int = 3, seed: int = 1, dtype=torch.float64
):
    """Images in [0, 1), n c h w; square unless told."""
    return uniform_numbers(count, channels, h, w or h, seed=seed, dtype=dtype)


def normal_numbers(*shape: int, seed: int = 0, dtype=torch.float32) -> Tensor:
    """Standard normal numbers, such as maps."""
    return torch.randn(*shape, generator=_generator(seed), dtype=dtype)


def classes_in_turn(count: int, classes: int = 4) -> Tensor:
    """0, 1, 2, ... and again."""
    return torch.arange(count) % classes


def images_and_classes(count: int = 5, h: int = 8, w: int | None = None, **settings) -> tuple[Tensor, Tensor]:
    """`uniform_images`, and one of four classes in turn."""
    return uniform_images(count, h, w, **settings), classes_in_turn(count)


def with_seeds(text: str, count: int, h: int = 8, w: int | None = None, **settings) -> tuple[Tensor, Tensor, Tensor]:
    """`images_and_classes`, and seeds of the images drawn from a text."""
    return *images_and_classes(count, h, w, **settings), draws.seeds_of(text, torch.arange(count))


def all_inputs(
    count: int, size: int = 8, *, channels: int = 3, seed: int = 1, text: str = "test", inside=0.5, dtype=torch.float64
) -> dict[str, Tensor]:
    """All that a method may ask for, by name; a mask is True at a share `inside` of the pixels."""
    generator = _generator(seed)
    return {
        "images": torch.rand(count, channels, size, size, generator=generator, dtype=dtype),
        "targets": classes_in_turn(count),
        "seeds": draws.seeds_of(text, torch.arange(count)),
        "masks": torch.rand(count, size, size, generator=generator) > 1 - inside,
    }


def explain(method, model, inputs: dict[str, Tensor], **settings) -> Tensor:
    """The method on inputs such as `all_inputs`, with those of them that it asks for."""
    asked = inspect.signature(method).parameters
    extras = {name: inputs[name] for name in ("seeds", "masks") if name in asked and name in inputs}
    return method(model, inputs["images"], inputs["targets"], **extras | settings)


def stored_images(count: int, h: int = 8, w: int | None = None, *, channels: int = 3, seed: int) -> Tensor:
    """Images of 8 bits, n c h w; square unless told."""
    return torch.randint(0, 256, (count, channels, h, w or h), generator=_generator(seed), dtype=torch.uint8)


def noise_split(
    count: int, h: int = 8, w: int | None = None, *, channels: int = 3, seed: int, classes: int = 4, **others
) -> Split:
    """A split of `stored_images`, with classes in turn that say nothing of them."""
    images = stored_images(count, h, w, channels=channels, seed=seed)
    return Split(images, classes_in_turn(count, classes), **others)


def redder() -> dict[str, Split]:
    """Twelve images to train on and eight to test, noise of two classes; those of class 1 are redder."""
    images, targets = stored_images(20, 6, seed=1), classes_in_turn(20, 2)
    images[:, 0] = (images[:, 0] // 4).add((targets * 150)[:, None, None].byte())
    return {"train": Split(images[:12], targets[:12]), "test": Split(images[12:], targets[12:])}


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
