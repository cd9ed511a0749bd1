"""A scripted model server for tests: it speaks the Anthropic Messages API, and the user's text tells it how to behave.

Owns three things, in this order: the markers (text in, a frozen ``Script`` out), the wire of each API (a request
body in, ``Step`` values out) and the HTTP server, the only part with effects. Another API is one more function of
``Steps`` type and one more line in ``ROUTES``. It must know nothing of the product under test.

Standard library only, loopback only, Linux only. By hand: ``python tests/clis/model_server.py --port 0`` prints
``LISTENING http://127.0.0.1:PORT`` and serves until SIGTERM or SIGINT.

Markers stand in the text of the last user message that has any; system prompts, ``role: system`` messages and
``<system-reminder>`` blocks at the head of a text are never searched. Of several markers of one name the LAST one
counts, because a conversation rendered into one user text still holds those of earlier turns; an earlier marker of
another name stays in force. A value ends at the first ``]]`` (that of ``tool-input`` at the first ``}]]``). An
unknown name, or a value of the wrong shape, is plain text. Without a marker the reply is ``echo: `` and the user's
text, one word per delta; markers are not echoed.

The reply:

``[[text:WORDS]]`` this text instead of the echo, ``[[deltas:N]]`` the N deltas ``w0 ``, ``w1 `` ...,
``[[empty]]`` a text block without text, ``[[thinking:N]]`` N thoughts and a signature before the text,
``[[tool:NAME]]`` a tool call, with ``[[tool-input:{JSON}]]``; it comes without text unless a text is asked for, and
only as long as the conversation holds no tool result, ``[[stop:REASON]]`` the API's own stop reason, ``[[usage:IN,OUT]]``
token counts (else: words of the user's text, markers aside, and number of deltas, each at least 1).

The pace: ``[[first:SECONDS]]`` silence before the first delta, ``[[delay:SECONDS]]`` between deltas.

The failures: ``[[status:N]]`` this HTTP error instead of a reply, ``[[retry-after:SECONDS]]`` its header. After the
deltas and before the end of the block, in a streamed reply only (a plain one is sent whole): ``[[error-event]]`` an
overloaded error, ``[[eof]]`` the end of the body, ``[[reset]]`` a TCP reset. ``[[hang]]`` silence until the client
leaves, after the start of the message and the text, if one is asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

Json: TypeAlias = dict[str, Any]
Fault: TypeAlias = Literal["error-event", "eof", "reset", "hang"]

FAULTS: tuple[Fault, ...] = ("reset", "eof", "error-event", "hang")
MAX_DELTAS = 100_000
MAX_PAUSE_S = 60.0
HANG_LIMIT_S = 120.0
BEFORE_RESET_S = 0.05  # lets the client read what a reset would throw away
SOCKET_TIMEOUT_S = 120.0
CLOSE_TIMEOUT_S = 5.0
WAIT_TIMEOUT_S = 10.0
ACCEPT_POLL_S = 0.02

_COUNT, _SECONDS = r"\d{1,9}", r"\d{1,6}(?:\.\d{1,6})?"
MARKER_SHAPES: Mapping[str, str] = {
    "text": r":.*?",
    "deltas": f":{_COUNT}",
    "empty": "",
    "thinking": f":{_COUNT}",
    "tool": r":[\w.-]+",
    "tool-input": r":\{.*?\}",
    "stop": r":[A-Za-z_]+",
    "usage": f":{_COUNT},{_COUNT}",
    "first": f":{_SECONDS}",
    "delay": f":{_SECONDS}",
    "status": r":[45]\d\d",
    "retry-after": f":{_COUNT}",
    **dict.fromkeys(FAULTS, ""),
}
MARKER = re.compile(
    r"\[\[(?:" + "|".join(name + shape for name, shape in MARKER_SHAPES.items()) + r")\]\]", re.DOTALL
)
REMINDERS = re.compile(r"\A(?:\s*<system-reminder>.*?</system-reminder>\s*)+", re.DOTALL)
WORD = re.compile(r"\S+\s*|\s+")

ANTHROPIC_ERROR_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Token counts of one reply."""

    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """The tool a scripted model asks for."""

    name: str
    arguments: Json


@dataclass(frozen=True, kw_only=True)
class Script:
    """How to answer one request, in no API's terms. ``words`` None means no text at all, () an empty text."""

    words: tuple[str, ...] | None
    thoughts: tuple[str, ...] = ()
    tool: ToolCall | None = None
    stop: str | None = None
    usage: Usage
    first_s: float = 0.0
    delay_s: float = 0.0
    status: int | None = None
    retry_after_s: int | None = None
    fault: Fault | None = None


def read_script(text: str, *, tool_answered: bool = False) -> Script:
    """The script that a user's text asks for; a conversation whose tool call was answered gets no other one."""
    asked, plain = _scan(text)
    fault = next((name for name in FAULTS if name in asked), None)
    tool = None if tool_answered else _tool(asked)
    words = _words(asked)
    if words is None and tool is None and fault != "hang":
        words = _split(f"echo: {plain}")
    thoughts = tuple(f"thought{number} " for number in range(_count(asked, "thinking")))
    return Script(
        words=words,
        thoughts=thoughts,
        tool=tool,
        stop=asked.get("stop"),
        usage=_usage(asked, plain, deltas=len(thoughts) + len(words or ())),
        first_s=_seconds(asked, "first"),
        delay_s=_seconds(asked, "delay"),
        status=int(asked["status"]) if "status" in asked else None,
        retry_after_s=int(asked["retry-after"]) if "retry-after" in asked else None,
        fault=fault,
    )


def _scan(text: str) -> tuple[dict[str, str], str]:
    """The last value of each marker, and the text without markers."""
    asked: dict[str, str] = {}

    def take(match: re.Match[str]) -> str:
        name, _, value = match[0][2:-2].partition(":")
        if name == "tool-input" and not _is_json(value):
            return match[0]
        asked[name] = value
        return ""

    plain = MARKER.sub(take, text).strip()
    return asked, plain


def _is_json(text: str) -> bool:
    with suppress(ValueError):
        json.loads(text)
        return True
    return False


def _words(asked: Mapping[str, str]) -> tuple[str, ...] | None:
    if "empty" in asked:
        return ()
    if "deltas" in asked:
        return tuple(f"w{number} " for number in range(_count(asked, "deltas")))
    return _split(asked["text"]) if "text" in asked else None


def _split(text: str) -> tuple[str, ...]:
    return tuple(WORD.findall(text))


def _tool(asked: Mapping[str, str]) -> ToolCall | None:
    if "tool" not in asked:
        return None
    return ToolCall(name=asked["tool"], arguments=json.loads(asked.get("tool-input", "{}")))


def _usage(asked: Mapping[str, str], plain: str, *, deltas: int) -> Usage:
    if "usage" in asked:
        input_tokens, _, output_tokens = asked["usage"].partition(",")
        return Usage(input_tokens=int(input_tokens), output_tokens=int(output_tokens))
    return Usage(input_tokens=max(1, len(plain.split())), output_tokens=max(1, deltas))


def _count(asked: Mapping[str, str], name: str) -> int:
    return min(int(asked.get(name, 0)), MAX_DELTAS)


def _seconds(asked: Mapping[str, str], name: str) -> float:
    return min(float(asked.get(name, 0.0)), MAX_PAUSE_S)


@dataclass(frozen=True, kw_only=True)
class SendJson:
    """A whole answer."""

    status: int
    body: Json
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OpenStream:
    """Status 200 and the headers of a stream of events."""

    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SendEvent:
    """One server-sent event; some APIs give theirs no name."""

    name: str | None
    payload: Json


@dataclass(frozen=True)
class Sleep:
    """Silence for a while, noticing a client that leaves."""

    seconds: float


@dataclass(frozen=True)
class Cut:
    """The connection ends here: in good order, or with a TCP reset."""

    reset: bool


Step: TypeAlias = SendJson | OpenStream | SendEvent | Sleep | Cut
Steps: TypeAlias = Callable[[Any, int], Iterator[Step]]
"""One API: the JSON body of a request and its serial number in, the answer out."""


@dataclass(frozen=True, kw_only=True)
class AnthropicBlock:
    """One content block, as a stream begins it, as its deltas fill it, and whole."""

    start: Json
    deltas: tuple[Json, ...]
    whole: Json


def anthropic_messages(body: Any, serial: int) -> Iterator[Step]:
    """``POST /v1/messages``, streamed when the body says so."""
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        yield anthropic_error(400, serial, message="messages: Field required")
        return
    script = read_script(last_user_text(messages), tool_answered=_holds_tool_result(messages))
    if script.status is not None:
        yield anthropic_error(script.status, serial, retry_after_s=script.retry_after_s)
    elif body.get("stream"):
        yield from _anthropic_stream(script, body, serial)
    else:
        yield from _anthropic_whole(script, body, serial)


def anthropic_error(
    status: int, serial: int, *, message: str | None = None, retry_after_s: int | None = None
) -> SendJson:
    """An error answer with the ``type`` that the Messages API gives this status."""
    headers = {"request-id": f"req_scripted{serial:06}"}
    if retry_after_s is not None:
        headers["retry-after"] = str(retry_after_s)
    body = _anthropic_error_body(ANTHROPIC_ERROR_TYPES.get(status, "api_error"), message)
    return SendJson(status=status, body={**body, "request_id": headers["request-id"]}, headers=headers)


def last_user_text(messages: list[Any]) -> str:
    """The text of the last user message that has any, without reminders that a client put at its head."""
    texts = (_message_text(message) for message in reversed(messages) if message.get("role") == "user")
    return next((text for text in texts if text.strip()), "")


def _message_text(message: Json) -> str:
    return "\n".join(
        REMINDERS.sub("", block["text"]) for block in _blocks(message) if block["type"] == "text"
    )


def _holds_tool_result(messages: list[Any]) -> bool:
    return any(block["type"] == "tool_result" for message in messages for block in _blocks(message))


def _blocks(message: Json) -> list[Json]:
    content = message.get("content", "")
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _anthropic_stream(script: Script, body: Json, serial: int) -> Iterator[Step]:
    yield OpenStream(headers={"request-id": f"req_scripted{serial:06}"})
    start = _anthropic_message(script, body, serial)
    start |= {"content": [], "stop_reason": None, "usage": {**start["usage"], "output_tokens": 1}}
    yield _anthropic_event("message_start", message=start)
    yield _anthropic_event("ping")
    yield Sleep(script.first_s)
    blocks = _anthropic_blocks(script, serial)
    for index, block in enumerate(blocks):
        yield _anthropic_event("content_block_start", index=index, content_block=block.start)
        for number, delta in enumerate(block.deltas):
            if index + number > 0 and delta["type"] != "signature_delta":
                yield Sleep(script.delay_s)
            yield _anthropic_event("content_block_delta", index=index, delta=delta)
        if script.fault is None or index + 1 < len(blocks):
            yield _anthropic_event("content_block_stop", index=index)
    yield from _anthropic_ending(script)


def _anthropic_ending(script: Script) -> Iterator[Step]:
    match script.fault:
        case "error-event":
            yield SendEvent("error", _anthropic_error_body("overloaded_error"))
        case "reset":
            yield Sleep(BEFORE_RESET_S)
            yield Cut(reset=True)
        case "eof":
            yield Cut(reset=False)
        case "hang":
            yield Sleep(HANG_LIMIT_S)
            yield Cut(reset=False)
        case None:
            usage = {"output_tokens": script.usage.output_tokens}
            delta = {"stop_reason": _anthropic_stop_reason(script), "stop_sequence": None}
            yield _anthropic_event("message_delta", delta=delta, usage=usage)
            yield _anthropic_event("message_stop")


def _anthropic_whole(script: Script, body: Json, serial: int) -> Iterator[Step]:
    blocks = _anthropic_blocks(script, serial)
    pauses = max(0, len(script.thoughts) + len(script.words or ()) - 1)
    yield Sleep(HANG_LIMIT_S if script.fault == "hang" else script.first_s + pauses * script.delay_s)
    message = _anthropic_message(script, body, serial) | {"content": [block.whole for block in blocks]}
    yield SendJson(status=200, body=message, headers={"request-id": f"req_scripted{serial:06}"})


def _anthropic_message(script: Script, body: Json, serial: int) -> Json:
    return {
        "id": f"msg_scripted{serial:06}",
        "type": "message",
        "role": "assistant",
        "model": body.get("model", "scripted"),
        "content": [],
        "stop_reason": _anthropic_stop_reason(script),
        "stop_sequence": None,
        "usage": {
            "input_tokens": script.usage.input_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": script.usage.output_tokens,
            "service_tier": "standard",
        },
    }


def _anthropic_stop_reason(script: Script) -> str:
    return script.stop or ("tool_use" if script.tool else "end_turn")


def _anthropic_blocks(script: Script, serial: int) -> list[AnthropicBlock]:
    blocks = []
    if script.thoughts:
        blocks.append(_thinking_block(script.thoughts))
    if script.words is not None:
        blocks.append(_text_block(script.words))
    if script.tool is not None:
        blocks.append(_tool_block(script.tool, f"toolu_scripted{serial:06}"))
    return blocks


def _thinking_block(thoughts: tuple[str, ...]) -> AnthropicBlock:
    signature = "c2NyaXB0ZWQ="
    deltas = [{"type": "thinking_delta", "thinking": thought} for thought in thoughts]
    return AnthropicBlock(
        start={"type": "thinking", "thinking": "", "signature": ""},
        deltas=(*deltas, {"type": "signature_delta", "signature": signature}),
        whole={"type": "thinking", "thinking": "".join(thoughts), "signature": signature},
    )


def _text_block(words: tuple[str, ...]) -> AnthropicBlock:
    return AnthropicBlock(
        start={"type": "text", "text": ""},
        deltas=tuple({"type": "text_delta", "text": word} for word in words),
        whole={"type": "text", "text": "".join(words)},
    )


def _tool_block(tool: ToolCall, call_id: str) -> AnthropicBlock:
    head = {"type": "tool_use", "id": call_id, "name": tool.name}
    return AnthropicBlock(
        start={**head, "input": {}},
        deltas=({"type": "input_json_delta", "partial_json": json.dumps(tool.arguments)},),
        whole={**head, "input": tool.arguments},
    )


def _anthropic_event(kind: str, **fields: Any) -> SendEvent:
    return SendEvent(kind, {"type": kind, **fields})


def _anthropic_error_body(kind: str, message: str | None = None) -> Json:
    return {"type": "error", "error": {"type": kind, "message": message or f"scripted {kind}"}}


def hello(_body: Any, _serial: int) -> Iterator[Step]:
    """What command lines ask for at start-up, to see whether the server is there."""
    yield SendJson(status=200, body={})


def no_such_page(_body: Any, serial: int) -> Iterator[Step]:
    """Everything else."""
    yield anthropic_error(404, serial)


ROUTES: Mapping[tuple[str, str], Steps] = {
    ("HEAD", "/"): hello,
    ("HEAD", "/api/hello"): hello,
    ("POST", "/v1/messages"): anthropic_messages,
}


@dataclass(frozen=True, kw_only=True)
class RecordedRequest:
    """One request as it arrived, and how it has gone so far. Header names are in lower case.

    ``body`` is the parsed JSON, None when there was none. ``finished``: the answer was sent to its scripted end,
    be that a cut. ``closed_early``: the client hung up before. Neither: it is still being answered.
    """

    serial: int
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    finished: bool = False
    closed_early: bool = False


def any_request(_request: RecordedRequest) -> bool:
    """The predicate that every request satisfies."""
    return True


class RequestLog:
    """The requests of a server, in order of arrival, shared by its threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._requests: dict[int, RecordedRequest] = {}
        self._last_serial = 0

    def snapshot(self) -> list[RecordedRequest]:
        """The requests so far."""
        with self._changed:
            return list(self._requests.values())

    def clear(self) -> None:
        """Forget all requests, those still being answered too."""
        with self._changed:
            self._requests.clear()

    def record(self, method: str, path: str, headers: Mapping[str, str], body: Any) -> int:
        """Add a request; returns its serial number."""
        with self._changed:
            self._last_serial += 1
            self._requests[self._last_serial] = RecordedRequest(
                serial=self._last_serial, method=method, path=path, headers=headers, body=body
            )
            self._changed.notify_all()
            return self._last_serial

    def finish(self, serial: int) -> None:
        """The answer is out."""
        self._amend(serial, finished=True)

    def hang_up(self, serial: int) -> None:
        """The client left before the answer was out."""
        self._amend(serial, closed_early=True)

    def wait_for(self, predicate: Callable[[RecordedRequest], bool], timeout_s: float) -> RecordedRequest:
        """The first request that satisfies the predicate. Raises TimeoutError, which lists what came instead."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                for request in self._requests.values():
                    if predicate(request):
                        return request
                if not self._changed.wait(deadline - time.monotonic()):
                    raise TimeoutError(self._disappointment(timeout_s))

    def _amend(self, serial: int, *, finished: bool = False, closed_early: bool = False) -> None:
        with self._changed:
            if serial in self._requests:
                request = self._requests[serial]
                self._requests[serial] = replace(request, finished=finished, closed_early=closed_early)
                self._changed.notify_all()

    def _disappointment(self, timeout_s: float) -> str:
        seen = [
            f"{request.method} {request.path} finished={request.finished} closed_early={request.closed_early}"
            for request in self._requests.values()
        ]
        return f"no such request within {timeout_s} s; there were {seen}"


class _ClientLeft(Exception):
    """The client closed its end."""


class _ServerCloses(Exception):
    """The test is over."""


class _Server(ThreadingHTTPServer):
    """Listens, keeps the open connections, and can end them all."""

    request_queue_size = 128

    def __init__(self, port: int, log: RequestLog) -> None:
        self.log = log
        self.closing_fd = os.eventfd(0)
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Connection)

    def server_bind(self) -> None:
        """Bind without HTTPServer's look-up of the host's name, which may ask a DNS server."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a new connection in a thread of its own, known before it starts."""
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        with self._lock:
            self._connections[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection that has been served."""
        with self._lock:
            del self._connections[request]
        super().shutdown_request(request)

    def end_connections(self) -> None:
        """Wake and end every connection. Raises TimeoutError when one survives."""
        os.eventfd_write(self.closing_fd, 1)
        with self._lock:
            threads = dict(self._connections)
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        for connection, thread in threads.items():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                raise TimeoutError(f"cannot end a connection within {CLOSE_TIMEOUT_S} s")
        os.close(self.closing_fd)


class _Connection(BaseHTTPRequestHandler):
    """Reads requests off one connection and plays the steps of their answers."""

    protocol_version = "HTTP/1.1"
    timeout = SOCKET_TIMEOUT_S
    disable_nagle_algorithm = True
    server: _Server
    _streaming = False

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        """Print nothing."""

    def do_POST(self) -> None:
        body = self._read_body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        serial = self.server.log.record(self.command, self.path, headers, body)
        steps = ROUTES.get((self.command, self.path.partition("?")[0]), no_such_page)
        self._streaming = False
        try:
            for step in steps(body, serial):
                self._play(step)
            self._end_stream()
        except (_ClientLeft, ConnectionError):
            self.server.log.hang_up(serial)
            self.close_connection = True
        except (_ServerCloses, TimeoutError):
            self.close_connection = True
        else:
            self.server.log.finish(serial)

    do_HEAD = do_GET = do_PUT = do_DELETE = do_POST

    def _read_body(self) -> Any:
        length = int(self.headers.get("content-length", 0))
        with suppress(ValueError):
            return json.loads(self.rfile.read(length))
        return None

    def _play(self, step: Step) -> None:
        match step:
            case SendJson():
                self._send_json(step)
            case OpenStream():
                self._open_stream(step.headers)
            case SendEvent():
                self._wait(0.0)
                self._send_chunk(_sse(step))
            case Sleep():
                self._wait(step.seconds)
            case Cut(reset=True):
                self._reset()
            case Cut():
                self.close_connection = True

    def _send_json(self, answer: SendJson) -> None:
        body = json.dumps(answer.body).encode()
        sent_headers = {
            **answer.headers,
            "content-type": "application/json",
            "content-length": str(len(body)),
        }
        self._send_head(answer.status, sent_headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _open_stream(self, headers: Mapping[str, str]) -> None:
        self._streaming = True
        kind = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
        self._send_head(200, {**headers, **kind, "transfer-encoding": "chunked"})

    def _send_head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_chunk(self, chunk: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))

    def _end_stream(self) -> None:
        if self._streaming:
            self._send_chunk(b"")

    def _wait(self, seconds: float) -> None:
        """Let time pass. Raises _ClientLeft or _ServerCloses as soon as it is so."""
        poll = select.poll()
        poll.register(self.connection, select.POLLRDHUP)
        poll.register(self.server.closing_fd, select.POLLIN)
        happened = dict(poll.poll(seconds * 1000))
        if self.server.closing_fd in happened:
            raise _ServerCloses
        if happened:
            raise _ClientLeft

    def _reset(self) -> None:
        self._streaming = False
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())


def _sse(event: SendEvent) -> bytes:
    name = f"event: {event.name}\n" if event.name else ""
    return f"{name}data: {json.dumps(event.payload)}\n\n".encode()


class ModelServer:
    """A model server on loopback, serving from ``with`` to its end in background threads.

    Enter a network namespace (``tests.clis.netns``) before: a thread stays in the one it was started in.
    """

    def __init__(self, port: int = 0) -> None:
        self._log = RequestLog()
        self._server = _Server(port, self._log)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(ACCEPT_POLL_S,), name="model-server", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving and end every connection; idempotent. Raises TimeoutError when one survives."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(CLOSE_TIMEOUT_S)
            self._server.server_close()
            self._server.end_connections()

    @property
    def base_url(self) -> str:
        """Where it listens, without a trailing slash."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def requests(self) -> list[RecordedRequest]:
        """Every request since the start or the last ``clear``, in order of arrival."""
        return self._log.snapshot()

    def clear(self) -> None:
        """Forget the requests so far."""
        self._log.clear()

    def wait_for_request(
        self, predicate: Callable[[RecordedRequest], bool] = any_request, timeout_s: float = WAIT_TIMEOUT_S
    ) -> RecordedRequest:
        """The first request that satisfies the predicate, now or later. Raises TimeoutError."""
        return self._log.wait_for(predicate, timeout_s)

    def wait_for_hangup(
        self, predicate: Callable[[RecordedRequest], bool] = any_request, timeout_s: float = WAIT_TIMEOUT_S
    ) -> RecordedRequest:
        """The first such request whose client left before the answer was out. Raises TimeoutError."""
        return self._log.wait_for(lambda request: request.closed_early and predicate(request), timeout_s)


def main() -> None:
    """Serve by hand until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="A scripted model server; see the markers in this file.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    port = parser.parse_args().port
    stop_signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)
    with ModelServer(port) as server:
        print(f"LISTENING {server.base_url}", flush=True)
        signal.sigwait(stop_signals)


if __name__ == "__main__":
    main()
