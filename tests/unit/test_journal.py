"""The journal: leases come back as they were, failures to write lose nothing, and what is long over is forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared.contracts import LeaseOptions
from shared.errors import WorkerError
from shared.processes import ProcessId
from shared.scoreboard import Totals
from supervisor.database import Database
from supervisor.entry import LeaseEntry, facts
from supervisor.journal import Journal
from supervisor.lease import Cause, State
from supervisor.proof import ReleaseProof
from supervisor.table import LeaseRecord

TOKEN = "the-token-itself"
PROOF = ReleaseProof(
    lease_ref="lease_1",
    cause="released",
    isolation="pid_namespace",
    processes=(),
    sigkill_needed=False,
    elapsed_ms=1.5,
    survivors=(),
    verified="pid_namespace_empty",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "leases.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    """An empty one."""
    opened = Journal(Database(path))
    yield opened
    opened.close()


def lease(lease_ref: str = "lease_1", **more: Any) -> LeaseRecord:
    """A ready lease."""
    known: dict[str, Any] = {
        "lease_ref": lease_ref,
        "endpoint_id": "endpoint_1",
        "owner": "admin",
        "provider": "echo",
        "model": "m",
        "consumer": "me",
        "options": LeaseOptions(ttl_s=100, group="g"),
        "lease_dir": "/somewhere/leases/lease_1",
        "base_url": "http://127.0.0.1:1/leases/lease_1/v1",
        "token_sha256": "ab" * 32,
        "created_at_s": 1.5,
        "expires_at": 100.25,
        "owner_process": ProcessId(12, 34),
        "metadata": {"run_id": "r"},
        "state": State.READY,
        "leader": ProcessId(56, 78),
        "isolation": "pid_namespace",
        "pid_namespace": 4_026_531_836,
        "totals": Totals(turns=3, prompt_tokens=5),
    }
    return LeaseRecord(**{**known, **more})


def same(one: LeaseEntry, other: LeaseEntry) -> bool:
    """Whether all that is kept is equal."""
    return msgspec.structs.asdict(facts(one)) == msgspec.structs.asdict(facts(other))


def test_a_lease_comes_back_as_it_was(path: Path):
    """Every field, after another program has opened the file."""
    journal, written = Journal(Database(path)), lease(cause=Cause.IDLE, detail="why", proof=PROOF)
    journal.write(written)
    journal.close()
    again = Journal(Database(path))
    (read,) = again.open_leases()
    assert same(read, written)
    found = again.get("lease_1")
    assert found is not None
    assert same(found, written)
    assert again.get("lease_2") is None
    again.close()


def test_open_and_ended_leases_are_told_apart(journal: Journal):
    """Ended ones in the order of their end, the last ones if there are too many."""
    journal.write(lease("open"))
    for number in range(5):
        journal.write(lease(f"ended_{number}", state=State.CLOSED, ended_at_s=float(number)))
    assert [each.lease_ref for each in journal.open_leases()] == ["open"]
    assert [each.lease_ref for each in journal.ended_leases(3)] == ["ended_2", "ended_3", "ended_4"]


@pytest.mark.parametrize(
    ("narrowed", "refs"),
    [
        ({}, ["b1", "a2"]),
        ({"owner": "alice"}, ["a1", "a2"]),
        ({"owner": "bob"}, ["b0", "b1"]),
        ({"owner": "carol"}, []),
        ({"group": "g"}, ["b0", "a1"]),
        ({"group": ""}, []),
        ({"owner": "alice", "group": "g"}, ["a0", "a1"]),
        ({"owner": "bob", "group": "h"}, []),
    ],
)
def test_others_leases_do_not_crowd_ones_own_out(
    journal: Journal, path: Path, narrowed: dict[str, str], refs: list[str]
):
    """The last two of one owner or group are found behind any number of others; also while they are unwritten."""
    ended = [
        ("a0", "alice", "g"),
        ("b0", "bob", "g"),
        ("a1", "alice", "g"),
        ("b1", "bob", None),
        ("a2", "alice", "h"),
    ]
    for number, (lease_ref, owner, group) in enumerate(ended):
        options = LeaseOptions(group=group)
        known = lease(lease_ref, state=State.CLOSED, owner=owner, options=options, ended_at_s=float(number))
        if number == len(ended) - 1:
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            assert not journal.keep(known)
            assert [each.lease_ref for each in journal.ended_leases(2, **narrowed)] == refs
            other.execute("ROLLBACK")
            other.close()
            journal.catch_up()
        else:
            journal.write(known)
    assert [each.lease_ref for each in journal.ended_leases(2, **narrowed)] == refs


@pytest.mark.parametrize(
    ("ended_before_s", "at_least", "at_most", "left"),
    [
        (2.0, 0, 100, [2, 3, 4]),
        (0.0, 0, 2, [3, 4]),
        (0.0, 0, 100, [0, 1, 2, 3, 4]),
        (1e9, 2, 100, [3, 4]),
        (1e9, 0, 100, []),
    ],
)
def test_what_is_long_over_is_forgotten(
    journal: Journal, ended_before_s: float, at_least: int, at_most: int, left: list[int]
):
    """By age and by number, the last ones not by age alone; an open lease never."""
    journal.write(lease("open", created_at_s=0.0))
    for number in range(5):
        journal.write(lease(f"ended_{number}", state=State.CLOSED, ended_at_s=float(number)))
    journal.prune(ended_before_s=ended_before_s, at_least=at_least, at_most=at_most)
    assert [each.lease_ref for each in journal.ended_leases(10)] == [f"ended_{number}" for number in left]
    assert len(journal.open_leases()) == 1


@pytest.mark.parametrize(
    ("ended", "at_most", "left"),
    [
        ("q ffffff", 4, "q...fff"),
        ("ffffff q", 4, "...fff q"),
        ("fffff qqq", 6, "..fff qqq"),
        ("fffff qqq", 4, "...ff .qq"),
        ("ababab", 3, "...bab"),
        ("ab?f?f?f", 4, "ab....?f"),
        ("abcdef", 2, "....ef"),
        ("abc", 0, "..."),
    ],
)
def test_who_has_most_gives_way_first(journal: Journal, path: Path, ended: str, at_most: int, left: str):
    """A flood of one identity's takes nothing of a quiet one's; a letter is one's lease, ``?`` one of nobody known."""
    refs = [f"{number:02}{owner}" for number, owner in enumerate(ended.replace(" ", ""))]
    for number, lease_ref in enumerate(refs):
        journal.write(lease(lease_ref, owner=lease_ref[2:], state=State.CLOSED, ended_at_s=float(number)))
    other = sqlite3.connect(path)
    with other:
        other.execute("UPDATE leases SET owner = NULL WHERE owner = '?'")
    other.close()
    journal.write(lease("open", owner=ended[-1]))
    journal.prune(ended_before_s=0.0, at_least=0, at_most=at_most)
    kept = {each.lease_ref for each in journal.ended_leases(len(refs))}
    assert "".join(ref[2:] if ref in kept else "." for ref in refs) == left.replace(" ", "")
    assert len(kept) == at_most
    assert [each.lease_ref for each in journal.open_leases()] == ["open"]


def test_a_journal_that_fails_says_so_until_it_can_write_again(tmp_path: Path):
    """Also when nothing waits to be written, because what could not be written was not begun."""
    database = Database(tmp_path / "leases.sqlite")
    journal = Journal(database)
    with database.transaction() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(WorkerError, match="full"):
        journal.write(lease(model="m" * 1_000_000))
    assert (journal.is_failing, journal.is_behind) == (True, False)
    with database.transaction() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    journal.catch_up()
    assert not journal.is_failing
    journal.close()


def test_what_cannot_be_written_is_written_later(journal: Journal, path: Path):
    """It is known meanwhile, and nothing of it is lost."""
    journal.write(lease())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    ended = lease(state=State.CLOSED, cause=Cause.CRASHED, ended_at_s=9.0)
    assert not journal.keep(ended)
    assert (journal.is_failing, journal.is_behind) == (True, True)
    assert journal.get("lease_1") is ended
    with pytest.raises(WorkerError):
        journal.write(lease("lease_2"))
    other.execute("ROLLBACK")
    other.close()
    journal.catch_up()
    assert (journal.is_failing, journal.is_behind) == (False, False)
    assert journal.open_leases() == []
    assert [each.cause for each in journal.ended_leases(5)] == [Cause.CRASHED]
    journal.write(lease("lease_3"))
    assert journal.get("lease_1") is not ended


def test_the_columns_can_be_read_without_this_program(journal: Journal, path: Path):
    """With SQLite's own shell, say."""
    journal.write(lease(state=State.CLOSED, cause=Cause.LOST, detail="gone", ended_at_s=2.0))
    other = sqlite3.connect(path)
    row = other.execute(
        "SELECT lease_ref, state, cause, detail, created_at_s, ended_at_s, pid FROM leases"
    ).fetchone()
    other.close()
    assert row == ("lease_1", "closed", "lost", "gone", 1.5, 2.0, 56)
