"""Trial of augmentations, regularisers and attacks on two training images, before an epoch is spent."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from efface.base.types import Images, Targets
from efface.erase.masking import to_float
from efface.execute import set_torch_defaults
from efface.models.evaluation import evaluating
from efface.models.scores import differentiable
from efface.plug.facts import fact
from efface.stages.run.network import Network
from efface.stages.run.run import Run
from efface.store.arrays import read_rows
from efface.training.loop import TrainingSettings, try_step


def try_training_step(run: Run) -> None:
    """Take one step of each coming training that has augmentations, regularisers or an attack.

    ValueError: they cannot be used with this network, or with images of this size.
    """
    for where, network, fit in _to_come(run):
        images, targets = _two(run)
        set_torch_defaults(torch.get_num_threads())  # as trainings have it: no TF32
        try:
            try_step(network.build, images, targets, fit, device=run.device)
        except Exception as error:  # a term, an attack or a network may raise anything
            text = " ".join(str(error).split())
            named = text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
            for key in ("attack", "augment"):
                named = named.removeprefix(f"{where}.{key}: ").removeprefix(f"fit.{key}: ")
            raise ValueError(f"{where}: a step on two training images fails: {named}") from error


def has_zero_hessian(run: Run) -> Iterator[str]:
    """Yield a warning for each training whose regulariser estimates a Hessian that is 0 for this network."""
    for where, network, fit in _to_come(run):
        estimating = [
            regularizer for regularizer in fit.regularizers if fact(regularizer.term.resolve(), "estimates_hessian")
        ]
        named = [regularizer.call.rpartition(".")[2] for regularizer in estimating]
        if named and not has_hessian(network.fresh(), *_two(run)):
            yield (
                f"{where}.regularizers: {' and '.join(named)} estimates the Hessian of {network.model.call}. "
                "This Hessian is 0, because the network is piecewise linear, as networks with ReLU are. The estimate "
                "is then only noise; use softplus instead (in networks of efface: activation: softplus)"
            )


def has_hessian(network: nn.Module, images: Images, targets: Targets) -> bool:
    """Return whether the Hessian of the target's logit differs from 0 at any image, in evaluation mode."""
    with evaluating(network):
        points = images.detach().clone().requires_grad_()
        own = differentiable(network, points).gather(1, targets[:, None])
        (slope,) = torch.autograd.grad(own.sum(), points, create_graph=True)
        if not slope.requires_grad:
            return False
        way = torch.randn(slope.shape, generator=torch.Generator().manual_seed(0)).to(slope)
        (bend,) = torch.autograd.grad((slope * way).sum(), points, allow_unused=True)
        return bend is not None and bool(bend.any())


def _to_come(run: Run) -> Iterator[tuple[str, Network, TrainingSettings]]:
    """Yield each coming training with augmentations, regularisers or an attack: its key, network and settings."""
    asked = [
        ("fit" if candidate is run.first else f"{candidate.name}.fit", candidate, candidate.fit)
        for candidate in run.networks()
    ]
    coming = [(where, network, fit) for where, network, fit in asked if not network.trained()]
    if run.refit is not None and (run.study.refit is not None or run.first.trained()):
        coming.append(("fit" if run.study.refit is None else "refit", run.first, run.refit))
    for where, network, fit in coming:
        if "train" in run.data and fit is not None and (fit.augment or fit.regularizers or fit.attack):
            yield where, network, fit


def _two(run: Run) -> tuple[Tensor, Tensor]:
    train = run.data["train"]
    indices = train.training[:2]
    return to_float(read_rows(train.images, indices).to(run.device)), train.targets[
        indices.to(train.targets.device)
    ].to(run.device)
