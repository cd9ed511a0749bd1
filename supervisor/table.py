"""The lease table: what is known of each lease, and the single place that changes a lease's state.

:meth:`LeaseTable.apply` decides and returns what is to be done; it does no I/O, and callers do theirs after it.
Times are seconds of the monotonic clock and come in as arguments. No record holds a token.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import msgspec

from shared.contracts import LeaseOptions
from shared.launch import Launched
from shared.processes import ProcessId, ProcessRow
from shared.scoreboard import Scoreboard, local
from supervisor.lease import LIVE_STATES, Cause, Happening, State, next_state, stops_family

CLOSED_KEPT = 200
"""How many closed leases can still be shown."""


class LeaseRecord(msgspec.Struct, kw_only=True, eq=False):
    """One lease. ``processes`` is the family as last seen; ``seen`` every process it ever had."""

    lease_ref: str
    endpoint_id: str
    owner: str
    """The identity that made it, by name."""
    provider: str
    model: str
    consumer: str | None
    options: LeaseOptions
    lease_dir: str
    base_url: str
    created_at_s: float
    """Wall clock, seconds since the epoch; all other times are monotonic."""
    expires_at: float
    owner_process: ProcessId | None = None
    scoreboard: Scoreboard = msgspec.field(default_factory=local)
    metadata: dict[str, Any] = {}
    state: State = State.STARTING
    cause: Cause | None = None
    leader_pid: int | None = None
    isolation: str | None = None
    pid_namespace: int | None = None
    processes: tuple[ProcessRow, ...] = ()
    seen: set[ProcessId] = msgspec.field(default_factory=set)

    def start_family(self, launched: Launched) -> None:
        """Note what the zygote has started."""
        self.leader_pid, self.isolation = launched.pid, launched.isolation
        self.pid_namespace = launched.pid_namespace
        self.metadata["isolation"] = launched.isolation

    @property
    def is_live(self) -> bool:
        """Whether it is starting or ready."""
        return self.state in LIVE_STATES

    def idle_since(self) -> float | None:
        """When it last had work, on the monotonic clock; None while it works."""
        board = self.scoreboard
        return None if board["in_flight"] or board["queued"] else board["last_active_ns"] / 1e9

    def exhausted_since(self) -> float | None:
        """When its budget was used up and its last turn over, on the monotonic clock; None before that."""
        exhausted_ns = self.scoreboard["budget_exhausted_ns"]
        return exhausted_ns / 1e9 if exhausted_ns else None


class LeaseTable:
    """All leases by their ref: the living ones, and the last closed ones."""

    def __init__(self, budget_grace_s: float) -> None:
        self._budget_grace_s = budget_grace_s
        self._records: OrderedDict[str, LeaseRecord] = OrderedDict()

    def __iter__(self) -> Iterator[LeaseRecord]:
        return iter(list(self._records.values()))

    def get(self, lease_ref: str) -> LeaseRecord | None:
        """The record of that ref, if it is known."""
        return self._records.get(lease_ref)

    def unfinished(self) -> list[LeaseRecord]:
        """Every lease that is not closed."""
        return [record for record in self._records.values() if record.state is not State.CLOSED]

    def add(self, record: LeaseRecord) -> None:
        """Begin with a lease in STARTING; the oldest closed leases are forgotten."""
        self._records[record.lease_ref] = record
        closed = [each.lease_ref for each in self._records.values() if each.state is State.CLOSED]
        for lease_ref in closed[: max(0, len(closed) - CLOSED_KEPT)]:
            del self._records[lease_ref]

    def apply(self, record: LeaseRecord, happening: Happening) -> bool:
        """Change the lease's state; True when its family is now to be stopped. Raises IllegalTransition."""
        before = record.state
        record.state = next_state(before, happening)
        if isinstance(happening, Cause) and record.cause is None:
            record.cause = happening
        return stops_family(before, record.state)

    def overdue(self, now: float) -> list[tuple[LeaseRecord, Cause]]:
        """Living leases whose time is up at ``now``, with the reason."""
        grace_s = self._budget_grace_s
        return [(record, cause) for record in self.unfinished() if (cause := _overdue(record, now, grace_s))]


def _overdue(record: LeaseRecord, now: float, budget_grace_s: float) -> Cause | None:
    if not record.is_live:
        return None
    if now >= record.expires_at:
        return Cause.EXPIRED
    exhausted_since = record.exhausted_since()
    if exhausted_since is not None and now - exhausted_since >= budget_grace_s:
        return Cause.BUDGET_EXHAUSTED
    idle_since = record.idle_since()
    if (
        record.state is State.READY
        and idle_since is not None
        and now - idle_since >= record.options.idle_timeout_s
    ):
        return Cause.IDLE
    return None
