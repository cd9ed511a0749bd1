"""The pieces that both OpenAPI 3.1 documents are built of. Pure; what the routes are, each server knows itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from shared.errors import KINDS

Json = dict[str, Any]
REF = "#/components/schemas/{name}"
ANYWHERE = (
    "headers_too_large", "internal_error", "invalid_request", "misdirected_host", "request_timeout",
    "too_many_connections", "uri_too_long",
)  # fmt: skip
"""The codes that any request may be answered with."""
IDEMPOTENCY_KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "maxLength": 256},
}
WITH_A_BODY = ("request_too_large", "unsupported_media_type")


class ErrorDetail(msgspec.Struct, kw_only=True):
    """OpenAI's error object."""

    message: str
    type: str
    code: str
    param: str | None = None


def schemas(kinds: Iterable[type]) -> Json:
    """These structs and what they hold, by name."""
    return msgspec.json.schema_components(kinds, ref_template=REF)[1]


def operation(
    summary: str,
    answer: Json,
    *,
    error_body: type,
    security: list[Json],
    errors: Iterable[str],
    status: str = "200",
    body: type | None = None,
    also: Json | None = None,
) -> Json:
    """One method of a path. ``errors`` are the codes of its own; those of any request come with them."""
    codes = {*ANYWHERE, *(WITH_A_BODY if body else ()), *errors}
    made: Json = {
        "summary": summary,
        "security": security,
        "responses": {
            status: {"description": summary, **answer},
            **_errors(codes, error_body),
            **(also or {}),
        },
    }
    if body:
        made["requestBody"] = {"required": True, **content(body)}
    return made


def content(kind: type | None, media_type: str = "application/json") -> Json:
    """A body of this kind; None is one that nothing is said about."""
    if kind is None:
        return {}
    return {"content": {media_type: {"schema": {"$ref": REF.format(name=kind.__name__)}}}}


def in_path(name: str) -> Json:
    """A parameter of the path."""
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def query(name: str, kind: str = "string") -> Json:
    """A parameter of the query."""
    return {"name": name, "in": "query", "schema": {"type": kind}}


def _errors(codes: Iterable[str], error_body: type) -> Json:
    """An answer for each status that these codes have."""
    by_status: dict[str, list[str]] = {}
    for code in sorted(codes):
        by_status.setdefault(str(KINDS[code].status), []).append(f"`{code}`")
    return {
        status: {"description": f"A typed error: {', '.join(names)}", **content(error_body)}
        for status, names in sorted(by_status.items())
    }
