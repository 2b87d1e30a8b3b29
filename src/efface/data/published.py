"""Published data sets, read as a whole: both splits, cut down to what a study asks for."""

from collections.abc import Callable

from efface.base.types import Split
from efface.data.subset import Interpolation, resized, splits


def published(
    read: Callable[..., Split],
    *,
    root: str = "data",
    download: bool = True,
    size: int | None = None,
    interpolation: Interpolation = "bilinear",
    limit: int | None = None,
    test_limit: int | None = None,
    validation: float = 0.0,
    seed: int = 0,
) -> dict[str, Split]:
    """Return both splits of a data set: a choice of its images, resized, with validation images.

    read: function of `root`, `train` and `download` that returns one split. `train` is False for the test split.

    `efface.data.cifar.cifar10` describes the settings.
    """
    train, test = (read(root, train=train, download=download) for train in (True, False))
    made = splits(train, test, limit=limit, test_limit=test_limit, validation=validation, seed=seed)
    return resized(made, size, interpolation)
