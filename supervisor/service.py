"""The supervisor's one orchestrator: ensure, renew, release, list, shut down, or leave it all to the next one.

It reads top to bottom: decide, begin, describe, end. The automaton and the table decide; beginnings, endings and
downlink do.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

import msgspec

from shared import logs, provider, tokens
from shared.contracts import (
    CompatibilityResult,
    ConsumerManifest,
    EndpointDescriptor,
    ExecutionContext,
    InferenceRequest,
    LeaseOptions,
)
from shared.errors import RequestError
from shared.health import Health
from shared.launch import Exited
from supervisor import publication, releases, succession
from supervisor.beginnings import Beginnings
from supervisor.caller import Caller
from supervisor.catalogue import Catalogue, shown
from supervisor.commandlines import CommandLines
from supervisor.decision import Decision, make_decision
from supervisor.descriptor import describe_endpoint
from supervisor.downlink import Downlink
from supervisor.endings import Endings
from supervisor.health import Facts, supervisor_health
from supervisor.idempotency import IdempotencyKeys
from supervisor.identities import Identities
from supervisor.journal import Journal
from supervisor.lease import Cause, State
from supervisor.memory import available_memory_bytes
from supervisor.metrics import Metrics
from supervisor.monitor import Monitor
from supervisor.naming import merge_authority_refs
from supervisor.selection import Selection
from supervisor.settings import Settings
from supervisor.table import LeaseRecord, LeaseTable
from supervisor.views import LeaseReleased, LeaseView, Released

LEAVE_POLL_S = 0.02


class Ensured(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ensure."""

    endpoint: EndpointDescriptor
    compatibility: CompatibilityResult


class Service:
    """Owns the lease table of one supervisor. Everything runs on one event loop."""

    def __init__(
        self,
        settings: Settings,
        command_lines: CommandLines,
        identities: Identities,
        journal: Journal,
        jitter: Callable[[], float] = random.random,
        available_bytes: Callable[[], int] = available_memory_bytes,
    ) -> None:
        self._settings = settings
        self.wire = settings.wire
        self._command_lines = command_lines
        self._identities = identities
        self._available_bytes = available_bytes
        self._table = LeaseTable(settings.budget_grace_s)
        self.metrics = Metrics(self._table.unfinished)
        self._journal = journal
        self.catalogue = Catalogue(self._table, journal)
        """What there is to be seen."""
        self._downlink = Downlink(settings, self._on_exit, self._on_lost, self.metrics.zygote_restarted)
        self._endings = Endings(self._table, self._downlink.launcher, journal, self.metrics, settings)
        self._beginnings = Beginnings(
            self._table,
            self._endings,
            self._downlink,
            command_lines,
            identities,
            journal,
            self.metrics,
            settings,
            jitter=jitter,
            available_bytes=available_bytes,
        )
        self._monitor = Monitor(self._table, self._endings, journal, self.metrics, settings)
        self._keys = IdempotencyKeys()
        self._watching: asyncio.Task[None] | None = None
        self._is_shut_down = False
        self._has_left = False
        self.on_leave: Callable[[], None] = _do_nothing
        """Called when everything is left to the next supervisor, and this one should end."""

    async def start(self) -> None:
        """Find or start the zygote, take over what an earlier supervisor has left, and begin to watch.

        Raises WorkerError ``boot_failed`` or ``journal_unavailable``.
        """
        entries = self._journal.open_leases()
        met = await self._downlink.meet()
        adopted = succession.take_over(entries, met.families, self._table, self._endings, self._downlink)
        self.metrics.took_over(self._table.unfinished(), adopted=adopted)
        self._watching = asyncio.create_task(self._monitor.run())

    def health(self) -> Health:
        """Whether leases can be made, and what is wrong otherwise."""
        return supervisor_health(
            Facts(
                is_ending=self._beginnings.are_over,
                has_zygote=self._downlink.is_up,
                is_journal_failing=self._journal.is_failing,
                available_bytes=self._available_bytes(),
                min_available_bytes=self._settings.min_available_bytes,
            )
        )

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
        names = {"run_id": context.run_id, "attempt_id": context.attempt_id}
        logs.bind(**{name: value for name, value in names.items() if value})
        decision = make_decision(request, manifest, context, options, self._settings.management_modes)
        caller.limits.require_model(decision.chosen.name, decision.model)
        if idempotency_key is None:
            return await self._lease(decision, caller, tokens.mint())
        async with self._keys.exclusive(caller.name, idempotency_key, decision) as entry:
            record = self._table.get(entry.lease_ref) if entry.lease_ref else None
            if record is not None and record.state is State.READY:
                return self._describe(record, decision, entry.token())
            ensured = await self._lease(decision, caller, entry.next_token())
            entry.lease_ref = ensured.endpoint.lease_ref
            return ensured

    async def _lease(self, decision: Decision, caller: Caller, token: str) -> Ensured:
        record = await self._beginnings.begin(decision, caller, token)
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
        record = self.catalogue.find(lease_ref, caller)
        if not isinstance(record, LeaseRecord):
            return Released(released=True, proof=record.proof if record else None)
        return await releases.release(record, self._endings)

    async def release_all(self, selection: Selection) -> list[LeaseReleased]:
        """End all of the selected leases at once, as :meth:`release` ends each; those that have ended are not told.

        Raises ReleasesFailed, with the outcome of every one, when it failed for any.
        """
        records = [record for record in self._table.unfinished() if selection.includes(record)]
        return await releases.release_all(records, self._endings)

    async def revoke(self, name: str, selection: Selection | None) -> list[LeaseReleased]:
        """Refuse an identity's token from now on, then release the selected leases of it.

        Raises RequestError ``not_found``, and as :meth:`release_all`.
        """
        self._identities.revoke(name)
        return [] if selection is None else await self.release_all(selection)

    def renew(self, lease_ref: str, ttl_s: float, caller: Caller) -> LeaseView:
        """Let a lease live for ``ttl_s`` from now.

        Raises RequestError ``not_found`` for one that is not live, ``not_permitted`` for more than the caller may.
        """
        caller.limits.require_ttl(ttl_s)
        record = self.catalogue.require(lease_ref, caller)
        if not isinstance(record, LeaseRecord) or not record.is_live:
            raise RequestError("not_found", f"cannot renew lease {lease_ref}: it is {record.state}")
        record.expires_at = time.monotonic() + ttl_s
        self._journal.keep(record)
        return shown(record)

    async def end(self) -> None:
        """Shut down; or, after :meth:`leave`, go without touching a lease."""
        if self._has_left:
            self._downlink.leave()
        elif not self._is_shut_down:
            await self._shut_down()

    async def _shut_down(self) -> None:
        """End every lease, then the zygote. Refuses new leases from now on."""
        self._is_shut_down = True
        self._beginnings.refuse()
        endings = [self._endings.begin(record, Cause.SHUTDOWN) for record in self._table.unfinished()]
        await asyncio.gather(*endings, return_exceptions=True)
        self._stop_watching()
        await self._downlink.end()
        self._journal.close()

    async def leave(self) -> None:
        """Leave every lease to the next supervisor, once nothing is being started or stopped. Refuses new ones."""
        self._beginnings.refuse()
        deadline = time.monotonic() + self._settings.boot_timeout_s
        while self._is_at_work() and time.monotonic() < deadline:  # noqa: ASYNC110  # a state, not an event
            await asyncio.sleep(LEAVE_POLL_S)
        self._has_left = True
        self._stop_watching()
        self._downlink.leave()
        self._journal.close()
        self.on_leave()

    def _is_at_work(self) -> bool:
        return any(record.state is not State.READY for record in self._table)

    def _stop_watching(self) -> None:
        if self._watching:
            self._watching.cancel()

    def _on_exit(self, message: Exited) -> None:
        self._endings.on_exit(message)

    def _on_lost(self) -> None:
        self._endings.on_lost()


def _do_nothing() -> None:
    """Nobody asked to be told."""
