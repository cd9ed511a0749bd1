"""A streaming client that costs as little as a socket can, so that it is not what is measured."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import Any
from urllib.parse import urlsplit

from supervisor import EndpointDescriptor

READ_BYTES = 1 << 18
TIMEOUT_S = 120.0
END = b"0\r\n\r\n"


def connect(descriptor: EndpointDescriptor) -> socket.socket:
    """A connection to the endpoint."""
    url = urlsplit(descriptor.base_url)
    connection = socket.create_connection((url.hostname, url.port), timeout=TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def request_bytes(descriptor: EndpointDescriptor, body: dict[str, Any], request_id: str = "") -> bytes:
    """A completion request."""
    url = urlsplit(descriptor.base_url + "/chat/completions")
    content = json.dumps(body).encode()
    head = (
        f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: {descriptor.headers['authorization']}\r\n"
        f"X-Request-Id: {request_id}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def open_stream(descriptor: EndpointDescriptor, body: dict[str, Any], request_id: str = "") -> socket.socket:
    """Send a completion request; the answer is left to be read."""
    connection = connect(descriptor)
    connection.sendall(request_bytes(descriptor, body, request_id))
    return connection


def stream_bytes(descriptor: EndpointDescriptor, body: dict[str, Any]) -> tuple[float, bytes]:
    """Seconds from the request to the end of the answer, and its bytes."""
    started = time.perf_counter()
    parts: list[bytes] = []
    with open_stream(descriptor, body) as connection:
        while not b"".join(parts[-2:]).endswith(END):
            part = connection.recv(READ_BYTES)
            assert part, "the answer ended early"
            parts.append(part)
    return time.perf_counter() - started, b"".join(parts)


def first_delta_s(
    descriptor: EndpointDescriptor, body: dict[str, Any], kept: socket.socket | None = None
) -> float:
    """Seconds from the request to the first piece of text; the rest of the answer is read too.

    On a connection of its own, whose opening counts, or on one that is ``kept``.
    """
    request = request_bytes(descriptor, body)
    started = time.perf_counter()
    received = b""
    with contextlib.nullcontext(kept) if kept else connect(descriptor) as connection:
        connection.sendall(request)
        while b'"delta":{"content":' not in received:
            part = connection.recv(READ_BYTES)
            assert part, received
            received += part
        elapsed_s = time.perf_counter() - started
        while not received.endswith(END):
            part = connection.recv(READ_BYTES)
            assert part, "the answer ended early"
            received += part
    return elapsed_s
