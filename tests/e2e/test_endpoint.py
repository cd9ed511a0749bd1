"""One leased endpoint over HTTP: what it serves, what it refuses, and that it serves on after anything."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from supervisor import EndpointDescriptor, SupervisorClient
from tests.e2e.conftest import HTTP_TIMEOUT_S
from tests.process.serving import until

pytestmark = pytest.mark.process
Make = Callable[..., EndpointDescriptor]
BODY_LIMIT_BYTES = 1024 * 1024


@pytest.fixture(scope="module")
def shared_lease(supervisor_client: SupervisorClient) -> Iterator[EndpointDescriptor]:
    """One lease that survives everything this module does to it."""
    descriptor, _ = supervisor_client.ensure_endpoint({"model_preference": {"provider": "echo", "id": "any"}})
    yield descriptor
    supervisor_client.release_endpoint(descriptor)


def url(descriptor: EndpointDescriptor, path: str = "/v1/chat/completions") -> str:
    """A URL below the lease."""
    return descriptor.base_url.removesuffix("/v1") + path


def say(text: str, **more: Any) -> dict[str, Any]:
    """A body with one user message."""
    return {"messages": [{"role": "user", "content": text}], **more}


def ask(http: httpx.Client, descriptor: EndpointDescriptor, text: str, **more: Any) -> httpx.Response:
    """One request."""
    return http.post(url(descriptor), headers=descriptor.headers, json=say(text, **more))


def code_of(response: httpx.Response) -> str:
    """The error code; the envelope has exactly OpenAI's four fields."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    code: str = error["code"]
    return code


def chunks_of(response: httpx.Response) -> list[Any]:
    """The decoded events of a stream; comments left out, the end mark as it is."""
    events = [part for part in response.text.split("\n\n") if part and not part.startswith(":")]
    data = [event.removeprefix("data: ") for event in events]
    return [text if text == "[DONE]" else json.loads(text) for text in data]


def raw_request(
    descriptor: EndpointDescriptor,
    body: dict[str, Any] | bytes,
    *,
    length: int | None = None,
    authorization: str = "",
) -> socket.socket:
    """A connection with a request sent on it, for callers that will leave, or send the rest of ``length`` later."""
    parts = urlsplit(url(descriptor))
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Content-Length: {len(content) if length is None else length}\r\n"
        f"Authorization: {authorization or descriptor.headers['authorization']}\r\n\r\n"
    )
    connection = socket.create_connection((parts.hostname, parts.port), timeout=HTTP_TIMEOUT_S)
    connection.sendall(head.encode() + content)
    return connection


def test_health_and_models(http: httpx.Client, shared_lease: EndpointDescriptor):
    """What it is, and the one model it has."""
    health = http.get(url(shared_lease, "/health"), headers=shared_lease.headers).json()
    assert (health["status"], health["provider"], health["model"]) == ("ok", "echo", "any")
    models = http.get(url(shared_lease, "/v1/models"), headers=shared_lease.headers).json()
    assert [model["id"] for model in models["data"]] == ["any"]
    one = http.get(url(shared_lease, "/v1/models/any"), headers=shared_lease.headers)
    assert one.json() == models["data"][0]
    other = http.get(url(shared_lease, "/v1/models/other"), headers=shared_lease.headers)
    assert (other.status_code, code_of(other)) == (404, "model_not_found")
    assert other.json()["error"]["param"] == "model"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (say("x", model="other"), 400, "model_mismatch"),
        (say("x", tools=[{"type": "function"}]), 400, "tools_not_supported"),
        (say("x", tool_choice="auto"), 400, "tools_not_supported"),
        (say("x", functions=[{}]), 400, "tools_not_supported"),
        (say("x", n=2), 400, "unsupported_parameter"),
        (say("x", stream="maybe"), 400, "invalid_request"),
        (say(""), 400, "invalid_request"),
        ({}, 400, "invalid_request"),
        ([], 400, "invalid_request"),
        (say("x" * 262_145), 400, "context_length_exceeded"),
    ],
)  # fmt: skip
def test_bad_bodies(http: httpx.Client, shared_lease: EndpointDescriptor, body: Any, status: int, code: str):
    """A typed error, and the lease still serves."""
    refused = http.post(url(shared_lease), headers=shared_lease.headers, json=body)
    assert (refused.status_code, code_of(refused)) == (status, code)
    assert ask(http, shared_lease, "still here").status_code == 200


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b'{"prompt":"\xff"}', b'{"prompt":"\\ud800"}', b"[" * 50_000]
)
def test_bad_bytes(http: httpx.Client, shared_lease: EndpointDescriptor, content: bytes):
    """Not JSON, not UTF-8, half a surrogate pair, or endlessly deep: 400, and the lease still serves."""
    refused = http.post(url(shared_lease), headers=shared_lease.headers, content=content)
    assert (refused.status_code, code_of(refused)) == (400, "invalid_request")
    assert ask(http, shared_lease, "still here").status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies(http: httpx.Client, shared_lease: EndpointDescriptor, chunked: bool):
    """413 whether the length was announced or not."""
    content: Any = b" " * (BODY_LIMIT_BYTES + 1)
    refused = http.post(
        url(shared_lease), headers=shared_lease.headers, content=iter([content]) if chunked else content
    )
    assert (refused.status_code, code_of(refused)) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("token", "size", "status"), [("", BODY_LIMIT_BYTES + 1, 413), ("wrong", BODY_LIMIT_BYTES, 401)]
)
def test_a_refusal_reaches_a_client_that_is_still_sending(
    shared_lease: EndpointDescriptor, token: str, size: int, status: int
):
    """It is not lost in a connection that is closed on unread data."""
    authorization = token or shared_lease.headers["authorization"]
    with raw_request(shared_lease, b"", length=size, authorization=authorization) as connection:
        for _ in range(10):
            time.sleep(0.03)
            connection.sendall(b" " * (size // 10))
        connection.sendall(b" " * (size % 10))
        assert connection.recv(64).startswith(f"HTTP/1.1 {status} ".encode())


def test_a_refusal_does_not_wait_for_a_client_that_stops_sending(shared_lease: EndpointDescriptor):
    """What it announced is waited for up to a named time."""
    with raw_request(shared_lease, b" ", length=1_000_000_000) as connection:
        assert connection.recv(64).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/chat/completions"), ("DELETE", "/health"), ("PUT", "/v1/models")]
)
def test_wrong_methods(http: httpx.Client, shared_lease: EndpointDescriptor, method: str, path: str):
    """405 with the allowed ones."""
    refused = http.request(method, url(shared_lease, path), headers=shared_lease.headers)
    assert (refused.status_code, code_of(refused)) == (405, "method_not_allowed")
    assert refused.headers["allow"]


def test_an_unknown_lease_and_a_wrong_token_look_alike(http: httpx.Client, shared_lease: EndpointDescriptor):
    """Byte for byte, so that neither can be probed for."""
    wrong = {"authorization": "Bearer wrong"}
    stranger = url(shared_lease).replace(shared_lease.lease_ref, "lease_00000000000000000000000000")
    answers = [
        http.post(url(shared_lease), headers=wrong, json=say("x")),
        http.post(url(shared_lease), json=say("x")),
        http.post(stranger, headers=shared_lease.headers, json=say("x")),
        http.post(stranger, headers=wrong, json=say("x")),
        http.get(url(shared_lease, "/nowhere"), headers=wrong),
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "10.0.0.1"])
def test_foreign_hosts(http: httpx.Client, shared_lease: EndpointDescriptor, host: str):
    """A rebound name is refused even with the token."""
    refused = http.post(url(shared_lease), headers={**shared_lease.headers, "host": host}, json=say("x"))
    assert (refused.status_code, code_of(refused)) == (421, "misdirected_host")


def test_request_ids(http: httpx.Client, shared_lease: EndpointDescriptor):
    """A plain one is given back, anything else replaced."""
    given = http.get(url(shared_lease, "/health"), headers={**shared_lease.headers, "x-request-id": "mine-1"})
    assert given.headers["x-request-id"] == "mine-1"
    odd = http.get(url(shared_lease, "/health"), headers={**shared_lease.headers, "x-request-id": "a b<c>"})
    assert odd.headers["x-request-id"].startswith("req_")


def test_a_turn_is_logged_under_its_request_id(
    http: httpx.Client, shared_lease: EndpointDescriptor, state_home: Path
):
    """From the header to the command line's process; never with what was said."""
    headers = {**shared_lease.headers, "x-request-id": "mine-2"}
    answer = http.post(url(shared_lease), headers=headers, json=say("not for the log"))
    assert answer.headers["x-request-id"] == "mine-2"
    log = state_home / "leases" / shared_lease.lease_ref / "worker.log"
    until(lambda: len(lines_of(log, "mine-2")) == 4)
    lines = lines_of(log, "mine-2")
    assert [line["message"] for line in lines] == [
        "turn begins",
        "turn ended",
        "completion ended",
        "answered",
    ]
    begun, ended, *_ = lines
    assert begun["turn"] == ended["turn"]
    assert begun["cli_pid"] == ended["cli_pid"] > 0
    assert "not for the log" not in log.read_text()


def lines_of(log: Path, request_id: str) -> list[dict[str, Any]]:
    """What is logged of a request."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if request_id in line]
    return [line for line in lines if line.get("request_id") == request_id]


@pytest.mark.parametrize("stream", [False, True])
def test_ignored_parameters_are_named(http: httpx.Client, shared_lease: EndpointDescriptor, stream: bool):
    """In a header of the answer, streamed or not; unknown names too, and no line break of theirs."""
    answer = ask(http, shared_lease, "x", temperature=1, seed=5, stream=stream, **{"my\r\nown": 1})
    assert answer.headers["x-asm-ignored-params"] == "my%0D%0Aown, seed, temperature"
    assert "x-asm-ignored-params" not in ask(http, shared_lease, "x", stream=stream).headers


SCHEMA = {
    "type": "object",
    "properties": {"words": {"type": "array", "items": {"type": "string"}}, "count": {"type": "integer"}},
    "required": ["words", "count"],
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("response_format", "text", "answer"),
    [
        ({"type": "json_object"}, '{"a": [1, 2]}', {"a": [1, 2]}),
        (
            {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
            "hi you",
            {"words": ["hi you"], "count": 1},
        ),
    ],
)
def test_an_answer_is_json_when_that_is_asked_for(
    shared_lease: EndpointDescriptor, response_format: Any, text: str, answer: Any, stream: bool
):
    """Whole or in pieces, for the official client."""
    token = shared_lease.headers["authorization"].removeprefix("Bearer ")
    with openai.OpenAI(base_url=shared_lease.base_url, api_key=token) as client:
        asked: Any = {
            "model": "any",
            "messages": [{"role": "user", "content": text}],
            "response_format": response_format,
        }
        if stream:
            pieces = [
                chunk.choices[0].delta.content or ""
                for chunk in client.chat.completions.create(**asked, stream=True)
            ]
            assert len(pieces) > 3
            given = "".join(pieces)
        else:
            given = client.chat.completions.create(**asked).choices[0].message.content
    assert json.loads(given) == answer


def test_an_answer_has_no_more_tokens_than_asked_for(http: httpx.Client, shared_lease: EndpointDescriptor):
    """Words, for this one; the finish reason says so, and nothing is reported as ignored."""
    answer = ask(http, shared_lease, "one two three", max_completion_tokens=2)
    assert "x-asm-ignored-params" not in answer.headers
    choice = answer.json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("one two ", "length")
    assert ask(http, shared_lease, "one two three").json()["choices"][0]["finish_reason"] == "stop"


def test_an_image_is_refused_where_none_is_taken(http: httpx.Client, shared_lease: EndpointDescriptor):
    """By its place."""
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    refused = http.post(
        url(shared_lease),
        headers=shared_lease.headers,
        json={"messages": [{"role": "user", "content": [part]}]},
    )
    assert (refused.status_code, code_of(refused)) == (400, "unsupported_parameter")
    assert refused.json()["error"]["param"] == "messages[0].content[0].image_url"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_ends_at_a_stop_string(
    http: httpx.Client, supervisor_client: SupervisorClient, lease: Make, stream: bool
):
    """Found across deltas and cut off, with estimated usage; the command line does not go on."""
    descriptor = lease(concurrency=1)
    endless = "[[pause:0.01]] one two three four " + "word " * 50_000
    options = {"stream_options": {"include_usage": True}} if stream else {}
    answer = ask(http, descriptor, endless, stop=["never", "wo three"], stream=stream, **options)
    if stream:
        *chunks, usage, done = chunks_of(answer)
        text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        end, usage = chunks[-1]["choices"][0]["finish_reason"], usage["usage"]
        assert done == "[DONE]"
    else:
        choice, usage = answer.json()["choices"][0], answer.json()["usage"]
        text, end = choice["message"]["content"], choice["finish_reason"]
    assert (text, end) == ("one t", "stop")
    assert usage["prompt_tokens"] == 50_005
    assert 0 < usage["completion_tokens"] < 50
    until(lambda: supervisor_client.endpoint(descriptor).load["in_flight"] == 0)
    assert ask(http, descriptor, "the place is free").status_code == 200


def test_a_stream_is_in_order(http: httpx.Client, shared_lease: EndpointDescriptor):
    """Role, words one by one, finish reason, usage, end."""
    answer = ask(http, shared_lease, "one two three", stream=True, stream_options={"include_usage": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *chunks, done = chunks_of(answer)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert [delta["content"] for delta in deltas[1:-1]] == ["one ", "two ", "three"]
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["total_tokens"] == 6
    assert done == "[DONE]"


def test_the_official_client_takes_an_answer_that_was_not_counted(lease: Make):
    """Whole, in chunks, and put together by its own helper: it has no usage, and all else."""
    descriptor = lease()
    token = descriptor.headers["authorization"].removeprefix("Bearer ")
    asked: Any = {"model": "any", "messages": [{"role": "user", "content": "[[uncounted]] one two"}]}
    streamed = {**asked, "stream_options": {"include_usage": True}}
    with openai.OpenAI(base_url=descriptor.base_url, api_key=token, max_retries=0) as client:
        whole = client.chat.completions.create(**asked)
        *_, last = client.chat.completions.create(**streamed, stream=True)
        with client.chat.completions.stream(**streamed) as stream:
            joined = stream.get_final_completion()
    assert [each.choices[0].message.content for each in (whole, joined)] == ["one two", "one two"]
    assert (whole.usage, last.usage, joined.usage) == (None, None, None)
    assert last.choices[0].finish_reason == joined.choices[0].finish_reason == "stop"


def test_a_whole_message_is_streamed_too(http: httpx.Client, shared_lease: EndpointDescriptor):
    """A command line that sends no deltas still gives a stream with the text, once."""
    *chunks, _ = chunks_of(ask(http, shared_lease, "[[whole]] all at once", stream=True))
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks][1] == "all at once"


@pytest.mark.parametrize(
    "body",
    [
        say("[[pause:0.05]] " + "word " * 500, stream=True),
        say("[[silence]] x", stream=True),
        say("[[silence]] x"),
    ],
    ids=["mid-stream", "before the first piece", "not streaming"],
)
def test_a_client_that_leaves_cancels_its_turn(
    supervisor_client: SupervisorClient, lease: Make, body: dict[str, Any]
):
    """The place is free again and the command line is gone."""
    descriptor = lease(standby=0)

    def load() -> dict[str, int]:
        return supervisor_client.endpoint(descriptor).load

    connection = raw_request(descriptor, body)
    until(lambda: load()["in_flight"] == 1 and len(supervisor_client.endpoint(descriptor).processes) == 3)
    connection.close()
    until(lambda: load()["in_flight"] == 0)
    until(lambda: len(supervisor_client.endpoint(descriptor).processes) == 2)


def test_more_callers_than_places(http: httpx.Client, lease: Make):
    """All are served in turn while the queue holds them; answers are not mixed up."""
    descriptor = lease(concurrency=2)
    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(lambda number: ask(http, descriptor, f"number {number}"), range(10)))
    assert [answer.json()["choices"][0]["message"]["content"] for answer in answers] == [
        f"number {number}" for number in range(10)
    ]


def test_beyond_the_queue_is_429(http: httpx.Client, supervisor_client: SupervisorClient, lease: Make):
    """With Retry-After, and without the flag against retrying."""
    descriptor = lease(concurrency=1)
    waiting = [raw_request(descriptor, say("[[silence]] x")) for _ in range(17)]
    try:
        until(lambda: supervisor_client.endpoint(descriptor).load["queued"] == 16)
        refused = ask(http, descriptor, "x")
        assert (refused.status_code, code_of(refused)) == (429, "at_capacity")
        assert 2000 <= int(refused.headers["retry-after-ms"]) <= 4000
        assert int(refused.headers["retry-after"]) >= 2
        assert "x-should-retry" not in refused.headers
    finally:
        for connection in waiting:
            connection.close()
    until(lambda: supervisor_client.endpoint(descriptor).load["in_flight"] == 0)
    assert ask(http, descriptor, "x").status_code == 200


def test_a_caller_that_leaves_the_queue_frees_its_place_in_it(
    http: httpx.Client, supervisor_client: SupervisorClient, lease: Make
):
    """The others keep theirs, in the order in which they came; nobody's turn is begun for who has left."""
    descriptor = lease(concurrency=1)

    def load() -> dict[str, int]:
        return supervisor_client.endpoint(descriptor).load

    running = raw_request(descriptor, say("[[silence]] x"))
    until(lambda: load()["in_flight"] == 1)
    waiting = []
    for number in range(3):
        waiting.append(raw_request(descriptor, say(f"number {number}")))
        until(lambda number=number: load()["queued"] == number + 1)
    waiting[1].close()
    until(lambda: load()["queued"] == 2)
    assert load()["in_flight"] == 1
    running.close()
    for number in (0, 2):
        with waiting[number] as connection:
            received = b""
            while f"number {number}".encode() not in received:
                received += (piece := connection.recv(65536))
                assert piece, received
    until(lambda: load()["in_flight"] == 0)
    assert (load()["queued"], load()["requests"], load()["turns"]) == (0, 3, 3)


def test_a_budget_is_kept(http: httpx.Client, lease: Make):
    """The third request of two is refused, in words and in fields; health shows both sides all the time."""
    descriptor = lease(budget={"requests": 2})
    assert [ask(http, descriptor, "x").status_code for _ in range(2)] == [200, 200]
    refused = ask(http, descriptor, "x")
    assert (refused.status_code, code_of(refused)) == (429, "insufficient_quota")
    assert refused.headers["x-should-retry"] == "false"
    body = refused.json()
    assert body["error"]["type"] == "insufficient_quota"
    assert "2 of 2 requests spent" in body["error"]["message"]
    assert (body["budget"], body["spent"]["requests"], body["spent"]["total_tokens"]) == (
        {"requests": 2},
        2,
        4,
    )
    health = http.get(url(descriptor, "/health"), headers=descriptor.headers).json()
    assert (health["budget"], health["spent"]) == (body["budget"], body["spent"])
    assert (health["status"], health["reasons"][0]["code"]) == ("unavailable", "budget_exhausted")


def test_callers_at_once_do_not_race_past_a_budget(http: httpx.Client, lease: Make):
    """Whoever gets the places: as many are served as were paid for, and those in the queue are told at once."""
    descriptor = lease(concurrency=4, budget={"requests": 5})
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: ask(http, descriptor, "[[pause:0.3]] x"), range(12)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [429] * 7
    assert {code_of(answer) for answer in answers if answer.status_code == 429} == {"insufficient_quota"}


SLOW = "[[pause:0.05]] " + "word " * 100


def test_a_stream_that_goes_over_its_budget_ends_with_an_error_object(
    http: httpx.Client, supervisor_client: SupervisorClient, lease: Make
):
    """After what it said, with what was spent, without the end mark; and its command line is gone."""
    descriptor = lease(budget={"total_tokens": 140})
    answer = ask(http, descriptor, SLOW, stream=True)
    assert answer.status_code == 200
    *chunks, last = chunks_of(answer)
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert SLOW.endswith(text) or text in SLOW
    assert text
    assert last["error"]["code"] == "insufficient_quota"
    assert (last["budget"], last["spent"]["total_tokens"] > 140) == ({"total_tokens": 140}, True)
    assert 0 < last["spent"]["estimated_tokens"] < 100
    assert "[DONE]" not in answer.text
    until(lambda: len(supervisor_client.endpoint(descriptor).processes) == 2)


def test_a_budget_is_kept_for_a_client_that_does_not_read(supervisor_client: SupervisorClient, lease: Make):
    """Its command line goes, though nobody takes what it has said."""
    descriptor = lease(budget={"cli_s": 2.0}, standby=0)
    with raw_request(descriptor, say("[[burst:100000]] [[ignore-term]] x", stream=True)):
        until(lambda: len(supervisor_client.endpoint(descriptor).processes) == 3)
        until(lambda: len(supervisor_client.endpoint(descriptor).processes) == 2)
        load = supervisor_client.endpoint(descriptor).load
        assert (load["in_flight"], load["cli_ms"] >= 2000) == (1, True)
    until(lambda: supervisor_client.endpoint(descriptor).load["in_flight"] == 0)


@pytest.mark.parametrize("streaming", [False, True])
def test_the_official_client_recognises_the_end_of_a_budget(lease: Make, streaming: bool):
    """As the end of a quota, which it does not try again."""
    descriptor = lease(budget={"total_tokens": 20})
    token = descriptor.headers["authorization"].removeprefix("Bearer ")
    with openai.OpenAI(base_url=descriptor.base_url, api_key=token) as client:
        for _ in range(2):
            with pytest.raises(openai.RateLimitError) as refused:
                client.chat.completions.create(
                    model="any", messages=[{"role": "user", "content": SLOW}], stream=streaming
                )
            assert (refused.value.code, refused.value.type) == ("insufficient_quota", "insufficient_quota")
            assert refused.value.response.json()["spent"]["requests"] == 0


def test_the_queue_is_as_long_as_the_lease_asks(
    http: httpx.Client, supervisor_client: SupervisorClient, lease: Make
):
    """None waits where none may."""
    descriptor = lease(concurrency=1, queue_limit=0)
    with raw_request(descriptor, say("[[silence]] x")):
        until(lambda: supervisor_client.endpoint(descriptor).load["in_flight"] == 1)
        refused = ask(http, descriptor, "x")
        assert (refused.status_code, code_of(refused)) == (429, "at_capacity")
        assert "1 turns run and 0 wait already" in refused.json()["error"]["message"]


def test_a_release_ends_a_running_stream_with_an_error_object(
    http: httpx.Client, supervisor_client: SupervisorClient, lease: Make
):
    """The token is dead, the stream says why it ends, and the proof is empty of survivors."""
    descriptor = lease()
    received: list[str] = []

    def read() -> None:
        body = say("[[pause:0.1]] " + "word " * 500, stream=True)
        with http.stream("POST", url(descriptor), headers=descriptor.headers, json=body) as answer:
            received.extend(answer.iter_text())

    reader = threading.Thread(target=read)
    reader.start()
    until(lambda: len(received) > 2)
    released = supervisor_client.release_endpoint(descriptor)
    reader.join(HTTP_TIMEOUT_S)
    assert not reader.is_alive()
    assert released.proof is not None
    assert not released.proof.survivors
    assert '"code":"lease_closed"' in received[-1]
    assert "[DONE]" not in received[-1]
    with pytest.raises(httpx.ConnectError):
        ask(http, descriptor, "x")
