"""Image classifiers of the transformers library, by their name on the hub or from a folder, for images in [0, 1].

The package transformers is the extra `huggingface`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from efface.models.around import normalised
from efface.models.normalise import normalisation

_PROCESSOR = "preprocessor_config.json"
_SHOWN = 4


def load(
    name: str,
    *,
    num_classes: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **kwargs: object,
) -> nn.Module:
    """An image classifier of transformers behind the normalisation of its processor, in evaluation mode.

    Its modules and its state dict keep their names. It returns the library's output object, of which efface takes
    `logits`. The processor's mean and std must be on the scale of images in [0, 1]; its size is not applied, so give
    the data that size.

    name: name on the hub, such as `google/vit-base-patch16-224`, which is downloaded once into the hub's own cache, or
        a folder that `save_pretrained` wrote.
    num_classes: number of classes; None: that of the weights. With another number, the last layer gets new random
        weights.
    mean: one number for each channel, for images in [0, 1]; None: that of the processor.
    std: one number above 0 for each channel; None: as `mean`.
    kwargs: settings of `from_pretrained`, such as `revision`.

    Source: Wolf et al. 2020, Transformers: state-of-the-art natural language processing.
    """
    transformers = _package()
    means = _means(transformers, name, kwargs) if mean is None and std is None else (mean, std)
    changed = {} if num_classes is None else {"num_labels": num_classes, "ignore_mismatched_sizes": True}
    try:
        network, said = transformers.AutoModelForImageClassification.from_pretrained(
            name, output_loading_info=True, **changed, **kwargs
        )
    except (OSError, ValueError, RuntimeError) as problem:
        raise ValueError(
            f"transformers has no image classifier {name!r} ({str(problem).splitlines()[0]}); give a name on the hub, "
            "or a folder that save_pretrained wrote"
        ) from problem
    fresh = sorted(map(_key, [*said["missing_keys"], *said["mismatched_keys"]]))
    if num_classes is None and fresh:
        raise ValueError(
            f"{name}: the weights lack {', '.join(fresh[:_SHOWN])}, which would be random; take a model that was "
            "trained as an image classifier, or give num_classes to train a new last layer"
        )
    return normalised(network.eval(), normalisation(*means, channels=_channels(network)))


def _package() -> Any:
    try:
        import transformers
    except ImportError as problem:
        raise ValueError(
            "efface.models.huggingface needs transformers, which is not installed; run: "
            "pip install 'efface[huggingface]'"
        ) from problem
    return transformers


def _means(transformers: Any, name: str, kwargs: dict[str, object]) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and std of the processor, for images in [0, 1]."""
    folder = Path(name)
    try:
        if folder.is_dir():
            settings = json.loads((folder / _PROCESSOR).read_text())
        else:
            kept = {key: value for key, value in kwargs.items() if key in ("revision", "token", "cache_dir")}
            settings = transformers.AutoImageProcessor.from_pretrained(name, **kept).to_dict()
    except (OSError, ValueError) as problem:
        raise ValueError(
            f"{name}: no settings of its image processor ({_PROCESSOR}) can be read ({str(problem).splitlines()[0]}); "
            "give mean and std"
        ) from problem
    factor = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0
    scale = 255 * float(factor)  # of an image in [0, 1] that the processor has scaled
    if settings.get("do_normalize") is False:
        return (0.0,) * 3, (1 / scale,) * 3
    found, spread = settings.get("image_mean"), settings.get("image_std")
    if not found or not spread:
        raise ValueError(f"{name}: its image processor states no image_mean and image_std; give mean and std")
    return [value / scale for value in found], [value / scale for value in spread]


def _channels(network: nn.Module) -> int:
    """Return the number of channels of the images."""
    found = getattr(getattr(network, "config", None), "num_channels", 3)
    return found if isinstance(found, int) else 3


def _key(key: Any) -> str:
    return str(key[0] if isinstance(key, tuple | list) else key)
