"""Golden outputs of attacks and of terms of the loss."""

import torch

from efface.training.attack import minimal, pgd
from efface.training.batch import regularized
from efface.training.regularize import (
    PRESETS,
    anti_score_matching,
    gradient_norm,
    hessian_traces,
    score_matching,
    squared_gradients,
)
from efface.training.settings import Regularizer
from numerics import inputs
from numerics.table import golden

VARIANTS = {
    "linf": {"norm": "linf", "eps": 0.05},
    "l2": {"norm": "l2", "eps": 0.4},
    "step": {"norm": "l2", "eps": 0.4, "step": 0.3, "steps": 3},
    "random": {"norm": "linf", "eps": 0.05, "start": "random"},
    "random_l2": {"norm": "l2", "eps": 0.4, "start": "random"},
    "restarts": {"norm": "l2", "eps": 0.4, "start": "random", "restarts": 3},
    "restarts_best": {"norm": "linf", "eps": 0.1, "start": "random", "restarts": 2, "keep": "best"},
    "best": {"norm": "linf", "eps": 0.2, "keep": "best", "step": 0.15},
    "targeted": {"norm": "l2", "eps": 0.4, "loss": "targeted"},
    "random_targeted": {"norm": "l2", "eps": 0.4, "loss": "random_targeted"},
    "plusone_targeted": {"norm": "l2", "eps": 0.4, "loss": "plusone_targeted"},
    "nothing": {"norm": "l2", "eps": 0.0},
}


def smooth():
    """A network without kinks, whose gradients differ from place to place."""
    return inputs.randomised(inputs.Smooth(), 4)


@golden("attack.pgd")
def _pgd():
    net, images, classes, found = smooth(), inputs.images(5), inputs.targets(5), {}
    for name, settings in VARIANTS.items():
        found[name] = pgd(
            net, images, classes, steps=settings.get("steps", 2), seeds=inputs.seeds(5), **_less(settings)
        )
    two = inputs.randomised(inputs.Smooth(classes=2), 5)
    hybrid = {"norm": "l2", "eps": 0.4, "loss": "binary_hybrid"}
    return found | {"binary_hybrid": pgd(two, images, classes % 2, steps=2, **hybrid)}


def _less(settings):
    return {name: value for name, value in settings.items() if name != "steps"}


@golden("attack.minimal")
def _minimal():
    net, images = smooth(), inputs.images(6)
    with torch.no_grad():
        classes = net(images).argmax(1)
    classes[2] = (classes[2] + 1) % 4  # wrong from the start
    return {
        "l2": minimal(net, images, classes, norm="l2", step=0.05, steps=30),
        "linf": minimal(net, images, classes, norm="linf", step=0.01, steps=6),
    }


def _asked():
    net, images, classes = smooth(), inputs.images(5).requires_grad_(), inputs.targets(5)
    return net, images, classes, net(images)


def _told(term, net):
    """A term's value and parts, and its gradient at the weights."""
    weights = [each for each in net.parameters() if each.requires_grad]
    slopes = torch.autograd.grad(term.value, weights, allow_unused=True)
    flat = torch.cat([each.flatten() for each in slopes if each is not None])
    return {"value": term.value, "slopes": flat} | term.parts


def _variants(name, function, variants):
    found = {}
    for number, settings in enumerate(variants):
        net, images, classes, outputs = _asked()
        term = function(net, images, classes, outputs, **settings)
        found |= {f"{name}{number}_{each}": value for each, value in _told(term, net).items()}
    return found


@golden("regularizer.score_matching")
def _score_matching():
    seeds = inputs.seeds(5)
    variants = (
        {"seeds": seeds, "samples": 3, "sigma": 0.1},
        {"seeds": seeds, "samples": 2, "sigma": 0.1, "stability": 0.5},
        {"seeds": seeds, "samples": 2, "sigma": 0.1, "estimator": "antithetic"},
        {"noise": inputs.normal(6, 2, 5, 3, 8, 8), "samples": 2, "sigma": 0.1},
    )
    return _variants("", score_matching, variants) | {"presets": str(PRESETS)}


@golden("regularizer.anti_score_matching")
def _anti_score_matching():
    seeds = inputs.seeds(5)
    variants = (
        {"seeds": seeds, "samples": 2, "sigma": 0.1},
        {"seeds": seeds, "samples": 2, "sigma": 0.1, "threshold": 0.0},
    )
    return _variants("", anti_score_matching, variants)


@golden("regularizer.gradient_norm")
def _gradient_norm():
    net, images, classes, outputs = _asked()
    found = _variants("", gradient_norm, ({},)) | {"each": squared_gradients(images, classes, outputs)}
    terms = (
        Regularizer(call="efface.training.regularize.gradient_norm", weight=0.5),
        Regularizer(call="efface.training.regularize.score_matching", weight=0.25, kwargs={"samples": 2, "sigma": 0.1}),
    )
    loss, told = regularized(outputs.square().mean(), terms, net, images, classes, outputs, inputs.seeds(5))
    more = {"samples": 3, "sigma": 0.1, "seeds": inputs.seeds(5)}
    return found | {"loss": loss} | told | {"traces": hessian_traces(net, images, classes, outputs, **more)}
