"""Ending a family and proving it: snapshot, stop, wait for the leader, then look for anything that is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time

from shared import processes
from shared.launch import Exited
from shared.pidns import pid_namespace
from shared.processes import ProcessId
from supervisor.launcher import Launcher
from supervisor.observing import observe
from supervisor.proof import ReleaseProof, proven, unnamed
from supervisor.settings import Settings
from supervisor.table import LeaseRecord

RECENT_WORK_S = 0.1
"""So soon after a turn its last bytes may still be on their way to the client."""
SETTLE_S = 2.0
"""After the leader's end, for the kernel to finish with what was killed."""
SETTLE_POLL_S = 0.005


async def stop_family(
    record: LeaseRecord, launcher: Launcher, exited: asyncio.Future[Exited], settings: Settings
) -> ReleaseProof:
    """Stop one family: SIGTERM, drain, SIGKILL, verify. The proof tells of survivors instead of raising.

    A family with nothing to drain is killed at once.
    """
    started = time.monotonic()
    observe([record])
    had = {row.id: proven(row) for row in record.processes}
    first = _first_of_namespace(record)
    exit_report: Exited | None = None
    kill_after_s = settings.drain_s + settings.kill_margin_s if _has_work(record, started) else 0.0
    if record.leader is not None:
        if not exited.done():
            launcher.stop(record.lease_ref, kill_after_s)
        with contextlib.suppress(TimeoutError):
            exit_report = await asyncio.wait_for(asyncio.shield(exited), kill_after_s + settings.exit_wait_s)
    survivors = await _settled(record, first)
    return ReleaseProof(
        lease_ref=record.lease_ref,
        cause=str(record.cause),
        isolation=record.isolation,
        processes=tuple(had.get(process, unnamed(process)) for process in sorted(record.seen)),
        sigkill_needed=kill_after_s > 0 and (exit_report is None or exit_report.killed),
        elapsed_ms=(time.monotonic() - started) * 1000,
        survivors=tuple(had.get(process, unnamed(process)) for process in survivors),
        verified="pid_namespace_empty"
        if record.held_namespace is not None
        else "no_descendant_and_no_marker",
    )


def _has_work(record: LeaseRecord, now: float) -> bool:
    """Whether a turn runs, waits or has just ended; a lease that has never had one has nothing to drain."""
    idle_since = record.idle_since()
    is_recent = idle_since is not None and now - idle_since < RECENT_WORK_S
    return idle_since is None or (is_recent and record.scoreboard["requests"] > 0)


def _first_of_namespace(record: LeaseRecord) -> ProcessId | None:
    """The family's process 1 in its own PID namespace, while that can be told."""
    if record.held_namespace is None:
        return None
    members = (row.id for row in record.processes if pid_namespace(row.id.pid) == record.held_namespace)
    return next(members, None)


async def _settled(record: LeaseRecord, first: ProcessId | None) -> list[ProcessId]:
    """What is left of the family, after a short time for the kernel; outside namespaces strays are killed too.

    A namespace's ``first`` process ends only when no other one is left in it (pid_namespaces(7)): once it has, there is
    no need to look through all processes of the machine.
    """
    deadline = time.monotonic() + SETTLE_S
    while True:
        left = processes.alive(record.seen)
        if not left and first is None:
            left = remains(record)
        if not left or time.monotonic() > deadline:
            return left
        if record.held_namespace is None:
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
        await asyncio.sleep(SETTLE_POLL_S)


def remains(record: LeaseRecord) -> list[ProcessId]:
    """Processes that are or may be the family's and still run: known ones, namespace members, marked ones."""
    found = set(processes.alive(record.seen))
    others = (
        processes.in_namespace(record.held_namespace)
        if record.held_namespace is not None
        else processes.with_marker(record.lease_ref)
    )
    found.update(
        identity for pid in others if (identity := processes.identify(pid)) and processes.is_alive(identity)
    )
    return sorted(found)
