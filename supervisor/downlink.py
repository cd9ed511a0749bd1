"""Having a zygote: the one that an earlier supervisor left, or a new one, and another when it is lost.

:mod:`supervisor.zygotes` knows processes and files, :mod:`supervisor.launcher` the protocol; this decides which zygote
is spoken to. Knows nothing of leases.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections import deque
from collections.abc import Callable

from shared import program
from shared.errors import WorkerError
from shared.launch import PROTOCOL, Exited
from supervisor import adoption
from supervisor.launcher import Launcher, Met
from supervisor.settings import Settings
from supervisor.zygotes import Zygotes

MAX_LOSSES = 3
LOSSES_WINDOW_S = 60.0
"""A zygote that is lost more often than that is not started again before somebody needs it."""
_log = logging.getLogger("asm_endpoint.downlink")


class Downlink:
    """The zygote of one supervisor. ``on_exit`` hears of families' ends, ``on_lost`` that all of them are gone."""

    def __init__(
        self,
        settings: Settings,
        on_exit: Callable[[Exited], None],
        on_lost: Callable[[], None],
        on_restart: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._zygotes = Zygotes(settings.home)
        self._on_lost = on_lost
        self._on_restart = on_restart
        self._meeting = asyncio.Lock()
        self._losses: deque[float] = deque(maxlen=MAX_LOSSES)
        self._reviving: asyncio.Task[None] | None = None
        self._is_over = False
        self._program = program.fingerprint()
        self._is_outdated = False
        self.launcher = Launcher(on_exit, self._lose)
        self.unwatched = adoption.UNWATCHED
        """Why a lease of the journal may be unknown to the zygote that was met."""

    @property
    def is_up(self) -> bool:
        """Whether there is a zygote to launch with."""
        return self.launcher.is_connected

    async def meet(self) -> Met:
        """The zygote that lives, when it answers and speaks our protocol; else a new one.

        Raises WorkerError ``boot_failed``.
        """
        return await self._meet_living() or await self._meet_new()

    async def require(self, is_idle: Callable[[], bool]) -> None:
        """Start a zygote again after one was lost, and in place of another program's once that has no family left.

        Raises WorkerError ``boot_failed``.
        """
        async with self._meeting:
            if self._is_outdated and self.is_up and is_idle():
                self.launcher.leave()
            if not self.is_up and not self._is_over:
                await self.meet()
                self._on_restart()

    def leave(self) -> None:
        """Leave the zygote, with all it has, to the next supervisor."""
        self._stop()
        self.launcher.leave()

    async def end(self) -> None:
        """End the zygote with whatever it still has, and wait for it."""
        self._stop()
        self.launcher.end()
        await self._zygotes.end()

    def _stop(self) -> None:
        self._is_over = True
        if self._reviving is not None:
            self._reviving.cancel()

    async def _meet_living(self) -> Met | None:
        connection = await self._zygotes.find()
        if connection is None:
            return None
        with contextlib.suppress(WorkerError):
            met = await self._greet(connection)
            self._is_outdated = met.ready.program != self._program
            if met.ready.protocol == PROTOCOL and (met.families or not self._is_outdated):
                _log.info("zygote %s found, with %d families", met.ready.pid, len(met.families))
                if self._is_outdated:
                    _log.warning(
                        "it is of another program: new leases run that too, until the last has ended"
                    )
                return met
            if met.ready.protocol == PROTOCOL:
                self.launcher.leave()
                return None
            self.unwatched = f"its zygote spoke protocol {met.ready.protocol}, not {PROTOCOL}, and was ended"
            _log.error("%s", self.unwatched)
        self.launcher.leave()
        return None

    async def _meet_new(self) -> Met:
        await self._zygotes.end()
        self._is_outdated = False
        try:
            connection = self._zygotes.start()
        except OSError as error:
            raise WorkerError("boot_failed", f"cannot start the zygote: {error}") from error
        met = await self._greet(connection)
        isolation = "on" if met.ready.namespaces and self._settings.namespaces else "off"
        _log.info("zygote %s ready, PID namespaces %s", met.ready.pid, isolation)
        return met

    async def _greet(self, connection: socket.socket) -> Met:
        settings = self._settings
        return await self.launcher.meet(
            connection,
            adopt_grace_s=settings.adopt_grace_s,
            timeout_s=settings.zygote_timeout_s,
            log=settings.log,
        )

    def _lose(self) -> None:
        """Another zygote is started at once, unless that has failed too often lately."""
        self._on_lost()
        now = time.monotonic()
        is_failing = len(self._losses) == MAX_LOSSES and now - self._losses[0] < LOSSES_WINDOW_S
        self._losses.append(now)
        if not self._is_over and not is_failing:
            self._reviving = asyncio.create_task(self._revive())

    async def _revive(self) -> None:
        try:
            await self.require(lambda: False)
        except WorkerError as error:
            _log.error("%s; the next lease tries again", error)
