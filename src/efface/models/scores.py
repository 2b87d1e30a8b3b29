"""The output of a network that a map explains: logit, probability or loss of the target class, with checks."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from efface.base.shown import shown
from efface.base.types import Images, Target, Targets, TargetScore


def differentiable(model: nn.Module, points: Images) -> Float[Tensor, "n k"]:
    """Return the logits of points that require a gradient. ValueError: the logits have no gradient."""
    logits = logits_of(model, points)
    if not logits.requires_grad:
        raise ValueError(
            f"{type(model).__name__} returns logits without a gradient; expected a differentiable network: "
            "remove no_grad, inference_mode and detach from its forward"
        )
    return logits


def target_scores(
    model: nn.Module, images: Images, targets: Target, score: TargetScore = "logit"
) -> Float[Tensor, " n"]:
    """Return the score that is explained, for each image. It does not depend on the other images of the batch.

    targets: a class for each image; or weights of the classes, n k, for the weighted sum of the logits.
    score: logit, log_probability or probability of the target class; or loss, its cross entropy (minus the log
        probability).
    """
    return scores_of(logits_of(model, images), targets, score)


def scores_of(logits: Float[Tensor, "n k"], targets: Target, score: TargetScore = "logit") -> Float[Tensor, " n"]:
    """Return `target_scores` of logits that are known already."""
    targets = targets.clone()  # targets may come from inference_mode, and autograd refuses such tensors
    if targets.is_floating_point():
        if score != "logit":
            raise ValueError(
                f"score is {shown(score)}, but the target is given as weights of the classes: expected score='logit'"
            )
        return (logits * targets).sum(1)
    match score:
        case "logit":
            return logits.gather(1, targets[:, None]).squeeze(1)
        case "log_probability":
            return F.logsigmoid(-odds_against(logits, targets))
        case "probability":
            return F.logsigmoid(-odds_against(logits, targets)).exp()  # the gradient of a sigmoid of 1 would be 0
        case "loss":
            return -F.logsigmoid(-odds_against(logits, targets))
    raise ValueError(f"score is {shown(score)}; expected logit, log_probability, probability or loss")


def odds_against(logits: Float[Tensor, "n k"], targets: Targets) -> Float[Tensor, " n"]:
    """Logarithm of the odds against the target: log sum exp of the other logits minus the target's logit.

    The cross entropy is the softplus of this value and increases with it. A softmax in float32 is 1 from a margin of 17
    on, so the gradient then loses the target's logit. Here the parts of both logits keep their sizes at any margin.

    Formula: log(sum over c != t of exp(z_c)) - z_t.
    """
    own = targets[:, None].clone()  # targets may come from inference_mode, and autograd refuses such tensors
    if logits.shape[1] == 1:
        raise ValueError(
            "the network has one class, whose probability is always 1; expected two or more classes: set score to logit"
        )
    logits = logits.float() if logits.dtype.itemsize < 4 else logits  # logits of autocast have 2 bytes and are rounded
    others = logits.scatter(1, own, -torch.inf).logsumexp(1)
    return others - logits.gather(1, own).squeeze(1)


def logits_of(model: nn.Module, images: Images) -> Float[Tensor, "n k"]:
    """Return the network's output for the images. ValueError: the output does not have the shape of logits."""
    logits = model(images)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        returned = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"{type(model).__name__} returns {returned} for {len(images)} images; expected logits of shape "
            f"({len(images)}, classes): wrap the network so that it returns logits"
        )
    return logits
