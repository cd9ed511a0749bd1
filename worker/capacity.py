"""How many turns may run at once, how many may wait, and what a lease has used of its budget.

Counts go to the lease's scoreboard, where the supervisor reads them; without a supervisor they go to a local one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator

from shared import scoreboard
from shared.contracts import Budget
from shared.errors import WorkerError
from shared.events import Usage
from shared.scoreboard import Scoreboard

RETRY_AFTER_S = 2.0
"""What a refused caller is told; turns of a completion take seconds."""


class Capacity:
    """Places for turns, first come first served, with a bounded queue."""

    def __init__(
        self,
        *,
        concurrency: int,
        queue_limit: int,
        budget: Budget | None = None,
        board: Scoreboard | None = None,
    ) -> None:
        self._concurrency = concurrency
        self._queue_limit = queue_limit
        self._budget = budget or Budget()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = 0
        self.board = board or scoreboard.local()
        self.publish()

    @property
    def is_idle(self) -> bool:
        """Whether no turn runs or waits."""
        return self._taken == 0 and not self._waiting

    @contextlib.asynccontextmanager
    async def place(self, wait_s: float) -> AsyncIterator[None]:
        """Hold one place. Raises WorkerError ``at_capacity`` (queue full, ``wait_s`` over) or ``budget_exhausted``."""
        self._check_budget()
        await self._take(wait_s)
        self.board.add("requests")
        try:
            yield
        except BaseException:
            self.board.add("failures")
            raise
        finally:
            self._free()

    def use(self, usage: Usage | None) -> None:
        """Count a turn's tokens."""
        if usage:
            self.board.add("prompt_tokens", usage.prompt_tokens)
            self.board.add("completion_tokens", usage.completion_tokens)

    def _check_budget(self) -> None:
        used = self.board["prompt_tokens"] + self.board["completion_tokens"]
        for name, limit, value in (
            ("requests", self._budget.requests, self.board["requests"]),
            ("total_tokens", self._budget.total_tokens, used),
        ):
            if limit is not None and value >= limit:
                raise WorkerError(
                    "budget_exhausted",
                    f"cannot complete: the lease's budget of {limit} {name} is used up; lease a new endpoint",
                    should_retry=False,
                )

    async def _take(self, wait_s: float) -> None:
        if self._taken < self._concurrency and not self._waiting:
            self._taken += 1
            self.publish()
            return
        if len(self._waiting) >= self._queue_limit:
            raise self._refusal(f"{self._concurrency} turns run and {self._queue_limit} wait already")
        await self._wait_turn(wait_s)

    async def _wait_turn(self, wait_s: float) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self.publish()
        try:
            async with asyncio.timeout(wait_s):
                await place
        except BaseException as error:
            if place in self._waiting:
                self._waiting.remove(place)
                self.publish()
            elif place.done() and not place.cancelled():
                self._free()
            if isinstance(error, TimeoutError):
                raise self._refusal(f"no place became free in {wait_s:g} s") from None
            raise

    def _free(self) -> None:
        """Hand the place to the next in the queue, or give it up."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                self.publish()
                return
        self._taken -= 1
        self.publish()

    def _refusal(self, cause: str) -> WorkerError:
        return WorkerError("at_capacity", f"cannot start a turn: {cause}", retry_after_s=RETRY_AFTER_S)

    def publish(self) -> None:
        """Write the places that are taken and waited for; a new worker process thereby corrects a dead one's."""
        self.board["in_flight"] = self._taken
        self.board["queued"] = len(self._waiting)
        self.board["last_active_ns"] = time.monotonic_ns()
