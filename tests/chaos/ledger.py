"""What was done to each lease, and which ends may therefore be true of it. Pure: no process, no clock.

A lease may have ended in any way that something which was done to it explains, and in no other. What nothing was done
to must not have ended at all.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable

import msgspec

from supervisor.adoption import NOT_HANDED_OUT, UNWATCHED
from supervisor.lease import Cause, State
from supervisor.views import LeaseView
from worker.server import CRASH_LOOP, DEATHS_WINDOW_S, MAX_DEATHS


class Victim(enum.StrEnum):
    """What is killed."""

    SUPERVISOR = "supervisor"
    SUPERVISOR_WORKER = "supervisor's worker"
    ZYGOTE = "zygote"
    KEEPER = "keeper"
    LEADER = "family's leader"
    WORKER = "family's worker"
    COMMAND_LINE = "command line"
    STANDBY = "standby"


class Phase(enum.StrEnum):
    """What the lease is doing when it happens; ``ALONE`` is while there is no supervisor."""

    STARTING = "starting"
    STREAMING = "streaming"
    IDLE = "idle"
    RELEASING = "releasing"
    ALONE = "alone"


WHOLE_SUPERVISOR = frozenset({Victim.SUPERVISOR, Victim.SUPERVISOR_WORKER})
FIRST_OF_FAMILY = frozenset({Victim.KEEPER, Victim.LEADER})
WHOLE_FAMILY = FIRST_OF_FAMILY | {Victim.ZYGOTE}
COMMAND_LINES = frozenset({Victim.COMMAND_LINE, Victim.STANDBY})
OF_A_FAMILY = FIRST_OF_FAMILY | COMMAND_LINES | {Victim.WORKER}


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """One kill, as far as one lease is concerned. ``at`` is in seconds of the monotonic clock."""

    victim: Victim
    phase: Phase
    at: float


class Story(msgspec.Struct, kw_only=True, eq=False):
    """One lease, as its client and the killer know it. ``name`` is the group that it was leased under."""

    name: str
    lease_ref: str | None = None
    """As soon as it was handed out."""
    refusal: str | None = None
    """Why it was not."""
    is_released: bool = False
    """Whether its end was asked for."""
    is_shut_down: bool = False
    """Whether the supervisor was asked to end while it was open."""
    hits: list[Hit] = []
    is_over: bool = False
    """Whether it is known how it ended, or that it never was."""
    told: LeaseView | None = None
    """What was said of its end when that was first seen."""

    @property
    def is_mortal(self) -> bool:
        """Whether it must end by itself, after what was done to it; one that starts may still get another zygote."""
        return any(
            hit.victim in FIRST_OF_FAMILY or (hit.victim is Victim.ZYGOTE and hit.phase is not Phase.STARTING)
            for hit in self.hits
        )


def possible_ends(story: Story) -> dict[Cause, str]:
    """The causes that may be true of it, each with what its detail has to match."""
    ends: dict[Cause, list[str]] = {}

    def may(cause: Cause, detail: str = "") -> None:
        ends.setdefault(cause, []).append(detail)

    if story.is_released:
        may(Cause.RELEASED, "^$")
    if story.is_shut_down:
        may(Cause.SHUTDOWN, "^$")
    if _loops(story.hits):
        may(Cause.CRASHED, re.escape(CRASH_LOOP))
    for hit in story.hits:
        if hit.phase is Phase.STARTING and hit.victim in WHOLE_FAMILY | {Victim.WORKER}:
            may(Cause.BOOT_FAILED, ".")
        if hit.phase is Phase.STARTING and hit.victim in WHOLE_SUPERVISOR:
            may(Cause.LOST, re.escape(NOT_HANDED_OUT))
        if hit.victim in FIRST_OF_FAMILY:
            may(Cause.CRASHED, "SIGKILL")
        if hit.victim is Victim.ZYGOTE and hit.phase is Phase.ALONE:
            may(Cause.LOST, re.escape(UNWATCHED))
        elif hit.victim is Victim.ZYGOTE:
            may(Cause.CRASHED, "zygote")
    return {cause: "|".join(details) for cause, details in ends.items()}


def objections(story: Story, view: LeaseView) -> list[str]:
    """What is wrong with how a lease is said to have ended, or to be; empty when it may well be true."""
    if view.state != State.CLOSED:
        return ["it is open, though it cannot be"] if story.is_mortal else []
    ends = possible_ends(story)
    found = []
    if (detail := ends.get(Cause(str(view.cause)))) is None:
        found.append(f"ended as {view.cause} ({view.detail}); possible: {', '.join(ends) or 'nothing'}")
    elif not re.search(detail, view.detail):
        found.append(f"ended as {view.cause} ({view.detail!r}), which does not say {detail!r}")
    if view.proof is None or view.proof.survivors:
        found.append(f"ended without proof: {view.proof}")
    if story.told is not None and view != story.told:
        found.append(f"was told otherwise before: {story.told} and now {view}")
    return found


def _loops(hits: Iterable[Hit]) -> bool:
    """Whether its worker was killed more often in a while than is healed."""
    deaths = [hit.at for hit in hits if hit.victim is Victim.WORKER]
    return any(
        last - first <= DEATHS_WINDOW_S for first, last in zip(deaths, deaths[MAX_DEATHS:], strict=False)
    )
