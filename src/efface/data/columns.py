"""The columns of a table of pictures: which holds the pictures, which the classes, and the class of each row."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

_NUMBERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_TEXTS = ("string", "large_string")
_LISTED = 8


def picture_column(where: str, features: Mapping[str, Any], given: str | None) -> str:
    """Return the column of pictures: the given one, or the only one of the type Image.

    ValueError: it is missing, or is of another type, or there are several.
    """
    return _only(where, features, given, setting="image", kind="Image", what="pictures", more="")


def label_column(where: str, features: Mapping[str, Any], given: str | None) -> str:
    """Return the column of classes: the only one of the type ClassLabel, or a given one of numbers or texts.

    ValueError: it is missing, or lists several classes for a picture, or is of another type, or there are several.
    """
    if given is not None and given in features and _is_plain(features[given]):
        return given
    listed = [name for name, feature in features.items() if _lists_classes(feature)]
    if listed and (given in listed or (given is None and not _of(features, "ClassLabel"))):
        raise ValueError(
            f"{where}: the column {given or listed[0]} lists several classes for each picture (multi-label), expected "
            "one class for each; efface explains classifiers of single labels, so take another data set"
        )
    more = "; a column of whole numbers or texts is taken if label names it"
    return _only(where, features, given, setting="label", kind="ClassLabel", what="classes", more=more)


def read_labels(columns: Mapping[str, tuple[Any, Any]]) -> tuple[dict[str, Int[Tensor, " n"]], tuple[str, ...]]:
    """Return the class of each row of each split, and the names of the classes in their order.

    Texts are numbered in alphabetical order over all splits. If all of them are whole numbers, such as "0" to "10",
    they are numbered in the order of these numbers. Whole numbers are classes as they are; true and false are 1 and 0.

    columns: of each split, by what errors call it: the feature and the values, as Arrow's column.

    ValueError: the splits disagree on the classes, or a row has no class.
    """
    (first, (feature, _)), *others = columns.items()
    for where, (other, _) in others:
        if difference := _difference(feature, other):
            raise ValueError(f"{where}: its classes are not those of {first} ({difference}); give both the same")
    found = {
        where: _values(where, values, len(getattr(feature, "names", ()))) for where, (_, values) in columns.items()
    }
    if type(feature).__name__ == "ClassLabel":
        names = tuple(map(str, feature.names))
    elif feature.dtype in _TEXTS:
        names = _in_order({str(name) for values in found.values() for name in values.tolist()})
        place = {name: number for number, name in enumerate(names)}
        found = {where: np.array([place[name] for name in values.tolist()]) for where, values in found.items()}
    else:
        names = tuple(map(str, range(1 + max(int(values.max()) for values in found.values()))))
    return {where: torch.from_numpy(values.astype(np.int64)) for where, values in found.items()}, names


def _in_order(names: set[str]) -> tuple[str, ...]:
    """Return names in alphabetical order, or in that of their numbers if each of them is a whole number."""
    if all(name.isascii() and name.isdigit() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _values(where: str, column: Any, classes: int) -> np.ndarray:
    """Return the values of a column; all are texts, or numbers from 0, below `classes` if that is above 0."""
    if len(column) == 0:
        raise ValueError(f"{where}: has no rows, expected pictures; take another split")
    none = column.null_count
    values = column.drop_null().to_numpy(zero_copy_only=False)
    values = values.astype(np.int64) if values.dtype.kind == "b" else values
    negative = 0 if values.dtype.kind not in "iu" else int((values < 0).sum())
    if none + negative:
        raise ValueError(
            f"{where}: {none + negative} of {len(column)} rows have no class (the label is -1 or empty, as in test "
            "sets without published labels), expected a class for each; take a split with labels, such as validation"
        )
    if classes and int(values.max()) >= classes:
        raise ValueError(
            f"{where}: has the label {int(values.max())}, expected 0 to {classes - 1}, because its ClassLabel names "
            f"{classes} classes; correct the labels"
        )
    return values


def _only(
    where: str, features: Mapping[str, Any], given: str | None, *, setting: str, kind: str, what: str, more: str
) -> str:
    fitting = _of(features, kind)
    there = ", ".join(f"{name} ({_described(feature)})" for name, feature in [*features.items()][:_LISTED])
    if given is not None:
        if given in fitting:
            return given
        found = _described(features[given]) if given in features else "missing"
        raise ValueError(
            f"{where}: the column {given} is {found}, expected {kind}{more}; there are {there}; change {setting}"
        )
    if not fitting:
        raise ValueError(f"{where}: no column holds {what} (the type {kind}){more}; there are {there}")
    if len(fitting) > 1:
        raise ValueError(
            f"{where}: {len(fitting)} columns hold {what} ({', '.join(fitting)}); set {setting} to one of them"
        )
    return fitting[0]


def _of(features: Mapping[str, Any], kind: str) -> Sequence[str]:
    return [name for name, feature in features.items() if type(feature).__name__ == kind]


def _is_plain(feature: Any) -> bool:
    return type(feature).__name__ == "Value" and feature.dtype in _NUMBERS + _TEXTS


def _lists_classes(feature: Any) -> bool:
    inner = feature[0] if isinstance(feature, list | tuple) and feature else getattr(feature, "feature", None)
    return type(inner).__name__ == "ClassLabel"


def _difference(one: Any, other: Any) -> str:
    """Return how the classes of two features differ; "" if they do not."""
    names, others = (getattr(feature, "names", None) for feature in (one, other))
    if names is None or others is None:
        return "" if _described(one) == _described(other) else f"{_described(other)} and {_described(one)}"
    if names == others:
        return ""
    odd = sorted(set(names) ^ set(others))
    return f"only one of the two has {', '.join(odd[:_LISTED])}" if odd else "the same names in another order"


def _described(feature: Any) -> str:
    """Return the type of a feature in words."""
    kind = type(feature).__name__
    if kind == "ClassLabel":
        return f"ClassLabel of {len(feature.names)}"
    return str(feature.dtype) if kind == "Value" else kind
