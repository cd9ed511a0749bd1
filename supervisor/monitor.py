"""Watching the families: one pass over the process table per period, for all leases at once.

That a family has ended is not concluded here: the zygote is its parent, tells it, and knows how.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time

from shared import processes
from supervisor.endings import Endings
from supervisor.heart import is_punctual
from supervisor.journal import Journal
from supervisor.lease import Cause, State
from supervisor.limits import excess
from supervisor.metrics import Metrics
from supervisor.observing import observe
from supervisor.settings import Settings
from supervisor.table import LeaseTable
from supervisor.usage import Usage

_log = logging.getLogger("asm_endpoint.monitor")


class Monitor:
    """Refreshes every lease's processes, ends leases whose time, owner or family is gone, and writes totals down."""

    def __init__(
        self, table: LeaseTable, endings: Endings, journal: Journal, metrics: Metrics, settings: Settings
    ) -> None:
        self._table = table
        self._metrics = metrics
        self._looked_at = float("-inf")
        self._endings = endings
        self._journal = journal
        self._settings = settings
        self._usage = Usage(settings.disk_period_s)
        self._written_at = time.monotonic()
        self._pruned_at = float("-inf")

    async def run(self) -> None:
        """Look once per period, until cancelled; a failed look is logged and the next one made."""
        while True:
            started = time.monotonic()
            try:
                self.look()
            except Exception:
                _log.exception("cannot look at the process table")
            self._metrics.looked(time.monotonic() - started)
            await asyncio.sleep(self._settings.monitor_period_s)

    def look(self) -> None:
        """One look."""
        now = time.monotonic()
        observe(self._table.unfinished())
        self._listen_to_hearts(now)
        for record, cause, detail in self._table.overdue(now):
            self._endings.begin(record, cause, detail)
        for record in self._table.unfinished():
            if record.is_live and record.owner_process and not processes.is_alive(record.owner_process):
                self._endings.begin(record, Cause.OWNER_GONE, f"process {record.owner_process.pid} has ended")
        self._end_excesses(now)
        self._endings.recheck()
        self._write(now)

    def _end_excesses(self, now: float) -> None:
        """End the leases that use more than their limits allow."""
        limited = [record for record in self._table.unfinished() if record.is_live and record.options.limits]
        self._usage.look_at_disk(limited, now)
        for record in limited:
            if (limits := record.options.limits) and (detail := excess(limits, self._usage.sample(record))):
                self._endings.begin(record, Cause.LIMIT_EXCEEDED, detail)

    def _listen_to_hearts(self, now: float) -> None:
        period_s = self._settings.monitor_period_s
        punctual = is_punctual(now - self._looked_at, period_s)
        self._looked_at = now
        max_still_looks = math.ceil(self._settings.heartbeat_max_age_s / period_s)
        for record in self._table.unfinished():
            if record.state is State.READY:
                record.heart.look(
                    record.scoreboard["heartbeat_ns"],
                    int(now * 1e9),
                    is_punctual=punctual,
                    max_still_looks=max_still_looks,
                )

    def _write(self, now: float) -> None:
        """What the leases have used so far, and what could not be written before; forget what is long over."""
        settings = self._settings
        self._journal.catch_up()
        if now - self._written_at >= settings.totals_period_s:
            self._written_at = now
            for record in self._table.unfinished():
                if (totals := record.scoreboard.totals()) != record.totals:
                    record.totals = totals
                    self._journal.keep(record)
        if now - self._pruned_at >= settings.prune_period_s:
            self._pruned_at = now
            self._journal.prune(
                ended_before_s=time.time() - settings.ended_kept_s,
                at_least=settings.ended_kept_always,
                at_most=settings.ended_kept,
            )
