"""Ending a family and proving it: snapshot, stop, wait for the leader, then look for anything that is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time

from shared import processes
from shared.launch import Exited
from shared.processes import ProcessId
from supervisor.launcher import Launcher
from supervisor.monitor import observe
from supervisor.settings import Settings
from supervisor.table import LeaseRecord
from supervisor.views import ProvenProcess, ReleaseProof, proven, unnamed

SETTLE_S = 2.0
"""After the leader's end, for the kernel to finish with what was killed."""
SETTLE_POLL_S = 0.005


async def stop_family(
    record: LeaseRecord, launcher: Launcher, exited: asyncio.Future[Exited], settings: Settings
) -> ReleaseProof:
    """Stop one family: SIGTERM, drain, SIGKILL, verify. The proof tells of survivors instead of raising."""
    started = time.monotonic()
    observe([record])
    had = {row.id: proven(row) for row in record.processes}
    exit_report: Exited | None = None
    if record.leader_pid is not None:
        kill_after_s = settings.drain_s + settings.kill_margin_s
        if not exited.done():
            launcher.stop(record.lease_ref, kill_after_s)
        with contextlib.suppress(TimeoutError):
            exit_report = await asyncio.wait_for(asyncio.shield(exited), kill_after_s + settings.exit_wait_s)
    survivors = await _settled(record)
    return ReleaseProof(
        lease_ref=record.lease_ref,
        cause=str(record.cause),
        isolation=record.isolation,
        processes=tuple(had.get(process, unnamed(process)) for process in sorted(record.seen)),
        sigkill_needed=exit_report is None or exit_report.killed,
        elapsed_ms=(time.monotonic() - started) * 1000,
        survivors=tuple(had.get(process, unnamed(process)) for process in survivors),
        verified="pid_namespace_empty" if record.pid_namespace is not None else "no_descendant_and_no_marker",
    )


async def _settled(record: LeaseRecord) -> list[ProcessId]:
    """What is left of the family, after a short time for the kernel; outside namespaces strays are killed too."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        left = remains(record)
        if not left or time.monotonic() > deadline:
            return left
        if record.pid_namespace is None:
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
        await asyncio.sleep(SETTLE_POLL_S)


def remains(record: LeaseRecord) -> list[ProcessId]:
    """Processes that are or may be the family's and still run: known ones, namespace members, marked ones."""
    found = set(processes.alive(record.seen))
    others = (
        processes.in_namespace(record.pid_namespace)
        if record.pid_namespace is not None
        else processes.with_marker(record.lease_ref)
    )
    found.update(
        identity for pid in others if (identity := processes.identify(pid)) and processes.is_alive(identity)
    )
    return sorted(found)


__all__ = ["ProvenProcess", "remains", "stop_family"]
