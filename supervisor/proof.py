"""The proof of a family's end: which processes it had, how long it took, and what is left. Pure."""

from __future__ import annotations

import msgspec

from shared.processes import ProcessId, ProcessRow, create_time_s


class ProvenProcess(msgspec.Struct, frozen=True, kw_only=True):
    """One process of a family. ``create_time`` is in seconds since the epoch, ``start_ticks`` in ticks since boot."""

    pid: int
    create_time: float
    start_ticks: int
    name: str


class ReleaseProof(msgspec.Struct, frozen=True, kw_only=True):
    """How a family ended: which processes it had, how long it took, and what is left (nothing, or it failed)."""

    lease_ref: str
    cause: str
    isolation: str | None
    processes: tuple[ProvenProcess, ...]
    sigkill_needed: bool
    """Whether it had to be killed although it was given time to end by itself."""
    elapsed_ms: float
    survivors: tuple[ProvenProcess, ...]
    verified: str
    """How emptiness was checked: pid_namespace_empty, or no_descendant_and_no_marker."""


def proven(row: ProcessRow) -> ProvenProcess:
    """A process as proofs show it."""
    return _process(row.id, row.name)


def unnamed(process: ProcessId) -> ProvenProcess:
    """A process of which only the identity is left."""
    return _process(process, "")


def _process(process: ProcessId, name: str) -> ProvenProcess:
    return ProvenProcess(
        pid=process.pid, create_time=create_time_s(process), start_ticks=process.start_ticks, name=name
    )
