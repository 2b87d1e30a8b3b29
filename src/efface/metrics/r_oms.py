"""R-OMS: how sure a network stays on images with random holes, and how close to its answer on whole images.

It is a score of a fill for one network, and reads no map. Units are removed in a random order of each image, the same
that `srg` uses. Values of each image and point:
confidence: the largest softmax value. If it is low, filled images are strange to the network.
cosine: the cosine between the softmax values of the filled and of the whole image. It is 1 where nothing is removed.

Of two fills, the one with the larger areas keeps the network closer to what it knows. A fill that shows the image again
would be best, so compare fills that do not know what was removed.

Settings of its own: none. Each fraction costs a forward pass of the test images, and the whole images cost one, once in
a run.

Source: Blücher, Vielhaben & Strodthoff 2024 (Decoupling pixel flipping and occlusion strategy, TMLR).
Differs: two values with their curves, where theirs is one score.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.base.types import Images
from efface.metrics.formula import Metric, values_of
from efface.metrics.probes import Case, Description, Erasure, Needs
from efface.metrics.probes.description import by_fields
from efface.metrics.probes.erasure import fills_averaged
from efface.metrics.probes.score import Perturb, erased_logits
from efface.metrics.probes.tokens import drops_tokens, token_logits
from efface.metrics.shared.orders import UNIT
from efface.plug.call import Call
from efface.store.keys import versions
from efface.store.results import Score
from efface.training.loop import TrainingSettings

r_oms = Metric(
    probes=lambda point: {"answers": Answers(point.erasure("random", point.x))},
    value=values_of("answers", "confidence", "cosine"),
    direction={"confidence": "none", "cosine": "none"},
    ranges={"confidence": UNIT, "cosine": UNIT},
    sample="images",
    uses=frozenset({"imputer", "unit", "groups", "fractions"}),
    caption="Pixels are removed at random, and no map is asked. With a good fill, the network stays sure, and its "
    "answer stays that on the whole image.",
    subject="network",
)


@dataclass(frozen=True)
class Answers:
    """Largest softmax value of erased test images, and cosine of their softmax with that of whole images."""

    erasure: Erasure

    needs = Needs(maps=False)
    explains = "none"
    can_drop_tokens = True

    def cost(self, images: Mapping[str, int], training: TrainingSettings | None) -> float:  # noqa: ARG002
        """Forward passes, without those of the whole images, which all such probes share."""
        return float(images["test"] * fills_averaged(self.erasure.imputer, self.erasure.fraction))

    def identity(self) -> dict[str, Any]:
        return {"probe": "answers"} | self.erasure.identity()

    def describe(self) -> Description:
        return by_fields(self)

    def check(self, network: nn.Module, images: Images) -> None:
        """Raise ValueError if all tokens are dropped and the network has no logits then."""
        Perturb(self.erasure).check(network, images)

    def __call__(self, case: Case) -> Score:
        whole = case.once("whole-answers", versions("metric.r_oms"), lambda: {"logits": self._whole(case)})["logits"]
        parts = []
        for sample in range(fills_averaged(self.erasure.imputer, self.erasure.fraction)):
            if drops_tokens(self.erasure.imputer):
                logits = token_logits(case, self.erasure)
            else:
                logits = erased_logits(case, case.network, self.erasure, "fp32", sample=sample)
            parts.append(confidence_and_cosine(logits, whole))
        confidence, cosine = np.mean(parts, 0)
        return Score({"confidence": confidence, "cosine": cosine})

    def _whole(self, case: Case) -> Float[Tensor, "n k"]:
        quiet = replace(case, advance=lambda _: None)
        return erased_logits(quiet, case.network, Erasure("most_first", 0.0, _WHOLE), "fp32")


_WHOLE = Call(call="efface.impute.channel_mean")


def confidence_and_cosine(logits: Float[Tensor, "n k"], whole: Float[Tensor, "n k"]) -> Float[np.ndarray, "2 n"]:
    """Return the largest softmax value, and the cosine of the softmax values with those of other logits."""
    one, other = (values.double().softmax(1) for values in (logits, whole))
    cosine = torch.nn.functional.cosine_similarity(one, other, dim=1)
    return torch.stack([one.amax(1), cosine.clamp(0, 1)]).numpy()
