"""Whether one more lease may start: every bound at, below and above it, and who is told what first."""

from __future__ import annotations

import msgspec
import pytest

from supervisor.admission import RETRY_FULL_S, RETRY_MEMORY_S, RETRY_STARTING_S, Bounds, Load, refusal

BOUNDS = Bounds(max_leases=10, max_starts=3, min_available_bytes=1000, max_own_leases=2)
EASY = Load(leases=0, own_leases=0, starting=0, available_bytes=10_000)
FULL = Load(leases=10, own_leases=2, starting=3, available_bytes=0)


@pytest.mark.parametrize(
    ("load", "code", "words", "retry_s"),
    [
        ({}, None, "", 0),
        ({"leases": 9, "own_leases": 1, "starting": 2, "available_bytes": 1000}, None, "", 0),
        ({"own_leases": 2}, "at_capacity", "this token's 2 leases are open", RETRY_FULL_S),
        ({"own_leases": 3}, "at_capacity", "this token's 2 leases are open", RETRY_FULL_S),
        ({"leases": 10}, "at_capacity", "10 leases are open", RETRY_FULL_S),
        ({"leases": 11}, "at_capacity", "10 leases are open", RETRY_FULL_S),
        ({"starting": 3}, "at_capacity", "3 leases are starting", RETRY_STARTING_S),
        ({"starting": 4}, "at_capacity", "3 leases are starting", RETRY_STARTING_S),
        ({"available_bytes": 999}, "memory_pressure", "999 bytes", RETRY_MEMORY_S),
        ({"available_bytes": 0}, "memory_pressure", "0 bytes", RETRY_MEMORY_S),
    ],
)
def test_each_bound_by_itself(load: dict[str, int], code: str | None, words: str, retry_s: float):
    """One below it is admitted, at it and above it refused, with its own words and wait."""
    error = refusal(msgspec.structs.replace(EASY, **load), BOUNDS, 0.0)
    if code is None:
        assert error is None
    else:
        assert error is not None
        assert (error.code, error.retry_after_s) == (code, retry_s)
        assert error.message.startswith("cannot lease: ")
        assert words in error.message


@pytest.mark.parametrize(
    ("relieved", "words"),
    [
        ({}, "this token's"),
        ({"own_leases": 0}, "10 leases are open"),
        ({"own_leases": 0, "leases": 0}, "are starting"),
        ({"own_leases": 0, "leases": 0, "starting": 0}, "bytes of memory"),
    ],
)
def test_what_a_caller_can_mend_is_told_first(relieved: dict[str, int], words: str):
    """Own leases, then everybody's, then starts, then memory."""
    error = refusal(msgspec.structs.replace(FULL, **relieved), BOUNDS, 0.0)
    assert error is not None
    assert words in error.message


def test_without_a_limit_of_its_own_an_identity_has_everybodys():
    """The admin's leases are counted among all, and no more."""
    bounds = msgspec.structs.replace(BOUNDS, max_own_leases=None)
    load = msgspec.structs.replace(EASY, own_leases=9, leases=9)
    assert refusal(load, bounds, 0.0) is None


@pytest.mark.parametrize(
    ("slot", "status", "retry_s"),
    [
        ("leases", 429, RETRY_FULL_S),
        ("starting", 429, RETRY_STARTING_S),
        ("available_bytes", 503, RETRY_MEMORY_S),
    ],
)
@pytest.mark.parametrize("jitter", [0.0, 0.25, 0.999])
def test_the_wait_is_stretched_by_the_jitter(slot: str, status: int, retry_s: float, jitter: float):
    """So that those refused together come back apart; the header is whole seconds, at least one."""
    error = refusal(msgspec.structs.replace(EASY, **{slot: getattr(FULL, slot)}), BOUNDS, jitter)
    assert error is not None
    assert error.retry_after_s == retry_s * (1 + jitter)
    assert error.status == status
    assert int(error.headers()["retry-after"]) >= 1
