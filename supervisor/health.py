"""What the supervisor says of the health of leases and of itself. Pure.

Of a lease it adds to what the worker knows (:mod:`shared.health`) whether it is ready and its heart beats in time. Of
itself it says whether leases can be made: having many of them, or all that are allowed, is not being ill.
"""

from __future__ import annotations

import msgspec

from shared.health import Health, Reason, Status, health, worker_reasons
from supervisor.entry import LeaseEntry
from supervisor.lease import State
from supervisor.table import LeaseRecord


def lease_health(record: LeaseRecord, now_ns: int) -> Health:
    """Of an open lease; ``now_ns`` is of the monotonic clock."""
    if record.state is not State.READY:
        return not_ready(record)
    is_supported = record.metadata.get("cli", {}).get("is_supported", True)
    reasons = worker_reasons(record.scoreboard, now_ns, is_supported_version=is_supported)
    if record.heart.is_late:
        text = "the worker does not move: its heart has not beaten in time"
        reasons.append(Reason(code="heart_late", message=text))
    return health(reasons)


def not_ready(entry: LeaseEntry) -> Health:
    """Of a lease that is starting, ending, or has ended."""
    why = f" ({entry.cause}{f': {entry.detail}' if entry.detail else ''})" if entry.cause else ""
    return health(
        [Reason(code=entry.state, message=f"the lease is {entry.state}{why}", status=Status.UNAVAILABLE)]
    )


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor's own health is made of."""

    is_ending: bool
    has_zygote: bool
    is_journal_failing: bool
    available_bytes: int
    min_available_bytes: int


def supervisor_health(facts: Facts) -> Health:
    """Of the supervisor: unavailable while no lease can be made."""
    reasons = []
    if facts.is_ending:
        text = "the supervisor is ending"
        reasons.append(Reason(code="shutting_down", message=text, status=Status.UNAVAILABLE))
    if facts.is_journal_failing:
        text = "the journal cannot be written, and without it no lease is made"
        reasons.append(Reason(code="journal_unavailable", message=text, status=Status.UNAVAILABLE))
    if facts.available_bytes < facts.min_available_bytes:
        text = f"{facts.available_bytes} bytes of memory are available, {facts.min_available_bytes} are kept free"
        reasons.append(Reason(code="memory_pressure", message=text, status=Status.UNAVAILABLE))
    if not facts.has_zygote and not facts.is_ending:
        text = "the zygote has gone, and with it every lease; the next lease starts another one"
        reasons.append(Reason(code="zygote_gone", message=text))
    return health(reasons)
