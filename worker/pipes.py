"""The three standard streams of a process, from our side, without blocking: written to, read from, remembered.

Bytes only. What they mean, and when nobody can take more of them, is for the caller to know.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import IO

READ_BYTES = 1024 * 1024
_read_buffer = memoryview(bytearray(READ_BYTES))
"""One for all, since nobody waits while it is in use: a new one for each read would be mapped and unmapped."""
PIPE_BYTES = 1024 * 1024
"""Asked for a process's stdout: fewer, larger reads. The usual limit for users without privileges."""
STDERR_TAIL_BYTES = 64 * 1024


class Stdin:
    """Written to as the process takes it; what it has not taken is kept, and dropped when it takes no more."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._stream = _unblocked(stream)
        self._outbox: deque[bytes] = deque()

    def write(self, data: bytes) -> None:
        """As much as fits now, the rest later."""
        self._outbox.append(data)
        self._on_writable()

    def close(self) -> None:
        """Let the process see the end; safe to call twice."""
        if not self._stream.closed:
            self._loop.remove_writer(self._stream.fileno())
            self._stream.close()

    def _on_writable(self) -> None:
        fd = self._stream.fileno() if not self._stream.closed else -1
        try:
            while self._outbox and fd >= 0:
                written = os.write(fd, self._outbox[0])
                if written < len(self._outbox[0]):
                    self._outbox[0] = self._outbox[0][written:]
                else:
                    self._outbox.popleft()
        except BlockingIOError:
            self._loop.add_writer(fd, self._on_writable)
            return
        except OSError:
            self._outbox.clear()
        if fd >= 0:
            self._loop.remove_writer(fd)


class Stdout:
    """Hands on every chunk as it comes, from :meth:`resume` until :meth:`pause` or its end."""

    def __init__(self, stream: IO[bytes] | None, receive: Callable[[bytes], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stream = _unblocked(stream)
        self._receive = receive
        self._is_reading = False
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._stream.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def resume(self) -> None:
        """Read, or read again after a pause."""
        if not self._is_reading and not self._stream.closed:
            self._is_reading = True
            self._loop.add_reader(self._stream.fileno(), self._on_readable)

    def pause(self) -> None:
        """Leave what comes in the pipe, which makes the process wait."""
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._stream.fileno())

    def drain(self) -> None:
        """What is in the pipe now; a stray that holds it open is not waited for."""
        for chunk in _rest(self._stream.fileno()):
            self._receive(chunk)

    def close(self) -> None:
        """Read no more."""
        self.pause()
        self._stream.close()

    def _on_readable(self) -> None:
        try:
            chunk = _read(self._stream.fileno())
        except BlockingIOError:
            return
        if chunk:
            self._receive(chunk)
        else:
            self.pause()


class Stderr:
    """Keeps the end of what is printed there."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._stream = _unblocked(stream)
        self._tail = b""
        self._loop.add_reader(self._stream.fileno(), self._on_readable)

    @property
    def tail(self) -> str:
        """The last of it."""
        return self._tail.decode(errors="replace")

    def drain(self) -> None:
        """As :meth:`Stdout.drain`."""
        for chunk in _rest(self._stream.fileno()):
            self._keep(chunk)

    def close(self) -> None:
        """Read no more."""
        self._loop.remove_reader(self._stream.fileno())
        self._stream.close()

    def _on_readable(self) -> None:
        try:
            chunk = _read(self._stream.fileno())
        except BlockingIOError:
            return
        self._keep(chunk)
        if not chunk:
            self._loop.remove_reader(self._stream.fileno())

    def _keep(self, chunk: bytes) -> None:
        self._tail = (self._tail + chunk)[-STDERR_TAIL_BYTES:]


def _read(fd: int) -> bytes:
    """What a pipe has now, b"" at its end. Raises BlockingIOError when it has nothing."""
    return bytes(_read_buffer[: os.readv(fd, [_read_buffer])])


def _rest(fd: int) -> Iterator[bytes]:
    """All that a pipe has now."""
    with contextlib.suppress(OSError):
        while chunk := _read(fd):
            yield chunk


def _unblocked(stream: IO[bytes] | None) -> IO[bytes]:
    """A standard stream that Popen was asked to make a pipe, without blocking."""
    if stream is None:
        raise ValueError("the process was started without pipes")
    os.set_blocking(stream.fileno(), False)
    return stream
