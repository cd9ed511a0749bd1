"""The judges of the compat suites find what is wrong: with each rule broken once, and nothing broken as the control."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from shared.errors import KINDS, typed
from shared.events import AssistantDelta, Thinking, Usage
from shared.openai import ChunkEncoder, completion_object, model_object
from shared.result import Completion
from tests.compat.exchange import Exchange, exchanges
from tests.compat.judgement import NAMES, SCHEMAS, VALIDATORS, faults, schema_faults

PATH = "/leases/x/v1/chat/completions"
ID = "chatcmpl-0"
COMPLETION = Completion(
    text="hi", reasoning="hm", finish_reason="stop", usage=Usage(prompt_tokens=1, completion_tokens=2)
)


HEADERS = {"x-request-id": "r", "openai-processing-ms": "3", "www-authenticate": "Bearer"}


def stream_bytes(*, include_usage: bool) -> bytes:
    """A good stream, as the product writes it."""
    encoder = ChunkEncoder(completion_id=ID, model="any", include_usage=include_usage)
    pieces = encoder.pieces([Thinking("hm"), AssistantDelta("hi")])
    return encoder.role() + b": keep-alive\n\n" + pieces + encoder.end(COMPLETION)


def streamed(content: bytes, *, asked: bytes = b"{}", is_whole: bool = True) -> Exchange:
    """It, as an exchange."""
    return Exchange(
        method="POST",
        path=PATH,
        asked=asked,
        status=200,
        headers={"content-type": "text/event-stream; charset=utf-8", **HEADERS},
        content=content,
        is_whole=is_whole,
    )


def answered(
    body: Any, *, status: int = 200, path: str = PATH, content_type: str = "application/json"
) -> Exchange:
    """A JSON answer."""
    return Exchange(
        method="POST",
        path=path,
        asked=b"{}",
        status=status,
        headers={"content-type": content_type, **HEADERS},
        content=json.dumps(body).encode(),
        is_whole=True,
    )


def usage_event(stream: bytes) -> bytes:
    """Its event with the counts."""
    (event,) = (event for event in stream.split(b"\n\n") if b"prompt_tokens" in event)
    return event + b"\n\n"


USAGE_ASKED = b'{"stream_options":{"include_usage":true}}'


@pytest.mark.parametrize("name", NAMES)
def test_schemas_are_schemas_and_closed(name: str):
    """Each is valid by its own dialect, says what it is, and lets no field pass that it does not name."""
    schema = VALIDATORS[name].schema
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["title"]
    assert schema["description"]
    assert '"additionalProperties": true' not in json.dumps(schema)
    for each in objects(schema):
        assert each.get("additionalProperties") is False or each == {"type": "object"}, each


def objects(schema: Any) -> list[dict[str, Any]]:
    """Every schema in a schema that is one of an object with properties."""
    if isinstance(schema, list):
        return [found for each in schema for found in objects(each)]
    if not isinstance(schema, dict):
        return []
    inner = [found for each in schema.values() for found in objects(each)]
    return [schema, *inner] if schema.get("type") == "object" and "required" in schema else inner


def test_there_is_no_schema_without_a_name():
    """Every file is used."""
    assert {path.stem for path in SCHEMAS.iterdir()} == set(NAMES)
    assert Path(SCHEMAS).is_dir()


def test_what_the_product_writes_is_right():
    """The control: whole answers, streams with and without usage, models, and an error of every kind."""
    assert not faults(answered(completion_object(COMPLETION, completion_id=ID, model="any")))
    assert not faults(streamed(stream_bytes(include_usage=False)))
    counted = stream_bytes(include_usage=True)
    assert not faults(streamed(counted, asked=USAGE_ASKED))
    assert not faults(streamed(counted.replace(usage_event(counted), b""), asked=USAGE_ASKED))
    model = model_object("any", 1_700_000_000, "echo")
    assert not faults(answered(model, path="/leases/x/v1/models/any"))
    assert not faults(answered({"object": "list", "data": [model]}, path="/leases/x/v1/models"))
    cancelled = {"id": "r", "object": "request", "cancelled": True}
    assert not faults(answered(cancelled, path="/leases/x/v1/requests/r/cancel"))
    for code in KINDS:
        error = typed(code, "words")
        assert not faults(answered(error.envelope(), status=error.status)), code


def test_a_stream_that_failed_is_right_without_an_end_mark():
    """The error is the last event; an end mark after it would be wrong."""
    encoder = ChunkEncoder(completion_id=ID, model="any", include_usage=False)
    failed = encoder.role() + encoder.error(typed("provider_error", "words"))
    assert not faults(streamed(failed))
    assert faults(streamed(failed + b"data: [DONE]\n\n"))


def test_a_stream_that_its_client_left_needs_no_end():
    """But what came is still looked at."""
    whole = stream_bytes(include_usage=False)
    assert not faults(streamed(whole[: len(whole) // 2], is_whole=False))
    assert faults(streamed(whole[: len(whole) // 2], is_whole=True))
    assert faults(streamed(whole.replace(b'"index":0', b'"index":1')[:-20], is_whole=False))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("another id", lambda text: text.replace(ID.encode(), b"chatcmpl-1", 1)),
        ("another time", lambda text: text.replace(b'"created":1', b'"created":2', 1)),
        ("a role in each", lambda text: text.replace(b'"delta":{"content"', b'"delta":{"role":"assistant","content"')),
        ("no role", lambda text: text.replace(b'"role":"assistant",', b"")),
        ("no finish reason", lambda text: text.replace(b'"finish_reason":"stop"', b'"finish_reason":null')),
        ("two finish reasons", lambda text: text.replace(b'"finish_reason":null', b'"finish_reason":"stop"', 1)),
        ("an unknown finish reason", lambda text: text.replace(b'"stop"', b'"cancelled"')),
        ("no end mark", lambda text: text.replace(b"data: [DONE]\n\n", b"")),
        ("usage twice", lambda text: text.replace(usage_event(text), 2 * usage_event(text))),
        ("usage too early", lambda text: usage_event(text) + text.replace(usage_event(text), b"")),
        ("no usage in its chunk", lambda text: re.sub(rb'"usage":{.*},"choices":\[\]', b'"usage":null,"choices":[]', text)),
        ("usage not null before", lambda text: text.replace(b'"usage":null', b'"usage":{}', 1)),
        ("usage with choices", lambda text: text.replace(b'"choices":[]', b'"choices":[{}]')),
        ("not JSON", lambda text: text.replace(b"data: {", b"data: {{", 1)),
        ("an unknown field", lambda text: text.replace(b'"object":', b'"objekt":1,"object":', 1)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_wrong_stream_is_found(name: str, change: Callable[[bytes], bytes]):
    """Each rule, broken."""
    good = stream_bytes(include_usage=True)
    changed = change(good)
    assert changed != good
    assert faults(streamed(changed, asked=USAGE_ASKED))


@pytest.mark.parametrize("gone", ["id", "object", "created", "model", "choices"])
def test_a_wrong_answer_is_found(gone: str):
    """A required field that is missing; and a wrong place for it."""
    body = completion_object(COMPLETION, completion_id=ID, model="any")
    del body[gone]
    assert faults(answered(body))


@pytest.mark.parametrize("gone", ["message", "type", "param", "code"])
def test_a_wrong_error_is_found(gone: str):
    """All four fields are required."""
    body = typed("invalid_request", "words").envelope()
    del body["error"][gone]
    assert faults(answered(body, status=400))


def test_usage_that_was_not_asked_for_is_found():
    """In a stream it is opt-in."""
    assert faults(streamed(stream_bytes(include_usage=True)))


def test_headers_are_looked_at():
    """A request id, the time it took, a content type, and with a 401 what it asks for."""
    body = completion_object(COMPLETION, completion_id=ID, model="any")
    for name in ("x-request-id", "openai-processing-ms"):
        without = answered(body)
        del without.headers[name]
        assert faults(without), name
    unauthorized = answered(typed("unauthorized", "words").envelope(), status=401)
    del unauthorized.headers["www-authenticate"]
    assert faults(unauthorized)
    assert faults(answered(body, content_type="text/plain"))


def test_text_that_is_not_json_is_found():
    """Whatever it was meant to be."""
    assert schema_faults("error", b"<html>")


def test_exchanges_of_one_connection():
    """Two on it, the first with a chunked body; and one that was never answered."""
    body = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\nX-Kind: a\r\n\r\n{}"
    post = b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nask"
    get = b"GET /b HTTP/1.1\r\nhost: x\r\n\r\n"
    first, second, third = exchanges(post + get + get, body + answer)
    assert (first.method, first.path, first.asked, first.content) == ("POST", "/a", b"ask", b"hi")
    assert (second.status, second.headers["x-kind"], second.is_whole) == (404, "a", True)
    assert (third.status, third.is_whole) == (0, False)


def test_an_answer_that_is_cut_off():
    """It is there as far as it came."""
    (cut,) = exchanges(
        b"GET /b HTTP/1.1\r\nhost: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n",
    )
    assert (cut.status, cut.content, cut.is_whole) == (200, b"hi", False)
