"""One answer that several callers may read, each from its beginning: while it is made, and afterwards.

The answer is made by a task of its own, which no single caller's leaving ends. When the last one has left, there is
some time to come back; then the answer is cancelled. What is kept is bounded by the recording's owner, who may drop it
at any time: callers that read it already are then served on, as fast as the slowest of them reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from shared.errors import EndpointError, ProviderError, RequestError, WorkerError
from shared.openai import HEARTBEAT
from worker.cancellation import Requests

WINDOW_BYTES = 256 * 1024
"""How much of an answer that is not kept may wait for its slowest reader."""
_log = logging.getLogger("asm_endpoint.worker")


class Answering(Protocol):
    """An answer to one caller, in blocks of bytes."""

    async def open(self) -> None:
        """Wait until its status is known. Raises what there is instead of an answer."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Its blocks."""

    async def close(self) -> None:
        """Leave it, whatever it does."""


class Making(Answering, Protocol):
    """An answer that runs a turn."""

    @property
    def has_begun(self) -> bool:
        """Whether a command line has been given the prompt."""

    def cancel(self) -> None:
        """End it with ``turn_cancelled``."""


class Recording:
    """The blocks of one answer as far as they have come. ``on_change`` is told of each block, and of the end."""

    def __init__(self, making: Making, reattach_s: float, on_change: Callable[[Recording], None]) -> None:
        self.error: EndpointError | None = None
        """Why there is no answer, or no more of one."""
        self.is_over = False
        self.is_kept = True
        """Whether the answer is here from its beginning."""
        self.held_bytes = 0
        self._making = making
        self._reattach_s = reattach_s
        self._on_change = on_change
        self._blocks: dict[int, bytes] = {}
        self._first = self._end = 0
        self._readers: set[Reader] = set()
        self._room = asyncio.Event()
        self._left_timer: asyncio.TimerHandle | None = None
        self._task = asyncio.ensure_future(self._make())

    @property
    def has_begun(self) -> bool:
        """Whether a command line has been given the prompt."""
        return self._making.has_begun

    def read(self, heartbeat_s: float) -> Reader:
        """From the beginning. Raises RequestError ``idempotency_conflict`` when that is not there any more."""
        if not self.is_kept:
            raise RequestError(
                "idempotency_conflict",
                "cannot repeat: the answer under this Idempotency-Key is not kept any more, and is not made twice",
                should_retry=False,
            )
        return Reader(self, heartbeat_s)

    def drop(self) -> None:
        """Keep no more of it than its present readers need."""
        self.is_kept = False
        self._forget_read()

    def cancel(self) -> None:
        """End it for all its readers."""
        self._making.cancel()

    def attach(self, reader: Reader) -> None:
        """It reads from now on."""
        self._readers.add(reader)
        if self._left_timer:
            self._left_timer.cancel()

    def detach(self, reader: Reader) -> None:
        """It does not read any more; twice is fine."""
        self._readers.discard(reader)
        self._forget_read()
        if not self._readers and not self.is_over:
            self._left_timer = asyncio.get_running_loop().call_later(self._reattach_s, self._task.cancel)

    def block(self, number: int) -> bytes | None:
        """One of its blocks; None when there are no more, or not yet."""
        return self._blocks.get(number)

    def passed(self) -> None:
        """A reader has gone on."""
        self._forget_read()

    async def _make(self) -> None:
        try:
            try:
                await self._making.open()
                async for block in self._making:
                    await self._add(block)
            finally:
                await self._making.close()
        except EndpointError as error:
            self.error = error
        except asyncio.CancelledError:
            self.error = ProviderError(
                "turn_cancelled", "cannot complete: everybody who waited for it has left", should_retry=False
            )
        except Exception as error:
            _log.error("cannot answer", exc_info=error)
            self.error = WorkerError("internal_error", "cannot complete: the worker failed")
        self.is_over = True
        self._changed()

    async def _add(self, block: bytes) -> None:
        if block is HEARTBEAT:
            return
        self._blocks[self._end] = block
        self._end += 1
        self.held_bytes += len(block)
        self._changed()
        while not self.is_kept and self.held_bytes > WINDOW_BYTES:
            self._room.clear()
            await self._room.wait()

    def _changed(self) -> None:
        self._on_change(self)
        for reader in self._readers:
            reader.wake()

    def _forget_read(self) -> None:
        if self.is_kept:
            return
        slowest = min((reader.at for reader in self._readers), default=self._end)
        for number in range(self._first, slowest):
            self.held_bytes -= len(self._blocks.pop(number))
        self._first = max(self._first, slowest)
        self._room.set()


class Reader:
    """One caller's way through a recording: its answer, as one is that is made for it alone."""

    def __init__(self, recording: Recording, heartbeat_s: float) -> None:
        self.at = 0
        """The block it reads next."""
        self._recording = recording
        self._heartbeat_s = heartbeat_s
        self._woken = asyncio.Event()
        self._names = contextlib.ExitStack()
        recording.attach(self)

    def known_as(self, request_id: str, requests: Requests) -> None:
        """Until it is closed, cancelling that request ends the answer, for its other readers too."""
        self._names.enter_context(requests.known_as(request_id, self._recording.cancel))

    def wake(self) -> None:
        """There may be more to read."""
        self._woken.set()

    async def open(self) -> None:
        """Wait for the first block. Raises what there is instead of an answer."""
        try:
            while self._recording.block(0) is None and not self._recording.is_over:
                await self._wait()
            if self._recording.error is not None:
                raise self._recording.error.with_traceback(None)
        except BaseException:
            await self.close()
            raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while (block := self._recording.block(self.at)) is not None:
                self.at += 1
                self._recording.passed()
                yield block
            if self._recording.is_over:
                return
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    await self._wait()
            except TimeoutError:
                yield HEARTBEAT

    async def close(self) -> None:
        """Read no more."""
        self._names.close()
        self._recording.detach(self)

    async def _wait(self) -> None:
        self._woken.clear()
        await self._woken.wait()
