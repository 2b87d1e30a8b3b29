"""Fields of a study that hold a plug-in. The kind of plug-in is known, so a short word is enough."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import core_schema

from efface.plug import words
from efface.plug.call import settings_by_word

PLUG_IN = "x-plug-in"
"""Key of a JSON schema of a study that stands for a plug-in, see `efface.study.json_schema`."""
WORDS = {"words": True}
"""The context in which `model_dump` writes short words instead of dotted paths."""


@dataclass(frozen=True)
class Word:
    """Annotation of a field that holds a plug-in, by its short word or its dotted path. The field stores the path.

    kind: kind of the plug-in.
    beside: words that the field also accepts and that name no plug-in.
    """

    kind: str
    beside: tuple[str, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        written = core_schema.wrap_serializer_function_ser_schema(self._by_word, info_arg=True)
        return core_schema.no_info_before_validator_function(self.by_path, handler(source), serialization=written)

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        form = "word" if handler(schema).get("type") == "string" else "call"
        return {PLUG_IN: self.kind, "beside": list(self.beside), "form": form}

    def by_path(self, value: Any) -> Any:
        """Return the value of a study with the dotted path in place of a word. ValueError: the word is unknown."""
        if isinstance(value, str):
            return words.expand(self.kind, value, self.beside)
        if isinstance(value, dict) and isinstance(value.get("call"), str):
            return value | {"call": words.expand(self.kind, value["call"])}
        return value

    @staticmethod
    def _by_word(value: Any, handler: Callable[[Any], Any], info: Any) -> Any:
        plain = handler(value)
        if not writes_words(info):
            return plain
        if isinstance(plain, str):
            return words.word_of(plain) or plain
        if isinstance(plain, dict):
            short = words.word_of(plain["call"]) or plain["call"]
            return {"call": short, "kwargs": settings_by_word(plain["call"], plain["kwargs"])}
        return plain


def writes_words(info: Any) -> bool:
    """Return True if a dump shall contain short words."""
    return bool(info.context and info.context.get("words"))
