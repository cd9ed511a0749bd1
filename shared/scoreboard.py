"""One page of counters per lease, shared between the worker that writes it and the supervisor that reads it.

It is a memory file, so it outlives a crash of the worker process, costs no message and never blocks. Every slot
is one aligned 64-bit integer with a single writer; readers may see two slots at slightly different moments.
"""

from __future__ import annotations

import bisect
import mmap
import os

import msgspec


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What a lease has used in its life. Each field is a slot, and none of them ever goes down."""

    requests: int = 0
    """Given a place."""
    turns: int = 0
    """Begun on a command line."""
    failures: int = 0
    """Requests that failed or were cancelled after they had a place."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """As the providers counted them."""
    estimated_tokens: int = 0
    """Of ended turns that nobody counted; part of neither of the counted ones."""
    cached_tokens: int = 0
    """Part of the prompt tokens."""
    reasoning_tokens: int = 0
    """Part of the completion tokens."""
    cost_microusd: int = 0
    """As the command lines reported it."""
    priced_tokens: int = 0
    """Tokens of the turns whose cost was reported."""
    estimated_cost_microusd: int = 0
    """Of ended turns whose cost nobody reported, at the price of the others; no part of the reported cost."""
    cli_ms: int = 0
    """Milliseconds for which turns held a command line, summed over turns."""
    ttfd_ms_sum: int = 0
    """Milliseconds from a request's arrival to the first piece of its answer, summed."""
    ttfd_count: int = 0
    """How many answers that sum is of."""


TTFD_BUCKETS_MS = (50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000)
"""Upper bounds by which times to the first delta are counted; what takes longer is counted last."""
TTFD_SLOTS = tuple(f"ttfd_bucket_{index}" for index in range(len(TTFD_BUCKETS_MS) + 1))
SLOTS = (
    "heartbeat_ns",
    "last_active_ns",
    "budget_exhausted_ns",
    "booted_ns",
    "login_refused_ns",
    "in_flight",
    "queued",
    "standbys",
    "standby_rss_bytes",
    "pending_tokens",
    "boots",
    "provider_failures",
    "standby_failures",
    *TTFD_SLOTS,
    *Totals.__struct_fields__,
)
"""``*_ns`` are CLOCK_MONOTONIC nanoseconds, the same clock in every process of a machine.

``budget_exhausted_ns`` is when the budget was used up and the last turn over; 0 before that. ``pending_tokens`` are
those of running turns, counted or estimated. ``booted_ns`` is when the present worker process began.
``login_refused_ns``, ``provider_failures`` and ``standby_failures`` tell of failures in a row; a success makes them 0.
"""
_INDEX = {name: index for index, name in enumerate(SLOTS)}
_BYTES = mmap.PAGESIZE


def create() -> int:
    """A new, zeroed scoreboard; returns its file descriptor."""
    fd = os.memfd_create("asm-endpoint-scoreboard", os.MFD_CLOEXEC)
    os.ftruncate(fd, _BYTES)
    return fd


class Scoreboard:
    """A mapped view of a scoreboard's descriptor, which stays the caller's; of memory of its own without one."""

    def __init__(self, fd: int | None) -> None:
        self._page = None if fd is None else mmap.mmap(fd, _BYTES)
        self._slots = memoryview(bytearray(_BYTES) if self._page is None else self._page).cast("q")

    def __getitem__(self, name: str) -> int:
        return self._slots[_INDEX[name]]

    def __setitem__(self, name: str, value: int) -> None:
        self._slots[_INDEX[name]] = value

    def add(self, name: str, amount: int = 1) -> None:
        """Add to a slot; only the slot's one writer may."""
        self._slots[_INDEX[name]] += amount

    def add_ttfd(self, milliseconds: int) -> None:
        """Count one time to the first delta."""
        self.add("ttfd_ms_sum", milliseconds)
        self.add("ttfd_count")
        self.add(TTFD_SLOTS[bisect.bisect_left(TTFD_BUCKETS_MS, milliseconds)])

    def ttfd_counts(self) -> tuple[int, ...]:
        """How many times to the first delta are in each bucket."""
        return tuple(self[name] for name in TTFD_SLOTS)

    def counts(self) -> dict[str, int]:
        """All slots but clocks and buckets, by name."""
        return {name: self[name] for name in SLOTS if not name.endswith("_ns") and name not in TTFD_SLOTS}

    def cost_of(self, tokens: int) -> int:
        """About how many micro-USD so many tokens are, at the price of those whose cost was reported."""
        return round(tokens * self["cost_microusd"] / (self["priced_tokens"] or 1))

    def settle(self) -> None:
        """Nobody who was counting lives any more: what running turns had spent stays an estimate, and they failed."""
        lost_tokens = self["pending_tokens"]
        self.add("estimated_cost_microusd", self.cost_of(lost_tokens))
        self.add("estimated_tokens", lost_tokens)
        self.add("failures", self["in_flight"])
        for name in ("pending_tokens", "in_flight", "queued"):
            self[name] = 0

    def detach(self) -> None:
        """Keep the numbers as they are, and let go of the page: a mapping holds a descriptor while it lives."""
        if self._page is not None:
            shared, self._slots = self._slots, memoryview(bytearray(self._slots)).cast("q")
            shared.release()
            self._page.close()
            self._page = None

    def restore(self, totals: Totals) -> None:
        """Go on from totals that were written down; before anybody counts."""
        for name, value in msgspec.structs.asdict(totals).items():
            self[name] = value

    def totals(self) -> Totals:
        """What the lease has used so far."""
        return Totals(**{name: self[name] for name in Totals.__struct_fields__})


def local() -> Scoreboard:
    """A scoreboard of this process alone."""
    return Scoreboard(None)
