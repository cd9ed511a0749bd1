"""The supervisor's SQLite file: new, of this version, of a newer program, damaged, locked, and without room."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from shared.errors import WorkerError
from supervisor.database import MIGRATIONS, Database


def test_a_new_file_is_its_owners_alone_and_opens_again(tmp_path: Path):
    """With this program's version in it."""
    path = tmp_path / "leases.sqlite"
    Database(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
    database = Database(path)
    with database.transaction() as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert database.damaged is None
    database.close()


def test_a_newer_programs_file_is_left_alone(tmp_path: Path):
    """Refused by name, byte for byte as it was."""
    path = tmp_path / "leases.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 1000")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(WorkerError, match="version 1000, of a newer program") as refused:
        Database(path)
    assert refused.value.code == "journal_unavailable"
    assert path.read_bytes()[100:] == before[100:]


def test_a_damaged_file_is_moved_aside(tmp_path: Path):
    """Nothing of it is lost, and the new one works."""
    path = tmp_path / "leases.sqlite"
    path.write_bytes(b"this is no database" * 1000)
    database = Database(path)
    assert database.damaged is not None
    assert database.damaged.read_bytes().startswith(b"this is no database")
    with database.transaction() as connection:
        assert connection.execute("SELECT count(*) FROM leases").fetchone() == (0,)
    database.close()


def test_a_locked_file_is_a_clear_error(tmp_path: Path):
    """After a short wait, and it works again afterwards."""
    path = tmp_path / "leases.sqlite"
    database = Database(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(WorkerError, match="locked"), database.transaction() as connection:
        connection.execute("DELETE FROM leases")
    other.execute("ROLLBACK")
    other.close()
    with database.transaction() as connection:
        connection.execute("DELETE FROM leases")
    database.close()


def test_a_file_that_cannot_grow_is_a_clear_error(tmp_path: Path):
    """As on a full disk; what was written before is still there."""
    database = Database(tmp_path / "leases.sqlite")
    row = ("l", "ready", None, "", 0.0, None, None, b"x" * 100)
    columns = "lease_ref, state, cause, detail, created_at_s, ended_at_s, pid, entry"
    insert = f"INSERT INTO leases ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    with database.transaction() as connection:
        connection.execute(insert, row)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(WorkerError, match="full"), database.transaction() as connection:
        connection.execute(insert, ("m", *row[1:-1], b"x" * 1_000_000))
    with database.transaction() as connection:
        assert connection.execute("SELECT lease_ref FROM leases").fetchall() == [("l",)]
    database.close()
