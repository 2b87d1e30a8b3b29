"""Trial of the networks on two test images, before hours are spent."""

import torch
from torch import Tensor, nn

from efface.models.answers import check_answers
from efface.stages.run.inputs import check_classes
from efface.stages.run.labels import one_class
from efface.stages.run.network import Network
from efface.stages.run.progress import say
from efface.stages.run.run import Run
from efface.stages.trial.training_step import try_training_step
from efface.store.arrays import read_rows


def try_network(run: Run) -> tuple[nn.Module, Tensor, Tensor]:
    """Return the first network, two test images, and its logits. A network that is not trained yet has fresh weights.

    ValueError: it, or the second network, cannot take them, has too few classes, or cannot be trained as the study
        says.
    """
    if problems := list(one_class(run)):
        raise ValueError("\nefface: ".join(problems))
    train = run.data.get("train")
    for where, fit in (
        ("fit", run.first.fit),
        ("refit", run.refit),
        *(("second_network.fit", second.fit) for second in run.networks()[1:]),
    ):
        if fit is not None and fit.keep == "best" and train is not None and train.validation is None:
            raise ValueError(
                f"{where}.keep: is 'best', but the data have no validation rows; set data.kwargs.validation=0.125"
            )
    for network in run.networks()[1:]:
        _answers(run, network)
    answers = _answers(run, run.first)
    try_training_step(run)
    return answers


def _answers(run: Run, of: Network) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network, two test images, and its logits."""
    network = of.to_try()
    for change in of.changes:
        say(f"{of.where}: {change}")
    images = read_rows(run.data["test"].images, torch.arange(min(2, len(run.data["test"])))).to(run.device)
    try:
        logits, warnings = check_answers(network, images.float().div(255), of.adaptation.outputs)
    except ValueError as error:
        raise ValueError(f"{of.where}: {of.model.call} {error}") from error
    except Exception as error:
        size, why = " x ".join(map(str, images.shape[1:])), " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{of.where}: {of.model.call} fails on images of {size}: {why}") from error
    for warning in warnings:
        say(f"warning: {of.where}: {of.model.call}: {warning}")
    for name, split in run.data.items():
        check_classes(logits, split, name, of.adaptation.outputs)
    return network, images, logits
