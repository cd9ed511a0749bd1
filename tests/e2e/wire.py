"""HTTP as bytes on a socket: what no well-behaved client library would send."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from supervisor import EndpointDescriptor, SupervisorClient
from supervisor.statefolder import StateFolder
from tests.process.serving import ECHO, serving

WAIT_S = 20.0


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two servers: where it is, a route that reads, and one that takes a JSON body."""

    name: str
    port: int
    token: str
    get: str
    post: str

    @contextlib.contextmanager
    def connection(self) -> Iterator[socket.socket]:
        """A connection, with a bound on every wait."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S) as made:
            yield made

    def head(self, method: str, path: str, *lines: str, token: str | None = None) -> bytes:
        """A request's head, authorized unless told otherwise, with these header lines."""
        authorization = f"authorization: Bearer {self.token if token is None else token}"
        first = (f"{method} {path} HTTP/1.1", f"host: 127.0.0.1:{self.port}", authorization)
        return "\r\n".join([*first, *lines, "", ""]).encode()

    def ask(self, *pieces: bytes, has_body: bool = True) -> Answer:
        """Send it all on a connection of its own; the first answer, which after a HEAD has no body."""
        with self.connection() as made:
            for piece in pieces:
                made.sendall(piece)
            return read_answer(made, has_body=has_body)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer; ``rest`` is what came after it."""

    status: int
    headers: dict[str, str]
    body: bytes
    rest: bytes

    @property
    def error(self) -> Any:
        """The error object."""
        return json.loads(self.body)["error"]


def supervisor_target(url: str, token: str) -> Target:
    """The supervisor."""
    port = urlsplit(url).port
    assert port
    return Target(
        name="supervisor", port=port, token=token, get="/v1/consumer-manifest", post="/v1/endpoints"
    )


def lease_target(endpoint: EndpointDescriptor) -> Target:
    """A lease."""
    url = urlsplit(endpoint.base_url)
    assert url.port
    token = endpoint.headers["authorization"].removeprefix("Bearer ")
    post = f"{url.path}/chat/completions"
    return Target(name="lease", port=url.port, token=token, get=f"{url.path}/models", post=post)


@contextlib.contextmanager
def both_servers(
    home: Path, *arguments: str, **lease: Any
) -> Iterator[tuple[SupervisorClient, dict[str, Target]]]:
    """A supervisor that was started with these arguments, and one echo lease on it, each by its name."""
    with serving(home, *arguments) as server, server.client() as client:
        endpoint, _ = client.ensure_endpoint({**ECHO, "stream?": True}, lease=lease)
        found = supervisor_target(client.url, StateFolder(home).read_token()), lease_target(endpoint)
        yield client, {each.name: each for each in found}


def read_answer(made: socket.socket, before: bytes = b"", *, has_body: bool = True) -> Answer:
    """The next answer, by its content-length. ``before`` is what of it was read already."""
    received = before
    while b"\r\n\r\n" not in received:
        received += _some(made, received)
    head, _, received = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", 0)) if has_body else 0
    while len(received) < length:
        received += _some(made, received)
    return Answer(
        status=int(status.split()[1]), headers=headers, body=received[:length], rest=received[length:]
    )


def is_closed(made: socket.socket) -> bool:
    """Whether the server closes it, within the wait, without a further byte."""
    try:
        return made.recv(1) == b""
    except ConnectionError:
        return True


def _some(made: socket.socket, received: bytes) -> bytes:
    more = made.recv(65_536)
    assert more, f"closed after {received[:200]!r}"
    return more
