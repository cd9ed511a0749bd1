"""Whether what an endpoint sent is what OpenAI's API would send: JSON Schemas, and what no schema can say. Pure.

The schemas are written by us from the public specification of OpenAI's API; each says in its description which of its
rules are OpenAI's. Rules over a whole stream (one id, one finish reason, where usage stands, how it ends) are below.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema

from tests.compat.exchange import DONE, Exchange

SCHEMAS = Path(__file__).parent / "schemas"
NAMES = ("cancellation", "chat.completion", "chat.completion.chunk", "error", "model", "models")
VALIDATORS = {
    name: jsonschema.Draft202012Validator(json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8")))
    for name in NAMES
}
SAME_IN_ALL_CHUNKS = ("id", "created", "model")
Json = dict[str, Any]


def faults(exchange: Exchange) -> list[str]:
    """What is wrong with an answer of a lease's ``v1`` routes; nothing when it is as it should be."""
    found = list(_header_faults(exchange))
    if exchange.method in ("HEAD", "OPTIONS") or (exchange.status == 200 and not _has_schema(exchange)):
        return found
    if exchange.is_stream:
        return [*found, *_stream_faults(exchange)]
    if not exchange.is_whole:
        return found
    return [*found, *schema_faults(_schema_of(exchange), exchange.content)]


def schema_faults(name: str, text: str | bytes) -> list[str]:
    """How a JSON text differs from that schema."""
    try:
        value = json.loads(text)
    except ValueError as error:
        return [f"{name}: not JSON: {error}"]
    return [
        f"{name}: {'.'.join(str(step) for step in error.absolute_path) or 'it'}: {error.message}"
        for error in VALIDATORS[name].iter_errors(value)
    ]


def _has_schema(exchange: Exchange) -> bool:
    return "/v1/" in exchange.path


def _schema_of(exchange: Exchange) -> str:
    if exchange.status >= 400:
        return "error"
    if exchange.path.endswith("/chat/completions"):
        return "chat.completion"
    if exchange.path.endswith("/cancel"):
        return "cancellation"
    return "models" if exchange.path.endswith("/models") else "model"


def _header_faults(exchange: Exchange) -> Iterator[str]:
    if "x-request-id" not in exchange.headers:
        yield f"{exchange.status}: no x-request-id"
    if not exchange.headers.get("openai-processing-ms", "").isdigit():
        yield f"{exchange.status}: no openai-processing-ms in whole milliseconds"
    if exchange.status == 401 and "www-authenticate" not in exchange.headers:
        yield "401: no www-authenticate"
    kind = exchange.headers.get("content-type", "")
    if exchange.content and not kind.startswith(("application/json", "text/event-stream; charset=utf-8")):
        yield f"{exchange.status}: content-type {kind!r}"


def _stream_faults(exchange: Exchange) -> Iterator[str]:
    events = exchange.events()
    failed = bool(events) and events[-1].startswith('{"error"')
    chunks: list[Json] = []
    for number, event in enumerate(events):
        is_last = number == len(events) - 1
        if is_last and (failed or event == DONE):
            yield from schema_faults("error", event) if failed else ()
            continue
        wrong = schema_faults("chat.completion.chunk", event)
        yield from wrong
        if not wrong:
            chunks.append(json.loads(event))
    yield from _chunk_faults(chunks, includes_usage=exchange.includes_usage)
    if exchange.is_whole and not failed:
        yield from _end_faults(events, chunks)


def _chunk_faults(chunks: list[Json], *, includes_usage: bool) -> Iterator[str]:
    for name in SAME_IN_ALL_CHUNKS:
        if len({chunk[name] for chunk in chunks}) > 1:
            yield f"stream: more than one {name}"
    roles = [
        number
        for number, chunk in enumerate(chunks)
        if chunk["choices"] and "role" in chunk["choices"][0]["delta"]
    ]
    if chunks and roles != [0]:
        yield f"stream: a role in the chunks {roles}, not in the first alone"
    if any(("usage" in chunk) is not includes_usage for chunk in chunks):
        yield f"stream: usage {'missing' if includes_usage else 'not asked for'}"


def _end_faults(events: list[str], chunks: list[Json]) -> Iterator[str]:
    """Where nothing was counted, the chunk with the usage may be missing."""
    if events[-1:] != [DONE]:
        yield "stream: it ends without [DONE] and without an error"
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]]
    if [reason for reason in reasons if reason] != reasons[-1:] or not reasons:
        yield f"stream: finish reasons {[reason for reason in reasons if reason]}, not one at the end"
    if [chunk for chunk in chunks if not chunk["choices"]] not in ([], chunks[-1:]):
        yield "stream: usage is not in one more chunk after the finish reason"
