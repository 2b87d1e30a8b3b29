"""Layers of networks that compute with tokens, or with channels last: how they are laid out, and which can be used.

A vision transformer has no feature map n c h w after its first layer. A method that looks at a layer can then look at
tokens, laid out as the patches lie in the image. Which layers show what the network uses depends on its head. If the
head averages the patch tokens, the last layer does. If it reads the class token alone, the patch tokens get no gradient
after the last attention, and the last layer that has one is the normalisation before it.
"""

import re
from collections.abc import Iterator
from math import prod

from torch import nn

from efface.base.types import Images
from efface.models.cut import is_cut, read_by
from efface.models.laid_out import FeatureLayer
from efface.models.layout import HALVES, Layout, layouts
from efface.models.mixing import reads_one_patch
from efface.models.reached import COUNT, reaches
from efface.models.tokens import fits_a_grid, lies_elsewhere, token_counts, token_grid

_OF_TOKENS = re.compile(r"(?<!Batch)(?<!Group)(?<!Instance)(?<!Response)Norm(?!ali)")
_ATTENTION = re.compile(r"(?!.*(block|layer|stage|encoder|transformer)).*att(ention|n)", re.IGNORECASE)

WITHOUT_IMAGES = "its first axis is not that of the images, as of a weight, or of windows"
_IMAGES_SECOND = (
    "its second axis is that of the images (tokens n c), and maps need the images first: make the network compute with "
    "n tokens c (batch_first=True of torch's transformer layers)"
)


def computes_with_tokens(model: nn.Module) -> bool:
    """Return True if a network has modules with which transformers compute. Its layers then need a closer look."""
    return any(isinstance(module, nn.MultiheadAttention) or is_token_norm(module) for module in model.modules())


def is_token_norm(module: nn.Module) -> bool:
    """Return True for a normalisation layer of the kind that normalises the channels of each place."""
    return bool(_OF_TOKENS.search(type(module).__name__)) and next(module.children(), None) is None


def usable(model: nn.Module, images: Images, name: str) -> FeatureLayer | str:
    """Return the layer of that name with its layout, or in words why no method can look at it."""
    layer = as_laid_out(model, images, name)
    return layer if isinstance(layer, str) else _useless(model, images, layer) or layer


def as_laid_out(model: nn.Module, images: Images, name: str) -> FeatureLayer | str:
    """Return the layer of that name with its layout, or in words why none is known."""
    layout = layouts(model, images).get(name)
    if layout is None:
        return "a map needs three or four axes"
    if not layout.each or not layout.changes:
        return without_images(layout) or "it does not depend on the image"
    if len(layout.shape) == 4:
        return _of_four_axes(model, images, name, layout)
    return _of_three_axes(model, images, name, layout)


def _of_three_axes(model: nn.Module, images: Images, name: str, layout: Layout) -> FeatureLayer | str:
    if layout.is_channels_first:
        return "n channels tokens: the third axis follows the picture, the second does not"
    try:
        grid = token_grid(model, images, layout.shape[1])
    except ValueError as error:
        return str(error)
    if layout.at is not None and lies_elsewhere(layout.at, grid):
        return f"its tokens do not lie row by row: {grid} would mix up the places of the picture"
    return FeatureLayer(model.get_submodule(name), name, "n t c", grid)


def without_images(layout: Layout) -> str:
    """Return in words why a layer has no row for each image; "" if it has."""
    if layout.each:
        return ""
    return _IMAGES_SECOND if len(layout.shape) == 3 and layout.shape[1] == HALVES else WITHOUT_IMAGES


def _of_four_axes(model: nn.Module, images: Images, name: str, layout: Layout) -> FeatureLayer | str:
    module = model.get_submodule(name)
    said = _normalises_last(module, layout) or stated_layout(model, images, name) == "NHWC"
    if layout.is_channels_last or (not layout.is_feature_map and said):
        return FeatureLayer(module, name, "n h w c")
    return layout.wrong or _as_attention(model, images, layout) or FeatureLayer(module, name)


def last_of_tokens(model: nn.Module, images: Images, after: str) -> FeatureLayer | str | None:
    """Return the last layer of tokens, or with channels last, that shows what the network uses.

    It is the output of the last such layer if the gradient of the logits reaches its patch tokens, as where the head
    averages them. Else it is the last layer whose patch tokens get a gradient and which is a normalisation layer, or
    through which all passes that the network reads. A text says why there is none, as where the last layer is a branch
    and no layer returns the sum that it is added to, or where the head reads several branches. None: the network does
    not compute so after the layer `after`.
    """
    streams = _streams(model, images, after)
    last = next(streams, None)
    if last is None or isinstance(last, str):
        return last
    why = _useless(model, images, last)
    if not why and not is_cut(model, images, last.name):
        return f"the last one, {last.name!r}, is a branch, and no layer returns the sum that it is added to as a tensor"
    if not why:
        of, same = reaches(model, images)[last.name].of, [last]
        for layer in streams:
            if isinstance(layer, str) or reaches(model, images)[layer.name].of != of:
                break
            same.append(layer)
        return next((layer for layer in same if is_token_norm(layer.module)), same[-1])
    between = f"between {after!r} and it" if after else "before it"
    unusable = f"the last one, {last.name!r}, cannot be used, nor can a normalisation layer {between}: {why}"
    return _last_reached(model, images, streams) or unusable


def _last_reached(model: nn.Module, images: Images, streams: Iterator[FeatureLayer | str]) -> FeatureLayer | str:
    """Return the last layer whose patch tokens get a gradient, or why it is of no use; "" if there is none."""
    for layer in streams:
        if isinstance(layer, str):
            return layer
        if _useless(model, images, layer):
            continue
        if is_token_norm(layer.module):
            return _beside(model, images, layer, streams) or layer
        if is_cut(model, images, layer.name):
            return layer
    return ""


def _beside(model: nn.Module, images: Images, layer: FeatureLayer, before: Iterator[FeatureLayer | str]) -> str:
    """Return in words which normalisation layer shows patches that do not pass through this one; "" if none does."""
    read = read_by(model, images, layer.name)
    for other in before:
        if isinstance(other, str) or other.name in read or not is_token_norm(other.module):
            continue
        if not _useless(model, images, other):
            return (
                f"the last one, {layer.name!r}, shows one branch alone, and the patches of {other.name!r} reach the "
                "logits past it"
            )
    return ""


def usable_layers(model: nn.Module, images: Images, count: int = 3) -> list[str]:
    """Return the names of the last layers that a method can look at: normalisation layers, and sure feature maps."""
    found: list[str] = []
    for name in reversed(reaches(model, images)):
        if len(found) == count:
            break
        layout = layouts(model, images).get(name)
        if layout is None or not (layout.is_feature_map or is_token_norm(model.get_submodule(name))):
            continue
        layer = "" if in_attention(model, name) else usable(model, images, name)
        if isinstance(layer, FeatureLayer) and _places(layer, layout) > 1:
            found.append(name)
    return found[::-1]


def _streams(model: nn.Module, images: Images, after: str) -> Iterator[FeatureLayer | str]:
    """Yield the layers with several places that finish after another one, outside attention, from the last one back.

    A text says why the layout of one that may hold patches is not known.
    """
    known, reached = layouts(model, images), reaches(model, images)
    names = list(reached)
    begin = names.index(after) + 1 if after in names else 0
    for name in reversed(names[begin:]):
        layout = known.get(name)
        if layout is None or not layout.each or not layout.changes or in_attention(model, name):
            continue
        module = model.get_submodule(name)
        if isinstance(module, nn.Linear) and reached[name].classes:
            continue  # scores of single places, as of VOLO's second head
        tokens = len(layout.shape) == 3 and min(layout.shape[1:]) > 1 and not layout.is_channels_first
        if tokens or len(layout.shape) == 4:
            layer = as_laid_out(model, images, name)
            if isinstance(layer, str):
                if tokens and _may_be_patches(model, images, name, layout.shape[1]):
                    yield f"{name!r}: {layer}"
            elif layer.axes != "n c h w" and _places(layer, layout) > 1:
                yield layer


def _may_be_patches(model: nn.Module, images: Images, name: str, count: int) -> bool:
    """Return True if a layer of unknown layout may hold patches, so that no earlier layer is taken in its place."""
    return is_token_norm(model.get_submodule(name)) or (_attends(model) and fits_a_grid(images, count))


def _places(layer: FeatureLayer, layout: Layout) -> int:
    """Return the number of places of the picture in a layer's output."""
    if layer.grid is not None:
        return layer.grid.rows * layer.grid.columns
    return prod(layout.shape[2:] if layer.axes == "n c h w" else layout.shape[1:3])


def _useless(model: nn.Module, images: Images, layer: FeatureLayer) -> str:
    """Return in words why a map of this layer would not show what the network uses; "" if nothing speaks against it."""
    reach = reaches(model, images).get(layer.name)
    if reach is None or reach.shape[:1] != (COUNT,):
        return WITHOUT_IMAGES
    if _is_embedding(model, images, layer):
        return "it is the first layer or passes it on. Later layers compute with tokens, and it does not show them"
    if not _is_reached(model, images, layer):
        if any(reach.reached):
            return "its patch tokens get no gradient, because the network goes on with its prefix tokens alone"
        return "no gradient of the logits reaches it"
    if _is_of_one_patch(model, images, layer):
        return (
            "each place shows one patch alone, as in the first layer. Later layers mix the patches, and it does not "
            "show them"
        )
    return ""


def _is_reached(model: nn.Module, images: Images, layer: FeatureLayer) -> bool:
    """Return True if a gradient of the logits reaches places of the picture in this layer."""
    prefix = 0 if layer.grid is None else layer.grid.prefix
    return any(reaches(model, images)[layer.name].reached[prefix:])


def _is_embedding(model: nn.Module, images: Images, layer: FeatureLayer) -> bool:
    """Return True if only the first layer with weights had run, and all later layers compute with tokens.

    Then no other layer of the network is a convolution, and there are tokens, or features with channels last.
    """
    if reaches(model, images)[layer.name].learnt > 1 or _convolves(model, images):
        return False
    return any(isinstance(later, FeatureLayer) for later in _streams(model, images, layer.name))


def _is_of_one_patch(model: nn.Module, images: Images, layer: FeatureLayer) -> bool:
    """Return True if no patch has met another one yet, and a later layer can show what they say together.

    The first layers of a network of convolutions without attention may be looked at, as always.
    """
    if (_convolves(model, images) and not _attends(model)) or not reads_one_patch(model, images, layer):
        return False
    return any(
        isinstance(later, FeatureLayer)
        and _is_reached(model, images, later)
        and not reads_one_patch(model, images, later)
        for later in _streams(model, images, layer.name)
    )


def _convolves(model: nn.Module, images: Images) -> bool:
    return sum(isinstance(model.get_submodule(name), nn.Conv2d) for name in reaches(model, images)) > 1


def _attends(model: nn.Module) -> bool:
    return any(_ATTENTION.match(type(module).__name__) for module in model.modules())


def in_attention(model: nn.Module, name: str) -> bool:
    """Return True for an attention module and the layers in it, such as those that normalise queries and keys."""
    parts = name.split(".")
    around = (model.get_submodule(".".join(parts[:end])) for end in range(1, len(parts) + 1))
    return any(_ATTENTION.match(type(module).__name__) for module in around)


def _normalises_last(module: nn.Module, layout: Layout) -> bool:
    """Return True if a LayerNorm normalises the last axis alone, whose values are then the channels of a place."""
    return isinstance(module, nn.LayerNorm) and module.normalized_shape == layout.shape[-1:] != layout.shape[1:2]


def stated_layout(model: nn.Module, images: Images, name: str) -> str:
    """Return the layout of a layer that timm states as `output_fmt`, such as NHWC; "" if it does not.

    The layer may state it, or a network around it, whose own output are logits. Around it, another layer that returns
    features states its own layout alone.
    """
    known, parts = layouts(model, images), name.split(".")
    for end in range(len(parts), -1, -1):
        around = ".".join(parts[:end])
        stated = getattr(model.get_submodule(around), "output_fmt", None)
        if stated is not None:
            return str(getattr(stated, "value", stated)) if around == name or around not in known else ""
    return ""


def _as_attention(model: nn.Module, images: Images, layout: Layout) -> str:
    """Return in words why four axes may be heads and tokens; "" if they are not."""
    (_, down, down_third), (_, across, right) = layout.down, layout.right
    sure = layout.is_feature_map and down_third < down / 2 and across < right / 2
    if sure or layout.shape[2] not in token_counts(model, images):
        return ""
    return f"its third axis has {layout.shape[2]} places, as many as there are tokens, so it may be n heads tokens"
