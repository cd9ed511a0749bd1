"""How many turns may run at once and how many requests may wait; each is charged to the lease's ledger.

Counts go to the lease's scoreboard, where the supervisor reads them; without a supervisor they go to a local one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

from shared import scoreboard
from shared.backoff import jittered
from shared.contracts import Budget
from shared.errors import WorkerError
from shared.scoreboard import Scoreboard
from worker.budget import Account, Ledger
from worker.cancellation import Cancellation

RETRY_AFTER_S = 2.0
"""The least a refused caller is told; turns of a completion take seconds."""


class Capacity:
    """Places for turns, first come first served, with a bounded queue."""

    def __init__(
        self,
        *,
        concurrency: int,
        queue_limit: int,
        budget: Budget | None = None,
        board: Scoreboard | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._concurrency = concurrency
        self._queue_limit = queue_limit
        self._jitter = jitter
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = 0
        self.board = board or scoreboard.local()
        self.ledger = Ledger(budget or Budget(), self.board)
        self.publish()

    @property
    def is_idle(self) -> bool:
        """Whether no turn runs or waits."""
        return self._taken == 0 and not self._waiting

    @contextlib.asynccontextmanager
    async def place(
        self, wait_s: float, prompt_chars: int = 0, cancellation: Cancellation | None = None
    ) -> AsyncIterator[Account]:
        """Hold one place and the account to charge.

        Raises WorkerError ``at_capacity`` (queue full, ``wait_s`` over) or ``insufficient_quota``, or what the
        ``cancellation`` raises.
        """
        arrived_at = time.monotonic()
        self.ledger.require(prompt_chars)
        await self._take(wait_s, cancellation or Cancellation())
        try:
            account = self.ledger.open(prompt_chars, arrived_at)
            try:
                self._refuse_waiting()
                yield account
            except BaseException:
                self.board.add("failures")
                raise
            finally:
                account.close(time.monotonic())
                self._refuse_waiting()
        finally:
            self._free()

    def recover(self) -> None:
        """Correct what a worker process that died has left on the scoreboard."""
        self.board.settle()
        self.publish()

    async def _take(self, wait_s: float, cancellation: Cancellation) -> None:
        """A place that is free is nobody's: one that is given up goes to the first in the queue, if there is one."""
        if self._taken < self._concurrency:
            self._taken += 1
            self.publish()
            return
        if len(self._waiting) >= self._queue_limit:
            raise self._refusal(f"{self._concurrency} turns run and {self._queue_limit} wait already")
        await self._wait_turn(wait_s, cancellation)

    async def _wait_turn(self, wait_s: float, cancellation: Cancellation) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        cancellation.ends(lambda error: None if place.done() else place.set_exception(error))
        self._waiting.append(place)
        self.publish()
        try:
            async with asyncio.timeout(wait_s):
                await place
        except BaseException as error:
            if place in self._waiting:
                self._waiting.remove(place)
                self.publish()
            elif not place.cancelled() and place.exception() is None:
                self._free()
            if isinstance(error, TimeoutError):
                raise self._refusal(f"no place became free in {wait_s:g} s") from None
            raise

    def _refuse_waiting(self) -> None:
        """Tell those who wait in vain, as soon as nothing is left for them."""
        try:
            self.ledger.require()
        except WorkerError as error:
            for place in self._waiting:
                if not place.done():
                    place.set_exception(error)
            self._waiting.clear()
            self.publish()

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
        retry_after_s = jittered(RETRY_AFTER_S, self._jitter())
        return WorkerError("at_capacity", f"cannot start a turn: {cause}", retry_after_s=retry_after_s)

    def publish(self) -> None:
        """Write the places that are taken and waited for, and since when nothing more can come of the lease."""
        now_ns = time.monotonic_ns()
        self.board["in_flight"] = self._taken
        self.board["queued"] = len(self._waiting)
        self.board["last_active_ns"] = now_ns
        if not self._taken and not self.board["budget_exhausted_ns"] and self.ledger.is_used_up:
            self.board["budget_exhausted_ns"] = now_ns
