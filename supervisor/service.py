"""The supervisor's one orchestrator: ensure, renew, release, list, shut down.

It reads top to bottom: decide, find the command line, admit, launch, wait until healthy, describe. The automaton and
the table decide; launcher, stopping and command lines do; none of them calls another.
"""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import socket
import time
from collections.abc import Callable
from typing import Any

import msgspec

from shared import processes, provider, tokens
from shared.contracts import (
    CompatibilityResult,
    ConsumerManifest,
    EndpointDescriptor,
    ExecutionContext,
    InferenceRequest,
    LeaseOptions,
)
from shared.errors import EndpointError, RequestError, WorkerError
from shared.launch import Exited
from supervisor import admission, monitor, preparation, publication, stopping
from supervisor.caller import Caller, unauthorized
from supervisor.commandlines import CommandLine, CommandLines
from supervisor.compatibility import merge_authority_refs
from supervisor.decision import Decision, make_decision
from supervisor.descriptor import describe_endpoint
from supervisor.errors import ReleasesFailed, SurvivorsError
from supervisor.idempotency import IdempotencyKeys
from supervisor.identities import Identities
from supervisor.launcher import Launcher
from supervisor.lease import Cause, Happening, State, Step
from supervisor.readiness import until_ready
from supervisor.selection import Selection
from supervisor.settings import Settings
from supervisor.statefolder import ZYGOTE_SOCKET_NAME
from supervisor.table import LeaseRecord, LeaseTable
from supervisor.views import LeaseReleased, LeaseView, Released, ReleaseProof, view

_log = logging.getLogger("asm_endpoint.service")


class Ensured(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ensure."""

    endpoint: EndpointDescriptor
    compatibility: CompatibilityResult


class _Family(msgspec.Struct, kw_only=True, eq=False):
    """What is awaited of a lease's family: that its launch is settled, that it exits, and the proof of its end."""

    exited: asyncio.Future[Exited]
    launch_settled: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    ending: asyncio.Task[ReleaseProof] | None = None


class Service:
    """Owns the lease table of one supervisor. Everything runs on one event loop."""

    def __init__(
        self,
        settings: Settings,
        command_lines: CommandLines,
        identities: Identities,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._command_lines = command_lines
        self._identities = identities
        self._jitter = jitter
        self._table = LeaseTable(settings.budget_grace_s)
        self._launcher = Launcher(self._on_exit, self._on_lost)
        self._monitor = monitor.Monitor(self._table, self._begin_end, settings.monitor_period_s)
        self._families: dict[str, _Family] = {}
        self._zygote_start = asyncio.Lock()
        self._keys = IdempotencyKeys()
        self._watching: asyncio.Task[None] | None = None
        self._is_shutting_down = False
        self._is_zygote_lost = True

    async def start(self) -> None:
        """Start the zygote and the monitor. Raises WorkerError ``boot_failed``."""
        await self._require_zygote()
        self._watching = asyncio.create_task(self._monitor.run())

    @property
    def is_healthy(self) -> bool:
        """Whether leases can be made; a lost zygote is started again by the next one."""
        return not self._is_shutting_down

    def consumer_manifest(self) -> ConsumerManifest:
        """The manifest of a consumer that fits what is published here."""
        return publication.consumer_manifest(self._settings.management_modes)

    async def providers(self) -> list[dict[str, Any]]:
        """Every provider with its publication and what is installed of it."""
        return [await self._command_lines.describe(name) for name in provider.names()]

    async def ensure(
        self,
        request: InferenceRequest,
        manifest: ConsumerManifest,
        context: ExecutionContext,
        options: LeaseOptions,
        caller: Caller,
        idempotency_key: str | None = None,
    ) -> Ensured:
        """Lease one endpoint; the same one again for the caller's same ``idempotency_key``, while it lives.

        Raises RequestError, Incompatible, ProviderError or WorkerError; then nothing is left of it.
        """
        options = caller.limits.within_ttl(options)
        decision = make_decision(request, manifest, context, options, self._settings.management_modes)
        caller.limits.require_model(decision.chosen.name, decision.model)
        if idempotency_key is None:
            return await self._lease(decision, caller, tokens.mint())
        async with self._keys.exclusive(caller.name, idempotency_key, decision) as entry:
            record = self._table.get(entry.lease_ref) if entry.lease_ref else None
            if record is not None and record.state is State.READY:
                return self._describe(record, decision, entry.token(self._keys))
            ensured = await self._lease(decision, caller, entry.next_token(self._keys))
            entry.lease_ref = ensured.endpoint.lease_ref
            return ensured

    async def _lease(self, decision: Decision, caller: Caller, token: str) -> Ensured:
        command_line = await self._command_lines.find(decision.chosen)
        provider.require_model(decision.chosen, decision.model)
        await self._require_zygote()
        with preparation.listen() as listener:
            record = self._admit(decision, caller, listener.getsockname()[1])
            try:
                try:
                    await self._launch(record, decision, command_line, token, listener)
                finally:
                    self._families[record.lease_ref].launch_settled.set()
                listener.close()
                await until_ready(record, token, self._settings.boot_timeout_s)
            except BaseException as error:
                await asyncio.shield(self._begin_end(record, Cause.BOOT_FAILED))
                if isinstance(error, EndpointError | asyncio.CancelledError):
                    raise
                raise WorkerError("boot_failed", f"cannot boot the worker: {error}") from error
        self._apply(record, Step.BOOTED)
        if record.state is not State.READY:
            raise WorkerError(
                "lease_closed", f"cannot lease: the lease ended while it started ({record.cause})"
            )
        return self._describe(record, decision, token)

    def _describe(self, record: LeaseRecord, decision: Decision, token: str) -> Ensured:
        endpoint = describe_endpoint(
            record,
            token=token,
            publication=decision.publication,
            compatibility=decision.compatibility,
            backend=decision.backend,
            authority_refs=merge_authority_refs(decision.context, decision.request),
            boundary_ref=decision.context.boundary_ref,
        )
        return Ensured(endpoint=endpoint, compatibility=decision.compatibility)

    async def release(self, lease_ref: str, caller: Caller) -> Released:
        """End a lease and wait for the proof. Unknown and already released ones are fine; another's is unknown.

        Raises SurvivorsError when processes outlived SIGKILL.
        """
        record = self._visible(lease_ref, caller)
        return Released(released=True) if record is None else await self._release(record)

    async def release_all(self, selection: Selection) -> list[LeaseReleased]:
        """End all of the selected leases at once, as :meth:`release` ends each; those that have ended are not told.

        Raises ReleasesFailed, with the outcome of every one, when it failed for any.
        """
        records = [record for record in self._table.unfinished() if selection.includes(record)]
        outcomes = await asyncio.gather(*map(self._release, records), return_exceptions=True)
        told = [_told(record, outcome) for record, outcome in zip(records, outcomes, strict=True)]
        if not all(each.released for each in told):
            raise ReleasesFailed(told)
        return told

    async def revoke(self, name: str, selection: Selection | None) -> list[LeaseReleased]:
        """Refuse an identity's token from now on, then release the selected leases of it.

        Raises RequestError ``not_found``, and as :meth:`release_all`.
        """
        self._identities.revoke(name)
        return [] if selection is None else await self.release_all(selection)

    async def _release(self, record: LeaseRecord) -> Released:
        proof = await asyncio.shield(self._begin_end(record, Cause.RELEASED))
        if proof.survivors and not stopping.remains(record):
            proof = msgspec.structs.replace(proof, survivors=())
            self._close(record)
        if proof.survivors:
            raise SurvivorsError(proof)
        return Released(released=True, proof=proof)

    def renew(self, lease_ref: str, ttl_s: float, caller: Caller) -> LeaseView:
        """Let a lease live for ``ttl_s`` from now.

        Raises RequestError ``not_found`` for one that is not live, ``not_permitted`` for more than the caller may.
        """
        caller.limits.require_ttl(ttl_s)
        record = self._require(lease_ref, caller)
        if not record.is_live:
            raise RequestError("not_found", f"cannot renew lease {lease_ref}: it is {record.state}")
        record.expires_at = time.monotonic() + ttl_s
        return view(record, self._settings.heartbeat_max_age_s)

    def show(self, lease_ref: str, caller: Caller) -> LeaseView:
        """One lease. Raises RequestError ``not_found``."""
        record = self._require(lease_ref, caller)
        monitor.observe([record] if record.state is not State.CLOSED else [])
        return view(record, self._settings.heartbeat_max_age_s)

    def show_all(self, selection: Selection) -> list[LeaseView]:
        """Every selected lease, closed ones too."""
        monitor.observe(self._table.unfinished())
        shown = [record for record in self._table if selection.includes(record)]
        return [view(record, self._settings.heartbeat_max_age_s) for record in shown]

    async def shut_down(self) -> None:
        """End every lease, then the zygote. Refuses new leases from now on."""
        self._is_shutting_down = True
        endings = [self._begin_end(record, Cause.SHUTDOWN) for record in self._table.unfinished()]
        await asyncio.gather(*endings, return_exceptions=True)
        if self._watching:
            self._watching.cancel()
        await self._launcher.close(self._settings.exit_wait_s)

    def _admit(self, decision: Decision, caller: Caller, port: int) -> LeaseRecord:
        if not self.is_healthy:
            raise WorkerError("shutting_down", "cannot lease: the supervisor is ending")
        if not self._identities.is_current(caller):
            raise unauthorized()
        if refusal := admission.refusal(self._load(caller), self._bounds(caller), self._jitter()):
            raise refusal
        record = preparation.new_record(decision, caller.name, self._settings.home, port)
        self._table.add(record)
        self._families = {ref: family for ref, family in self._families.items() if self._table.get(ref)}
        self._families[record.lease_ref] = _Family(exited=asyncio.get_running_loop().create_future())
        return record

    def _load(self, caller: Caller) -> admission.Load:
        unfinished = self._table.unfinished()
        return admission.Load(
            leases=len(unfinished),
            own_leases=sum(record.owner == caller.name for record in unfinished),
            starting=sum(record.state is State.STARTING for record in unfinished),
            available_bytes=processes.available_memory_bytes(),
        )

    def _bounds(self, caller: Caller) -> admission.Bounds:
        return admission.Bounds(
            max_leases=self._settings.max_leases,
            max_starts=self._settings.max_starts,
            min_available_bytes=self._settings.min_available_bytes,
            max_own_leases=caller.limits.max_leases,
        )

    async def _require_zygote(self) -> None:
        """Start the zygote when there is none: at first, and after one was lost with all its families."""
        settings = self._settings
        async with self._zygote_start:
            if not self._is_zygote_lost or self._is_shutting_down:
                return
            socket_path, log_path = settings.home / ZYGOTE_SOCKET_NAME, settings.home / "zygote.log"
            ready = await self._launcher.start(socket_path, log_path, settings.zygote_timeout_s)
            self._is_zygote_lost = False
        isolation = "on" if ready.namespaces and settings.namespaces else "off"
        _log.info("zygote %s ready, PID namespaces %s", ready.pid, isolation)

    async def _launch(
        self,
        record: LeaseRecord,
        decision: Decision,
        command_line: CommandLine,
        token: str,
        listener: socket.socket,
    ) -> None:
        user_home = str(self._command_lines.user_home)
        spec = preparation.launch_spec(record, decision, command_line, token, user_home, self._settings)
        record.metadata = preparation.metadata(record, decision, command_line)
        preparation.make_folders(record)
        variables = self._command_lines.variables(decision.chosen)
        with preparation.memory_files(variables, record) as (variables_fd, scoreboard_fd):
            fds = (listener.fileno(), variables_fd, scoreboard_fd)
            launching = asyncio.ensure_future(self._launcher.launch(spec, fds))
            try:
                await asyncio.shield(launching)
            finally:
                # A launch that is under way cannot be taken back: its end needs to know what was started.
                record.start_family(await launching)

    def _visible(self, lease_ref: str, caller: Caller) -> LeaseRecord | None:
        """The lease of that ref; another identity's is like one that never was."""
        record = self._table.get(lease_ref)
        return record if record is not None and caller.may_see(record.owner) else None

    def _require(self, lease_ref: str, caller: Caller) -> LeaseRecord:
        record = self._visible(lease_ref, caller)
        if record is None:
            raise RequestError("not_found", f"cannot find lease {lease_ref}")
        return record

    def _apply(self, record: LeaseRecord, happening: Happening) -> bool:
        before = record.state
        stops = self._table.apply(record, happening)
        if record.state is not before:
            _log.info("lease %s: %s -> %s (%s)", record.lease_ref, before, record.state, happening)
        return stops

    def _begin_end(self, record: LeaseRecord, cause: Cause) -> asyncio.Task[ReleaseProof]:
        """Apply the cause; the one caller that crosses into STOPPING starts the stop, all share its proof."""
        family = self._families[record.lease_ref]
        if self._apply(record, cause) or family.ending is None:
            family.ending = asyncio.create_task(self._end(record, family))
        return family.ending

    async def _end(self, record: LeaseRecord, family: _Family) -> ReleaseProof:
        await family.launch_settled.wait()
        proof = await stopping.stop_family(record, self._launcher, family.exited, self._settings)
        if proof.survivors:
            self._apply(record, Step.SURVIVED)
            _log.error("lease %s: %d processes survived", record.lease_ref, len(proof.survivors))
        else:
            self._close(record)
        return proof

    def _close(self, record: LeaseRecord) -> None:
        if record.state is State.STOPPING:
            self._apply(record, Step.EMPTIED)
            record.processes = ()
            shutil.rmtree(record.lease_dir, ignore_errors=True)

    def _on_exit(self, message: Exited) -> None:
        family = self._families.get(message.lease_ref)
        record = self._table.get(message.lease_ref)
        if family is None or record is None or family.exited.done():
            return
        family.exited.set_result(message)
        if not message.stopping:
            _log.error("lease %s: family ended by itself (%s)", record.lease_ref, message.status)
            self._begin_end(record, Cause.CRASHED)

    def _on_lost(self) -> None:
        """The zygote is gone, and by the kernel's hand every family with it."""
        self._is_zygote_lost = True
        for record in self._table.unfinished():
            exited = self._families[record.lease_ref].exited
            if not exited.done():
                exited.set_result(
                    Exited(
                        lease_ref=record.lease_ref, pid=0, status="zygote lost", stopping=False, killed=True
                    )
                )
            self._begin_end(record, Cause.LOST)


def _told(record: LeaseRecord, outcome: Released | BaseException) -> LeaseReleased:
    match outcome:
        case Released():
            return LeaseReleased(lease_ref=record.lease_ref, released=True, proof=outcome.proof)
        case SurvivorsError():
            return LeaseReleased(
                lease_ref=record.lease_ref, released=False, proof=outcome.proof, error=outcome.message
            )
    _log.error("lease %s: cannot release", record.lease_ref, exc_info=outcome)
    error = outcome.message if isinstance(outcome, EndpointError) else "an internal error was logged"
    return LeaseReleased(lease_ref=record.lease_ref, released=False, error=error)
