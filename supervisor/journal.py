"""The journal: every lease, open and ended, in the supervisor's database.

A lease that cannot be written is not begun. What happens to a lease afterwards happens whether it can be written or
not: it stays in memory, :attr:`Journal.is_behind` says so, and :meth:`Journal.catch_up` tries again.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable

from shared.errors import WorkerError
from supervisor import entry as entries
from supervisor.database import Database
from supervisor.entry import LeaseEntry

WRITE = (
    "INSERT OR REPLACE INTO leases "
    "(lease_ref, owner, lease_group, state, cause, detail, created_at_s, ended_at_s, pid, entry) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
ENDED = (
    "SELECT entry FROM leases WHERE ended_at_s IS NOT NULL AND (?1 IS NULL OR owner = ?1) "
    "AND (?2 IS NULL OR lease_group = ?2) ORDER BY ended_at_s DESC LIMIT ?3"
)
HOW_MANY_ENDED = "SELECT count(*) FROM leases WHERE ended_at_s IS NOT NULL"
FORGET_OLD = (
    "DELETE FROM leases WHERE ended_at_s < ? AND lease_ref NOT IN "
    "(SELECT lease_ref FROM leases WHERE ended_at_s IS NOT NULL ORDER BY ended_at_s DESC, lease_ref DESC LIMIT ?)"
)
FORGET_MANY = (
    "DELETE FROM leases WHERE lease_ref IN (SELECT lease_ref FROM (SELECT lease_ref, ended_at_s, row_number() OVER "
    "(PARTITION BY owner ORDER BY ended_at_s DESC, lease_ref DESC) AS place FROM leases WHERE ended_at_s IS NOT NULL) "
    "ORDER BY place, ended_at_s DESC, lease_ref DESC LIMIT -1 OFFSET ?)"
)
"""By place, because who has most has the last places: kept is the last lease of everybody, then their last but one."""
_log = logging.getLogger("asm_endpoint.journal")


class Journal:
    """The rows of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unwritten: dict[str, LeaseEntry] = {}
        self.is_failing = False
        """Whether the last thing that was to be written could not be."""

    @property
    def is_behind(self) -> bool:
        """Whether something could not be written yet."""
        return bool(self._unwritten)

    def is_written(self, lease_ref: str) -> bool:
        """Whether all that is known of a lease has been written."""
        return lease_ref not in self._unwritten

    def write(self, lease: LeaseEntry) -> None:
        """Write a lease as it is, and then what could not be written before.

        Raises WorkerError ``journal_unavailable``.
        """
        self._write(lease)
        self.catch_up()

    def _write(self, lease: LeaseEntry) -> None:
        row = (
            lease.lease_ref,
            lease.owner,
            lease.options.group,
            lease.state,
            lease.cause,
            lease.detail,
            lease.created_at_s,
            lease.ended_at_s,
            lease.leader.pid if lease.leader else None,
            entries.encode(entries.facts(lease)),
        )
        self.is_failing = True
        with self._database.transaction() as connection:
            connection.execute(WRITE, row)
        self.is_failing = False
        self._unwritten.pop(lease.lease_ref, None)

    def keep(self, lease: LeaseEntry) -> bool:
        """Write a lease as it is, now or later; False when it could not be written now."""
        try:
            self._write(lease)
        except WorkerError as error:
            if not self._unwritten:
                _log.error("%s; what happens now is written later", error)
            self._unwritten[lease.lease_ref] = lease
            return False
        return True

    def catch_up(self) -> None:
        """Write what could not be written before."""
        for lease in list(self._unwritten.values()):
            if not self.keep(lease):
                return
        if self.is_failing:
            with contextlib.suppress(WorkerError):
                self._database.probe()
                self.is_failing = False

    def get(self, lease_ref: str) -> LeaseEntry | None:
        """One lease, if it is known."""
        if lease := self._unwritten.get(lease_ref):
            return lease
        with self._database.transaction() as connection:
            row = connection.execute("SELECT entry FROM leases WHERE lease_ref = ?", (lease_ref,)).fetchone()
        return _decoded([row])[0] if row else None

    def open_leases(self) -> list[LeaseEntry]:
        """Those that have not ended, as an earlier supervisor left them, oldest first."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT entry FROM leases WHERE ended_at_s IS NULL ORDER BY lease_ref"
            ).fetchall()
        return _decoded(rows)

    def ended_leases(
        self, limit: int, *, owner: str | None = None, group: str | None = None
    ) -> list[LeaseEntry]:
        """The last ones that have ended, oldest first; of one owner and group where they are named."""
        with self._database.transaction() as connection:
            rows = connection.execute(ENDED, (owner, group, limit)).fetchall()
        unwritten = [
            lease
            for lease in self._unwritten.values()
            if lease.ended_at_s is not None
            and owner in (None, lease.owner)
            and group in (None, lease.options.group)
        ]
        return [*reversed(_decoded(rows)), *unwritten][-limit:]

    def prune(self, *, ended_before_s: float, at_least: int, at_most: int) -> None:
        """Forget leases that ended before that time but for the last ``at_least``, and all but ``at_most``.

        Of these, whoever has most gives way first, oldest first: nobody's leases push out those of somebody with fewer.
        """
        with self._database.transaction() as connection:
            connection.execute(FORGET_OLD, (ended_before_s, at_least))
            (count,) = connection.execute(HOW_MANY_ENDED).fetchone()
            if count > at_most:
                connection.execute(FORGET_MANY, (at_most,))

    def close(self) -> None:
        """Try once more to write everything, and close the file."""
        self.catch_up()
        self._database.close()


def _decoded(rows: Iterable[tuple[bytes]]) -> list[LeaseEntry]:
    return [entries.decode(entry) for (entry,) in rows]
