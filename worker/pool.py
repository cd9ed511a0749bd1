"""Command-line processes of one lease: one ready before it is needed, and none forgotten.

Deciding which process serves is synchronous; starting and stopping happen beside it. A standby that has died is
never handed out, and is replaced: once until the next turn, which would meet and report whatever kills them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from shared.errors import EndpointError, WorkerError
from shared.launch import TurnLimits
from worker.runner import CliProcess

DEFAULT_IDLE_S = TurnLimits().standby_idle_s
_log = logging.getLogger("asm_endpoint.pool")


class Pool:
    """Keeps ``size`` idle processes ready, for ``idle_s`` after the last use. ``start`` raises ProviderError."""

    def __init__(self, start: Callable[[], CliProcess], size: int, idle_s: float = DEFAULT_IDLE_S) -> None:
        self._start = start
        self._size = size
        self._idle_s = idle_s
        self._rest_timer: asyncio.TimerHandle | None = None
        self._standbys: list[CliProcess] = []
        self._serving: set[CliProcess] = set()
        self._stopping: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._replaces_lost = True
        self.on_standby_failed: Callable[[], None] = _do_nothing
        """Called when a standby did not start, or has ended before it was used."""

    @property
    def standbys(self) -> int:
        """How many processes are ready and alive; one that serves and has room for more turns is ready too."""
        self._drop_spent()
        return len(self._standbys) + sum(process.is_fresh for process in self._serving)

    @property
    def standby_rss_bytes(self) -> int:
        """Resident memory of the processes that serve nobody now."""
        return sum(process.rss_bytes for process in self._idle())

    def checkout(self) -> CliProcess:
        """A process with room for a turn: one that serves already, a standby, or a new one."""
        if self._is_closed:
            raise WorkerError("lease_closed", "cannot start a turn: the lease is closed")
        process = next((process for process in self._serving if process.has_room), None)
        if process is None:
            process = self._take_standby() or self._start()
            self._serving.add(process)
        self._replaces_lost = True
        return process

    def give_back(self, process: CliProcess) -> None:
        """After a turn: keep the process if it can serve again, else stop it."""
        self._drop_spent()
        self._rest_later()

    def refill(self) -> None:
        """Start what is missing; a failure is logged, because the next turn will meet and report it."""
        if not self._is_closed:
            self._rest_later()
            self._fill()

    def _fill(self) -> None:
        while not self._is_closed and self.standbys < self._size:
            try:
                process = self._start()
                self._standbys.append(process)
                process.exited.add_done_callback(lambda _: self._drop_spent())
            except EndpointError as error:
                _log.warning("no standby: %s", error)
                self.on_standby_failed()
                return

    def rest(self) -> None:
        """Stop the processes that serve nobody; after ``idle_s`` this is done anyway. The next turn starts new ones."""
        for process in self._idle():
            self._forget(process)

    async def close(self) -> None:
        """Fail what still runs with ``lease_closed``, stop every process and wait until each is gone."""
        self._is_closed = True
        if self._rest_timer:
            self._rest_timer.cancel()
        for process in self._serving:
            process.abort("lease_closed", "the lease has ended")
        for process in (*self._standbys, *self._serving):
            self._stop(process)
        self._standbys.clear()
        self._serving.clear()
        while self._stopping:
            await asyncio.wait(self._stopping)

    def _take_standby(self) -> CliProcess | None:
        """One that is alive, if possible one whose handshake is done."""
        self._drop_spent()
        if not self._standbys:
            return None
        process = next((process for process in self._standbys if process.is_ready), self._standbys[0])
        self._standbys.remove(process)
        return process

    def _replace_lost(self) -> None:
        if self._replaces_lost:
            self._replaces_lost = False
            asyncio.get_running_loop().call_soon(self._fill)

    def _rest_later(self) -> None:
        if self._rest_timer:
            self._rest_timer.cancel()
        self._rest_timer = asyncio.get_running_loop().call_later(self._idle_s, self.rest)

    def _idle(self) -> list[CliProcess]:
        return [*self._standbys, *(process for process in self._serving if process.is_idle)]

    def _drop_spent(self) -> None:
        """Stop what serves nobody and can serve nobody any more, dead or alive."""
        for process in [process for process in self._idle() if not process.has_room]:
            if process.turns_served == 0:
                self.on_standby_failed()
                self._replace_lost()
            self._forget(process)

    def _forget(self, process: CliProcess) -> None:
        if process in self._standbys:
            self._standbys.remove(process)
        self._serving.discard(process)
        self._stop(process)

    def _stop(self, process: CliProcess) -> None:
        task = asyncio.ensure_future(process.stop())
        self._stopping.add(task)
        task.add_done_callback(self._stopped)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        self._stopping.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.error("%s", error)


def _do_nothing() -> None:
    """Nobody asked to be told."""
