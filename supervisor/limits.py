"""Whether a lease's processes use more than its limits allow, and the sentence that says so. Pure."""

from __future__ import annotations

import math

import msgspec

from shared.contracts import LeaseLimits

UNCOUNTABLE = math.inf
"""So many files that nobody counts them all; over any limit."""
UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What a lease uses at one moment, by the names of its limits; None for what was not looked at."""

    memory_bytes: int | None = None
    cpu_s: float | None = None
    processes: int | None = None
    open_files: int | None = None
    workspace_bytes: float | None = None
    wall_s: float | None = None


def excess(limits: LeaseLimits, sample: Sample) -> str | None:
    """The first limit that is exceeded, with both numbers; None when all are kept. A limit itself is kept."""
    for name in LeaseLimits.__struct_fields__:
        limit, used = getattr(limits, name), getattr(sample, name)
        if limit is not None and used is not None and used > limit:
            return f"{name}: {_compared(name, used, limit)}"
    return None


def _compared(name: str, used: float, limit: float) -> str:
    if used == UNCOUNTABLE:
        return f"more files than are counted, with a limit of {_amount(name, limit)}"
    texts = _amount(name, used), _amount(name, limit)
    if texts[0] == texts[1]:
        texts = f"{used}", f"{limit}"
    return "{} over the limit of {}".format(*texts)


def _amount(name: str, value: float) -> str:
    """Short, with its unit."""
    if name.endswith("_s"):
        return f"{value:.4g} s"
    if not name.endswith("_bytes"):
        return f"{value}"
    unit, size = next(((unit, size) for unit, size in UNITS if value >= size), ("bytes", 1))
    return f"{value / size:.4g} {unit}"
