"""The scripted model server keeps its promises: each marker, over HTTP where the wire matters."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clis.models import markers
from tests.clis.models.anthropic import anthropic_messages
from tests.clis.models.markers import read_script
from tests.clis.models.server import ModelServer
from tests.clis.models.steps import SendEvent, Sleep

PATH = "/v1/messages?beta=true"
TIMEOUT_S = 10.0
END = ["message_delta", "message_stop"]


@pytest.fixture(scope="module")
def shared_server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def server(shared_server: ModelServer) -> ModelServer:
    shared_server.clear()
    return shared_server


@pytest.fixture
def client(server: ModelServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base_url, timeout=TIMEOUT_S, trust_env=False) as client:
        yield client


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def request_body(*messages: dict[str, Any], stream: bool = True) -> dict[str, Any]:
    return {"model": "scripted-1", "max_tokens": 100, "stream": stream, "messages": list(messages)}


def events_of(stream: httpx.Response, seen: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """The events of a stream; those before a broken end stay in ``seen``."""
    seen = [] if seen is None else seen
    name = ""
    for line in stream.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            seen.append(json.loads(line.removeprefix("data: ")))
            assert seen[-1]["type"] == name
    return seen


def streamed(client: httpx.Client, text: str) -> list[dict[str, Any]]:
    with client.stream("POST", PATH, json=request_body(user(text))) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return events_of(response)


def whole(client: httpx.Client, *messages: dict[str, Any]) -> dict[str, Any]:
    response = client.post(PATH, json=request_body(*messages, stream=False))
    assert response.status_code == 200
    message: dict[str, Any] = response.json()
    return message


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def deltas(events: list[dict[str, Any]], key: str = "text") -> list[str]:
    return [event["delta"][key] for event in events if key in event.get("delta", {})]


def test_without_a_marker_the_text_is_echoed_in_small_deltas(client: httpx.Client) -> None:
    """The reply is "echo: " and the text, in the event order of the Messages API."""
    events = streamed(client, "hello  big\nworld")

    block = ["content_block_start", *["content_block_delta"] * 4, "content_block_stop"]
    assert kinds(events) == ["message_start", "ping", *block, *END]
    assert deltas(events) == ["echo: ", "hello  ", "big\n", "world"]
    assert events[0]["message"]["model"] == "scripted-1"
    assert events[0]["message"]["usage"]["input_tokens"] == 3
    assert events[-2] == {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 4},
    }


def test_a_request_that_does_not_stream_gets_one_message(client: httpx.Client) -> None:
    """The same script, whole."""
    message = whole(client, user("hi"))

    assert message["content"] == [{"type": "text", "text": "echo: hi"}]
    assert message["type"] == "message"
    assert message["role"] == "assistant"
    assert message["stop_reason"] == "end_turn"
    assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (1, 2)


def test_deltas_are_numbered(client: httpx.Client) -> None:
    """[[deltas:N]] sends N text deltas, each telling its place."""
    events = streamed(client, "go [[deltas:50]]")

    assert deltas(events) == [f"w{number} " for number in range(50)]
    assert events[-2]["usage"] == {"output_tokens": 50}


def test_a_literal_reply(client: httpx.Client) -> None:
    """[[text:...]] is the reply, newlines and brackets included."""
    assert "".join(deltas(streamed(client, "[[text:a [b]\nc]] ignored"))) == "a [b]\nc"


def test_an_empty_reply(client: httpx.Client) -> None:
    """[[empty]] sends a text block without deltas."""
    block = ["content_block_start", "content_block_stop"]
    assert kinds(streamed(client, "[[empty]]")) == ["message_start", "ping", *block, *END]


def test_thoughts_come_first_and_are_signed(client: httpx.Client) -> None:
    """[[thinking:N]] is a block of N thoughts and a signature before the text block."""
    events = streamed(client, "hi [[thinking:3]]")

    starts = [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"]
    assert starts == ["thinking", "text"]
    assert deltas(events, "thinking") == ["thought0 ", "thought1 ", "thought2 "]
    assert len(deltas(events, "signature")) == 1
    assert "".join(deltas(events)) == "echo: hi"


def test_a_tool_call(client: httpx.Client) -> None:
    """[[tool:NAME]] asks for the tool, with the JSON of [[tool-input:...]], and says so in the stop reason."""
    events = streamed(client, '[[tool:Bash]] [[tool-input:{"command":"touch /tmp/x","more":[[1]]}]]')

    start = next(event for event in events if event["type"] == "content_block_start")
    assert start["content_block"]["type"] == "tool_use"
    assert (start["content_block"]["name"], start["content_block"]["input"]) == ("Bash", {})
    assert json.loads("".join(deltas(events, "partial_json"))) == {"command": "touch /tmp/x", "more": [[1]]}
    assert deltas(events, "stop_reason") == ["tool_use"]


def test_an_answered_tool_call_is_not_repeated(client: httpx.Client) -> None:
    """Once the conversation holds a tool result, the same script ends in text."""
    call = {"type": "tool_use", "id": "t1", "name": "Bash", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "done"}
    message = whole(
        client,
        user("run it [[tool:Bash]]"),
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    )

    assert message["content"] == [{"type": "text", "text": "echo: run it"}]
    assert message["stop_reason"] == "end_turn"


@pytest.mark.parametrize("reason", ["max_tokens", "refusal"])
def test_a_stop_reason(client: httpx.Client, reason: str) -> None:
    """[[stop:REASON]] ends the reply for that reason."""
    assert deltas(streamed(client, f"hi [[stop:{reason}]]"), "stop_reason") == [reason]


def test_token_counts(client: httpx.Client) -> None:
    """[[usage:IN,OUT]] sets both counts."""
    events = streamed(client, "hi [[usage:1234,56]]")

    assert events[0]["message"]["usage"]["input_tokens"] == 1234
    assert events[-2]["usage"]["output_tokens"] == 56


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (529, "overloaded_error"),
        (418, "api_error"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_an_error_status(client: httpx.Client, status: int, kind: str, stream: bool) -> None:
    """[[status:N]] answers with the API's error body of that status, streamed reply or not."""
    response = client.post(PATH, json=request_body(user(f"[[status:{status}]]"), stream=stream))

    assert response.status_code == status
    assert response.json()["type"] == "error"
    assert response.json()["error"]["type"] == kind
    assert "retry-after" not in response.headers


def test_retry_after(client: httpx.Client) -> None:
    """[[retry-after:SECONDS]] goes into the header of the error."""
    response = client.post(PATH, json=request_body(user("[[status:429]][[retry-after:7]]")))
    assert response.headers["retry-after"] == "7"


def test_an_error_event(client: httpx.Client) -> None:
    """[[error-event]] ends the stream with an error event after the deltas."""
    events = streamed(client, "[[deltas:3]] [[error-event]]")

    assert deltas(events) == ["w0 ", "w1 ", "w2 "]
    assert kinds(events)[-2:] == ["content_block_delta", "error"]
    assert events[-1]["error"]["type"] == "overloaded_error"


def test_a_body_that_ends_early(client: httpx.Client) -> None:
    """[[eof]] ends the stream in good order, but before message_stop."""
    assert kinds(streamed(client, "[[deltas:2]][[eof]]"))[-2:] == ["content_block_delta"] * 2


def test_a_reset(client: httpx.Client, server: ModelServer) -> None:
    """[[reset]] breaks the connection after the deltas have arrived."""
    seen: list[dict[str, Any]] = []
    with (
        pytest.raises(httpx.ReadError, match="reset"),
        client.stream("POST", PATH, json=request_body(user("[[deltas:2]][[reset]]"))) as response,
    ):
        events_of(response, seen)

    assert deltas(seen) == ["w0 ", "w1 "]
    assert not server.wait_for_request(lambda request: request.finished).closed_early


@pytest.mark.parametrize("fault", ["error-event", "eof", "reset"])
def test_stream_faults_spare_whole_replies(client: httpx.Client, fault: str) -> None:
    """A client that asks again without a stream gets the full text."""
    assert whole(client, user(f"hi [[{fault}]]"))["content"][0]["text"] == "echo: hi"


def test_a_client_that_leaves_a_silent_stream_is_noticed(client: httpx.Client, server: ModelServer) -> None:
    """[[hang]] sends the start of the message, then nothing, until the client hangs up."""
    with client.stream("POST", PATH, json=request_body(user("[[hang]]"))) as response:
        lines = response.iter_lines()
        assert [next(lines) for _ in range(5)][0::3] == ["event: message_start", "event: ping"]
        (request,) = server.requests
        assert (request.finished, request.closed_early) == (False, False)

    assert server.wait_for_hangup().serial == request.serial
    assert not server.requests[0].finished


@pytest.mark.parametrize("markers", ["[[first:60]]", "[[deltas:2]][[delay:60]]", "[[deltas:2]][[hang]]"])
def test_a_client_that_leaves_during_any_silence_is_noticed(
    client: httpx.Client, server: ModelServer, markers: str
) -> None:
    """However the silence came about."""
    with client.stream("POST", PATH, json=request_body(user(markers))) as response:
        next(response.iter_lines())

    assert server.wait_for_hangup().closed_early


def test_a_client_that_leaves_before_a_whole_reply_is_noticed(
    client: httpx.Client, server: ModelServer
) -> None:
    """A silence before the headers counts too."""
    with pytest.raises(httpx.ReadTimeout):
        client.post(PATH, json=request_body(user("[[hang]]"), stream=False), timeout=0.1)

    assert server.wait_for_hangup().closed_early


def test_the_pace_is_part_of_the_script() -> None:
    """[[first:S]] is silence before the first delta, [[delay:S]] between deltas only."""
    body = request_body(user("[[first:1.5]] [[delay:0.2]] [[deltas:3]]"))
    steps = [step for step in anthropic_messages(body, 1) if isinstance(step, SendEvent | Sleep)]

    pace = [step.name if isinstance(step, SendEvent) else step.seconds for step in steps]
    delta = "content_block_delta"
    assert pace == [
        *["message_start", "ping", 1.5, "content_block_start"],
        *[delta, 0.2, delta, 0.2, delta, "content_block_stop", *END],
    ]


def test_no_wait_is_longer_than_its_bound() -> None:
    """A marker cannot ask for more than MAX_PAUSE_S, nor for more than MAX_DELTAS."""
    script = read_script("[[first:9999]][[delay:9999]][[deltas:999999999]]")

    assert (script.first_s, script.delay_s) == (markers.MAX_PAUSE_S, markers.MAX_PAUSE_S)
    assert len(script.words or ()) == markers.MAX_DELTAS


def test_the_last_marker_of_a_name_counts() -> None:
    """In a conversation rendered into one text, the newest turn decides."""
    text = "user: [[deltas:9]] [[stop:refusal]]\nassistant: w0 w1\nuser: [[deltas:2]]"
    script = read_script(text)

    assert script.words == ("w0 ", "w1 ")
    assert script.stop == "refusal"


@pytest.mark.parametrize(
    "text", ["[[nope]]", "[[deltas:many]]", "[[status:200]]", "[[tool-input:{x}]]", "[[eof:1]]"]
)
def test_what_is_no_marker_is_text(text: str) -> None:
    """An unknown name and a value of the wrong shape are echoed like any words."""
    assert read_script(text).words == ("echo: ", text)


def test_only_the_last_user_text_is_searched(client: httpx.Client) -> None:
    """System prompts, system messages, reminders and earlier turns do not steer the reply."""
    reminder = "<system-reminder>\n[[status:500]]\n</system-reminder>\n"
    body = request_body(
        user("[[status:400]]"),
        {"role": "assistant", "content": "[[status:401]]"},
        {"role": "user", "content": [{"type": "text", "text": reminder}, {"type": "text", "text": "hi"}]},
        {"role": "system", "content": "[[status:403]]"},
        stream=False,
    )
    body["system"] = [{"type": "text", "text": "[[status:404]]"}]

    assert client.post(PATH, json=body).json()["content"][0]["text"] == "echo: hi"
    body["messages"] = [user(reminder + "hi")]
    assert client.post(PATH, json=body).json()["content"][0]["text"] == "echo: hi"


def test_requests_are_recorded(client: httpx.Client, server: ModelServer) -> None:
    """Method, path with query, headers in lower case and the parsed body; ``clear`` forgets them."""
    streamed(client, "hi")
    request = server.wait_for_request(lambda request: request.finished)

    assert (request.method, request.path) == ("POST", PATH)
    assert request.headers["content-type"] == "application/json"
    assert request.body == request_body(user("hi"))
    server.clear()
    assert server.requests == []


def test_waiting_for_a_request_ends(client: httpx.Client, server: ModelServer) -> None:
    """A request that never comes is a TimeoutError which lists those that did."""
    client.head("/")
    with pytest.raises(TimeoutError, match=r"HEAD / "):
        server.wait_for_request(lambda request: request.method == "POST", timeout_s=0.01)


@pytest.mark.parametrize("path", ["/", "/api/hello"])
def test_start_up_checks_are_answered(client: httpx.Client, path: str) -> None:
    """Command lines look whether the server is there."""
    assert client.head(path).status_code == 200


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/messages"), ("POST", "/v1/nothing"), ("GET", "/")])
def test_other_pages_are_json_errors(client: httpx.Client, method: str, path: str) -> None:
    """Everything else is a 404 in the API's own shape."""
    response = client.request(method, path)
    assert response.status_code == 404
    assert response.json()["error"]["type"] == "not_found_error"


@pytest.mark.parametrize("content", [b"", b"not JSON", b"[]", b'{"messages": [1]}'])
def test_a_malformed_request_is_refused(client: httpx.Client, content: bytes) -> None:
    """A body without messages is a 400 as from the real API."""
    response = client.post(PATH, content=content)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_one_connection_serves_many_requests(client: httpx.Client) -> None:
    """Streams, whole replies and errors leave the connection usable."""
    with client.stream("POST", PATH, json=request_body(user("a"))) as response:
        socket = response.extensions["network_stream"].get_extra_info("socket")
        events_of(response)
    client.post(PATH, json=request_body(user("[[status:500]]")))
    with client.stream("POST", PATH, json=request_body(user("b"), stream=False)) as response:
        assert response.extensions["network_stream"].get_extra_info("socket") is socket


def test_closing_ends_a_silent_stream() -> None:
    """A server that closes does not wait for its clients, and what it was asked stays to be seen."""
    with ModelServer() as server, httpx.Client(base_url=server.base_url, trust_env=False) as client:
        request = client.build_request("POST", PATH, json=request_body(user("[[hang]]")), timeout=TIMEOUT_S)
        response = client.send(request, stream=True)
        server.close()
        with pytest.raises(httpx.RemoteProtocolError):
            response.read()

    assert [(seen.finished, seen.closed_early) for seen in server.requests] == [(False, False)]


@pytest.mark.process
@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
def test_by_hand_it_says_where_and_stops_when_told(stop_signal: signal.Signals) -> None:
    """The script prints its address, serves, and leaves on SIGTERM and SIGINT."""
    command = [sys.executable, "-m", "tests.clis.models", "--port", "0"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            assert process.stdout is not None
            word, url = process.stdout.readline().split()
            assert word == "LISTENING"
            assert httpx.head(url, timeout=TIMEOUT_S, trust_env=False).status_code == 200
            process.send_signal(stop_signal)
            assert process.wait(TIMEOUT_S) == 0
        finally:
            process.kill()


def test_rendering_is_pure() -> None:
    """The same body and serial number give the same steps."""
    body = request_body(user("hi [[thinking:2]][[tool:Bash]]"))
    steps = list(anthropic_messages(body, 7))

    assert steps == list(anthropic_messages(body, 7))
    assert any(isinstance(step, SendEvent) for step in steps)
