"""An answer that is given whole: one turn, one JSON document."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from shared import openai
from worker.session import TurnStream

_encode = msgspec.json.Encoder().encode


class WholeAnswer:
    """The response body of one completion that is not streamed. Its turn runs in :meth:`open`."""

    def __init__(self, turn: TurnStream, *, completion_id: str, model: str) -> None:
        self._turn = turn
        self._completion_id = completion_id
        self._model = model
        self._body = b""

    @property
    def has_begun(self) -> bool:
        """Whether a command line has been given the prompt."""
        return self._turn.has_begun

    def cancel(self) -> None:
        """End the turn with ``turn_cancelled``."""
        self._turn.cancel()

    async def open(self) -> None:
        """Run the turn. Raises what it raises."""
        async with self._turn as turn:
            async for _ in turn.batches():
                pass
        answer = openai.completion_object(
            turn.completion, completion_id=self._completion_id, model=self._model
        )
        self._body = _encode(answer)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body

    async def close(self) -> None:
        """Cancel the turn, if it still runs."""
        await self._turn.close()
