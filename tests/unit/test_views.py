"""What lists and ``show`` tell of a lease, and in which words."""

from __future__ import annotations

import pytest

from shared.contracts import Budget, LeaseLimits, LeaseOptions
from supervisor.catalogue import shown
from supervisor.commands import wording
from supervisor.entry import facts
from tests.unit.test_lease import record

OPTIONS = LeaseOptions(
    ttl_s=600,
    idle_timeout_s=60,
    concurrency=2,
    queue_limit=3,
    standby=0,
    budget=Budget(requests=5),
    limits=LeaseLimits(processes=9),
    group="nightly",
)


def test_an_open_and_an_ended_lease_tell_what_they_were_leased_with():
    """The same of both: the journal keeps it, so an adopted lease tells it too."""
    lease = record()
    lease.options = OPTIONS
    assert shown(lease).options == OPTIONS
    assert shown(facts(lease)).options == OPTIONS


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (119.4, "119 s"),
        (120, "2 min"),
        (3_599, "59 min"),
        (7_200, "2 h"),
        (172_799, "47 h"),
        (604_800, "7 d"),
    ],
)
def test_a_duration_is_in_the_unit_that_people_would_use(seconds: float, words: str):
    """Whole ones, never more of them than there are."""
    assert wording.duration(seconds) == words
