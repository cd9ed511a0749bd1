"""The ledger of the chaos runs objects to what cannot be true, and to nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from supervisor.adoption import NOT_HANDED_OUT, UNWATCHED
from supervisor.proof import ReleaseProof
from supervisor.views import LeaseView
from tests.chaos.ledger import Hit, Phase, Story, Victim, objections

PROOF = ReleaseProof(
    lease_ref="lease_1",
    cause="",
    isolation=None,
    processes=(),
    sigkill_needed=False,
    elapsed_ms=1.0,
    survivors=(),
    verified="",
)


def told(cause: str | None, detail: str = "", proof: ReleaseProof | None = PROOF) -> LeaseView:
    """What a supervisor says of a lease; without a cause it is open."""
    facts: dict[str, Any] = dict.fromkeys(LeaseView.__struct_fields__)
    state = "closed" if cause else "ready"
    return LeaseView(**{**facts, "state": state, "cause": cause, "detail": detail, "proof": proof})


def story(*hits: tuple[Victim, Phase], released: bool = False) -> Story:
    """A lease to which that was done, a second apart."""
    return Story(
        name="it",
        is_released=released,
        hits=[
            Hit(victim=victim, phase=phase, at=float(number)) for number, (victim, phase) in enumerate(hits)
        ],
    )


KILLED_LEADER = (Victim.LEADER, Phase.IDLE)
KILLED_WORKER = (Victim.WORKER, Phase.STREAMING)


@pytest.mark.parametrize(
    ("of", "view"),
    [
        (story(), told(None)),
        (story(released=True), told("released")),
        (story(KILLED_LEADER), told("crashed", "signal SIGKILL")),
        (story(KILLED_LEADER, released=True), told("released")),
        (story((Victim.ZYGOTE, Phase.IDLE)), told("crashed", "the zygote ended")),
        (story((Victim.ZYGOTE, Phase.ALONE)), told("lost", UNWATCHED)),
        (story((Victim.SUPERVISOR, Phase.STARTING)), told("lost", NOT_HANDED_OUT)),
        (story((Victim.SUPERVISOR, Phase.STREAMING)), told(None)),
        (story((Victim.WORKER, Phase.STARTING)), told("boot_failed", "connection closed")),
        (story(*[KILLED_WORKER] * 4), told("crashed", "its worker process died more than 3 times in 60 s")),
        (story(KILLED_WORKER), told(None)),
    ],
)
def test_what_may_be_true_is_not_objected_to(of: Story, view: LeaseView):
    """One of several ends, where several may come first."""
    assert objections(of, view) == []


@pytest.mark.parametrize(
    ("of", "view"),
    [
        (story(), told("crashed", "signal SIGKILL")),
        (story(), told("lost", UNWATCHED)),
        (story(KILLED_LEADER), told(None)),
        (story(KILLED_LEADER), told("crashed", "exit 247")),
        (story(KILLED_LEADER), told("released")),
        (story(KILLED_WORKER), told("crashed", "its worker process died more than 3 times in 60 s")),
        (story((Victim.SUPERVISOR, Phase.STREAMING)), told("lost", UNWATCHED)),
        (story((Victim.SUPERVISOR, Phase.STARTING)), told("lost", UNWATCHED)),
        (story(released=True), told("released", proof=None)),
        (story(released=True), told("released", proof=msgspec.structs.replace(PROOF, survivors=(1,)))),
    ],
)
def test_what_cannot_be_true_is_objected_to(of: Story, view: LeaseView):
    """Another cause, the same with other words, an end of what nothing was done to, one without a proof."""
    assert len(objections(of, view)) == 1


def test_a_story_that_changes_is_objected_to():
    """The next supervisor has to tell the same."""
    changed = story(released=True)
    changed.told = told("released", proof=msgspec.structs.replace(PROOF, elapsed_ms=2.0))
    assert len(objections(changed, told("released"))) == 1
