"""Parts of a study that describe a network: how its tokens lie, and the second network."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from efface.models.adapt import Adaptation, Outputs
from efface.models.tokens import TokenGrid
from efface.plug.call import Call, bound
from efface.plug.field import Word
from efface.plug.strict import Strict
from efface.training.loop import TrainingSettings

PerChannel = Annotated[tuple[Annotated[float, Field(allow_inf_nan=False)], ...], Field(min_length=1)]


class Tokens(Strict):
    """How the tokens of a transformer lie, where the network itself does not say it.

    prefix: number of tokens before those of the patches: class token, distillation token, registers.
    grid: rows and columns of the patches, which follow the prefix row by row.
    """

    prefix: NonNegativeInt = 1
    grid: tuple[PositiveInt, PositiveInt]

    @property
    def laid_out(self) -> TokenGrid:
        """The same as the networks know it."""
        return TokenGrid(self.prefix, *self.grid)


class SecondNetwork(Strict):
    """A second network. It classifies samples of the first network, or provides maps that rank its pixels.

    model: the network.
    fit: settings of its training on the study's training images; by default those of the first network, without
        attack and regularizers.
    weights: a state-dict file to load in place of a training.
    outputs, mean, std, tokens: as the study's keys of these names.
    seed: seed of its training; by default drawn from the study's seed.
    folder: folder that holds the network, so that several studies can share it; by default the study's own.
    """

    model: Annotated[Call, Word("model"), bound()]
    fit: TrainingSettings | None = None
    weights: Path | None = None
    outputs: Outputs | None = None
    mean: PerChannel | None = None
    std: PerChannel | None = None
    tokens: Tokens | None = None
    seed: NonNegativeInt | None = None
    folder: Path | None = None


def adaptation(
    outputs: Outputs | None, mean: PerChannel | None, std: PerChannel | None, tokens: Tokens | None
) -> Adaptation:
    """Return what a study states about a network, as the networks know it."""
    return Adaptation(outputs, mean, std, None if tokens is None else tokens.laid_out)
