"""Taking the families of leases from the process table as it is now."""

from __future__ import annotations

from collections.abc import Sequence

from shared import processes
from shared.processes import ProcessRow
from supervisor.table import LeaseRecord


def observe(records: Sequence[LeaseRecord]) -> None:
    """One pass over the process table for all these leases; over its own processes alone for a single one."""
    if len(records) == 1:
        (record,) = records
        _note(record, processes.tree(record.leader.pid) if record.leader else [])
    elif records:
        rows = processes.table()
        children = processes.children_by_parent(rows)
        for record in records:
            _note(record, processes.family(record.leader.pid, rows, children) if record.leader else [])


def _note(record: LeaseRecord, found: list[ProcessRow]) -> None:
    is_ours = bool(found) and found[0].id == record.leader
    record.processes = tuple(found) if is_ours else ()
    record.seen.update(row.id for row in record.processes)
