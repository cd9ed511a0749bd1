"""Watching the families with psutil: one pass over the process table per period, for all leases at once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from shared import processes
from supervisor.lease import Cause, State
from supervisor.table import LeaseRecord, LeaseTable

_log = logging.getLogger("asm_endpoint.monitor")


class Monitor:
    """Refreshes every lease's processes and ends the leases whose time, owner or family is gone."""

    def __init__(
        self, table: LeaseTable, end: Callable[[LeaseRecord, Cause], object], period_s: float
    ) -> None:
        self._table = table
        self._end = end
        self._period_s = period_s

    async def run(self) -> None:
        """Look once per period, until cancelled; a failed look is logged and the next one made."""
        while True:
            await asyncio.sleep(self._period_s)
            try:
                self.look()
            except Exception:
                _log.exception("cannot look at the process table")

    def look(self) -> None:
        """One look."""
        observe(self._table.unfinished())
        for record, cause in self._table.overdue(time.monotonic()):
            self._end(record, cause)
        for record in self._table.unfinished():
            owner = record.owner_process
            if record.is_live and owner is not None and not processes.is_alive(owner):
                self._end(record, Cause.OWNER_GONE)
            elif record.state is State.READY and not record.processes:
                self._end(record, Cause.LOST)


def observe(records: list[LeaseRecord]) -> None:
    """Take each lease's family from the process table as it is now."""
    if not records:
        return
    rows = processes.table()
    children = processes.children_by_parent(rows)
    for record in records:
        if record.leader_pid is not None:
            record.processes = tuple(processes.family(record.leader_pid, rows, children))
            record.seen.update(row.id for row in record.processes)
