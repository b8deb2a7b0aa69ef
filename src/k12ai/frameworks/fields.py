"""Properties of parameters as JSON Schema, in both languages, in the terms that every framework uses."""

import re
from collections.abc import Mapping

from k12ai.errors import BadParameter
from k12ai.frameworks.base import Schema
from k12ai.texts import Text

NAME_PATTERN = "^[A-Za-z0-9_-]{1,64}$"

_FILE = re.compile(r"(?!/)(?!.*(?:^|/)\.\.(?:/|$))[^\\\x00-\x1f]+")
_INSIDE = Text("a path inside of the project, relative and without '..'", "项目内的相对路径，且不含 '..'")


def check_path(place: str, path: str) -> None:
    """Refuse a path that leads out of the project; an empty one is none. Raises `BadParameter`."""
    if path and not _FILE.fullmatch(path):
        raise BadParameter(f"service_params.{place}", _INSIDE)


def described(title: str, zh: str, text: str, text_zh: str) -> Schema:
    """Return the words of a property, in both languages."""
    return {"title": title, "x-title-zh": zh, "description": text, "x-description-zh": text_zh}


def whole(low: int, high: int, default: int) -> Schema:
    """Return a whole number's part of a schema."""
    return {"type": "integer", "minimum": low, "maximum": high, "default": default}


def number(low: float, high: float, default: float) -> Schema:
    """Return a number's part of a schema."""
    return {"type": "number", "minimum": low, "maximum": high, "default": default}


def flag(default: bool) -> Schema:
    """Return the part of a schema of what is so or not."""
    return {"type": "boolean", "default": default}


def text(max_length: int) -> Schema:
    """Return a text's part of a schema."""
    return {"type": "string", "maxLength": max_length, "default": ""}


def choice(default: str, **titles: Text) -> Schema:
    """Return the part of a schema of one of several names, each with a title."""
    return {
        "type": "string",
        "enum": list(titles),
        "x-enum-titles": {name: title.en for name, title in titles.items()},
        "x-enum-titles-zh": {name: title.zh for name, title in titles.items()},
        "default": default,
    }


def saved_name(default: str) -> Schema:
    """Return the part of a schema of a name that a file gets."""
    return {"type": "string", "pattern": NAME_PATTERN, "default": default}


def group(words: Schema, properties: Mapping[str, Schema]) -> Schema:
    """Return an object of properties, each of which has a default."""
    return {
        **words,
        "type": "object",
        "properties": dict(properties),
        "additionalProperties": False,
        "default": {},
    }


def document(words: Schema, properties: Mapping[str, Schema]) -> Schema:
    """Return the whole schema of an op's parameters."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **words,
        "type": "object",
        "properties": dict(properties),
        "additionalProperties": False,
    }
