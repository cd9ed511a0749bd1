"""What the supervisor tells about leases: their view in lists, and the proof of their end. Never a token."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from shared.contracts import LeaseOptions
from shared.health import Reason
from supervisor.caller import CallerLimits
from supervisor.entry import LeaseEntry
from supervisor.health import lease_health, not_ready
from supervisor.proof import ProvenProcess, ReleaseProof, proven
from supervisor.table import LeaseRecord


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
    """One lease as lists show it; ``owner`` is who made it.

    ``health`` is ok, degraded or unavailable, for the ``health_reasons``. ``slot`` names it in metrics. ``options`` are
    what it was leased with: a renewal changes ``expires_in_s`` alone, and a null ``queue_limit`` is the supervisor's.
    """

    lease_ref: str
    endpoint_id: str
    owner: str
    group: str | None
    provider: str
    model: str
    consumer: str | None
    options: LeaseOptions
    state: str
    cause: str | None
    detail: str
    health: str
    health_reasons: tuple[Reason, ...]
    slot: int | None
    base_url: str
    created_at: float
    ended_at: float | None
    expires_in_s: float | None
    idle_for_s: float | None
    isolation: str | None
    processes: tuple[ProvenProcess, ...]
    rss_bytes: int
    cpu_s: float
    load: dict[str, int]
    metadata: dict[str, Any]
    proof: ReleaseProof | None


def view(record: LeaseRecord) -> LeaseView:
    """A lease as it is now."""
    now = time.monotonic()
    health = lease_health(record, time.monotonic_ns())
    idle_since = record.idle_since()
    return LeaseView(
        **_facts(record),
        health=health.status,
        health_reasons=health.reasons,
        slot=record.slot,
        expires_in_s=max(0.0, record.expires_at - now) if record.is_live else None,
        idle_for_s=max(0.0, now - idle_since) if record.is_live and idle_since is not None else None,
        processes=tuple(proven(row) for row in record.processes),
        rss_bytes=record.rss_bytes,
        cpu_s=record.cpu_s,
        load=record.scoreboard.counts(),
    )


def ended_view(entry: LeaseEntry) -> LeaseView:
    """A lease that has ended, as the journal knows it."""
    health = not_ready(entry)
    return LeaseView(
        **_facts(entry),
        health=health.status,
        health_reasons=health.reasons,
        slot=None,
        expires_in_s=None,
        idle_for_s=None,
        processes=(),
        rss_bytes=0,
        cpu_s=0.0,
        load=msgspec.structs.asdict(entry.totals),
    )


def _facts(entry: LeaseEntry) -> dict[str, Any]:
    """What a view of it says whether it is open or not."""
    return {
        "lease_ref": entry.lease_ref,
        "endpoint_id": entry.endpoint_id,
        "owner": entry.owner,
        "group": entry.options.group,
        "provider": entry.provider,
        "model": entry.model,
        "consumer": entry.consumer,
        "options": entry.options,
        "state": entry.state,
        "cause": entry.cause,
        "detail": entry.detail,
        "base_url": entry.base_url,
        "created_at": entry.created_at_s,
        "ended_at": entry.ended_at_s,
        "isolation": entry.isolation,
        "metadata": entry.metadata,
        "proof": entry.proof,
    }
