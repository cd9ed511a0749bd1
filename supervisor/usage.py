"""Measuring what limited leases use. Whoever has no limit of a kind does not pay for looking.

Memory, processor time and processes come from the family as last observed. Descriptors are counted in ``/proc``; disk
by a walk through the lease's folders, which is made beside the event loop, and more rarely.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence

from shared import processes
from shared.processes import ProcessRow
from supervisor.limits import UNCOUNTABLE, Sample
from supervisor.table import LeaseRecord

MAX_ENTRIES = 100_000
"""More files and folders are not counted: a walk has to end, and their number alone is over any limit."""
BLOCK_BYTES = 512
"""Of ``st_blocks``, by stat(2); the least that anything weighs here."""


class Usage:
    """What leases use. Their disk is measured again ``disk_period_s`` after the last measurement."""

    def __init__(self, disk_period_s: float) -> None:
        self._disk_period_s = disk_period_s
        self._disk_bytes: Mapping[str, float] = {}
        self._next_walk_at = float("-inf")
        self._walk: asyncio.Future[dict[str, float]] | None = None

    def sample(self, record: LeaseRecord) -> Sample:
        """What a lease uses of what its options limit; its processes as last observed."""
        limits, rows = record.options.limits, record.processes
        if limits is None:
            return Sample()
        return Sample(
            memory_bytes=sum(row.rss_bytes for row in rows),
            cpu_s=sum(row.cpu_s + row.children_cpu_s for row in rows),
            processes=sum(not row.is_zombie for row in rows),
            open_files=None if limits.open_files is None else sum(map(_open_files, rows)),
            workspace_bytes=self._disk_bytes.get(record.lease_ref),
            wall_s=processes.age_s(record.leader) if record.leader else None,
        )

    def look_at_disk(self, records: Sequence[LeaseRecord], now: float) -> None:
        """Begin to measure the disk of the leases that have a limit of it, if it is time; ``now`` is monotonic."""
        if self._walk is not None and self._walk.done():
            walk, self._walk = self._walk, None
            self._next_walk_at = now + self._disk_period_s
            self._disk_bytes = walk.result()
        wanted = {
            record.lease_ref: (record.lease_dir, record.options.limits.workspace_bytes)
            for record in records
            if record.options.limits and record.options.limits.workspace_bytes
        }
        if wanted and self._walk is None and now >= self._next_walk_at:
            self._walk = asyncio.get_running_loop().run_in_executor(None, _walk_all, wanted)


def _walk_all(wanted: Mapping[str, tuple[str, int]]) -> dict[str, float]:
    return {lease_ref: disk_bytes(folder, enough) for lease_ref, (folder, enough) in wanted.items()}


def disk_bytes(folder: str, enough: int) -> float:
    """What is below a folder, as it weighs on the disk; of more than ``enough``, only that it is more.

    Links are not followed, and what has been deleted but is still open is not seen.
    """
    total, entries, queue = 0, 0, [folder]
    while queue and total <= enough:
        for entry in _entries(queue.pop()):
            entries += 1
            if entries > MAX_ENTRIES:
                return UNCOUNTABLE
            try:
                total += max(BLOCK_BYTES, entry.stat(follow_symlinks=False).st_blocks * BLOCK_BYTES)
            except OSError:
                continue
            if entry.is_dir(follow_symlinks=False):
                queue.append(entry.path)
    return total


def _entries(folder: str) -> Sequence[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return ()


def _open_files(row: ProcessRow) -> int:
    try:
        return len(os.listdir(f"/proc/{row.id.pid}/fd"))
    except OSError:
        return 0
