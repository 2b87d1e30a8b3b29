"""A frozen model of settings that refuses unknown keys, and truth values where a number is expected."""

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator


class Strict(BaseModel):
    """A frozen model that refuses unknown keys.

    YAML's `true` for a number is refused, too: it would count as 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _no_truth_values_for_numbers(cls, values: Any) -> Any:
        for name, field in cls.model_fields.items() if isinstance(values, dict) else ():
            value = values.get(name)
            held = value if isinstance(value, list | tuple) else [value]
            kinds = _kinds(field.annotation)
            if kinds & {int, float} and bool not in kinds and any(isinstance(item, bool) for item in held):
                raise ValueError(f"{name}: is {str(value).lower()}, a truth value; expected a number")
        return values


def _kinds(annotation: Any) -> set[Any]:
    """Return the types that an annotation allows, also inside tuples, optional values and annotated types."""
    inner = get_args(annotation)
    return {annotation} if not inner else {kind for part in inner for kind in _kinds(part)}
