"""Work on a training batch besides the plain loss: crop, augmentation, attack, and weighted terms of the loss."""

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor, nn

from efface.base import draws
from efface.base.types import Images, Seeds, StoredImages, Targets
from efface.plug.call import Call
from efface.training.regularize import Term
from efface.training.settings import Regularizer


def names_of(regularizers: Sequence[Regularizer]) -> list[str]:
    """Return the name of each term in the curves: the name of its function. A repeated name gets a number."""
    seen = Counter(("loss", "classification", "validation_accuracy", "training_accuracy", "attacked_accuracy"))
    seen.update(("validation_loss", "batch_loss"))
    names = []
    for regularizer in regularizers:
        name = regularizer.call.rpartition(".")[2]
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names


def regularized(
    loss: Tensor,
    regularizers: Sequence[Regularizer],
    network: nn.Module,
    images: Images,
    targets: Targets,
    outputs: Tensor,
    seeds: Seeds,
    share: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss with all terms, and the value of each term by its name, without its weight.

    The plain loss has the name `classification`, and the loss with all terms the name `loss`.

    images: the input of the forward pass that gave `outputs`. They require a gradient.
    share: the images' share of the batch. Terms and values are multiplied by it; the plain loss is that of the batch.
    """
    values = {"classification": loss.detach() * share}
    values["loss"] = values["classification"]
    for number, (name, regularizer) in enumerate(zip(names_of(regularizers), regularizers, strict=True)):
        own = draws.fold(seeds, number + 1).to(images.device)  # fold 0 is the attack's
        term = _term(regularizer, regularizer.term(network, images, targets, outputs, seeds=own))
        weighted = regularizer.factor * share * term.value
        loss = loss + weighted
        values["loss"] = values["loss"] + weighted.detach()
        values[name] = term.value.detach() * share
        values |= {f"{name}.{part}": value.detach() * share for part, value in term.parts.items()}
    return loss, values


def _term(regularizer: Regularizer, returned: object) -> Term:
    """Return what a regulariser gave. ValueError: it is no `Term` of one number."""
    expected = "expected an efface.training.regularize.Term of one number, as in return Term(value.mean())"
    if not isinstance(returned, Term):
        raise ValueError(f"regularizers: {regularizer.call} returned a {type(returned).__name__}; {expected}")
    if not isinstance(returned.value, Tensor) or returned.value.ndim:
        shape = getattr(returned.value, "shape", None)
        shown = f"a {type(returned.value).__name__}" + ("" if shape is None else f" of shape {tuple(shape)}")
        raise ValueError(f"regularizers: {regularizer.call} returned a Term of {shown}; {expected}")
    return returned


def augmented(calls: Sequence[Call], images: Images, seeds: Seeds, *, first: bool) -> Images:
    """Apply the augmentations to the images, one after another.

    first: True for the first batch of a training or an epoch. The values are then checked too, which waits for the
        device.
    ValueError: an augmentation returns another shape or type, or values outside [0, 1].
    """
    for number, call in enumerate(calls):
        own = draws.fold(seeds, -1 - number).to(images.device)  # folds from 0 on are the attack's and the terms'
        changed = _like("fit.augment", call, call(images, own), images)
        if first:
            low, high = (float(bound) for bound in changed.aminmax())
            if changed.dtype != images.dtype or not (low >= 0 and high <= 1):  # NaN is neither
                raise ValueError(
                    f"fit.augment: {call.call} gives {changed.dtype} numbers from {low:g} to {high:g}; expected "
                    f"{images.dtype} in [0, 1]: clip the values"
                )
        images = changed
    return images


def attacked(attack: Call, network: nn.Module, images: Images, targets: Targets, seeds: Seeds) -> Images:
    """Return the attacked images, on which the training steps. ValueError: the attack returns another shape."""
    returned = attack(network, images, targets, seeds=draws.fold(seeds, 0).to(images.device))
    return _like("fit.attack", attack, returned, images)


def _like(where: str, call: Call, returned: object, images: Images) -> Tensor:
    if not isinstance(returned, Tensor) or returned.shape != images.shape:
        shown = tuple(returned.shape) if isinstance(returned, Tensor) else type(returned).__name__
        raise ValueError(
            f"{where}: {call.call} gives {shown} for images of {tuple(images.shape)}; expected as many images of "
            "the same shape"
        )
    return returned.detach()


def crop(
    padded: UInt8[Tensor, "n c tall wide"],
    shifts: Int[Tensor, "n 2"] | None,
    flips: Bool[Tensor, " n"] | None,
    width: int,
) -> StoredImages:
    """Cut a window out of each padded image, mirrored or not. None: the middle, not mirrored."""
    if shifts is None or flips is None:
        return padded if width == 0 else padded[..., width:-width, width:-width]
    n, c, tall, wide = padded.shape
    h, w = tall - 2 * width, wide - 2 * width
    down = torch.arange(h, device=padded.device) + shifts[:, :1]
    across = torch.arange(w, device=padded.device).expand(n, w)
    across = torch.where(flips[:, None], w - 1 - across, across) + shifts[:, 1:]
    index = (down[:, :, None] * wide + across[:, None, :]).reshape(n, 1, h * w).expand(n, c, h * w)
    return padded.reshape(n, c, tall * wide).gather(2, index).reshape(n, c, h, w)


class Means:
    """Running means of named numbers over images. They stay on the device until `found` is called."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, values: Mapping[str, Tensor], count: int) -> None:
        """Add the means of a batch of `count` images."""
        self._count += count
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0) + value * count

    def found(self) -> dict[str, float]:
        """Return the means over all images. It waits once for the device."""
        sums = torch.stack([total.double() for total in self._sums.values()]) / self._count
        return dict(zip(self._sums, sums.tolist(), strict=True))
