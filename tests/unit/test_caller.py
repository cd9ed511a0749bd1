"""Who may see whose leases."""

from __future__ import annotations

import pytest

from supervisor.caller import ADMIN, Caller


@pytest.mark.parametrize(
    ("caller", "owner", "is_seen"),
    [
        (ADMIN, "admin", True),
        (ADMIN, "alice", True),
        (Caller(name="alice"), "alice", True),
        (Caller(name="alice"), "bob", False),
        (Caller(name="alice"), "admin", False),
        (Caller(name="alice"), "Alice", False),
        (Caller(name="admin"), "alice", False),
    ],
)
def test_the_admin_sees_all_and_everybody_else_their_own(caller: Caller, owner: str, is_seen: bool):
    """A name alone makes no admin."""
    assert caller.may_see(owner) is is_seen
