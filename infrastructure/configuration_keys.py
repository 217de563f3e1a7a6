"""The keys of the configuration: their names and variables, what each is for, and all of them as
the JSON Schema that an editor takes."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from infrastructure.settings import Settings
from infrastructure.settings.aws import DEFAULT_BUCKETS

ENVIRONMENT_PREFIX = "HOSTLEDGER_"


def _section(field: FieldInfo) -> type[BaseModel] | None:
    """The class of a field that is a section."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _places(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel], str]]:
    """Each key with the class and the field that it is."""
    for name, field in model.model_fields.items():
        section = _section(field)
        if section is not None:
            yield from _places(section, f"{prefix}{name}.")
        elif name == "buckets":  # each bucket is a key, so that one can be set by itself
            yield from ((f"{prefix}{name}.{api}", model, name) for api in DEFAULT_BUCKETS)
        else:
            yield f"{prefix}{name}", model, name


_PLACES = {key: (model, field) for key, model, field in _places(Settings)}

KEYS = tuple(_PLACES)
SECTIONS = frozenset(
    ".".join(parts[:depth])
    for parts in (key.split(".") for key in KEYS)
    for depth in range(1, len(parts))
)


def environment_name(key: str) -> str:
    """The environment variable of a key: `worker.mode` -> `HOSTLEDGER_WORKER__MODE`."""
    return ENVIRONMENT_PREFIX + key.replace(".", "__").replace(":", "_").upper()


VARIABLES = {environment_name(key): key for key in KEYS}


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that a misspelt one most likely means."""
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0)[0]


def value_at(document: Any, key: str) -> Any:
    """The value of a key in settings, or in a document of them."""
    for name in key.split("."):
        document = document[name] if isinstance(document, dict) else getattr(document, name)
    return document


# --- what each is for -----------------------------------------------------------------------


class Key(NamedTuple):
    """A key: its default, the values that it takes, and what it is for."""

    name: str
    default: Any
    choices: tuple[str, ...]
    """All the values there are, or of which it is a list; none where they are too many to name."""
    takes: str
    """What values it takes, in words."""
    remark: str

    @property
    def as_text(self) -> str:
        """The default as an environment variable says it; "" for none."""
        return as_text(self.default)


def as_text(value: Any) -> str:
    """A value as an environment variable says it; "" for none."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def place_of(name: str) -> tuple[type[BaseModel], str]:
    """The class and the field that one of KEYS is."""
    return _PLACES[name]


def described(name: str) -> Key:
    """What is to be known of one of KEYS."""
    model, field = place_of(name)
    default = value_at(Settings(), name)
    return _key(name, model, field, list(default) if isinstance(default, tuple) else default)


def described_within(model: type[BaseModel]) -> Iterator[Key]:
    """The keys of an object whose own name the site chooses."""
    for field, facts in model.model_fields.items():
        yield _key(field, model, field, facts.get_default())


def _key(name: str, model: type[BaseModel], field: str, default: Any) -> Key:
    kind: Any = model.model_fields[field].annotation
    if get_origin(kind) is list:
        (kind,) = get_args(kind)
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    schema = _properties(model)[field]
    if field == "buckets":
        schema = schema["properties"][name.rpartition(".")[2]]
    return Key(name, default, choices, _takes(schema), remark_of(model, field))


def remark_of(model: type[BaseModel], field: str) -> str:
    """The text below a field in the class that has it, or that it has it from."""
    return next((r[field] for kind in model.__mro__ if field in (r := _remarks(kind))), "")


@cache
def _remarks(kind: type) -> dict[str, str]:
    """Field -> the text below it, of a class's own fields."""
    if not issubclass(kind, BaseModel) or kind is BaseModel:
        return {}
    return _written(sys.modules[kind.__module__]).get(kind.__name__, {})


@cache
def _written(module: Any) -> dict[str, dict[str, str]]:
    """Class -> field -> the text below it, from the source: Python itself drops it."""
    import ast
    import inspect

    found: dict[str, dict[str, str]] = {}
    for item in ast.parse(inspect.getsource(module)).body:
        if not isinstance(item, ast.ClassDef):
            continue
        texts = found.setdefault(item.name, {})
        for field, after in zip(item.body, item.body[1:], strict=False):
            target = field.target if isinstance(field, ast.AnnAssign) else None
            if isinstance(target, ast.Name) and isinstance(after, ast.Expr):
                texts[target.id] = " ".join(ast.literal_eval(after.value).split())
    return found


# --- as a JSON Schema -----------------------------------------------------------------------

_WORDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "prefixItems": "items"}
"""pydantic's words, where JSON Schema (draft 7) has others."""


def schema() -> dict[str, Any]:
    """The JSON Schema of our file. What it lets pass may still be refused for what else is set."""
    found = _schema_of(Settings)
    for_editors = {"type": "string", "description": "For editors; it is not read."}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "hostledger.json",
        **found,
        "properties": {"$schema": for_editors, **found["properties"]},
    }


def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": " ".join((model.__doc__ or "").split()),
        "properties": _properties(model),
        "additionalProperties": False,
    }


@cache
def _properties(model: type[BaseModel]) -> dict[str, Any]:
    """Field -> its JSON Schema, sections within."""
    made = model.model_json_schema()["properties"]
    found = {}
    for name, field in model.model_fields.items():
        section = _section(field)
        if section is not None:
            found[name] = _schema_of(section)
            continue
        found[name] = {**_plain(made[name]), "description": remark_of(model, name)}
        if name == "buckets":
            bucket = found[name].pop("additionalProperties")
            buckets = {api: {**bucket, "default": list(b)} for api, b in DEFAULT_BUCKETS.items()}
            found[name] |= {"properties": buckets, "additionalProperties": False}
    return found


def _plain(node: Any) -> Any:
    """A part of pydantic's schema in JSON Schema's words, without titles and references."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _schema_of(_NAMED[node["$ref"].rpartition("/")[2]])
    closed = {"additionalProperties": False} if "patternProperties" in node else {}
    return closed | {
        _WORDS.get(word, word): value if word == "default" else _plain(value)
        for word, value in node.items()
        if word != "title"
    }


_NAMED = {
    kind.__name__: kind
    for model, field in _PLACES.values()
    for argument in get_args(model.model_fields[field].annotation)
    if isinstance(kind := argument, type) and issubclass(kind, BaseModel)
}
"""The objects whose own names the site chooses."""


def _takes(node: dict[str, Any]) -> str:
    """A schema in words."""
    if "anyOf" in node:
        return " or ".join(_takes(choice) for choice in node["anyOf"])
    if "enum" in node:
        return f"one of {', '.join(node['enum'])}"
    kind = node["type"]
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _bounds(node)
    if kind == "array" and isinstance(node["items"], dict):
        return f"a list, each {_takes(node['items'])}"
    if kind == "array":
        return f"a list of {' and '.join(_takes(item) for item in node['items'])}"
    return {"boolean": "true or false", "null": "none", "object": "an object"}.get(kind, "text")


def _bounds(node: dict[str, Any]) -> str:
    low, above, high = (node.get(w) for w in ("minimum", "exclusiveMinimum", "maximum"))
    if above is not None:
        return f" above {above}" + ("" if high is None else f", at most {high}")
    if low is not None:
        return f" from {low}" + ("" if high is None else f" to {high}")
    return ""
