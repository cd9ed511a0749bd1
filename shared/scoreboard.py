"""One page of counters per lease, shared between the worker that writes it and the supervisor that reads it.

It is a memory file, so it outlives a crash of the worker process, costs no message and never blocks. Every slot
is one aligned 64-bit integer with a single writer; readers may see two slots at slightly different moments.
"""

from __future__ import annotations

import mmap
import os

SLOTS = (
    "heartbeat_ns",
    "last_active_ns",
    "in_flight",
    "queued",
    "standbys",
    "standby_rss_bytes",
    "requests",
    "failures",
    "prompt_tokens",
    "completion_tokens",
    "boots",
)
"""``*_ns`` are CLOCK_MONOTONIC nanoseconds, the same clock in every process of a machine."""
_INDEX = {name: index for index, name in enumerate(SLOTS)}
_BYTES = mmap.PAGESIZE


def create() -> int:
    """A new, zeroed scoreboard; returns its file descriptor."""
    fd = os.memfd_create("asm-endpoint-scoreboard", os.MFD_CLOEXEC)
    os.ftruncate(fd, _BYTES)
    return fd


class Scoreboard:
    """A mapped view of a scoreboard's descriptor, which stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._slots = memoryview(mmap.mmap(fd, _BYTES)).cast("q")

    def __getitem__(self, name: str) -> int:
        return self._slots[_INDEX[name]]

    def __setitem__(self, name: str, value: int) -> None:
        self._slots[_INDEX[name]] = value

    def add(self, name: str, amount: int = 1) -> None:
        """Add to a slot; only the slot's one writer may."""
        self._slots[_INDEX[name]] += amount

    def counts(self) -> dict[str, int]:
        """All slots but the clocks, by name."""
        return {name: self[name] for name in SLOTS if not name.endswith("_ns")}


def local() -> Scoreboard:
    """A scoreboard of this process alone."""
    fd = create()
    try:
        return Scoreboard(fd)
    finally:
        os.close(fd)
