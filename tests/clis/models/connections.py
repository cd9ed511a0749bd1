"""HTTP of the scripted model server: connections in threads, answers step by step. The only part with effects."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from tests.clis.models.log import RequestLog
from tests.clis.models.routes import steps_of
from tests.clis.models.steps import Cut, OpenStream, SendEvent, SendJson, Sleep, Step

SOCKET_TIMEOUT_S = 120.0
CLOSE_TIMEOUT_S = 5.0


class _ClientLeft(Exception):
    """The client closed its end."""


class _ServerCloses(Exception):
    """The test is over."""


class ConnectionServer(ThreadingHTTPServer):
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
    server: ConnectionServer
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
        steps = steps_of(self.command, self.path)
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
