"""Bounds for the connections of both servers, whoever is behind them: gunicorn's ASGI worker has none of its own.

A connection that never asks for anything, sends half a request or takes no answer holds a descriptor, and needs no
token for it. Here each of these has its deadline, and connections are counted: one too many pushes out the one that
has waited for a request's head the longest, which a client that means it never does. What cannot be read as HTTP is
answered with the same envelope as every other error.

A client that closes only its sending side (half-close) counts as gone: its request is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi

from shared.errors import EndpointError, typed
from shared.http import new_request_id
from shared.launch import WireLimits

ABSOLUTE = b"http://"
MAX_CAUSE_CHARS = 200
RETRY_AFTER_S = 1.0
UNREADABLE = {
    400: "invalid_request",
    408: "request_timeout",
    414: "uri_too_long",
    431: "headers_too_large",
    501: "unsupported_transfer_coding",
    503: "too_many_connections",
}
"""The statuses of requests that never reach the application, by our codes."""
_log = logging.getLogger("asm_endpoint.connections")
_encode = msgspec.json.Encoder().encode


class BoundedProtocol(ASGIProtocol):  # type: ignore[misc]
    """One connection. Its server says by ``wire`` how long it may keep us waiting."""

    def __init__(self, worker: BoundedWorker) -> None:
        super().__init__(worker)
        self._limits: WireLimits = worker.app.wire
        self._loop: asyncio.AbstractEventLoop = worker.loop
        self._waiting = worker.waiting
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_bytes = 0
        self._unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait for a request; make room where there is none."""
        super().connection_made(transport)
        if self.worker.nr_conns > self._limits.connections and not self._push_one_out():
            self._refuse(503, "there are too many connections")
            return
        self._waiting[self] = None
        self._head_timer = self._loop.call_later(self._limits.head_s, self._on_late_head)

    def data_received(self, data: bytes) -> None:
        """Count what has come of a head, and from its first byte its time."""
        if self in self._waiting and self._head_timer is None:
            self._head_timer = self._loop.call_later(self._limits.head_s, self._on_late_head)
        super().data_received(data)
        if self in self._waiting:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes:
                self._refuse(431, f"its head exceeds the {self._limits.head_bytes}-byte limit")

    def pause_writing(self) -> None:
        """The client does not take what it asked for: it has some time for it."""
        super().pause_writing()
        self._watch_unread()

    def resume_writing(self) -> None:
        """It has taken most."""
        super().resume_writing()
        self._forget_unread()
        if self._closed:
            self._watch_unread()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._end_head()
        self._forget_unread()
        super().connection_lost(exc)

    def _on_headers_complete(self) -> Any:
        self._end_head()
        go_on = super()._on_headers_complete()
        _make_origin_form(self._current_request)
        return go_on

    def _is_websocket_upgrade(self, request: Any) -> bool:
        """An upgrade that is not offered is ignored, as HTTP has it."""
        return False

    def _arm_keepalive_timer(self) -> None:
        super()._arm_keepalive_timer()
        self._waiting[self] = None

    def _close_transport(self) -> None:
        """Closing waits for what is still to be sent, so this has its bound as well."""
        self._waiting.pop(self, None)
        super()._close_transport()
        if self.transport is not None and self.transport.get_write_buffer_size():
            self._watch_unread()

    def _send_error_response(self, status: int, message: str, extra_headers: Any = ()) -> None:
        error = _unreadable(status, message)
        request_id = new_request_id()
        body = _encode(error.envelope())
        head = [
            f"HTTP/1.1 {status} {self._get_reason_phrase(status)}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            f"x-request-id: {request_id}",
            "connection: close",
            *(f"{name}: {value}" for name, value in (*error.headers().items(), *extra_headers)),
        ]
        self._safe_write("\r\n".join([*head, "", ""]).encode("latin-1") + body)
        _log.info("refused", extra={"status": status, "request_id": request_id})

    def _on_late_head(self) -> None:
        if self._head_bytes:
            self._refuse(408, f"its head did not come within {self._limits.head_s:g} s")
        else:
            self._close()

    def _refuse(self, status: int, cause: str) -> None:
        if not self._closed:
            self._send_error_response(status, cause)
        self._close()

    def _close(self) -> None:
        self._close_transport()
        self._request_ready.set()  # the connection's task waits for it, and sees the end

    def _end_head(self) -> None:
        self._waiting.pop(self, None)
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _push_one_out(self) -> bool:
        longest = next(iter(self._waiting), None)
        if longest is not None:
            del self._waiting[longest]
            longest.transport.abort()
        return longest is not None

    def _watch_unread(self) -> None:
        if self._unread_timer is None:
            self._unread_bytes = self.transport.get_write_buffer_size()
            self._unread_timer = self._loop.call_later(self._limits.unread_s, self._look_at_unread)

    def _look_at_unread(self) -> None:
        self._unread_timer = None
        if self.transport.get_write_buffer_size() < self._unread_bytes:
            self._watch_unread()
        else:
            self.transport.abort()

    def _forget_unread(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None


class BoundedWorker(gasgi.ASGIWorker):  # type: ignore[misc]
    """gunicorn's ASGI worker with such connections. Its application has ``wire``, the :class:`WireLimits`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.waiting: dict[BoundedProtocol, None] = {}
        """Connections without a whole head of a request, the longest waiting first."""

    def init_process(self) -> None:
        """gunicorn has no setting for the class of its connections: its worker takes it from its own module."""
        gasgi.ASGIProtocol = BoundedProtocol
        super().init_process()


def _make_origin_form(request: Any) -> None:
    """``GET http://host/path`` is ``GET /path`` with that Host, whatever the Host header says (RFC 9112, 3.2.2)."""
    if request.raw_path[: len(ABSOLUTE)].lower() == ABSOLUTE:
        host, _, path = request.raw_path[len(ABSOLUTE) :].partition(b"/")
        request.raw_path = b"/" + path
        request.path = "/" + request.path[len(ABSOLUTE) :].partition("/")[2]
        others = [header for header in request.headers_bytes if header[0] != b"host"]
        request.headers_bytes = [(b"host", host), *others]


def _unreadable(status: int, cause: str) -> EndpointError:
    code = UNREADABLE.get(status, "internal_error")
    if code == "internal_error":
        return typed(code, "cannot answer: an internal error was logged")
    retry_after_s = RETRY_AFTER_S if code == "too_many_connections" else None
    return typed(code, f"cannot read this request: {cause[:MAX_CAUSE_CHARS]}", retry_after_s=retry_after_s)
