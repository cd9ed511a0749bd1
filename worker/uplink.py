"""The zygote's socket for supervisors: one of them at a time, of its own user, and none that it started itself.

The socket has a name in the state folder, so that a later supervisor finds the families of an earlier one. A name that
was removed is made again; one that is somebody else's by now is left alone. Nothing here waits: what the supervisor
does not take yet is kept until it does. Knows nothing of families.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from shared import launch, processes
from shared.launch import FromZygote, ToZygote
from shared.unixsocket import listen_at, receive

Outgoing = tuple[bytes, tuple[int, ...]]


class Uplink:
    """The listening socket and, most of the time, a connected supervisor.

    ``on_message`` gets each message with its descriptors, which are closed after it; ``on_lost`` hears that the
    supervisor has gone.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        listener: socket.socket,
        path: Path,
        on_message: Callable[[ToZygote, Sequence[int]], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._selector = selector
        self._path = path
        self._on_message = on_message
        self._on_lost = on_lost
        self._connection: socket.socket | None = None
        self._outbox: deque[Outgoing] = deque()
        self._listen(listener)

    @property
    def is_connected(self) -> bool:
        """Whether there is a supervisor."""
        return self._connection is not None

    def send(self, message: FromZygote, fds: Sequence[int] = ()) -> None:
        """Tell the supervisor; without one, nobody. The descriptors stay the caller's."""
        if self._connection is not None:
            self._outbox.append((launch.encode(message), tuple(os.dup(fd) for fd in fds)))
            self._flush()

    def renew(self) -> None:
        """Give the socket its name again when that was removed."""
        if self._path.exists() or not self._path.parent.is_dir():
            return
        self._selector.unregister(self._listener)
        self._listener.close()
        self._listen(listen_at(self._path))

    def close(self) -> None:
        """No supervisor any more, and no name."""
        if self._is_named_after_us():
            self._path.unlink(missing_ok=True)
        self._disconnect()
        self._listener.close()

    def _listen(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._listener = listener
        named = os.stat(self._path)
        self._identity = (named.st_dev, named.st_ino)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def _is_named_after_us(self) -> bool:
        with contextlib.suppress(OSError):
            named = os.stat(self._path)
            return (named.st_dev, named.st_ino) == self._identity
        return False

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            if self._connection is not None and self._has_left(self._connection):
                self._lose()
            if self._connection is None and _may_supervise(connection):
                connection.setblocking(False)
                self._connection = connection
                self._selector.register(connection, selectors.EVENT_READ, self._on_ready)
            else:
                connection.close()

    def _has_left(self, connection: socket.socket) -> bool:
        try:
            return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _on_ready(self) -> None:
        self._flush()
        self._receive()

    def _receive(self) -> None:
        if self._connection is None:
            return
        try:
            packet, fds = receive(
                self._connection, max_bytes=launch.MAX_MESSAGE_BYTES, max_fds=launch.MAX_MESSAGE_FDS
            )
        except BlockingIOError:
            return
        try:
            if packet:
                self._on_message(launch.decode_to_zygote(packet), fds)
            else:
                self._lose()
        finally:
            for fd in fds:
                os.close(fd)

    def _flush(self) -> None:
        while self._outbox and self._connection is not None:
            packet, fds = self._outbox[0]
            try:
                socket.send_fds(self._connection, [packet], fds)
            except BlockingIOError:
                break
            except OSError:
                self._lose()
                return
            self._drop_first()
        if self._connection is not None:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outbox else 0)
            self._selector.modify(self._connection, events, self._on_ready)

    def _drop_first(self) -> None:
        for fd in self._outbox.popleft()[1]:
            os.close(fd)

    def _lose(self) -> None:
        self._disconnect()
        self._on_lost()

    def _disconnect(self) -> None:
        while self._outbox:
            self._drop_first()
        if self._connection is not None:
            self._selector.unregister(self._connection)
            self._connection.close()
            self._connection = None


def _may_supervise(connection: socket.socket) -> bool:
    """Whether the other end is of our user and none of our families: a command line must not give us orders.

    Nor by a child of its that connects and ends at once, of which nobody can tell any more whose it was.
    """
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", packed)
    return uid == os.getuid() and pid > 0 and processes.is_apart(pid, os.getpid())
