"""The lease automaton: every cell of its table."""

from __future__ import annotations

import itertools

import pytest

from shared.contracts import Budget, LeaseOptions
from supervisor.lease import (
    TRANSITIONS,
    Cause,
    Happening,
    IllegalTransition,
    State,
    Step,
    next_state,
    stops_family,
)
from supervisor.table import LeaseRecord, LeaseTable

BUDGET_GRACE_S = 30.0
HAPPENINGS: tuple[Happening, ...] = (*Cause, *Step)
EXPECTED_STEPS = {
    (State.STARTING, Step.BOOTED): State.READY,
    (State.STOPPING, Step.BOOTED): State.STOPPING,
    (State.STOPPING, Step.EMPTIED): State.CLOSED,
    (State.STOPPING, Step.SURVIVED): State.STOPPING,
}
AFTER_A_CAUSE = {
    State.STARTING: State.STOPPING,
    State.READY: State.STOPPING,
    State.STOPPING: State.STOPPING,
    State.CLOSED: State.CLOSED,
}


def record(lease_ref: str = "lease_1") -> LeaseRecord:
    """A starting lease."""
    return LeaseRecord(
        lease_ref=lease_ref,
        endpoint_id="endpoint_1",
        owner="admin",
        provider="echo",
        model="m",
        consumer=None,
        options=LeaseOptions(ttl_s=100, idle_timeout_s=10),
        lease_dir="/nowhere",
        base_url="http://127.0.0.1:1/leases/lease_1/v1",
        token_sha256="",
        created_at_s=0,
        expires_at=100,
    )


@pytest.mark.parametrize(("state", "happening"), list(itertools.product(State, HAPPENINGS)))
def test_every_cell(state: State, happening: Happening):
    """A cause stops what lives and is ignored otherwise; steps are legal in one place each."""
    expected = (
        AFTER_A_CAUSE[state] if isinstance(happening, Cause) else EXPECTED_STEPS.get((state, happening))
    )
    if expected is None:
        with pytest.raises(IllegalTransition, match=f"cannot apply {happening} to a lease that is {state}"):
            next_state(state, happening)
    else:
        assert next_state(state, happening) is expected


def test_the_table_has_no_cell_beside_these():
    """What is not expected is not there."""
    steps = {
        (state, step) for state, cells in TRANSITIONS.items() for step in cells if isinstance(step, Step)
    }
    assert steps == set(EXPECTED_STEPS)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(State, State)))
def test_only_one_edge_stops_a_family(before: State, after: State):
    """From a living state into STOPPING."""
    assert stops_family(before, after) is (
        before in (State.STARTING, State.READY) and after is State.STOPPING
    )


def test_the_first_cause_wins_and_the_family_is_stopped_once():
    """Whoever asks later, and however often."""
    table, lease = LeaseTable(BUDGET_GRACE_S), record()
    table.add(lease)
    table.apply(lease, Step.BOOTED)
    stops = [table.apply(lease, cause) for cause in (Cause.EXPIRED, Cause.RELEASED, Cause.CRASHED)]
    assert stops == [True, False, False]
    assert lease.cause is Cause.EXPIRED
    table.apply(lease, Step.SURVIVED)
    assert lease.state is State.STOPPING
    table.apply(lease, Step.EMPTIED)
    assert table.apply(lease, Cause.SHUTDOWN) is False
    assert (lease.state, lease.cause) == (State.CLOSED, Cause.EXPIRED)


def test_an_illegal_happening_changes_nothing():
    """The state is as before."""
    table, lease = LeaseTable(BUDGET_GRACE_S), record()
    with pytest.raises(IllegalTransition):
        table.apply(lease, Step.EMPTIED)
    assert lease.state is State.STARTING


@pytest.mark.parametrize(
    ("state", "now", "last_active_s", "in_flight", "cause"),
    [
        (State.READY, 99.0, 99, 0, None),
        (State.READY, 100.0, 99, 1, Cause.EXPIRED),
        (State.STARTING, 100.0, 0, 0, Cause.EXPIRED),
        (State.STARTING, 50.0, 0, 0, None),
        (State.READY, 50.0, 40, 0, Cause.IDLE),
        (State.READY, 50.0, 41, 0, None),
        (State.READY, 50.0, 0, 1, None),
        (State.STOPPING, 500.0, 0, 0, None),
        (State.CLOSED, 500.0, 0, 0, None),
    ],
)
def test_leases_are_overdue(
    state: State, now: float, last_active_s: int, in_flight: int, cause: Cause | None
):
    """By their time to live while they live, by idleness only when ready and without work."""
    table, lease = LeaseTable(BUDGET_GRACE_S), record()
    table.add(lease)
    lease.state = state
    lease.scoreboard["last_active_ns"] = last_active_s * 1_000_000_000
    lease.scoreboard["in_flight"] = in_flight
    assert table.overdue(now) == ([(lease, cause, "")] if cause else [])


@pytest.mark.parametrize(
    ("state", "exhausted_s", "now", "cause"),
    [
        (State.READY, 0, 99.0, None),
        (State.READY, 50, 50.0 + BUDGET_GRACE_S - 0.1, None),
        (State.READY, 50, 50.0 + BUDGET_GRACE_S, Cause.BUDGET_EXHAUSTED),
        (State.READY, 50, 100.0, Cause.EXPIRED),
        (State.STOPPING, 50, 500.0, None),
        (State.CLOSED, 50, 500.0, None),
    ],
)
def test_a_lease_without_budget_ends_after_a_grace(
    state: State, exhausted_s: int, now: float, cause: Cause | None
):
    """So that its callers learn why; a worker that never said so is not meant."""
    table, lease = LeaseTable(BUDGET_GRACE_S), record()
    table.add(lease)
    lease.state = state
    lease.scoreboard["last_active_ns"] = int(now * 1e9)
    lease.scoreboard["budget_exhausted_ns"] = exhausted_s * 1_000_000_000
    lease.options = LeaseOptions(budget=Budget(requests=2, cli_s=60))
    lease.scoreboard["requests"] = 2
    details = {Cause.BUDGET_EXHAUSTED: "2 of 2 requests spent"}
    assert table.overdue(now) == ([(lease, cause, details.get(cause, ""))] if cause else [])


def test_a_dropped_lease_is_forgotten_and_its_neighbour_is_not():
    """What has ended is the journal's."""
    table = LeaseTable(BUDGET_GRACE_S)
    living, over = record("living"), record("over")
    table.add(living)
    table.add(over)
    table.drop(over)
    table.drop(over)
    assert (table.get("living"), table.get("over"), len(table)) == (living, None, 1)
