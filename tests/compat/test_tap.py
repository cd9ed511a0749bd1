"""The tap changes nothing: bytes, ends and resets come through in both directions, and all bytes are kept."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.compat.tap import Recording, Tap

TIMEOUT_S = 10.0
POLL_S = 0.01
SIZE = 3_000_000


@pytest.fixture
def upstream() -> Iterator[socket.socket]:
    """A server's socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT_S)
        yield listener


@pytest.fixture
def tap(upstream: socket.socket) -> Iterator[Tap]:
    """In front of it."""
    with Tap(upstream.getsockname()[1]) as made:
        yield made


@pytest.fixture
def ends(upstream: socket.socket, tap: Tap) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's end and the server's end of one connection through the tap."""
    client = socket.create_connection(("127.0.0.1", tap.port), timeout=TIMEOUT_S)
    server, _ = upstream.accept()
    server.settimeout(TIMEOUT_S)
    with client, server:
        yield client, server


def read_all(end: socket.socket) -> bytes:
    """Everything until the other side has ended."""
    received = b""
    while data := end.recv(1 << 16):
        received += data
    return received


def reset(end: socket.socket) -> None:
    """Close with a TCP reset."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


def until(condition: Callable[[], bool]) -> None:
    """Poll, with a deadline."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(POLL_S)


def recording_of(tap: Tap) -> Recording:
    """That of the only connection."""
    (recording,) = tap.recordings
    return recording


def test_bytes_and_ends_come_through(tap: Tap, ends: tuple[socket.socket, socket.socket]):
    """A half-closed connection goes on in the other direction."""
    client, server = ends
    sent = bytes(range(256)) * (SIZE // 256)

    def send() -> None:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    assert read_all(server) == sent
    sender.join()
    server.sendall(b"answer")
    server.close()
    assert read_all(client) == b"answer"
    client.close()
    assert bytes(recording_of(tap).sent) == sent
    assert bytes(recording_of(tap).received) == b"answer"


def test_a_client_that_leaves_is_felt_at_once(tap: Tap, ends: tuple[socket.socket, socket.socket]):
    """And is told apart from a server that ends."""
    client, server = ends
    client.close()
    assert server.recv(1) == b""
    until(lambda: recording_of(tap).client_left)


def test_a_client_that_resets_is_felt_as_a_reset(tap: Tap, ends: tuple[socket.socket, socket.socket]):
    """Not as an orderly end."""
    client, server = ends
    client.sendall(b"x")
    assert server.recv(1) == b"x"
    reset(client)
    with pytest.raises(ConnectionResetError):
        server.recv(1)
    until(lambda: recording_of(tap).client_left)


def test_a_server_that_ends_is_no_client_that_left(tap: Tap, ends: tuple[socket.socket, socket.socket]):
    """Whoever closes second."""
    client, server = ends
    server.sendall(b"half an answ")
    server.close()
    assert read_all(client) == b"half an answ"
    client.close()
    tap.close()
    assert not recording_of(tap).client_left


def test_a_server_that_resets_is_felt_as_a_reset(tap: Tap, ends: tuple[socket.socket, socket.socket]):
    """A crash looks like one."""
    client, server = ends
    reset(server)
    with pytest.raises(ConnectionResetError):
        client.recv(1)
