"""Checks that data and network belong together: numbers and order of the classes, and values of the images."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import betaincinv
from torch import Tensor

from efface.erase.masking import to_float
from efface.models.answers import takes_raw_values
from efface.models.loaded import class_names, image_size
from efface.models.memory import with_smaller_batches
from efface.plug.facts import fact
from efface.plug.in_python import for_maker
from efface.report.formats import percent, percent_of
from efface.stages.run.run import Run
from efface.store.arrays import read_rows
from efface.training.loop import predict

SAMPLE = 256
"""Number of evenly spaced test images that `check` asks the network about."""
LEAST = 20
"""Smallest number of images on which a network is called sure and wrong."""
_LEVEL = 0.95
_RAW = (
    "nothing normalises the images for the network: its first layer gets their values from 0 to 1. Most networks that "
    "were trained elsewhere on photographs expect normalised images, and their predictions are wrong without. Set mean "
    "and std of its training in the study (ImageNet: mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]). If it "
    "was trained on values from 0 to 1, confirm this with mean: [0, 0, 0] and std: [1, 1, 1]"
)
_REMEDY = (
    "Check the class order: class folders are sorted by name (10 before 2), and data.kwargs.classes of image_folder "
    "gives the network's number of each. The same happens if the network has learnt nothing, or if the images are "
    "prepared in another way than for its training"
)


def labels_said(run: Run) -> list[str]:
    """Return the cautions about the labels of the test images. Nothing is said of a network that is not trained yet."""
    if not run.first.trained():
        return []
    logits = run.logits("test")
    found = [*more_outputs(run, logits), *sure_and_wrong(logits, run.data["test"].targets.cpu())]
    found += [*names_said(run), *images_said(run)]
    return [for_maker(line, run.study.model.call) for line in found]


def labels_tried(run: Run) -> list[str]:
    """Return the same cautions from at most `SAMPLE` test images, of a network without training from one. Keep nothing.

    An untrained network is asked for the number of its outputs.
    """
    indices, logits = sampled_logits(run, SAMPLE if run.first.trained() else 1)
    targets = run.data["test"].targets.cpu()
    return [
        *more_outputs(run, logits),
        *sure_and_wrong(logits, targets[indices]),
        *names_said(run),
        *images_said(run),
    ]


def sampled_logits(run: Run, count: int = SAMPLE) -> tuple[Int[Tensor, " n"], Float[Tensor, "n k"]]:
    """Return evenly spaced test rows, `count` at most, and the first network's logits of them. Keep nothing."""
    split = run.data["test"]
    indices = torch.linspace(0, len(split) - 1, min(count, len(split))).round().long()
    if run.first.trained() and run.logits_path("test").exists():
        return indices, run.logits("test")[indices]

    def answers(max_batch: int) -> Tensor:
        parts = (read_rows(split.images, part).to(run.device) for part in indices.split(max_batch))
        return predict(run.first.to_try(), parts)

    return indices, with_smaller_batches(answers, run.study.max_batch)


def more_outputs(run: Run, logits: Float[Tensor, "n k"]) -> list[str]:
    """Return a sentence if the network has outputs of which the data have no image."""
    classes = torch.cat([split.targets.cpu() for split in run.data.values()]).unique()
    outputs = logits.shape[1]
    if outputs <= len(classes):
        return []
    said = f"the network has {outputs} outputs, and the data have {len(classes)} classes"
    if run.study.data.kwargs.get("classes") is not None:
        return [f"{said}, numbered by data.kwargs.classes"]
    numbered = f"{said}, numbered {int(classes.min())} to {int(classes.max())}"
    remedy = "give each class the number of its output (data.kwargs.classes of image_folder)"
    return [f"{numbered}: if the network was trained elsewhere, {remedy}"]


def names_said(run: Run) -> list[str]:
    """Return a sentence if a network from elsewhere gives a class of the data another number than the data do."""
    if _is_trained_here(run):
        return []
    return other_numbers(class_names(run.first.to_try()), run.data["test"].classes)


def other_numbers(outputs: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Return a sentence if a class has another number than the output with its name; case and hyphens do not count.

    outputs, classes: names in the order of their numbers. A name of an output may list several, with commas between.
    """
    numbers: dict[str, list[int]] = {}
    for number, output in enumerate(outputs):
        for name in {_plain(output), *map(_plain, output.split(","))}:
            numbers.setdefault(name, []).append(number)
    named = {name: numbers[_plain(name)] for name in classes if name and _plain(name) in numbers}
    odd = [name for name in named if classes.index(name) not in named[name]]
    if not odd:
        return []
    shown = ", ".join(f"{name} is {classes.index(name)}, there {named[name][0]}" for name in odd[:3])
    given = ", ".join(f"{name}: {named[name][0]}" for name in list(named)[:8]) + (", ..." if len(named) > 8 else "")
    told = (
        f"the labels are not the network's: {len(odd)} of {len(classes)} classes have another number than the output "
        f"of that name ({shown}), so accuracies and true classes are wrong. Give each class the number of its output "
        f"(data.kwargs.classes of image_folder: {{{given}}})"
    )
    return [told]


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _is_trained_here(run: Run) -> bool:
    return run.first.fit is not None and run.first.weights is None


def images_said(run: Run) -> list[str]:
    """Return the cautions about the images for a network from elsewhere: their size and their values.

    A network that efface trains is trained on such images.
    """
    first = run.first
    if _is_trained_here(run):
        return []
    return [*_other_size(image_size(first.to_try()), run.data["test"].shape[1:]), *_raw_values(run)]


def _other_size(trained: tuple[int, int] | None, own: Sequence[int]) -> list[str]:
    if trained in (None, tuple(own)):
        return []
    made_for, given = (f"{height} x {width}" for height, width in (trained, own))
    told = (
        f"the weights were made for images of {made_for} pixels, and the test images have {given}. At another size a "
        f"network may predict less well, and its maps are coarser or finer. Give it images of {made_for}"
    )
    return [told]


def _raw_values(run: Run) -> list[str]:
    """Return a sentence if nothing normalises photographs. Mean and std in the study, 0 and 1 as well, settle it."""
    first = run.first
    if run.study.mean is not None or run.data["test"].shape[0] != 3 or fact(run.study.data.resolve(), "is_synthetic"):
        return []
    images = to_float(read_rows(run.data["test"].images, torch.arange(1)).to(run.device))
    if not takes_raw_values(first.to_try(), images):
        return []
    return [_RAW]


def sure_and_wrong(logits: Float[Tensor, "n k"], targets: Int[Tensor, " n"]) -> list[str]:
    """Return a sentence if the network is sure of its answers, but right at chance or hardly more often.

    Sure: its mean confidence is at least halfway between chance (1 / classes) and 1, and above the 95 % interval
    (Clopper and Pearson) of its accuracy. At chance: that interval holds 1 / classes or lies below it, or the accuracy
    exceeds chance by less than a tenth of what is left above it. A wrong order of the classes leaves some right.
    """
    n, classes = len(targets), len(targets.unique())
    if n < LEAST or classes < 2:
        return []
    chance = 1 / classes
    right = int((logits.argmax(1) == targets).sum())
    low, high = _interval(right, n)
    confidence = float(logits.double().softmax(1).amax(1).mean())
    is_sure = confidence >= (1 + chance) / 2 and confidence > high
    is_chance = low <= chance or right / n <= chance + (1 - chance) / 10
    if not (is_sure and is_chance):
        return []
    sure, correct = percent_of(confidence), percent_of(right / n)
    evidence = f"it is sure (mean confidence {sure}), but right on {correct} of {n} test images"
    return [
        f"the labels may not be the network's: {evidence}, where chance is {percent(chance)}. {_REMEDY}",
    ]


def one_class(run: Run) -> Iterator[str]:
    """Yield a sentence if the data have one class only. A network that is asked about its own number of it may."""
    for name, split in run.data.items():
        if len(split.classes) == 1 and run.study.data.kwargs.get("classes") is None:
            yield (
                f"data: {run.study.data.call}, split '{name}': holds one class only ({split.classes[0]}), expected two "
                "or more, such as a folder for each; change root, train or test, or give the network's number of this "
                "class in data.kwargs.classes"
            )


def _interval(right: int, n: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share (Clopper and Pearson 1934)."""
    tail = (1 - _LEVEL) / 2
    low = float(betaincinv(right, n - right + 1, tail)) if right else 0.0
    high = float(betaincinv(right + 1, n - right, 1 - tail)) if right < n else 1.0
    return (low, high) if np.isfinite(low + high) else (0.0, 1.0)
