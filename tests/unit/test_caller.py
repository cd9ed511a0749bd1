"""Who may see whose leases, and what an identity's limits permit."""

from __future__ import annotations

from typing import Any

import pytest

from shared.contracts import MAX_TTL_S, LeaseOptions
from shared.errors import RequestError
from supervisor.caller import ADMIN, Caller, CallerLimits
from supervisor.selection import Selection
from tests.unit.test_lease import record

ALICE = Caller(name="alice")


@pytest.mark.parametrize(
    ("caller", "owner", "is_seen"),
    [
        (ADMIN, "admin", True),
        (ADMIN, "alice", True),
        (ALICE, "alice", True),
        (ALICE, "bob", False),
        (ALICE, "admin", False),
        (ALICE, "Alice", False),
        (Caller(name="admin"), "alice", False),
    ],
)
def test_the_admin_sees_all_and_everybody_else_their_own(caller: Caller, owner: str, is_seen: bool):
    """A name alone makes no admin."""
    assert caller.may_see(owner) is is_seen


@pytest.mark.parametrize(
    ("caller", "named", "is_included"),
    [
        (ADMIN, {}, True),
        (ADMIN, {"owner": "alice"}, True),
        (ADMIN, {"owner": "bob"}, False),
        (ADMIN, {"group": "g"}, True),
        (ADMIN, {"group": "h"}, False),
        (ADMIN, {"owner": "alice", "group": "g"}, True),
        (ADMIN, {"owner": "bob", "group": "g"}, False),
        (ADMIN, {"owner": "alice", "group": "h"}, False),
        (ALICE, {}, True),
        (ALICE, {"owner": "alice", "group": "g"}, True),
        (ALICE, {"owner": "bob"}, False),
        (ALICE, {"group": ""}, False),
        (Caller(name="bob"), {}, False),
        (Caller(name="bob"), {"owner": "alice"}, False),
        (Caller(name="bob"), {"group": "g"}, False),
    ],
)
def test_a_selection_never_reaches_beyond_its_caller(
    caller: Caller, named: dict[str, str], is_included: bool
):
    """Owner and group narrow what is seen, together; naming another owner shows nothing of it."""
    lease = record()
    lease.owner, lease.options = "alice", LeaseOptions(group="g")
    selection = Selection(caller=caller, **named)
    assert selection.includes(lease) is is_included
    assert selection.is_narrowed is bool(named)
    assert not is_included or selection.whose in (None, "alice")


def test_whose_leases_a_selection_can_include():
    """For a named caller its own, whatever it asks for; for the admin anybody's, or the one's it names."""
    assert Selection(caller=ADMIN).whose is None
    assert Selection(caller=ADMIN, owner="bob").whose == "bob"
    assert Selection(caller=ALICE).whose == "alice"
    assert Selection(caller=ALICE, owner="bob").whose == "alice"


@pytest.mark.parametrize(
    ("asked", "allowed", "given"),
    [
        (3600.0, None, 3600.0),
        (MAX_TTL_S, None, MAX_TTL_S),
        (3600.0, 60.0, 60.0),
        (3600.0, 3600.0, 3600.0),
        (3600.0, 7200.0, 3600.0),
        (7200.0, 7200.0, 7200.0),
        (60.0, 60.0, 60.0),
        (30.0, 60.0, 30.0),
        (61.0, 60.0, None),
        (3601.0, 60.0, None),
    ],
)
def test_the_longest_time_to_live(asked: float, allowed: float | None, given: float | None):
    """The default is shortened to it; what was asked for beyond it is refused by name."""
    limits = CallerLimits(max_ttl_s=allowed)
    options = LeaseOptions(ttl_s=asked, concurrency=7)
    if given is None:
        with pytest.raises(RequestError, match="for at most 60 s") as refused:
            limits.within_ttl(options)
        assert (refused.value.code, refused.value.status, refused.value.param) == (
            "not_permitted",
            403,
            "ttl_s",
        )
        assert refused.value.details == {"max_ttl_s": 60}
    else:
        assert limits.within_ttl(options) == LeaseOptions(ttl_s=given, concurrency=7)


@pytest.mark.parametrize(
    ("limits", "param"),
    [
        ({}, None),
        ({"providers": ("echo",)}, None),
        ({"providers": ("claude", "echo"), "models": ("m",)}, None),
        ({"providers": ("claude",)}, "model_preference.provider"),
        ({"models": ("n", "M")}, "model_preference.id"),
        ({"providers": ("claude",), "models": ("n",)}, "model_preference.provider"),
    ],
)
def test_providers_and_models(limits: dict[str, Any], param: str | None):
    """Exactly those that are named; a refusal says which there are."""
    if param is None:
        CallerLimits(**limits).require_model("echo", "m")
    else:
        with pytest.raises(RequestError, match=r"this token may lease (claude|n, M)$") as refused:
            CallerLimits(**limits).require_model("echo", "m")
        assert (refused.value.code, refused.value.param) == ("not_permitted", param)
