"""Taking the families of leases from the process table as it is now."""

from __future__ import annotations

from collections.abc import Sequence

from shared import processes
from supervisor.table import LeaseRecord


def observe(records: Sequence[LeaseRecord]) -> None:
    """One pass over the process table for all these leases."""
    if not records:
        return
    rows = processes.table()
    children = processes.children_by_parent(rows)
    for record in records:
        if record.leader is not None:
            found = processes.family(record.leader.pid, rows, children)
            is_ours = bool(found) and found[0].id == record.leader
            record.processes = tuple(found) if is_ours else ()
            record.seen.update(row.id for row in record.processes)
