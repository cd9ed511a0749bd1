"""The time of a turn that is running: until its first output, of silence, in total, and what its budget leaves.

Whatever waits for a turn waits here. How long it may have queued before is :mod:`worker.capacity`'s to know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shared.errors import ProviderError
from shared.events import PREAMBLE, Event
from shared.launch import TurnLimits
from worker.budget import Account


class Deadlines:
    """Of one turn, which has just begun."""

    def __init__(self, limits: TurnLimits, account: Account) -> None:
        self._limits = limits
        self._account = account
        self._now = asyncio.get_running_loop().time
        self._total_at = self._now() + limits.total_s
        self._silence_at = self._now() + limits.first_output_s
        self._silence_name = "first_output_s"

    async def wait(
        self, next_batch: Callable[[], Awaitable[list[Event]]], heartbeat_s: float | None
    ) -> list[Event]:
        """The next events; [] when ``heartbeat_s`` passed without any, or the budget wants a look.

        Raises ``provider_timeout``.
        """
        deadline = min(self._total_at, self._silence_at)
        wait_s = min(deadline - self._now(), self._account.cli_left_s)
        if heartbeat_s is not None:
            wait_s = min(wait_s, heartbeat_s)
        try:
            async with asyncio.timeout(wait_s):
                events = await next_batch()
        except TimeoutError:
            if self._now() < deadline:
                return []
            raise self._exceeded() from None
        if self._silence_name == "silence_s" or not all(isinstance(event, PREAMBLE) for event in events):
            self._silence_at, self._silence_name = self._now() + self._limits.silence_s, "silence_s"
        return events

    def _exceeded(self) -> ProviderError:
        name = "total_s" if self._total_at <= self._silence_at else self._silence_name
        limit_s = getattr(self._limits, name)
        return ProviderError(
            "provider_timeout",
            f"cannot complete: the deadline {name} of {limit_s:g} s has passed",
            should_retry=False,
        )
