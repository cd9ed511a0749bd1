"""Taking over from an earlier supervisor of the same state folder: its leases go on, or end truthfully.

The decision is :mod:`supervisor.adoption`'s; this module carries it out, before anybody else is served.
"""

from __future__ import annotations

import logging
import os

import msgspec

from shared import processes
from shared.scoreboard import Scoreboard
from supervisor import adoption
from supervisor.adoption import Fate
from supervisor.downlink import Downlink
from supervisor.endings import Endings
from supervisor.entry import LeaseEntry
from supervisor.launcher import Found
from supervisor.table import LeaseRecord, LeaseTable

_log = logging.getLogger("asm_endpoint.succession")


def take_over(
    entries: list[LeaseEntry],
    families: dict[str, Found],
    table: LeaseTable,
    endings: Endings,
    downlink: Downlink,
) -> int:
    """Carry out what is decided of those leases and families; returns how many leases go on."""
    decided = adoption.plan(entries, families, downlink.unwatched)
    for fate in decided.fates:
        record = _record(fate)
        table.add(record)
        endings.expect(record)
        endings.settle(record)
        if fate.found is None and not endings.owns_folder(record):
            endings.disown(record)
            continue
        if fate.found is None:
            endings.on_gone(record)
        elif fate.found.exited is not None:
            endings.heard(record, fate.found.exited)
        if fate.cause is not None:
            endings.begin(record, fate.cause, fate.detail)
    for stranger in decided.strangers:
        _log.error(
            "a lease is not in the journal: its family is stopped",
            extra={"lease_ref": stranger.running.lease_ref},
        )
        stranger.close()
        if stranger.exited is None:
            downlink.launcher.stop(stranger.running.lease_ref, 0.0)
        else:
            downlink.launcher.confirm(stranger.running.lease_ref)
    running = {stranger.running.lease_ref for stranger in decided.strangers if stranger.exited is None}
    endings.sweep(keep=running)
    adopted = sum(fate.cause is None for fate in decided.fates)
    if decided.fates:
        _log.info("%d leases adopted, %d ended", adopted, len(decided.fates) - adopted)
    return adopted


def _record(fate: Fate) -> LeaseRecord:
    """The lease as it was, with what the zygote still holds of it."""
    record = LeaseRecord(**msgspec.structs.asdict(fate.entry))
    found = fate.found
    if found is None:
        record.scoreboard.restore(record.totals)
        return record
    record.scoreboard = Scoreboard(found.scoreboard_fd)
    os.close(found.scoreboard_fd)
    record.namespace_fd, record.pid_namespace = found.namespace_fd, found.running.pid_namespace
    record.isolation = found.running.isolation
    record.leader = record.leader or processes.identify(found.running.pid)
    return record
