"""What the supervisor tells about leases: their view in lists, and the proof of their end. Never a token."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from shared.processes import ProcessId, ProcessRow
from supervisor.caller import CallerLimits
from supervisor.lease import State
from supervisor.table import LeaseRecord


class ProvenProcess(msgspec.Struct, frozen=True, kw_only=True):
    """One process of a family. ``create_time`` is in seconds since the epoch."""

    pid: int
    create_time: float
    name: str


class ReleaseProof(msgspec.Struct, frozen=True, kw_only=True):
    """How a family ended: which processes it had, how long it took, and what is left (nothing, or it failed)."""

    lease_ref: str
    cause: str
    isolation: str | None
    processes: tuple[ProvenProcess, ...]
    sigkill_needed: bool
    elapsed_ms: float
    survivors: tuple[ProvenProcess, ...]
    verified: str
    """How emptiness was checked: pid_namespace_empty, or no_descendant_and_no_marker."""


class Released(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a release; no proof for a lease that was not known."""

    released: bool
    proof: ReleaseProof | None = None


class LeaseReleased(msgspec.Struct, frozen=True, kw_only=True):
    """How one of several leases ended that were released at once; ``error`` says why it did not."""

    lease_ref: str
    released: bool
    proof: ReleaseProof | None = None
    error: str | None = None


class TokenView(msgspec.Struct, frozen=True, kw_only=True):
    """One named token, never itself. Times are seconds since the epoch; no expiry is None."""

    name: str
    created_at: float
    expires_at: float | None
    is_expired: bool
    limits: CallerLimits


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token, the one time that it is shown."""

    name: str
    token: str
    expires_at: float | None

    def __repr__(self) -> str:
        """Without the token."""
        return f"NewToken(name={self.name!r}, token=<redacted>, expires_at={self.expires_at!r})"


class LeaseView(msgspec.Struct, frozen=True, kw_only=True):
    """One lease as lists show it. ``health`` is healthy, degraded or unavailable; ``owner`` is who made it."""

    lease_ref: str
    endpoint_id: str
    owner: str
    group: str | None
    provider: str
    model: str
    consumer: str | None
    state: str
    cause: str | None
    health: str
    base_url: str
    created_at: float
    expires_in_s: float | None
    idle_for_s: float | None
    isolation: str | None
    processes: tuple[ProvenProcess, ...]
    rss_bytes: int
    cpu_s: float
    load: dict[str, int]
    metadata: dict[str, Any]


def proven(row: ProcessRow) -> ProvenProcess:
    """A process as proofs show it."""
    return ProvenProcess(pid=row.id.pid, create_time=row.id.create_time, name=row.name)


def unnamed(process: ProcessId) -> ProvenProcess:
    """A process of which only the identity is left."""
    return ProvenProcess(pid=process.pid, create_time=process.create_time, name="")


def view(record: LeaseRecord, heartbeat_max_age_s: float) -> LeaseView:
    """A lease as it is now."""
    now = time.monotonic()
    idle_since = record.idle_since()
    return LeaseView(
        lease_ref=record.lease_ref,
        endpoint_id=record.endpoint_id,
        owner=record.owner,
        group=record.options.group,
        provider=record.provider,
        model=record.model,
        consumer=record.consumer,
        state=record.state,
        cause=record.cause,
        health=health(record, now, heartbeat_max_age_s),
        base_url=record.base_url,
        created_at=record.created_at_s,
        expires_in_s=max(0.0, record.expires_at - now) if record.is_live else None,
        idle_for_s=max(0.0, now - idle_since) if record.is_live and idle_since is not None else None,
        isolation=record.isolation,
        processes=tuple(proven(row) for row in record.processes),
        rss_bytes=sum(row.rss_bytes for row in record.processes),
        cpu_s=sum(row.cpu_s for row in record.processes),
        load=record.scoreboard.counts(),
        metadata=record.metadata,
    )


def health(record: LeaseRecord, now: float, heartbeat_max_age_s: float) -> str:
    """healthy; degraded while the worker's heart is late or it was started again; unavailable when not ready."""
    if record.state is not State.READY:
        return "unavailable"
    board = record.scoreboard
    is_late = now - board["heartbeat_ns"] / 1e9 > heartbeat_max_age_s
    return "degraded" if is_late or board["boots"] > 1 else "healthy"
