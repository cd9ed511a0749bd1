"""One turn, as its reader has it: batches of events that wait for nobody, and ways to leave early.

The process behind it is told two things only: that there is room again, and that the turn is over.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from shared.events import TERMINAL, Event

_ids = itertools.count(1)


class Turn:
    """The batches of a turn's events, in order, ending with a terminal one.

    ``request_id`` is the caller's name for it, for logs only. ``resume`` is called whenever events were taken,
    ``leave`` when nobody will take any more.
    """

    def __init__(
        self, request_id: str | None, *, resume: Callable[[], None], leave: Callable[[Turn], None]
    ) -> None:
        self.id = f"turn-{next(_ids)}"
        self.request_id = request_id
        self.is_over = False
        self._resume = resume
        self._leave = leave
        self._events: list[Event] = []
        self._arrived = asyncio.Event()

    def deliver(self, events: list[Event]) -> None:
        """Add events, and wake the reader; nothing comes after a terminal one."""
        if self.is_over:
            return
        self._events += events
        self.is_over = isinstance(events[-1], TERMINAL)
        self._arrived.set()

    @property
    def backlog(self) -> int:
        """How many events wait to be read."""
        return len(self._events)

    async def next_batch(self) -> list[Event]:
        """All events that have arrived since the last call; waits for at least one, or :meth:`stop`."""
        await self._arrived.wait()
        self._arrived.clear()
        batch, self._events = self._events, []
        self._resume()
        return batch

    def end(self) -> None:
        """Leave the turn: interrupt it when it is still running. The process then decides whether it goes on."""
        self._leave(self)

    def stop(self) -> None:
        """:meth:`end` it now, whether anybody is reading or not, and let the reader look."""
        self.end()
        self._arrived.set()
