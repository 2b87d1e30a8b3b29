"""The JSON schema of a study, for editors: keys, words of plug-ins and their settings.

It is strict where a study is: it refuses unknown keys, and settings that a plug-in of efface does not have. It accepts
the dotted path of any function. What only the whole study shows, `efface check` says.
"""

import inspect
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from efface.plug import docstrings, words
from efface.plug.annotations import plain_schemas, plugs
from efface.plug.field import PLUG_IN
from efface.plug.path import resolve
from efface.study import recommended_metrics
from efface.study.metric_entry import MetricSettings
from efface.study.study import Study

DIALECT = "https://json-schema.org/draft/2020-12/schema"
DEFAULT_EXECUTOR = "processes"
_Schema = dict[str, Any]
_PATH: _Schema = {"type": "string", "pattern": r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$"}
_ANY_CALL: _Schema = {
    "anyOf": [
        _PATH,
        {
            "type": "object",
            "properties": {"call": _PATH, "kwargs": {"type": "object"}},
            "required": ["call"],
            "additionalProperties": False,
        },
    ]
}
"""A function of any package, such as a class of torch, with its settings."""


def json_schema() -> _Schema:
    """Return the schema of a study, in the dialect of 2020-12."""
    found = Study.model_json_schema()
    found = _without_titles(found)
    definitions = found["$defs"]
    definitions["Call"] = _ANY_CALL
    _describe(found, Study)
    for name, model in _models(Study).items():
        if name in definitions and name != "Call":
            _describe(definitions[name], model)
    _open_short_forms(found)
    _bind_settings(definitions)
    found = _plugged(found)
    for kind in words.KINDS:
        found["$defs"] |= {f"{kind}.{word}": _settings(kind, word) for word in words.index(kind)}
    found["$defs"] |= {f"any.{kind}": _plug_in(kind, [], "call") for kind in ("data", "method", "model")}
    return {"$schema": DIALECT, "title": "A study of efface"} | found | {"patternProperties": {"^x-": {}}}


def _models(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Return the models below a model, by name."""
    found: dict[str, type[BaseModel]] = {}
    waiting: list[Any] = [model]
    while waiting:
        each = waiting.pop()
        if inspect.isclass(each) and issubclass(each, BaseModel) and each.__name__ not in found:
            found[each.__name__] = each
            waiting += [field.annotation for field in each.model_fields.values()]
        waiting += getattr(each, "__args__", ())
    return found


def _describe(schema: _Schema, model: type[BaseModel]) -> None:
    """Put the sentences of the model's docstring beside its keys."""
    text = inspect.getdoc(model) or ""
    schema["description"] = " ".join(text.partition("\n\n")[0].split())
    for name, means in docstrings.meanings(text).items():
        if name in schema.get("properties", {}):
            schema["properties"][name]["description"] = means


def _without_titles(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: _without_titles(value)
            for key, value in schema.items()
            if not (key == "title" and isinstance(value, str))
        }
    return [_without_titles(each) for each in schema] if isinstance(schema, list) else schema


def _open_short_forms(found: _Schema) -> None:
    """Let the schema take the short forms that a study may have."""
    keys, definitions = found["properties"], found["$defs"]
    keys["explain"]["enum"].append(True)  # YAML reads the word true as a truth value
    del keys["explain"]["type"]
    word = {"const": recommended_metrics.WORD, "description": "A short list of metrics; docs/choosing.md has it."}
    said = {name: keys["metrics"].pop(name) for name in ("description", "default")}
    entries = keys["metrics"] | {"items": {"anyOf": [word, keys["metrics"]["items"]]}}
    keys["metrics"] = said | {"anyOf": [word, entries]}
    keys["executor"] |= {"beside": [], "partial": True}  # the settings of the default executor alone
    definitions["TrainingSettings"]["required"].remove("epochs")
    definitions["TrainingSettings"]["anyOf"] = [{"required": ["epochs"]}, {"required": ["preset"]}]
    entry, term = definitions["MetricEntry"], definitions["Regularizer"]
    definitions["MetricEntry"] = {"anyOf": [{PLUG_IN: "metric", "beside": [], "form": "word"}, entry]}
    definitions["Regularizer"] = {"anyOf": [{PLUG_IN: "regularizer", "beside": [], "form": "word"}, term]}


def _bind_settings(definitions: _Schema) -> None:
    """Tie `kwargs` to the word beside it, in entries that name their plug-in by a key of their own."""
    definitions["MethodEntry"] |= _tied("method", "method")
    term = definitions["Regularizer"]["anyOf"][1]
    term |= _tied("regularizer", "call")
    entry = definitions["MetricEntry"]["anyOf"][1]
    entry["properties"]["kwargs"] = {"type": "object"}
    shared = definitions.pop("MetricSettings")["properties"]
    definitions |= {f"shared.{name}": schema for name, schema in shared.items()}
    unnamed = {"not": {"required": ["metric"]}}
    by_name = [
        {"if": {**_is("name", word), **unnamed}, "then": _kwargs("metric", word)} for word in words.index("metric")
    ]
    known: _Schema = {"properties": {"name": {PLUG_IN: "metric", "beside": [], "form": "word"}}}
    entry["allOf"] = [{"if": unnamed, "then": known}, *by_name, *_tied("metric", "metric")["allOf"]]


def _tied(kind: str, key: str) -> _Schema:
    """Return the conditions by which `kwargs` have the settings of the plug-in that a key names."""
    return {"allOf": [{"if": _is(key, word), "then": _kwargs(kind, word)} for word in words.index(kind)]}


def _is(key: str, word: str) -> _Schema:
    return {"properties": {key: {"const": word}}, "required": [key]}


def _kwargs(kind: str, word: str) -> _Schema:
    return {"properties": {"kwargs": {"$ref": f"#/$defs/{kind}.{word}"}}}


def _plugged(schema: Any) -> Any:
    """Return the schema with the words of each kind where it says that a plug-in stands."""
    if isinstance(schema, list):
        return [_plugged(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if PLUG_IN not in schema:
        return {key: _plugged(value) for key, value in schema.items()}
    rest = {key: schema[key] for key in ("description", "default") if key in schema}
    return rest | _plug_in(schema[PLUG_IN], schema["beside"], schema["form"], partial=schema.get("partial", False))


def _plug_in(kind: str, beside: list[str], form: str, *, partial: bool = False) -> _Schema:
    """Return the schema of a plug-in of this kind: a word or a path, and for a call also one with its settings."""
    word: _Schema = {"anyOf": [{"enum": [*beside, *words.index(kind)]}, _PATH]}
    if form == "word":
        return word
    call: _Schema = {
        "type": "object",
        "properties": {
            "call": {"anyOf": [{"enum": [*words.index(kind)]}, _PATH]},
            "kwargs": {"type": "object"},
        },
        "required": [] if partial else ["call"],
        "additionalProperties": False,
    }
    tied = _tied(kind, "call")
    if partial:  # settings without a call are those of the default
        tied["allOf"].append({"if": {"not": {"required": ["call"]}}, "then": _kwargs(kind, DEFAULT_EXECUTOR)})
    return {"anyOf": [*word["anyOf"], call | tied]}


def _settings(kind: str, word: str) -> _Schema:
    """Return the schema of the `kwargs` of a plug-in of efface."""
    path = words.index(kind)[word]
    target = resolve(path)
    known = inspect.signature(target).parameters if callable(target) else {}
    is_open = any(each.kind is each.VAR_KEYWORD for each in known.values())
    shared = MetricSettings.model_fields if kind == "metric" else ()
    own = {name: {"$ref": f"#/$defs/shared.{name}"} for name in shared} | dict(_parameters(kind, target))
    says = docstrings.first_sentence(docstrings.docstring(path))
    return {"type": "object", "description": says, "properties": own, "additionalProperties": is_open}


def _parameters(kind: str, target: Any) -> Iterator[tuple[str, _Schema]]:
    """Yield the settings of a plug-in with their schemas."""
    if not callable(target):
        return
    text = inspect.getdoc(target) or ""
    types, plug_ins, means = plain_schemas(target), plugs(target), docstrings.meanings(text)
    positional = () if inspect.isclass(target) else words.POSITIONAL[kind]
    for name, each in inspect.signature(target).parameters.items():
        if name in positional or each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL):
            continue
        schema: _Schema = types.get(name, {})
        if name in plug_ins and plug_ins[name].kind:
            schema = {"anyOf": [{"type": "null"}, {"$ref": f"#/$defs/any.{plug_ins[name].kind}"}]}
        yield name, schema | ({"description": means[name]} if name in means else {})
