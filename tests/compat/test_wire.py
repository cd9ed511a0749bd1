"""Everything that an echo endpoint can answer fits our schemas of OpenAI's API, as it went over the wire."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from supervisor import InferenceEndpoint
from tests.compat.exchange import Exchange, exchanges
from tests.compat.judgement import faults
from tests.compat.run import lease, port_of, through, wire_faults
from tests.compat.tap import Recording, Tap

pytestmark = pytest.mark.process
HTTP_TIMEOUT_S = 60.0
PATH = "/chat/completions"
USAGE = {"stream_options": {"include_usage": True}}
JSON = {"content-type": "application/json"}


def say(text: str, **more: Any) -> dict[str, Any]:
    """A body with one user message."""
    return {"messages": [{"role": "user", "content": text}], **more}


ASKED: list[tuple[str, str, Any, int]] = [
    ("POST", PATH, say("one two"), 200),
    ("POST", PATH, say("one two three", stop="two"), 200),
    ("POST", PATH, say("one two", stream=True), 200),
    ("POST", PATH, say("one two", stream=True, **USAGE), 200),
    ("POST", PATH, say("[[burst:2000]]", stream=True, **USAGE), 200),
    ("POST", PATH, say("one two three", stream=True, stop="two", **USAGE), 200),
    ("POST", PATH, say("[[uncounted]] one two"), 200),
    ("POST", PATH, say("[[uncounted]] one two", stream=True, **USAGE), 200),
    ("POST", PATH, say("[[error:500]] [[pause:0.1]] one two", stream=True), 200),
    ("POST", PATH, say("[[whole]] one two", stream=True), 200),
    ("POST", PATH, say("[[error:429]] x"), 429),
    ("POST", PATH, say("[[error:401]] x", stream=False), 502),
    ("POST", PATH, say("[[exit:3]] x"), 502),
    ("POST", PATH, say("[[garbage]] x"), 502),
    ("POST", PATH, say("x", n=2), 400),
    ("POST", PATH, say("x", tools=[{"type": "function"}]), 400),
    ("POST", PATH, say("x", model="another"), 400),
    ("POST", PATH, [], 400),
    ("GET", PATH, None, 405),
    ("GET", "/models", None, 200),
    ("GET", "/models/any", None, 200),
    ("GET", "/models/another", None, 404),
    ("GET", "/nothing", None, 404),
]  # fmt: skip


@pytest.fixture(scope="module")
def recording() -> Iterator[Recording]:
    """One connection on which all of it was asked, one after the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "ASM_ENDPOINT_ECHO_MISBEHAVE", "1")
        endpoint = InferenceEndpoint()
    with endpoint, lease(endpoint, "echo") as descriptor, Tap(port_of(descriptor)) as tap:
        base_url = through(descriptor, tap)
        with httpx.Client(headers=descriptor.headers, timeout=HTTP_TIMEOUT_S, trust_env=False) as client:
            for method, path, body, status in ASKED:
                answer = client.request(method, base_url + path, json=body)
                assert answer.status_code == status, (method, path, body, answer.text)
        tap.close()
        yield _joined(tap.recordings)


def _joined(recordings: list[Recording]) -> Recording:
    """As if the client had kept one connection; it makes a new one after some errors."""
    return Recording(
        sent=bytearray(b"".join(each.sent for each in recordings)),
        received=bytearray(b"".join(each.received for each in recordings)),
    )


def told(recording: Recording) -> list[Exchange]:
    """The exchanges."""
    return exchanges(bytes(recording.sent), bytes(recording.received))


def test_everything_fits(recording: Recording):
    """Every status and every kind of answer, as asked."""
    found = told(recording)
    assert [exchange.status for exchange in found] == [status for *_, status in ASKED]
    for exchange, asked in zip(found, ASKED, strict=True):
        assert exchange.is_whole
        assert not faults(exchange), asked
    assert not wire_faults([recording])


def test_usage_is_told_when_it_was_asked_for_and_counted(recording: Recording):
    """Never in numbers that nobody counted, which the judges could not tell from others."""
    good = [exchange for exchange in told(recording) if exchange.status == 200 and exchange.asked]
    for exchange in good:
        is_told = b'"total_tokens":' in exchange.content
        is_asked_for = exchange.includes_usage or not exchange.is_stream
        assert is_told is (is_asked_for and b"[[uncounted]]" not in exchange.asked), exchange.asked
    assert len([exchange for exchange in good if b"[[uncounted]]" in exchange.asked]) == 2


def test_one_wrong_byte_would_be_found(recording: Recording):
    """The control: the same recording with a field renamed, and with its end missing."""
    wrong = Recording(sent=recording.sent, received=recording.received.replace(b'"object"', b'"objekt"', 1))
    assert wire_faults([wrong])
    cut = Recording(sent=recording.sent, received=recording.received[:-5])
    assert wire_faults([cut])
    cut.client_left = True
    assert not wire_faults([cut])
