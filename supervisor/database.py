"""The supervisor's one SQLite file: opened in WAL mode, brought to this program's version, and its errors translated.

A file that SQLite cannot read is moved aside, and an empty one takes its place: what ran is still found by way of the
zygote. A file of a newer program is left alone, because what it says about leases might be misread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from shared.errors import WorkerError

DATABASE_NAME = "leases.sqlite"
BUSY_TIMEOUT_S = 0.25
"""Somebody may look at the file with SQLite's own shell; a longer lock than this is an error."""
CACHE_KIB = 256
"""Of the file in memory. Nearly all that is done is writing, which a larger one does not make faster."""
MIGRATIONS = (
    """
    CREATE TABLE leases (
        lease_ref TEXT PRIMARY KEY,
        state TEXT NOT NULL,
        cause TEXT,
        detail TEXT NOT NULL,
        created_at_s REAL NOT NULL,
        ended_at_s REAL,
        pid INTEGER,
        entry BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX leases_by_end ON leases (ended_at_s);
    """,
    """
    CREATE TABLE tokens (
        name TEXT PRIMARY KEY,
        token_sha256 TEXT NOT NULL UNIQUE,
        created_at_s REAL NOT NULL,
        expires_at_s REAL,
        limits BLOB NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE leases ADD COLUMN owner TEXT;
    ALTER TABLE leases ADD COLUMN lease_group TEXT;
    """,
)
"""Each brings the file from the version that is its index to the next one; none is ever changed afterwards."""
_log = logging.getLogger("asm_endpoint.database")


class Database:
    """One open file. Every method raises WorkerError ``journal_unavailable`` when SQLite cannot do its work."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged: Path | None = None
        """Where a file went that could not be read; None when it could, or was new."""
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise _unavailable(path, error) from error
            self.damaged = self._move_aside(error)
            self._connection = self._open()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything inside happens, or nothing does."""
        try:
            with self._connection:
                yield self._connection
        except sqlite3.Error as error:
            raise _unavailable(self.path, error) from error

    def probe(self) -> None:
        """Write something that changes nothing."""
        with self.transaction() as connection:
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def close(self) -> None:
        """Write what is in the log into the file itself."""
        self._connection.close()

    def _open(self) -> sqlite3.Connection:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            connection.execute("PRAGMA synchronous = NORMAL")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > len(MIGRATIONS):
                raise WorkerError(
                    "journal_unavailable",
                    f"cannot use {self.path}: it has version {version}, of a newer program; this one knows up to "
                    f"{len(MIGRATIONS)}",
                )
            for number, migration in enumerate(MIGRATIONS[version:], version + 1):
                connection.executescript(f"BEGIN; {migration}; PRAGMA user_version = {number}; COMMIT;")
        except BaseException:
            connection.close()
            raise
        return connection

    def _move_aside(self, error: sqlite3.DatabaseError) -> Path:
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
        os.rename(self.path, aside)
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.path}{suffix}")
        _log.error("cannot read %s (%s): moved it to %s and began a new one", self.path, error, aside.name)
        return aside


def _unavailable(path: Path, error: sqlite3.Error) -> WorkerError:
    return WorkerError("journal_unavailable", f"cannot use {path}: {error}")
