"""Checks of the graph of a forward pass: every operation that relevance passes has a rule, and where it is read."""

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from efface.methods.adapters import module_name, watching
from efface.methods.lrp.mode import Propagation
from efface.methods.lrp.rules import ONLY_FIRST

_HOMOGENEOUS = frozenset(
    {
        # Views, copies and choices of values.
        *("View", "UnsafeView", "Reshape", "ReshapeAlias", "Permute", "Transpose", "T", "Expand", "Squeeze"),
        *("Unsqueeze", "Slice", "Select", "Index", "IndexSelect", "Gather", "Cat", "Stack", "Split", "SplitWithSizes"),
        *("Unbind", "Unfold", "Im2Col", "Col2Im", "Clone", "ToCopy", "Alias", "AsStrided", "Repeat", "Flip", "Roll"),
        *("ConstantPadNd", "ReflectionPad1D", "ReflectionPad2D", "ReplicationPad1D", "ReplicationPad2D", "Where"),
        *("MaskedFill", "CopySlices", "CopyBackwards", "Diagonal", "Triu", "Tril", "PixelShuffle", "PixelUnshuffle"),
        *("ChannelShuffle", "NativeChannelShuffle", "SelectScatter", "SliceScatter", "Scatter", "IndexPut", "Rot90"),
        *("RepeatInterleave", "ViewAsReal", "ViewAsComplex", "Real", "Imag"),
        # Sums, means and their like: linear.
        *("Add", "Sub", "Rsub", "Neg", "Mul", "Div", "Addcmul", "Mean", "Sum", "Cumsum", "AvgPool2D", "AvgPool3D"),
        *("AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "UpsampleNearest1D", "UpsampleNearest2D", "UpsampleBilinear2D"),
        *("UpsampleBicubic2D", "UpsampleLinear1D", "UpsampleBilinear2DAa", "UpsampleBicubic2DAa", "GridSampler2D"),
        *("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "FftR2C", "FftC2C", "FftC2R"),
        # Homogeneous of degree 1: the input times the gradient is the output.
        *("Relu", "LeakyRelu", "RreluWithNoise", "PreluKernel", "Abs", "Max", "Min", "Amax", "Amin", "Maximum"),
        *("Minimum", "MaxPool2DWithIndices", "MaxPool3DWithIndices", "AdaptiveMaxPool2D", "Norm", "LinalgVectorNorm"),
        *("Std", "Sort", "Topk", "NativeDropout"),
    }
)
"""Operations whose gradient times input is the relevance of each summand."""
_PLACING = frozenset(
    {"View", "UnsafeView", "Reshape", "ReshapeAlias", "Permute", "Transpose", "Clone", "Unsqueeze", "ConstantPadNd"}
)
"""Operations that only place values."""
_DENSE = frozenset({"Mm", "Addmm", "Bmm", "Baddbmm", "Linear", "MkldnnLinear"})
_CONVOLUTION = frozenset({"Convolution", "MkldnnConvolution", "ThnnConv2D"})
_ACTIVATION = frozenset(
    {
        *(
            "Gelu",
            "Silu",
            "Mish",
            "Hardswish",
            "Elu",
            "Selu",
            "Celu",
            "Softplus",
            "LogSigmoid",
            "Hardtanh",
            "Softshrink",
        ),
        *("Hardshrink", "Clamp", "ClampMin", "ClampMax", "Threshold", "Pow", "Sqrt", "Tanh", "Sigmoid", "Hardsigmoid"),
        *("Erf", "Rsqrt", "Reciprocal"),
    }
)
_FACTORS = {
    **dict.fromkeys(("Mul", "Mm", "Bmm", "Linear", "Convolution", "PreluKernel", "GridSampler2D"), (0, 1)),
    **dict.fromkeys(("Addmm", "Baddbmm", "Addcmul"), (1, 2)),
}
"""Inputs of an operation that are factors. Only one may depend on the image: products of two have rules of ours."""
_OURS = __name__.rpartition(".")[0]


class Trail(NamedTuple):
    """Nodes of a graph between the logits and a tensor, from the logits on, and whether some pass beside the tensor."""

    nodes: list[Any]
    passes_beside: bool


def read_point(mode: Propagation, logits: Tensor) -> tuple[Tensor, list[Any]]:
    """Return the tensor at which relevance is read, and the nodes between it and the logits.

    It is the last tensor of the images' shape before the first layer through which all of the network sees the image:
    the normalised image, or the image itself.

    ValueError: the rule for the first layer needs an input of that layer that holds the values of this tensor.
    """
    image = get_gradient_edge(mode.candidates[0]).node
    for candidate in reversed(mode.candidates):
        node = get_gradient_edge(candidate).node
        trail = _trail(logits, node, image)
        if not trail.passes_beside:
            break
    if mode.extra is not None:
        assert mode.first is not None
        assert mode.rules.first is not None
        between = _trail(mode.first, node, image)
        if between.passes_beside or not {_name(each) for each in between.nodes} <= _PLACING:
            raise ValueError(
                f"{mode.title}: the rule {mode.rules.first.kind} needs a first layer that reads the image itself, but "
                f"the first layer of this network reads other values; expected rules without {', '.join(ONLY_FIRST)}: "
                "set other rules"
            )
    return candidate, trail.nodes


def _trail(logits: Tensor, end: Any, image: Any) -> Trail:
    found: list[Any] = []
    waiting: list[Any] = [get_gradient_edge(logits).node]
    seen, beside = set[Any](), False
    while waiting:
        node = waiting.pop()
        if node is None or node in seen or node is end:
            continue
        seen.add(node)
        if node is image:
            beside = True
            continue
        found.append(node)
        waiting += [each for each, _ in node.next_functions]
    return Trail(found, beside)


def _name(node: Any) -> str:
    """Return the operation of a node, without number."""
    return re.sub(r"Backward\d*$", "", node.name().rpartition("::")[2])


def unruled(mode: Propagation, nodes: Iterable[Any]) -> tuple[Any, str] | None:
    """Return the first node without a rule, and what it computes; None if each has a rule."""
    if mode.rules.products == "gradient":  # the gradient needs no rules
        return None
    allowed = set(_HOMOGENEOUS)
    allowed |= _DENSE if mode.rules.dense.is_gradient else set()
    allowed |= _CONVOLUTION if mode.rules.convolution.is_gradient else set()
    allowed |= _ACTIVATION if mode.rules.activations == "gradient" else set()
    allowed |= {"Softmax"} if mode.rules.softmax == "gradient" else set()
    for node in nodes:
        if node in mode.blocked:
            return node, mode.blocked[node]
        if getattr(getattr(node, "_forward_cls", None), "__module__", "").startswith(_OURS):
            continue
        name = _name(node)
        if name == "AccumulateGrad":  # the zeros of the first layer
            continue
        if name not in allowed:
            return node, name
        inputs = [source for source, _ in node.next_functions]
        if sum(inputs[place] is not None for place in _FACTORS.get(name, ()) if place < len(inputs)) > 1:
            return node, f"a product of activations ({name})"
        if name == "Div" and inputs[1] is not None:
            return node, "a quotient whose divisor is an activation"
    return None


def refusal(model: nn.Module, again: Callable[[Any], tuple[Propagation, Tensor]]) -> ValueError:
    """Return the error for a network with an operation without a rule, which names the module.

    again: function that runs the network in a new context, inside a given context, and returns context and logits.
    """
    made: dict[Any, nn.Module] = {}

    def seen(_: str, module: nn.Module, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                _assign(tensor, module, made)
        return result

    mode, logits = again(watching(model, seen))
    _, nodes = read_point(mode, logits)
    found = unruled(mode, nodes)
    assert found is not None
    node, what = found
    where = module_name(model, made.get(node, model))
    return ValueError(
        f"{mode.title}: {where} computes {what}, for which {mode.title} has no rule; choose another method, or a "
        "network whose operations all have a rule"
    )


def _assign(tensor: Tensor, module: nn.Module, made: dict[Any, nn.Module]) -> None:
    """Note the module of each node of the tensor's graph that no earlier call has made."""
    waiting: list[Any] = [get_gradient_edge(tensor).node]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in made:
            made[node] = module
            waiting += [each for each, _ in node.next_functions]
