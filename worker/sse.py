"""A streamed answer: from a turn's batches to the bytes of the event stream.

The HTTP status is still open while nothing has been sent. It is held until the first piece of the answer, at most
``status_hold_s``, so that a quick refusal (401, 429, 529) is a real status; after that a failure is an error
object in the stream, without the end mark.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from shared.errors import EndpointError, WorkerError
from shared.launch import TurnLimits
from shared.openai import HEARTBEAT, ChunkEncoder
from shared.result import Shown
from worker.session import TurnStream


class EventStream:
    """The response body of one streamed completion, which starts its turn. Call :meth:`open` before the status."""

    def __init__(self, turn: TurnStream, encoder: ChunkEncoder, limits: TurnLimits) -> None:
        self._turn = turn
        self._encoder = encoder
        self._status_hold_s = limits.status_hold_s
        self._batches = turn.batches(limits.heartbeat_s)
        self._first: asyncio.Future[list[Shown]] = asyncio.ensure_future(anext(self._batches))

    @property
    def has_begun(self) -> bool:
        """Whether a command line has been given the prompt."""
        return self._turn.has_begun

    def cancel(self) -> None:
        """End the turn with ``turn_cancelled``."""
        self._turn.cancel()

    async def open(self) -> None:
        """Hold the status. Raises what the turn raises within the hold time."""
        try:
            await asyncio.wait([self._first], timeout=self._status_hold_s)
            if self._first.done() and not isinstance(self._first.exception(), StopAsyncIteration):
                self._first.result()
        except BaseException:
            await self.close()
            raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._encoder.role()
        try:
            async for batch in self._all_batches():
                yield self._encoder.pieces(batch) if batch else HEARTBEAT
        except EndpointError as error:
            yield self._encoder.error(error)
            return
        except asyncio.CancelledError:
            raise
        except Exception:
            yield self._encoder.error(WorkerError("internal_error", "cannot complete: the worker failed"))
            raise
        yield self._encoder.end(self._turn.completion)

    async def close(self) -> None:
        """Cancel the turn; Falcon calls this at the end of every response, also of a cancelled one."""
        if not self._first.done():
            self._first.cancel()
            await asyncio.wait([self._first])
        if not self._first.cancelled():
            self._first.exception()  # seen: nobody may be left to await it
        await self._turn.close()

    async def _all_batches(self) -> AsyncIterator[list[Shown]]:
        try:
            yield await self._first
        except StopAsyncIteration:
            return
        async for batch in self._batches:
            yield batch
