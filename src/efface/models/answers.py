"""Checks of a network's answers on a few images: logits, the same in every pass, and for each image alone."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from efface.base.types import Images
from efface.models.adapt import Outputs
from efface.models.hook_watch import look_before, look_in

TOLERANCE, LOW_TOLERANCE = 1e-4, 1e-2
"""Difference of two passes that rounding explains, relative to the largest logit: float32, and half precision."""

SUMS = 1e-3
"""Distance from 1 at which the sum of a row still counts as a sum of probabilities."""


def check_answers(network: nn.Module, images: Images, outputs: Outputs | None = None) -> tuple[Tensor, list[str]]:
    """Return the logits of the images, n k, and warnings. The network is in evaluation mode.

    ValueError: the answers are no logits; the network changes its input; or the answers differ between two passes or
        with the other images of the batch. The message names the modules.
    """
    alike = len(images) < 2 or torch.equal(images[0], images[1])
    several = torch.cat([images, 1 - images[:1]]) if alike else images
    drawn = _generators()
    with torch.no_grad():
        logits = network(given := several.clone())
        _check_shape(logits, len(several), outputs)
        if not torch.equal(given, several):
            raise ValueError(
                "changes its input in place, so whoever reads the images afterwards reads others; write x = (x - mean) "
                "/ std in its forward instead of x.sub_(mean).div_(std), and no inplace=True in its first layer"
            )
        alone = network(images[:1])
        if alone.shape != logits[:1].shape:
            raise ValueError(
                f"returns shape {tuple(alone.shape)} for one image and {tuple(logits.shape)} for {len(several)}; "
                "expected one row for each image: remove squeeze() from its forward, or name the axis"
            )
        warnings = _check_values(logits[: len(images)], outputs)
        if warnings and (far := network(_FAR * (several - 0.5))).isfinite().all() and not _within_one(far, outputs):
            warnings = []  # logits lay there by chance, as those of a fresh network may
    low = any(tensor.dtype.itemsize < 4 for tensor in (logits, *network.parameters()) if tensor.is_floating_point())
    most = (LOW_TOLERANCE if low else TOLERANCE) * float(logits.abs().max())
    off = float((logits[:1] - alone).abs().max())
    still = [name or "the network itself" for name, module in network.named_modules() if module.training]
    if still or _generators() != drawn:
        warnings += _of_random_draws(network, several, logits, most, still)
    if not off <= most:  # NaN, as of a standard deviation over one image, is a difference as well
        with torch.no_grad():
            apart = float((network(several) - logits).abs().max())
        if apart > most:
            raise _two_answers(apart, _culprits(network, several, several))
        where = _culprits(network, images[:1], several)
        raise ValueError(
            f"answers an image differently if other images are in its batch (by {off:.2g}). The difference starts in "
            f"{where}: give a BatchNorm its running statistics (track_running_stats=True); hand over a quantised "
            "network in float32"
        )
    return logits[: len(images)], warnings


_FAR = 1e4
"""Factor of images far from all others. A sigmoid at the end of a network keeps its answers between 0 and 1."""
PASSES = 20
"""Passes in which a network that draws random numbers must give the same answers."""


def _of_random_draws(network: nn.Module, images: Images, logits: Tensor, most: float, still: list[str]) -> list[str]:
    """Return a warning of a network that draws random numbers in evaluation mode, or has modules in training mode.

    ValueError: one of `PASSES` passes gives other answers.
    """
    with torch.no_grad():
        apart = max(float((network(images) - logits).abs().nan_to_num(torch.inf).max()) for _ in range(PASSES))
    if apart > most:
        where = _culprits(network, images, images)
        if where == type(network).__name__ and still:  # its draws are too rare to be met again
            where = ", ".join(still[:5])
        raise _two_answers(apart, where)
    remark = f"its answers were the same in {PASSES} passes, but a rare draw may change a result"
    if still:
        return [f"{len(still)} modules stay in training mode ({', '.join(still[:5])}); {remark}; let eval() reach them"]
    return [f"it draws random numbers in evaluation mode; {remark}"]


def _two_answers(apart: float, where: str) -> ValueError:
    return ValueError(
        f"returns different logits for the same images in two passes (by up to {apart:.2g}), so no result could be "
        f"reproduced. The difference starts in {where}: switch dropout and noise off in evaluation mode, as in "
        "F.dropout(x, p, self.training)"
    )


def _generators() -> tuple[Any, ...]:
    """Return the states of torch's and NumPy's generators. Python's own also serves checks of types, so it is left."""
    _, words, place, *_ = np.random.get_state()  # noqa: NPY002  older code uses this generator
    return torch.get_rng_state().numpy().tobytes(), np.asarray(words).tobytes(), place


def takes_raw_values(network: nn.Module, images: Images) -> bool:
    """Return whether the first layer with weights gets the images just as they are, so that nothing normalises them.

    A layer has no modules inside. A whole network may have weights of its own, such as the class token of a ViT, and a
    normalisation inside. A network whose modules do not run, or that calls no such layer, is not judged: False.
    """
    seen: list[bool] = []

    def look(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        given = next((value for value in inputs if isinstance(value, Tensor)), None)
        if not seen and given is not None:
            same = given.numel() == images.numel()
            seen.append(same and torch.equal(given.to(images.dtype).reshape(images.shape), images))
            raise _SeenError  # the rest of the pass tells nothing

    handles = [
        look_before(module, look)
        for module in network.modules()
        if next(module.parameters(recurse=False), None) is not None
        and next(module.children(), None) is None
        and not isinstance(module, torch.jit.ScriptModule)
    ]
    try:
        with torch.no_grad():
            network(images)
    except _SeenError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return bool(seen and seen[0])


class _SeenError(BaseException):
    """Ends a pass, once its first module with weights has been looked at. No network catches it."""


def _check_shape(logits: object, n: int, outputs: Outputs | None) -> None:
    """Raise ValueError if an answer does not have the shape of logits."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        returned = str(logits.dtype) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"returns {returned}; expected a tensor of floating-point logits (n, classes)")
    shape = tuple(logits.shape)
    if shape in ((n,), (n, 1)) and outputs is None:
        raise ValueError(
            f"returns one number for each image (shape {shape} for {n} images); if it is the logit of the second of "
            "two classes, set outputs: binary; if it is a probability (the network ends with a sigmoid), set outputs: "
            "probabilities"
        )
    if len(shape) != 2 or shape[0] != n or shape[1] < 2:
        raise ValueError(
            f"returns shape {shape} for {n} images; expected logits of shape ({n}, classes): wrap the network so that "
            "it returns one row of logits for each image"
        )
    if outputs == "binary" and shape[1] != 2:
        raise ValueError(f"returns {shape[1]} numbers for each image, but outputs is 'binary'; drop this key")


def _within_one(logits: Tensor, outputs: Outputs | None) -> bool:
    """Return whether all numbers that the network itself returns are between 0 and 1."""
    raw = 2 * logits[:, 1:] if outputs == "binary" else logits
    return bool(raw.min() >= 0 and raw.max() <= 1)


def _check_values(logits: Tensor, outputs: Outputs | None) -> list[str]:
    """Return warnings. ValueError: the values are probabilities and not logits, or the other way round."""
    if not logits.isfinite().all():
        raise ValueError("returns NaN or infinity for a test image; the fault is the network's, not a method's")
    if outputs == "probabilities":
        sums = logits.exp().sum(1)
        if (sums - 1).abs().max() > SUMS:
            raise ValueError(
                f"outputs is 'probabilities', but the numbers of an image sum to {float(sums[0]):.3g}, or some are "
                "below 0; drop this key for logits"
            )
        return []
    if logits.min() >= 0 and (logits.sum(1) - 1).abs().max() <= SUMS:
        raise ValueError(
            "returns probabilities: all numbers are at least 0, and those of an image sum to 1. A softmax of them "
            "again would flatten every score. Remove the softmax at its end, or set outputs: probabilities"
        )
    if outputs != "logits" and _within_one(logits, outputs):
        return [
            "all numbers that it returns are between 0 and 1, as after a sigmoid; if they are probabilities, set "
            + ("outputs: probabilities" if outputs == "binary" else "outputs: probabilities, or remove the sigmoid")
            + ("" if outputs == "binary" else "; if they are logits, set outputs: logits")
        ]
    return []


def _culprits(network: nn.Module, one: Images, other: Tensor) -> str:
    """Return the names of the modules that give another output for the same input, without those around them."""
    names: list[str] = []
    for _ in range(5):  # two draws may be the same by chance
        first, second = _recorded(network, one, len(one)), _recorded(network, other, len(one))
        names = names or [
            name
            for name, (inputs, outputs) in first.items()
            if name in second and _same(inputs, second[name][0]) and not _same(outputs, second[name][1])
        ]
    deepest = [name for name in names if not any(inner != name and inner.startswith(f"{name}.") for inner in names)]
    deepest = [name for name in deepest if name or len(deepest) == 1]
    kinds = dict(network.named_modules())
    shown = [f"{name or 'its own forward'} ({type(kinds[name]).__name__})" for name in deepest[:5]]
    return ", ".join(shown) or type(network).__name__


def _recorded(network: nn.Module, images: Images, count: int) -> dict[str, tuple[list[Tensor], list[Tensor]]]:
    """Return the inputs and outputs of the first call of each module, the first `count` rows of each."""
    calls: dict[str, tuple[list[Tensor], list[Tensor]]] = {}
    handles = []
    for name, module in network.named_modules():

        def keep(_: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
            calls.setdefault(name, ([*_rows(inputs, count)], [*_rows(output, count)]))

        handles.append(look_in(module, keep))
    try:
        with torch.no_grad():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _rows(held: Any, count: int) -> Iterator[Tensor]:
    """Yield the first rows of each tensor in a nest of tuples, lists and dicts."""
    if isinstance(held, Tensor):
        yield held[:count].clone() if held.ndim else held.clone()
    elif isinstance(held, dict):
        yield from _rows(list(held.values()), count)
    elif isinstance(held, tuple | list):
        for part in held:
            yield from _rows(part, count)


def _same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(
        a.shape == b.shape and bool((a - b).abs().max() <= TOLERANCE * a.abs().max()) if a.numel() else True
        for a, b in zip(one, other, strict=True)
    )
