"""The lease table: what is known of each open lease, and the single place that changes a lease's state.

:meth:`LeaseTable.apply` decides and returns what is to be done; it does no I/O, and callers do theirs after it.
Times are seconds of the monotonic clock and come in as arguments. Ended leases are the journal's.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import msgspec

from shared import budget
from shared.contracts import Budget
from shared.launch import Family
from shared.processes import ProcessId, ProcessRow
from shared.scoreboard import Scoreboard, local
from supervisor.entry import LeaseEntry
from supervisor.heart import Heart
from supervisor.lease import Cause, Happening, State, next_state, stops_family


class LeaseRecord(LeaseEntry, kw_only=True, eq=False):
    """One lease, with what lives of it. ``processes`` is the family as last seen; ``seen`` every one it ever had."""

    scoreboard: Scoreboard = msgspec.field(default_factory=local)
    slot: int = 0
    """A small number that names it in metrics; taken over by a later lease."""
    heart: Heart = msgspec.field(default_factory=Heart)
    namespace_fd: int | None = None
    """Keeps the number of its PID namespace from naming another one."""
    processes: tuple[ProcessRow, ...] = ()
    seen: set[ProcessId] = msgspec.field(default_factory=set)

    @property
    def leader_pid(self) -> int | None:
        """The family's first process; None before the launch."""
        return self.leader.pid if self.leader else None

    @property
    def held_namespace(self) -> int | None:
        """The PID namespace that is certainly this family's: a number that nothing holds may be another's by now."""
        return self.pid_namespace if self.namespace_fd is not None else None

    @property
    def rss_bytes(self) -> int:
        """Resident memory of its processes, as last seen."""
        return sum(row.rss_bytes for row in self.processes)

    @property
    def cpu_s(self) -> float:
        """Processor time of its processes, as last seen, and of those that they have waited for."""
        return sum(row.cpu_s + row.children_cpu_s for row in self.processes)

    def start_family(self, family: Family, leader: ProcessId | None, namespace_fd: int | None) -> None:
        """Note what the zygote has started."""
        self.leader, self.isolation = leader, family.isolation
        self.pid_namespace, self.namespace_fd = family.pid_namespace, namespace_fd
        self.metadata["isolation"] = family.isolation

    def idle_since(self) -> float | None:
        """When it last had work, on the monotonic clock; None while it works."""
        board = self.scoreboard
        return None if board["in_flight"] or board["queued"] else board["last_active_ns"] / 1e9

    def exhausted_since(self) -> float | None:
        """When its budget was used up and its last turn over, on the monotonic clock; None before that."""
        exhausted_ns = self.scoreboard["budget_exhausted_ns"]
        return exhausted_ns / 1e9 if exhausted_ns else None

    def let_go(self) -> None:
        """Nothing of it lives any more."""
        self.processes = ()
        self.scoreboard.settle()
        self.totals = self.scoreboard.totals()
        self.scoreboard.detach()
        if self.namespace_fd is not None:
            os.close(self.namespace_fd)
            self.namespace_fd = None


class LeaseTable:
    """All open leases by their ref."""

    def __init__(self, budget_grace_s: float) -> None:
        self._budget_grace_s = budget_grace_s
        self._records: dict[str, LeaseRecord] = {}

    def __iter__(self) -> Iterator[LeaseRecord]:
        return iter(list(self._records.values()))

    def __len__(self) -> int:
        return len(self._records)

    def get(self, lease_ref: str) -> LeaseRecord | None:
        """The record of that ref, if it is open."""
        return self._records.get(lease_ref)

    def add(self, record: LeaseRecord) -> None:
        """One more lease; it gets the smallest slot that is free."""
        taken = {each.slot for each in self._records.values()}
        record.slot = next(slot for slot in itertools.count() if slot not in taken)
        self._records[record.lease_ref] = record

    def drop(self, record: LeaseRecord) -> None:
        """Forget a lease that is closed."""
        self._records.pop(record.lease_ref, None)

    def unfinished(self) -> list[LeaseRecord]:
        """Every lease that is not closed."""
        return [record for record in self._records.values() if record.state is not State.CLOSED]

    def apply(self, record: LeaseRecord, happening: Happening, detail: str = "") -> bool:
        """Change the lease's state; True when its family is now to be stopped. Raises IllegalTransition."""
        before = record.state
        record.state = next_state(before, happening)
        if isinstance(happening, Cause) and record.cause is None:
            record.cause, record.detail = happening, detail
        return stops_family(before, record.state)

    def overdue(self, now: float) -> list[tuple[LeaseRecord, Cause, str]]:
        """Living leases whose time is up at ``now``, with the reason, and more about it in words."""
        grace_s = self._budget_grace_s
        return [
            (record, cause, _budget_sums(record) if cause is Cause.BUDGET_EXHAUSTED else "")
            for record in self.unfinished()
            if (cause := _overdue(record, now, grace_s))
        ]


def _budget_sums(record: LeaseRecord) -> str:
    limits, spent = record.options.budget or Budget(), budget.spent_of(record.scoreboard.totals())
    return f"{budget.sums(limits, spent, budget.reached(limits, spent))} spent"


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
