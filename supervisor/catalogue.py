"""Looking leases up and showing them, open and ended ones, to whoever may see them. Changes nothing."""

from __future__ import annotations

from pathlib import Path

from shared.errors import RequestError
from supervisor.caller import Caller
from supervisor.endings import log_tail
from supervisor.entry import LeaseEntry
from supervisor.journal import Journal
from supervisor.observing import observe
from supervisor.selection import Selection
from supervisor.table import LeaseRecord, LeaseTable
from supervisor.views import LeaseView, ended_view, view

ENDED_SHOWN = 1000
"""How many ended leases are shown at once."""


class Catalogue:
    """The leases of one supervisor, as its callers find them."""

    def __init__(self, table: LeaseTable, journal: Journal) -> None:
        self._table = table
        self._journal = journal

    def find(self, lease_ref: str, caller: Caller) -> LeaseEntry | None:
        """The lease of that ref, open or ended; another identity's is like one that never was.

        For both the journal is read, so that neither time nor a failing disk tells them apart.
        """
        record: LeaseEntry | None = self._table.get(lease_ref)
        if record is None or not caller.may_see(record.owner):
            record = self._journal.get(lease_ref)
        return record if record is not None and caller.may_see(record.owner) else None

    def require(self, lease_ref: str, caller: Caller) -> LeaseEntry:
        """The same. Raises RequestError ``not_found``."""
        record = self.find(lease_ref, caller)
        if record is None:
            raise RequestError("not_found", f"cannot find lease {lease_ref}")
        return record

    def show(self, lease_ref: str, caller: Caller) -> LeaseView:
        """One lease, with its processes as they are now. Raises RequestError ``not_found``."""
        record = self.require(lease_ref, caller)
        if isinstance(record, LeaseRecord):
            observe([record])
        return shown(record)

    def show_all(self, selection: Selection, *, ended: bool = False) -> list[LeaseView]:
        """Every selected open lease, and with ``ended`` before them the last ones that have ended."""
        observe(self._table.unfinished())
        over: list[LeaseEntry] = []
        if ended:
            over = self._journal.ended_leases(ENDED_SHOWN, owner=selection.whose, group=selection.group)
        return [shown(record) for record in (*over, *self._table) if selection.includes(record)]

    def log(self, lease_ref: str, caller: Caller) -> str:
        """The end of a lease's log, without secrets. Raises RequestError ``not_found``."""
        record = self.require(lease_ref, caller)
        return log_tail(Path(record.lease_dir)) if isinstance(record, LeaseRecord) else record.log_tail


def shown(record: LeaseEntry) -> LeaseView:
    """A lease as it is known now."""
    return view(record) if isinstance(record, LeaseRecord) else ended_view(record)
