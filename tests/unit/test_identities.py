"""Named tokens: who a token is, for how long, and what is left of it in the file."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared import tokens
from shared.errors import RequestError, WorkerError
from supervisor.caller import ADMIN, CallerLimits
from supervisor.database import DATABASE_NAME, MIGRATIONS, Database
from supervisor.identities import Identities

ADMIN_TOKEN = "the-admin-token"
NO_LIMITS = CallerLimits()
LIMITS = CallerLimits(max_leases=2, max_ttl_s=60.0, providers=("echo", "claude"), models=("m",))


class Clock:
    """A wall clock that is set by hand."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Home:
    """Identities over a real file; :meth:`again` is the next supervisor on it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / DATABASE_NAME
        self.clock = Clock()
        self.written: list[str] = []
        self.database = Database(self.path)
        self.identities = self._identities()

    def again(self) -> Identities:
        self.database.close()
        self.database = Database(self.path)
        self.identities = self._identities()
        return self.identities

    def now_and_again(self) -> Iterator[Identities]:
        yield self.identities
        yield self.again()

    def _identities(self) -> Identities:
        return Identities(self.database, ADMIN_TOKEN, self.written.append, self.clock)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A file of its own for each test."""
    made = Home(tmp_path)
    yield made
    made.database.close()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """The file cannot be written meanwhile."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def name_of(identities: Identities, token: str | None) -> str | None:
    """Whose token it is."""
    caller = identities.caller(token)
    return None if caller is None else caller.name


def test_a_token_is_its_identity_here_and_after_a_restart(home: Home):
    """With its limits; a name alone is no admin, and the admin's token still is."""
    new = home.identities.add("alice", LIMITS, None)
    for identities in home.now_and_again():
        caller = identities.caller(new.token)
        assert caller is not None
        assert (caller.name, caller.is_admin, caller.limits) == ("alice", False, LIMITS)
        assert identities.is_current(caller)
        assert identities.caller(ADMIN_TOKEN) is ADMIN


def test_a_look_up_reads_no_file(home: Home):
    """Who asks is known although the file is closed; and so is who does not."""
    token = home.identities.add("alice", NO_LIMITS, None).token
    home.database.close()
    assert name_of(home.identities, token) == "alice"
    assert home.identities.caller("asm_unknown") is None


def test_what_is_no_token_is_nobody(home: Home):
    """Missing, empty, unknown, cut, prolonged, in other letters, or the hash itself."""
    token = home.identities.add("alice", NO_LIMITS, None).token
    strangers = [None, "", "x", token[:-1], token + "x", token.swapcase(), token.removeprefix("asm_")]
    for stranger in [*strangers, tokens.fingerprint(token), f"{ADMIN_TOKEN} ", "\udcff"]:
        assert home.identities.caller(stranger) is None, stranger
    assert name_of(home.identities, token) == "alice"


def test_a_token_is_long_and_can_be_recognised(home: Home):
    """256 bits after a prefix that scanners for leaked secrets can look for; no two are alike."""
    made = {home.identities.add(f"n{number}", NO_LIMITS, None).token for number in range(20)}
    assert len(made) == 20
    for token in made:
        assert token.startswith("asm_")
        assert len(token.removeprefix("asm_")) == 43


def test_no_token_is_kept_or_shown(home: Home):
    """Its SHA-256 is in the file, itself it is neither there, nor in a list, nor in a repr."""
    new = home.identities.add("alice", LIMITS, None)
    assert new.token not in repr(new)
    assert new.token not in repr(home.identities.views())
    home.database.close()
    content = b"".join(path.read_bytes() for path in home.path.parent.iterdir())
    assert new.token.encode() not in content
    assert new.token.removeprefix("asm_").encode() not in content
    assert tokens.fingerprint(new.token).encode() in content


def test_a_token_expires(home: Home):
    """At its time, not before; it is still listed, and its name can be used anew."""
    token = home.identities.add("alice", LIMITS, 10.0).token
    home.clock.now_s += 9.9
    assert name_of(home.identities, token) == "alice"
    home.clock.now_s += 0.1
    assert home.identities.caller(token) is None
    assert home.again().caller(token) is None
    (view,) = home.identities.views()
    assert (view.name, view.is_expired, view.created_at, view.expires_at) == ("alice", True, 1000.0, 1010.0)
    with pytest.raises(RequestError, match="has expired; add it anew"):
        home.identities.rotate("alice")
    anew = home.identities.add("alice", NO_LIMITS, None)
    assert name_of(home.identities, anew.token) == "alice"
    assert home.identities.caller(token) is None


def test_a_revoked_token_is_nobody_at_once_and_for_good(home: Home):
    """Others stay; who came with it is no longer current; a second time it is not found."""
    alice, bob = (home.identities.add(name, NO_LIMITS, None).token for name in ("alice", "bob"))
    caller = home.identities.caller(alice)
    assert caller is not None
    home.identities.revoke("alice")
    assert not home.identities.is_current(caller)
    for identities in home.now_and_again():
        assert identities.caller(alice) is None
        assert name_of(identities, bob) == "bob"
        with pytest.raises(RequestError) as unknown:
            identities.revoke("alice")
        assert unknown.value.code == "not_found"


def test_who_was_revoked_does_not_become_current_under_a_new_token(home: Home):
    """The name is the same, the token it came with is not."""
    old = home.identities.caller(home.identities.add("alice", NO_LIMITS, None).token)
    home.identities.revoke("alice")
    new = home.identities.caller(home.identities.add("alice", NO_LIMITS, None).token)
    assert old is not None
    assert new is not None
    assert not home.identities.is_current(old)
    assert home.identities.is_current(new)


def test_a_replaced_token_keeps_limits_and_expiry(home: Home):
    """The old one is nobody, here and after a restart."""
    old = home.identities.add("alice", LIMITS, 100.0)
    new = home.identities.rotate("alice")
    assert new.expires_at == old.expires_at == 1100.0
    for identities in home.now_and_again():
        assert identities.caller(old.token) is None
        caller = identities.caller(new.token)
        assert caller is not None
        assert caller.limits == LIMITS
    with pytest.raises(RequestError, match="cannot find token 'bob'"):
        home.identities.rotate("bob")


def test_the_admins_token_is_replaced_in_its_file_too(home: Home):
    """The old one is nobody from then on; named ones stay."""
    alice = home.identities.add("alice", NO_LIMITS, None).token
    new = home.identities.rotate("admin").token
    assert home.written == [new]
    assert home.identities.caller(ADMIN_TOKEN) is None
    assert home.identities.caller(new) is ADMIN
    assert name_of(home.identities, alice) == "alice"


@pytest.mark.parametrize("name", ["", "admin", "-a", ".", "..", "a/b", "a b", "a\n", "ä", "a" * 65, "a\0"])
def test_names_that_are_refused(home: Home, name: str):
    """They go into paths, logs and tables; and there is one admin."""
    with pytest.raises(RequestError, match="cannot name a token") as refused:
        home.identities.add(name, NO_LIMITS, None)
    assert (refused.value.code, refused.value.param) == ("invalid_request", "name")
    assert home.identities.views() == []


@pytest.mark.parametrize("name", ["a", "Admin", "team-a.b_c", "0", "a" * 64])
def test_names_that_are_taken(home: Home, name: str):
    """Once; the first token stays."""
    token = home.identities.add(name, NO_LIMITS, None).token
    with pytest.raises(RequestError) as refused:
        home.identities.add(name, LIMITS, None)
    assert (refused.value.code, refused.value.status) == ("name_taken", 409)
    assert name_of(home.identities, token) == name


def test_a_provider_that_is_not_there_is_refused(home: Home):
    """A token that is limited to a typing error would be of no use."""
    with pytest.raises(RequestError) as refused:
        home.identities.add("alice", CallerLimits(providers=("echo", "cluade")), None)
    assert refused.value.code == "unsupported_provider"
    assert home.identities.views() == []


def test_what_cannot_be_written_was_not_added(home: Home):
    """Nor replaced: the old token is still the one."""
    token = home.identities.add("alice", NO_LIMITS, None).token
    with locked(home.path):
        with pytest.raises(WorkerError) as not_added:
            home.identities.add("bob", NO_LIMITS, None)
        with pytest.raises(WorkerError) as not_replaced:
            home.identities.rotate("alice")
        assert not_added.value.code == not_replaced.value.code == "journal_unavailable"
    assert [view.name for view in home.identities.views()] == ["alice"]
    assert name_of(home.identities, token) == "alice"


def test_a_revocation_counts_even_when_it_cannot_be_written(home: Home):
    """The error says that it is not for good yet; the second try makes it so."""
    token = home.identities.add("alice", NO_LIMITS, None).token
    with locked(home.path):
        with pytest.raises(WorkerError):
            home.identities.revoke("alice")
        assert home.identities.caller(token) is None
    home.identities.revoke("alice")
    assert home.again().caller(token) is None


def test_limits_of_a_newer_program_are_an_error(home: Home):
    """Leaving out a limit that is not understood would permit too much."""
    home.identities.add("alice", LIMITS, None)
    with home.database.transaction() as connection:
        connection.execute("""UPDATE tokens SET limits = '{"max_moons":1}'""")
    with pytest.raises(WorkerError, match="limits of token alice: they are of a newer program"):
        home.again()


def test_a_file_from_before_tokens_gets_them(tmp_path: Path):
    """And keeps its leases."""
    path = tmp_path / DATABASE_NAME
    connection = sqlite3.connect(path)
    connection.executescript(f"{MIGRATIONS[0]}; PRAGMA user_version = 1;")
    connection.execute("INSERT INTO leases VALUES ('l', 'ready', NULL, '', 0.0, NULL, NULL, x'00')")
    connection.commit()
    connection.close()
    database = Database(path)
    identities = Identities(database, ADMIN_TOKEN, lambda _: None)
    assert name_of(identities, identities.add("alice", NO_LIMITS, None).token) == "alice"
    with database.transaction() as upgraded:
        assert upgraded.execute("SELECT lease_ref FROM leases").fetchall() == [("l",)]
    database.close()
