"""How a method is called, whoever wrote it, and what is asked of the maps it returns."""

import contextlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from efface.call import Call
from efface.types import Images, Seeds, Targets


@dataclass(frozen=True)
class Convention:
    """A method as the study declares it.

    batched: it takes a batch, (model, images, targets); else one image at a time, (model, image 1 c h w, label).
    outputs: the names of the maps it returns as a dict; for a method of one map, its own name alone.
    """

    name: str
    call: Call
    batched: bool = True
    outputs: tuple[str, ...] = ()

    @property
    def gives(self) -> tuple[str, ...]:
        """The names of its maps."""
        return self.outputs or (self.name,)


def attribute(
    method: Convention,
    model: nn.Module,
    images: Images,
    targets: Targets,
    *,
    seeds: Seeds,
    rows: int,
    masks: Tensor | None = None,
) -> dict[str, Tensor]:
    """Maps of a batch by name: float n h w or n c h w, or int64 n (seeds of a ranking that is drawn anew each epoch).

    ValueError: the maps are missing, of a wrong shape or not finite; it names the method and the image.
    """
    if masks is None and method.call.wants("masks"):
        raise ValueError(
            f"attribution_methods.{method.name}: needs the masks of the true object, which these data do not have"
        )
    model.eval()
    with _seeded(int(seeds[0])):
        if method.batched:
            offered = {"seeds": seeds, "rows": rows, "masks": masks}
            found = method.call(model, images, targets, **offered)
        else:
            found = _one_by_one(method.call, model, images, targets)
    return _checked(method, found, images)


def _one_by_one(call: Call, model: nn.Module, images: Images, targets: Targets) -> Any:
    maps = [call(model, images[i : i + 1], int(targets[i])) for i in range(len(images))]
    if maps and isinstance(maps[0], dict):
        return {name: torch.stack([_single(each[name], images) for each in maps]) for name in maps[0]}
    return torch.stack([_single(each, images) for each in maps])


def _single(found: Any, images: Images) -> Tensor:
    """One image's map as older code returns it: NumPy or torch, h w, c h w or 1 c h w."""
    one = torch.as_tensor(found).detach()
    return one[0] if one.ndim == images.ndim and len(one) == 1 else one


def _checked(method: Convention, found: Any, images: Images) -> dict[str, Tensor]:
    where = f"attribution_methods.{method.name}"
    if not isinstance(found, dict):
        if method.outputs:
            raise ValueError(
                f"{where}: returned one map, but 'outputs' names {', '.join(method.outputs)}; drop 'outputs'"
            )
        found = {method.name: found}
    elif set(found) != set(method.outputs):
        raise ValueError(
            f"{where}: returned a dict of maps {', '.join(map(str, found))}; name them in the study, "
            f"outputs: [{', '.join(map(str, found))}]"
        )
    return {
        name: _one(f"{where}" if name == method.name else f"{where}.{name}", each, images)
        for name, each in found.items()
    }


def _one(where: str, found: Any, images: Images) -> Tensor:
    n, c, h, w = images.shape
    if not isinstance(found, Tensor | np.ndarray):
        raise ValueError(
            f"{where}: returned {_described(found)}, expected a tensor of shape ({n}, {h}, {w}) or ({n}, c, {h}, {w})"
        )
    maps = torch.as_tensor(found).detach()
    if maps.shape == (n,) and maps.dtype == torch.int64:
        return maps.cpu()
    fits = (
        maps.shape[0] == n
        and maps.shape[-2:] == (h, w)
        and (maps.ndim == 3 or (maps.ndim == 4 and maps.shape[1] in (1, c)))
    )
    if maps.ndim not in (3, 4) or not fits:
        raise ValueError(
            f"{where}: returned shape {tuple(maps.shape)} for {n} images of {c} x {h} x {w}, "
            f"expected ({n}, {h}, {w}), ({n}, 1, {h}, {w}) or ({n}, {c}, {h}, {w})"
        )
    maps = maps.float().cpu()
    bad = (~maps.isfinite()).flatten(1).any(1).nonzero().flatten()
    if len(bad):
        raise ValueError(
            f"{where}: returned NaN or infinity for {len(bad)} of {n} images, first for number {int(bad[0])}"
        )
    return maps


def _described(found: Any) -> str:
    if isinstance(found, Sequence) and not isinstance(found, str):
        return f"a {type(found).__name__} of {len(found)}"
    return "nothing" if found is None else f"a {type(found).__name__}"


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """A method that draws without `seeds` gets the same numbers for the same batch; the caller's draws go on."""
    before, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002  what older methods draw from
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed % (1 << 63))
        random.seed(seed)
        np.random.seed(seed % (1 << 32))  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(before)
            np.random.set_state(legacy)  # noqa: NPY002
