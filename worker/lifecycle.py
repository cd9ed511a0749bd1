"""The life of one worker process inside gunicorn: start, heartbeat to the scoreboard, and the end by SIGTERM.

gunicorn's own SIGTERM handler notices only once a second and lets keep-alive connections go on. Ours revokes the
token at once, lets running turns finish for ``drain_s``, ends the rest with a typed error, stops the command
lines, and leaves.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from typing import Any

from worker.lease import ServedLease

HEARTBEAT_PERIOD_S = 1.0
DRAIN_POLL_S = 0.02
FLUSH_S = 0.05
"""From the last turn's end to the exit, for the last bytes to leave."""
_log = logging.getLogger("asm_endpoint.worker")


class Lifecycle:
    """Falcon lifespan middleware; owns the background tasks of the process."""

    def __init__(self, lease: ServedLease) -> None:
        self._lease = lease
        self._tasks: list[asyncio.Task[None]] = []

    async def process_startup(self, scope: dict[str, Any], event: dict[str, Any]) -> None:
        """Install the SIGTERM handler, start the heartbeat, and prepare the standby a little later."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._begin_end)
        loop.call_later(self._lease.session.limits.standby_delay_s, self._lease.session.refill)
        self._lease.session.capacity.recover()
        self._lease.session.capacity.board["booted_ns"] = time.monotonic_ns()
        self._lease.session.capacity.board.add("boots")
        self._tasks.append(loop.create_task(self._beat()))

    async def process_shutdown(self, scope: dict[str, Any], event: dict[str, Any]) -> None:
        """gunicorn's own graceful end (never the usual one): stop the command lines."""
        await self._lease.session.close()

    def _begin_end(self) -> None:
        if not self._lease.gate.is_closed:
            self._lease.gate.close()
            self._tasks.append(asyncio.get_running_loop().create_task(self._end()))

    async def _end(self) -> None:
        deadline = time.monotonic() + self._lease.spec.drain_s
        while not self._lease.session.capacity.is_idle and time.monotonic() < deadline:  # noqa: ASYNC110  # two conditions
            await asyncio.sleep(DRAIN_POLL_S)
        await self._lease.session.close()
        await asyncio.sleep(FLUSH_S)
        _log.info("worker process ended")
        logging.shutdown()
        os._exit(0)

    async def _beat(self) -> None:
        capacity, pool = self._lease.session.capacity, self._lease.session.pool
        board = capacity.board
        while True:
            capacity.ledger.enforce(time.monotonic())
            board["heartbeat_ns"] = time.monotonic_ns()
            board["standbys"] = pool.standbys
            board["standby_rss_bytes"] = pool.standby_rss_bytes
            await asyncio.sleep(HEARTBEAT_PERIOD_S)
