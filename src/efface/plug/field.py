"""A field of a study that holds a plug-in: its kind is known, so a short word is enough."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

from efface.plug import words
from efface.plug.call import settings_by_word

WORDS = {"words": True}
"""The context in which `model_dump` writes short words instead of dotted paths."""


@dataclass(frozen=True)
class Word:
    """For annotating a field: a plug-in of this kind, by its short word or its dotted path. The path is kept.

    beside: words that the field may hold and that mean no plug-in.
    """

    kind: str
    beside: tuple[str, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        written = core_schema.wrap_serializer_function_ser_schema(self._by_word, info_arg=True)
        return core_schema.no_info_before_validator_function(self.by_path, handler(source), serialization=written)

    def by_path(self, value: Any) -> Any:
        """What a study gives, with the dotted path in place of a word. ValueError: it is no word of this kind."""
        if isinstance(value, str):
            return words.expand(self.kind, value, self.beside)
        if isinstance(value, dict) and isinstance(value.get("call"), str):
            return value | {"call": words.expand(self.kind, value["call"])}
        return value

    @staticmethod
    def _by_word(value: Any, handler: Callable[[Any], Any], info: Any) -> Any:
        found = handler(value)
        if not writes_words(info):
            return found
        if isinstance(found, str):
            return words.word_of(found) or found
        if isinstance(found, dict):
            short = words.word_of(found["call"]) or found["call"]
            return {"call": short, "kwargs": settings_by_word(found["call"], found["kwargs"])}
        return found


def writes_words(info: Any) -> bool:
    """Whether a dump is to hold short words."""
    return bool(info.context and info.context.get("words"))
