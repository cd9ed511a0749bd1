"""Command-line processes of one lease: one ready before it is needed, and none forgotten.

Deciding which process serves is synchronous; starting and stopping happen beside it. A standby that has died is
never handed out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from shared.errors import EndpointError, WorkerError
from worker.runner import CliProcess

_log = logging.getLogger("asm_endpoint.pool")


class Pool:
    """Keeps ``size`` idle processes ready. ``start`` starts one process and raises ProviderError."""

    def __init__(self, start: Callable[[], CliProcess], size: int) -> None:
        self._start = start
        self._size = size
        self._standbys: list[CliProcess] = []
        self._serving: set[CliProcess] = set()
        self._stopping: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def standbys(self) -> int:
        """How many processes are ready and alive."""
        self._standbys = [process for process in self._standbys if process.has_room]
        return len(self._standbys)

    def checkout(self) -> CliProcess:
        """A process with room for a turn: one that serves already, a standby, or a new one."""
        if self._is_closed:
            raise WorkerError("lease_closed", "cannot start a turn: the lease is closed")
        process = next((process for process in self._serving if process.has_room), None)
        if process is None:
            process = self._standbys.pop(0) if self.standbys else self._start()
            self._serving.add(process)
        return process

    def give_back(self, process: CliProcess) -> None:
        """After a turn: keep the process if it can serve again, else stop it."""
        if process.is_idle and not process.has_room:
            self._serving.discard(process)
            self._stop(process)

    def refill(self) -> None:
        """Start what is missing; a failure is logged, because the next turn will meet and report it."""
        while not self._is_closed and self.standbys < self._size:
            try:
                self._standbys.append(self._start())
            except EndpointError as error:
                _log.warning("no standby: %s", error)
                return

    async def close(self) -> None:
        """Fail what still runs with ``lease_closed``, stop every process and wait until each is gone."""
        self._is_closed = True
        for process in self._serving:
            process.abort("lease_closed", "the lease has ended")
        for process in (*self._standbys, *self._serving):
            self._stop(process)
        self._standbys.clear()
        self._serving.clear()
        while self._stopping:
            await asyncio.wait(self._stopping)

    def _stop(self, process: CliProcess) -> None:
        task = asyncio.ensure_future(process.stop())
        self._stopping.add(task)
        task.add_done_callback(self._stopped)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        self._stopping.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.error("%s", error)
