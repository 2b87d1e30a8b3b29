"""A metric that is a function of the network, the images and their maps, with one number for each image."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from efface.metrics.formula import Better, Metric, values_of
from efface.metrics.probes import Case, Needs
from efface.metrics.shared.effects import identity_of, image_blocks, reduced
from efface.plug.call import Call
from efface.store.results import Score
from efface.training.loop import TrainingSettings


def of_function(*, function: str, better: Better = "higher", caption: str = "") -> Metric:
    """The value of a function (model, images, targets, maps) -> n numbers, one for each image.

    The function is given the network, a batch of images n c h w in [0, 1], the explained classes n, and the maps n h w
    or n c h w after `post`. It returns a tensor, an array or a list. NaN marks an image without a value.

    function: dotted path of the function.
    better: the direction in which a truthful map moves the value: higher, lower, or none if it only describes.
    caption: one or two sentences for the page.
    """
    call = Call(call=function)
    said = caption or (call.resolve().__doc__ or "").strip().partition("\n")[0] or "A function of image and map."
    return Metric(
        probes=lambda point: {"own": OfFunction(call, tuple(point.post))},
        value=values_of("own", "value"),
        direction={"value": better},
        sample="images",
        caption=said,
        family="own metrics",
        axis="",
        uses=frozenset({"post"}),
    )


@dataclass(frozen=True)
class OfFunction:
    """The value of a function for each image."""

    function: Call
    post: tuple[Call, ...]

    needs = Needs(blocks=True)
    identity = identity_of

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG002
        """Forward passes, if the function takes one of each image."""
        return float(images["test"])

    def __call__(self, case: Case) -> Score:
        function, found = self.function.resolve(), []
        for indices, images, classes in image_blocks(case, 1):
            maps = reduced(case, indices, self.post)
            values = function(case.network, images.clone(), classes.clone(), maps)
            numbers = torch.as_tensor(values).detach().cpu().double()
            if numbers.shape != (len(indices),):
                raise ValueError(
                    f"{self.function.call}: returned values of shape {tuple(numbers.shape)} for {len(indices)} images, "
                    "expected one number for each image"
                )
            found.append(numbers.numpy())
        return Score({"value": np.concatenate(found)})
