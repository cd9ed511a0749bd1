"""Listening on, connecting to and receiving from AF_UNIX SEQPACKET sockets whose names may be long.

A socket address holds only 108 bytes, so the folder is reached by way of a descriptor. Knows nothing of what the
packets say.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

PRIVATE_UMASK = 0o177
BACKLOG = 4


def listen_at(path: Path) -> socket.socket:
    """A socket that listens under that name, for its owner alone; an old name is taken over. Raises OSError."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        previous = os.umask(PRIVATE_UMASK)
        try:
            with _address(path) as address:
                listener.bind(address)
        finally:
            os.umask(previous)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def connect_to(path: Path, timeout_s: float) -> socket.socket:
    """A connection to who listens under that name, not blocking.

    Raises OSError: there is no such name, nobody listens, or nobody has accepted for ``timeout_s``.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(timeout_s)
    try:
        with _address(path) as address:
            connection.connect(address)
        connection.setblocking(False)
    except BaseException:
        connection.close()
        raise
    return connection


def receive(connection: socket.socket, *, max_bytes: int, max_fds: int) -> tuple[bytes, list[int]]:
    """The next packet, and its descriptors, which are the caller's; b"" says that the other end has gone.

    No program that is started inherits the descriptors; ``socket.recv_fds`` would not pass on the flag for that.
    Raises BlockingIOError when there is none yet.
    """
    fds = array.array("i")
    try:
        packet, ancillary, _, _ = connection.recvmsg(
            max_bytes, socket.CMSG_LEN(max_fds * fds.itemsize), socket.MSG_CMSG_CLOEXEC
        )
    except BlockingIOError:
        raise
    except OSError:
        return b"", []
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) // fds.itemsize * fds.itemsize])
    return packet, list(fds)


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
