"""The output of a network that is explained: logit, probability or loss of the target class, checked to exist."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from efface.types import Images, Target, Targets, TargetScore


def differentiable(model: nn.Module, points: Images) -> Float[Tensor, "n k"]:
    """The network's answers to points that require a gradient, checked to have one."""
    logits = logits_of(model, points)
    if not logits.requires_grad:
        raise ValueError(
            f"{type(model).__name__} returns logits without a gradient; expected a differentiable network: "
            "remove no_grad and detach from its forward"
        )
    return logits


def target_scores(
    model: nn.Module, images: Images, targets: Target, score: TargetScore = "logit"
) -> Float[Tensor, " n"]:
    """The number that is explained for each image; none depends on the batch's other images.

    targets: a class for each image; or weights of the classes, n k: then it is the weighted sum of the logits.
    score: logit; log_probability or probability of the target class; loss, its cross entropy (minus the log
        probability).
    """
    return scores_of(logits_of(model, images), targets, score)


def scores_of(logits: Float[Tensor, "n k"], targets: Target, score: TargetScore = "logit") -> Float[Tensor, " n"]:
    """`target_scores` of answers that are there already."""
    targets = targets.clone()  # they may come from inference_mode, whose tensors autograd refuses
    if targets.is_floating_point():
        if score != "logit":
            raise ValueError(
                f"score is {score!r}, but weights of the classes stand for the target: expected score='logit'"
            )
        return (logits * targets).sum(1)
    match score:
        case "logit":
            return logits.gather(1, targets[:, None]).squeeze(1)
        case "log_probability":
            return F.logsigmoid(-odds_against(logits, targets))
        case "probability":
            return F.logsigmoid(-odds_against(logits, targets)).exp()  # a sigmoid's own gradient is 0 where it is 1
        case "loss":
            return -F.logsigmoid(-odds_against(logits, targets))
    raise ValueError(f"score is {score!r}; expected logit, log_probability, probability or loss")


def odds_against(logits: Float[Tensor, "n k"], targets: Targets) -> Float[Tensor, " n"]:
    """Logarithm of the odds that the target is wrong: log sum exp of the other logits, less the target's own.

    The cross entropy is its softplus, and grows as it does. A softmax in float32 is 1 from a margin of 17 on, and the
    target's own logit is then lost from the gradient; here both logits' parts keep their sizes at any margin.
    """
    own = targets[:, None].clone()  # it may come from inference_mode, whose tensors autograd refuses
    if logits.shape[1] == 1:
        raise ValueError("the network has one class, whose probability is always 1; expected two or more: take logit")
    logits = logits.float() if logits.dtype.itemsize < 4 else logits  # bytes: those of autocast are rounded
    others = logits.scatter(1, own, -torch.inf).logsumexp(1)
    return others - logits.gather(1, own).squeeze(1)


def logits_of(model: nn.Module, images: Images) -> Float[Tensor, "n k"]:
    """The network's answers, checked to be logits."""
    logits = model(images)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"{type(model).__name__} answers {len(images)} images with {found}; expected logits of shape "
            f"({len(images)}, classes): wrap the network so that it returns them"
        )
    return logits
