"""``response_format``: the JSON schema that an answer has to have. Pure.

Whether a command line has a format at all is decided in :mod:`worker.parameters`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from shared.errors import RequestError

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
MAX_SCHEMA_DEPTH = 100
"""Objects and lists within one another. OpenAI takes a tenth; near a thousand nobody could write them any more."""
NAME = re.compile(r"[\w-]{1,64}", re.ASCII)


def read_schema(value: Any) -> Mapping[str, Any] | None:
    """The schema of a ``response_format``; None for text. Raises RequestError ``invalid_request``."""
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "json_object":
        return ANY_OBJECT
    return _named_schema(value.get("json_schema")) if kind == "json_schema" else None


def _named_schema(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _invalid("json_schema", "must be an object")
    name, schema = value.get("name"), value.get("schema")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise _invalid("json_schema.name", "must be 1 to 64 letters, digits, underscores or dashes")
    if not isinstance(schema, Mapping):
        raise _invalid("json_schema.schema", "must be an object")
    if _is_deeper(schema, MAX_SCHEMA_DEPTH):
        raise _invalid("json_schema.schema", f"must not be nested deeper than {MAX_SCHEMA_DEPTH} levels")
    return schema


def _is_deeper(value: Any, levels: int) -> bool:
    layer = [value]
    for _ in range(levels):
        layer = [inner for outer in layer for inner in _within(outer) if isinstance(inner, Mapping | list)]
        if not layer:
            return False
    return True


def _within(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, Mapping) else value


def _invalid(field: str, cause: str) -> RequestError:
    where = f"response_format.{field}"
    return RequestError("invalid_request", f"{where} {cause}", param=where)
