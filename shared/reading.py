"""Reading untrusted input into structs: both spellings of a key, and complaints in words with the field named. Pure."""

from __future__ import annotations

import dataclasses
import functools
import re
import typing
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from shared.errors import RequestError

StructT = TypeVar("StructT", bound=msgspec.Struct)


def parse(source: object, kind: type[StructT], *, code: str, noun: str) -> StructT:
    """A struct from a mapping or a struct, in either spelling, always validated.

    Raises RequestError ``code``: "cannot read <noun>: <field> must be ...", with the field as ``param``.
    """
    wire = wire_form(source, kind)
    if not isinstance(wire, dict):
        raise RequestError(code, f"cannot read {noun}: it must be an object")
    try:
        struct = msgspec.convert(wire, kind)
        msgspec.json.encode(struct)  # what cannot be written would fail later, in an answer or the journal
    except msgspec.ValidationError as error:
        param, cause = _explain(str(error))
        raise RequestError(code, f"cannot read {noun}: {cause}", param=param) from error
    except (TypeError, UnicodeError, OverflowError, RecursionError) as error:
        raise RequestError(code, f"cannot read {noun}: it holds what JSON cannot") from error
    return struct


def wire_form(source: object, kind: type[msgspec.Struct]) -> object:
    """``source`` with the keys of its JSON form, structs flattened; what is no map is returned as it is."""
    if isinstance(source, msgspec.Struct):
        source = msgspec.structs.asdict(source)
    elif dataclasses.is_dataclass(source) and not isinstance(source, type):
        source = {field.name: getattr(source, field.name) for field in dataclasses.fields(source)}
    if not isinstance(source, Mapping):
        return source
    wire = dict(source)
    for attribute, key, nested in _spellings(kind):
        if attribute != key and attribute in wire:
            wire.setdefault(key, wire.pop(attribute))
        if nested is not None and key in wire:
            wire[key] = wire_form(wire[key], nested)
    return wire


def without_nulls(wire: object) -> object:
    """A map without the entries that are null; anything else as it is."""
    if not isinstance(wire, dict):
        return wire
    return {key: value for key, value in wire.items() if value is not None}


@functools.cache
def _spellings(kind: type[msgspec.Struct]) -> tuple[tuple[str, str, type[msgspec.Struct] | None], ...]:
    """Attribute, JSON key and nested struct type of every field."""
    fields = msgspec.structs.fields(kind)
    return tuple((field.name, field.encode_name, _nested(field.type)) for field in fields)


def _nested(annotation: object) -> type[msgspec.Struct] | None:
    for candidate in (annotation, *typing.get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, msgspec.Struct):
            return candidate
    return None


_COMPLAINT = re.compile(r"(?P<cause>.*?)(?: - at (?P<keys>`key` in )?`\$\.?(?P<path>[^`]*)`)?", re.DOTALL)
_EXPECTED = re.compile(r"Expected `(?P<types>[^`]+)`(?: (?P<bound>.+?))?(?:, got .*)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`", re.DOTALL)
_TYPES = {
    "array": "an array",
    "object": "an object",
    "str": "a string",
    "bool": "true or false",
    "int": "an integer",
    "float": "a number",
}


def _explain(complaint: str) -> tuple[str | None, str]:
    """msgspec's complaint as the field it is about and a sentence in our words."""
    parts = _COMPLAINT.fullmatch(complaint)
    cause, path = (parts["cause"], parts["path"] or "") if parts else (complaint, "")
    for pattern, words in ((_UNKNOWN, "is not a known field"), (_MISSING, "is required")):
        if named := pattern.fullmatch(cause):
            param = f"{path}.{named['name']}".lstrip(".")
            return param, f"{param} {words}"
    if parts and parts["keys"]:
        return path or None, f"the keys of {path or 'the object'} must be strings"
    if expected := _EXPECTED.fullmatch(cause):
        types = " or ".join(_TYPES.get(name, name) for name in expected["types"].split(" | "))
        return path, f"{path} must be {types} {expected['bound'] or ''}".rstrip()
    return path, f"{path} is not valid: {cause[:1].lower()}{cause[1:]}"
