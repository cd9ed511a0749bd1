"""Idempotency keys of completions: a repeated request gets the same answer, and never a second turn.

A repeat while the first one runs reads along from the beginning; a repeat after it gets the answer again, for
``replay_s``. Failures count as answers once a command line has begun, because that may have cost something; before, the
key is free again. How much is kept is bounded: of an answer that had to go, only the knowledge that it was given stays.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from shared.errors import RequestError
from shared.launch import TurnLimits
from worker.recording import Making, Reader, Recording

MAX_KEYS = 4096
MAX_ANSWER_BYTES = 4 * 1024 * 1024
MAX_KEPT_BYTES = 16 * 1024 * 1024


class _Entry(msgspec.Struct, eq=False):
    fingerprint: bytes
    recording: Recording


class Replays:
    """The keys of one lease and what was answered under them, oldest first."""

    def __init__(self, limits: TurnLimits) -> None:
        self._limits = limits
        self._entries: dict[str, _Entry] = {}
        self._held_bytes: dict[Recording, int] = {}
        self._total_bytes = 0

    def reader(self, key: str, body: Any, make: Callable[[], Making]) -> tuple[Reader, bool]:
        """A reader of the answer under ``key``, and whether it was asked for before; else ``make`` begins it.

        Raises RequestError ``idempotency_key_reused`` for another body, ``idempotency_conflict`` for an answer that is
        not kept.
        """
        fingerprint = hashlib.sha256(msgspec.json.encode(body, order="deterministic")).digest()
        entry = self._entries.get(key)
        is_repeat = entry is not None
        if entry is None:
            entry = self._begin(key, fingerprint, make())
        elif entry.fingerprint != fingerprint:
            raise RequestError(
                "idempotency_key_reused",
                "cannot complete: this Idempotency-Key was used with another request",
            )
        return entry.recording.read(self._limits.heartbeat_s), is_repeat

    def _begin(self, key: str, fingerprint: bytes, making: Making) -> _Entry:
        def changed(recording: Recording) -> None:
            self._keep(recording)
            if recording.is_over:
                self._ended(key, recording)

        entry = _Entry(fingerprint, Recording(making, self._limits.reattach_s, changed))
        self._entries[key] = entry
        return entry

    def _ended(self, key: str, recording: Recording) -> None:
        if recording.error is not None and not recording.has_begun:
            self._forget(key, recording)
            return
        asyncio.get_running_loop().call_later(self._limits.replay_s, self._forget, key, recording)
        if len(self._entries) > MAX_KEYS:
            oldest = next(key for key, entry in self._entries.items() if entry.recording.is_over)
            self._forget(oldest, self._entries[oldest].recording)

    def _keep(self, recording: Recording) -> None:
        """Within bounds: what is over for longest goes first, then the one that grows."""
        if not recording.is_kept:
            return
        self._count(recording, recording.held_bytes)
        if recording.held_bytes > MAX_ANSWER_BYTES:
            self._drop(recording)
        while self._total_bytes > MAX_KEPT_BYTES:
            self._drop(next((each for each in self._held_bytes if each.is_over), recording))

    def _drop(self, recording: Recording) -> None:
        recording.drop()
        self._count(recording, 0)

    def _count(self, recording: Recording, held_bytes: int) -> None:
        """What it counts for of all that is kept; nothing, when it is not."""
        self._total_bytes += held_bytes - self._held_bytes.pop(recording, 0)
        if held_bytes:
            self._held_bytes[recording] = held_bytes

    def _forget(self, key: str, recording: Recording) -> None:
        self._count(recording, 0)
        if key in self._entries and self._entries[key].recording is recording:
            del self._entries[key]
