"""Whether one more lease may start now: how many there are, how many are starting, and how much memory is left. Pure.

Only new leases are refused, never old ones ended. Each refusal says when to try again; the wait is stretched by up to
its own length, so that those refused together do not come back together.
"""

from __future__ import annotations

import msgspec

from shared.backoff import jittered
from shared.errors import WorkerError

RETRY_FULL_S = 5.0
"""Leases end when their owners are done."""
RETRY_STARTING_S = 1.0
"""A start takes a fraction of this."""
RETRY_MEMORY_S = 15.0
"""Memory comes back when something ends, here or elsewhere."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What may be. ``max_own_leases`` is the caller's own limit; None is none."""

    max_leases: int
    max_starts: int
    min_available_bytes: int
    max_own_leases: int | None = None


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is: leases that have not ended, the caller's among them, those that are starting, memory to be had."""

    leases: int
    own_leases: int
    starting: int
    available_bytes: int


def refusal(load: Load, bounds: Bounds, jitter: float) -> WorkerError | None:
    """Why one more lease cannot start, or None when it can. ``jitter`` is from 0 to 1.

    What the caller can do something about comes first: ``at_capacity`` (429), then ``memory_pressure`` (503).
    """
    if bounds.max_own_leases is not None and load.own_leases >= bounds.max_own_leases:
        return _refused(
            "at_capacity", f"this token's {bounds.max_own_leases} leases are open", RETRY_FULL_S, jitter
        )
    if load.leases >= bounds.max_leases:
        return _refused("at_capacity", f"{bounds.max_leases} leases are open", RETRY_FULL_S, jitter)
    if load.starting >= bounds.max_starts:
        return _refused("at_capacity", f"{bounds.max_starts} leases are starting", RETRY_STARTING_S, jitter)
    if load.available_bytes < bounds.min_available_bytes:
        cause = f"{load.available_bytes} bytes of memory are available, {bounds.min_available_bytes} are kept free"
        return _refused("memory_pressure", cause, RETRY_MEMORY_S, jitter)
    return None


def _refused(code: str, cause: str, retry_s: float, jitter: float) -> WorkerError:
    return WorkerError(code, f"cannot lease: {cause}", retry_after_s=jittered(retry_s, jitter))
