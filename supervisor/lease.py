"""The lease automaton: one table, and nothing else decides what a lease may do next. Pure.

::

                booted                 any cause               emptied
    STARTING ------------> READY ------------------> STOPPING -----------> CLOSED
        |                                           ^  |   ^                  |
        +------------------ any cause --------------+  +---+ survived,        +--> any cause: ignored
                                                             any cause: ignored

Rules. (1) Every state change is a cell of ``TRANSITIONS``; a cell that is missing is a bug in the caller and raises.
(2) Why a lease ended is kept apart from the state, and the first cause wins. (3) The one edge into STOPPING is the
one that stops the family, so a family is stopped exactly once, whoever asks and however often. (4) A family that
outlives SIGKILL leaves its lease in STOPPING: CLOSED is only said of a family that is proven gone.
"""

from __future__ import annotations

import enum


class State(enum.StrEnum):
    """Where a lease is in its life."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    CLOSED = "closed"


class Cause(enum.StrEnum):
    """Why a lease ends."""

    RELEASED = "released"
    EXPIRED = "expired"
    IDLE = "idle"
    OWNER_GONE = "owner_gone"
    BOOT_FAILED = "boot_failed"
    CRASHED = "crashed"
    LIMIT_EXCEEDED = "limit_exceeded"
    BUDGET_EXHAUSTED = "budget_exhausted"
    SHUTDOWN = "shutdown"
    LOST = "lost"


class Step(enum.StrEnum):
    """What else happens to a lease."""

    BOOTED = "booted"
    EMPTIED = "emptied"
    SURVIVED = "survived"


Happening = Cause | Step
LIVE_STATES = frozenset({State.STARTING, State.READY})
_ANY_CAUSE = tuple(Cause)

TRANSITIONS: dict[State, dict[Happening, State]] = {
    State.STARTING: {Step.BOOTED: State.READY, **dict.fromkeys(_ANY_CAUSE, State.STOPPING)},
    State.READY: dict.fromkeys(_ANY_CAUSE, State.STOPPING),
    State.STOPPING: {
        Step.BOOTED: State.STOPPING,
        Step.EMPTIED: State.CLOSED,
        Step.SURVIVED: State.STOPPING,
        **dict.fromkeys(_ANY_CAUSE, State.STOPPING),
    },
    State.CLOSED: dict.fromkeys(_ANY_CAUSE, State.CLOSED),
}


class IllegalTransition(Exception):
    """A happening that the table does not know in that state; the state is unchanged."""


def next_state(state: State, happening: Happening) -> State:
    """The state after ``happening``. Raises IllegalTransition."""
    try:
        return TRANSITIONS[state][happening]
    except KeyError:
        raise IllegalTransition(f"cannot apply {happening} to a lease that is {state}") from None


def stops_family(before: State, after: State) -> bool:
    """Whether this change is the one that stops the family."""
    return before in LIVE_STATES and after is State.STOPPING
