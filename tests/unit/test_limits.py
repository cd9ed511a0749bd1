"""Limits of a lease: every one by itself, at and over its bound, and how it is told."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from shared.contracts import LeaseLimits
from supervisor.limits import UNCOUNTABLE, Sample, excess

NAMES = LeaseLimits.__struct_fields__
LIMIT = 100
HUGE = LeaseLimits(**dict.fromkeys(NAMES, 2**50))


def test_a_sample_knows_every_limit():
    """By the same name."""
    assert Sample.__struct_fields__ == NAMES


@pytest.mark.parametrize(
    ("name", "used", "is_over"),
    [
        (name, used, is_over)
        for name, (used, is_over) in itertools.product(
            NAMES,
            [
                (0, False),
                (LIMIT - 1, False),
                (LIMIT, False),
                (LIMIT + 1, True),
                (10**12, True),
                (None, False),
            ],
        )
    ],
)
def test_each_limit_by_itself(name: str, used: int | None, is_over: bool):
    """What is at the limit keeps it; what was not looked at is over none; no other limit is concerned."""
    limits, sample = LeaseLimits(**{name: LIMIT}), Sample(**{name: used})
    found = excess(limits, sample)
    assert (found is not None) is is_over
    assert found is None or found.startswith(f"{name}: ")
    assert excess(HUGE, sample) is None
    assert excess(LeaseLimits(), sample) is None
    for other in NAMES:
        if other != name:
            assert excess(LeaseLimits(**{other: LIMIT}), sample) is None


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(NAMES, 2)))
def test_the_first_of_several_is_told(first: str, second: str):
    """In the order of the contract."""
    limits = LeaseLimits(**{first: 1, second: 1})
    assert excess(limits, Sample(**{first: 2, second: 2})).startswith(f"{first}: ")
    assert excess(limits, Sample(**{first: 1, second: 2})).startswith(f"{second}: ")


@pytest.mark.parametrize(
    ("name", "used", "limit", "told"),
    [
        ("memory_bytes", 812_000_000, 512_000_000, "memory_bytes: 812 MB over the limit of 512 MB"),
        ("memory_bytes", 1_536_000_000, 999_999, "memory_bytes: 1.536 GB over the limit of 1000 kB"),
        ("memory_bytes", 512_000_001, 512_000_000, "memory_bytes: 512000001 over the limit of 512000000"),
        ("workspace_bytes", 4096, 10, "workspace_bytes: 4.096 kB over the limit of 10 bytes"),
        (
            "workspace_bytes",
            UNCOUNTABLE,
            10**9,
            "workspace_bytes: more files than are counted, with a limit of 1 GB",
        ),
        ("cpu_s", 2.345678, 2.0, "cpu_s: 2.346 s over the limit of 2 s"),
        ("cpu_s", 2.00001, 2.0, "cpu_s: 2.00001 over the limit of 2.0"),
        ("wall_s", 3601.4, 3600.0, "wall_s: 3601 s over the limit of 3600 s"),
        ("processes", 12, 11, "processes: 12 over the limit of 11"),
        ("open_files", 2000, 1999, "open_files: 2000 over the limit of 1999"),
    ],
)
def test_it_is_told_with_both_numbers(name: str, used: Any, limit: Any, told: str):
    """And never with two that look the same."""
    assert excess(LeaseLimits(**{name: limit}), Sample(**{name: used})) == told
