"""The one path by which leases begin: find the command line, admit, launch, wait until healthy.

A lease is in the table, and its end is :mod:`supervisor.endings`' to see to, from before its launch: one that cannot
begin ends there like any other.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

from shared import logs, processes, provider
from shared.errors import EndpointError, WorkerError
from supervisor import admission, preparation
from supervisor.caller import Caller, unauthorized
from supervisor.commandlines import CommandLine, CommandLines
from supervisor.decision import Decision
from supervisor.downlink import Downlink
from supervisor.endings import Endings
from supervisor.identities import Identities
from supervisor.journal import Journal
from supervisor.lease import Cause, State, Step
from supervisor.metrics import Metrics
from supervisor.readiness import until_ready
from supervisor.settings import Settings
from supervisor.table import LeaseRecord, LeaseTable


class Beginnings:
    """Begins leases until it is told to :meth:`refuse`."""

    def __init__(
        self,
        table: LeaseTable,
        endings: Endings,
        downlink: Downlink,
        command_lines: CommandLines,
        identities: Identities,
        journal: Journal,
        metrics: Metrics,
        settings: Settings,
        *,
        jitter: Callable[[], float],
        available_bytes: Callable[[], int],
    ) -> None:
        self._table = table
        self._endings = endings
        self._downlink = downlink
        self._command_lines = command_lines
        self._identities = identities
        self._journal = journal
        self._metrics = metrics
        self._settings = settings
        self._jitter = jitter
        self._available_bytes = available_bytes
        self.are_over = False

    def refuse(self) -> None:
        """Admit no new leases from now on: the supervisor is ending."""
        self.are_over = True

    async def begin(self, decision: Decision, caller: Caller, token: str) -> LeaseRecord:
        """A lease of what was decided, ready. Raises ProviderError or WorkerError; then nothing is left of it."""
        command_line = await self._command_lines.find(decision.chosen)
        provider.require_model(decision.chosen, decision.model)
        await self._downlink.require(lambda: not len(self._table))
        with preparation.listen() as listener:
            admitted_at = time.monotonic()
            record = self._admit(decision, caller, listener.getsockname()[1], token)
            try:
                try:
                    await self._launch(record, decision, command_line, listener)
                finally:
                    self._endings.settle(record)
                listener.close()
                await until_ready(record, token, self._settings.boot_timeout_s)
            except BaseException as error:
                detail = error.message if isinstance(error, EndpointError) else str(error)
                await asyncio.shield(self._endings.begin(record, Cause.BOOT_FAILED, detail))
                if record.cause is Cause.LIMIT_EXCEEDED:
                    raise _ended_while_starting(record) from error
                if isinstance(error, EndpointError | asyncio.CancelledError):
                    raise
                raise WorkerError("boot_failed", f"cannot boot the worker: {error}") from error
        record.ready_at_s = time.time()
        self._metrics.started(time.monotonic() - admitted_at)
        self._endings.apply(record, Step.BOOTED)
        if record.state is not State.READY:
            raise _ended_while_starting(record)
        return record

    def _admit(self, decision: Decision, caller: Caller, port: int, token: str) -> LeaseRecord:
        if self.are_over:
            raise WorkerError("shutting_down", "cannot lease: the supervisor is ending")
        if not self._identities.is_current(caller):
            raise unauthorized()
        if refusal := admission.refusal(self._load(caller), self._bounds(caller), self._jitter()):
            raise refusal
        record = preparation.new_record(decision, caller.name, self._settings.home, port, token)
        self._journal.write(record)
        self._table.add(record)
        self._endings.expect(record)
        logs.bind(lease_ref=record.lease_ref)
        return record

    def _load(self, caller: Caller) -> admission.Load:
        unfinished = self._table.unfinished()
        return admission.Load(
            leases=len(unfinished),
            own_leases=sum(record.owner == caller.name for record in unfinished),
            starting=sum(record.state is State.STARTING for record in unfinished),
            available_bytes=self._available_bytes(),
        )

    def _bounds(self, caller: Caller) -> admission.Bounds:
        return admission.Bounds(
            max_leases=self._settings.max_leases,
            max_starts=self._settings.max_starts,
            min_available_bytes=self._settings.min_available_bytes,
            max_own_leases=caller.limits.max_leases,
        )

    async def _launch(
        self,
        record: LeaseRecord,
        decision: Decision,
        command_line: CommandLine,
        listener: socket.socket,
    ) -> None:
        user_home = str(self._command_lines.user_home)
        spec = preparation.launch_spec(record, decision, command_line, user_home, self._settings)
        record.metadata = preparation.metadata(record, decision, command_line)
        preparation.make_folders(record, self._settings.hardening)
        variables = self._command_lines.variables(decision.chosen)
        with preparation.memory_files(variables, record) as (variables_fd, scoreboard_fd):
            fds = (listener.fileno(), variables_fd, scoreboard_fd)
            launching = asyncio.ensure_future(self._downlink.launcher.launch(spec, fds))
            try:
                await asyncio.shield(launching)
            finally:
                # A launch that is under way cannot be taken back: its end needs to know what was started.
                started = await launching
                leader = processes.identify(started.launched.pid)
                record.start_family(started.launched, leader, started.namespace_fd)
                self._journal.keep(record)


def _ended_while_starting(record: LeaseRecord) -> WorkerError:
    why = f"{record.cause}: {record.detail}" if record.detail else record.cause
    return WorkerError("lease_closed", f"cannot lease: the lease ended while it started ({why})")
