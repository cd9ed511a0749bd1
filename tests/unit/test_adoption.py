"""What becomes of an earlier supervisor's leases: every cell of the table in :mod:`supervisor.adoption`."""

from __future__ import annotations

import pytest

from shared.contracts import LeaseOptions
from shared.launch import Exited, Running
from supervisor import adoption
from supervisor.entry import LeaseEntry
from supervisor.launcher import Found
from supervisor.lease import Cause, State


def entry(state: State, cause: Cause | None = None) -> LeaseEntry:
    """A lease in that state."""
    return LeaseEntry(
        lease_ref="lease_1",
        endpoint_id="endpoint_1",
        owner="admin",
        provider="echo",
        model="m",
        consumer=None,
        options=LeaseOptions(),
        lease_dir="/nowhere",
        base_url="http://127.0.0.1:1/leases/lease_1/v1",
        token_sha256="",
        created_at_s=0.0,
        expires_at=0.0,
        state=state,
        cause=cause,
        detail="its own" if cause else "",
    )


def family(how: str) -> dict[str, Found]:
    """What the zygote has of it."""
    if how == "unknown":
        return {}
    exited = Exited(lease_ref="lease_1", pid=7, status="signal SIGKILL", stopping=False, killed=False)
    running = Running(
        lease_ref="lease_1", pid=7, isolation="process_group", pid_namespace=None, is_stopping="told" in how
    )
    found = Found(
        running=running, scoreboard_fd=-1, namespace_fd=None, exited=exited if "ended" in how else None
    )
    return {"lease_1": found}


@pytest.mark.parametrize(
    ("state", "how", "cause", "detail"),
    [
        (State.STARTING, "runs", Cause.LOST, adoption.NOT_HANDED_OUT),
        (State.STARTING, "ended", Cause.CRASHED, "the family ended by itself: signal SIGKILL"),
        (State.STARTING, "unknown", Cause.LOST, adoption.NOT_HANDED_OUT),
        (State.READY, "runs", None, ""),
        (State.READY, "ended", Cause.CRASHED, "the family ended by itself: signal SIGKILL"),
        (State.READY, "unknown", Cause.LOST, adoption.UNWATCHED),
        (State.READY, "told to stop", Cause.LOST, adoption.UNWRITTEN),
        (State.READY, "told to stop, ended", Cause.LOST, adoption.UNWRITTEN),
        (State.STOPPING, "told to stop", Cause.IDLE, "its own"),
        (State.STOPPING, "runs", Cause.IDLE, "its own"),
        (State.STOPPING, "ended", Cause.IDLE, "its own"),
        (State.STOPPING, "unknown", Cause.IDLE, "its own"),
    ],
)
def test_every_cell(state: State, how: str, cause: Cause | None, detail: str):
    """A lease goes on only when it was ready and its family runs."""
    families = family(how)
    decided = adoption.plan([entry(state, Cause.IDLE if state is State.STOPPING else None)], families)
    (fate,) = decided.fates
    assert (fate.cause, fate.detail, fate.found) == (cause, detail, families.get("lease_1"))
    assert decided.strangers == ()


@pytest.mark.parametrize("how", ["runs", "ended"])
def test_a_family_that_the_journal_does_not_know_is_a_stranger(how: str):
    """However it came to be."""
    decided = adoption.plan([], family(how))
    assert decided.fates == ()
    assert [each.running.lease_ref for each in decided.strangers] == ["lease_1"]
