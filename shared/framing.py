"""Cutting a command line's stdout into lines: chunks of bytes in, complete lines out. Pure."""

from __future__ import annotations

MAX_LINE_BYTES = 16 * 1024 * 1024
"""A longer line is a protocol error: real lines stay below it (whole messages, base64 parts)."""


class LineTooLong(ValueError):
    """More than ``max_line_bytes`` came without a newline."""


class LineFramer:
    """Collects chunks and gives back complete lines without their newline. Lines are never trimmed."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    def push(self, chunk: bytes) -> list[bytes]:
        """Lines completed by ``chunk``. Raises LineTooLong; the framer is then of no further use."""
        *lines, tail = chunk.split(b"\n")
        if lines:
            lines[0] = b"".join((*self._pending, lines[0]))
            self._pending.clear()
            self._pending_bytes = 0
        if tail:
            self._pending.append(tail)
            self._pending_bytes += len(tail)
        if self._pending_bytes > self._max_line_bytes or any(
            len(line) > self._max_line_bytes for line in lines
        ):
            raise LineTooLong(f"a line exceeds {self._max_line_bytes} bytes")
        return lines

    def flush(self) -> bytes:
        """The unfinished last line (b"" when there is none); the framer is empty afterwards."""
        tail = b"".join(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        return tail
