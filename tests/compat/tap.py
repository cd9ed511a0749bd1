"""A relay that changes no byte and keeps them all: what independent clients and an endpoint really said to each other."""

from __future__ import annotations

import contextlib
import enum
import socket
import struct
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

READ_BYTES = 1 << 16
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
END_WAIT_S = 10.0


@dataclass
class Recording:
    """The bytes of one connection."""

    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)
    client_left: bool = False
    """Before the server ended it."""
    server_ended: bool = False


class Ended(enum.Enum):
    """Why nothing more is relayed in one direction."""

    IN_ORDER = enum.auto()
    SOURCE_CUT = enum.auto()
    SINK_CUT = enum.auto()


class Tap:
    """Listens on a port of its own and relays to ``port``; a context manager, :attr:`recordings` are complete after it."""

    def __init__(self, port: int) -> None:
        self._upstream = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]
        self.recordings: list[Recording] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take no more connections, and wait for the end of those there are: their client and server are gone."""
        with contextlib.suppress(OSError):  # it is closed already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(END_WAIT_S)

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._upstream)
            except OSError:
                _reset(client)
                client.close()
                continue
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            recording = Recording()
            self.recordings.append(recording)
            self._start(self._relay, client, server, recording)

    def _relay(self, client: socket.socket, server: socket.socket, recording: Recording) -> None:
        with client, server:
            answers = threading.Thread(target=self._answers, args=(client, server, recording), daemon=True)
            answers.start()
            ended = _pump(client, server, recording.sent)
            recording.client_left |= ended is not Ended.SINK_CUT and not recording.server_ended
            if ended is Ended.IN_ORDER:
                with contextlib.suppress(OSError):
                    server.shutdown(socket.SHUT_WR)
            else:
                _reset(server)
            answers.join()

    def _answers(self, client: socket.socket, server: socket.socket, recording: Recording) -> None:
        ended = _pump(server, client, recording.received)
        recording.client_left |= ended is Ended.SINK_CUT
        recording.server_ended |= ended is not Ended.SINK_CUT
        if ended is Ended.IN_ORDER:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_WR)
        else:
            _reset(client)


def _pump(source: socket.socket, sink: socket.socket, kept: bytearray) -> Ended:
    """Relay until the source ends, or the sink takes no more."""
    while True:
        try:
            data = source.recv(READ_BYTES)
        except OSError:
            return Ended.SOURCE_CUT
        if not data:
            return Ended.IN_ORDER
        kept += data
        try:
            sink.sendall(data)
        except OSError:
            return Ended.SINK_CUT


def _reset(end: socket.socket) -> None:
    """Have it closed as abruptly as the other side was, and wake the thread that reads from it."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        end.shutdown(socket.SHUT_RD)
