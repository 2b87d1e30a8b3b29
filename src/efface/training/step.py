"""A step of a training: forward pass, attack, loss with its terms, gradients."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from efface.base.types import Images, Seeds, Targets
from efface.plug.call import Call
from efface.training.batch import attacked, regularized
from efface.training.data_parallel import Part
from efface.training.settings import TrainingSettings


def step(
    network: nn.Module,
    images: Images,
    expected: Targets,
    classes: int,
    settings: TrainingSettings,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    seeds: Seeds,
    part: Part,
    *,
    accuracy: bool = False,
) -> dict[str, Tensor]:
    """Run one step. Return the loss before the step, and the other values that have a curve.

    images, seeds: of this process. expected: classes of the whole batch. part: what of it the images are.
    accuracy: also return the share of the images that are classified right.
    """
    own = part.own(expected)
    if settings.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
        if settings.attack is not None:
            images = attacked(settings.attack, network, images, own, seeds)
        if settings.regularizers:
            images = images.detach().requires_grad_()
        outputs = network(images)
        if outputs.shape[1] < classes:
            raise ValueError(
                f"model: gives {outputs.shape[1]} classes, but the data have {classes}; "
                f"set model.kwargs.num_classes={classes}"
            )
        whole = part.gathered(outputs)
        loss = plain = loss_of(whole, expected)
    values: dict[str, Tensor] = {}
    if settings.attack is not None:
        values["attacked_accuracy"] = (whole.argmax(1) == expected).float().mean()
    if accuracy:
        values["training_accuracy"] = (whole.argmax(1) == expected).double().mean()
    if settings.regularizers:
        of_part = (network, images, own, outputs, seeds)
        loss, terms = regularized(loss, settings.regularizers, *of_part, share=part.share)
        values |= part.summed(terms)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    part.sum_gradients(network)
    optimizer.step()
    return {"loss": plain.detach()} | values


def loss_function(call: Call) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss function: an instance of a loss class, or the call with its settings."""
    return call() if isinstance(call.resolve(), type) else call
