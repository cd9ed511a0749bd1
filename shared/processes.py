"""Finding a family of processes and proving it gone, from ``/proc`` alone.

A process is identified by pid and start time, never by pid alone; the start time is in clock ticks since boot, which no
change of the wall clock touches. One pass over the process table serves all families. It reads one file for each
process; psutil reads several for the same fields and takes many times as long (``tests/bench/test_monitor.py`` measures
it), and the pass is made every second.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterable, Iterator

import msgspec

from shared.launch import MARKER_VARIABLE
from shared.pidns import pid_namespace

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
ZOMBIE_STATES = frozenset({"Z", "X", "x"})
STATE, PPID, UTIME, STIME, CUTIME, CSTIME, START, RSS = 0, 1, 11, 12, 13, 14, 19, 21
"""Positions in ``/proc/PID/stat`` after the name, by proc(5)."""


class ProcessId(msgspec.Struct, frozen=True, order=True):
    """A process that cannot be confused with a later one of the same pid."""

    pid: int
    start_ticks: int


class ProcessRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the process table. ``cpu_s`` is user and system time, ``children_cpu_s`` that of reaped children."""

    id: ProcessId
    ppid: int
    name: str
    rss_bytes: int
    cpu_s: float
    children_cpu_s: float
    is_zombie: bool


def table() -> dict[int, ProcessRow]:
    """The process table now, by pid. Raises OSError where there is no ``/proc``."""
    rows = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and (row := read(int(entry))):
            rows[row.id.pid] = row
    return rows


def read(pid: int) -> ProcessRow | None:
    """One line of it; None when there is no such process."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            stat = os.read(fd, 4096).decode(errors="replace")
        finally:
            os.close(fd)
    except OSError:
        return None
    head, _, tail = stat.rpartition(")")  # the name may hold anything, parentheses too
    fields = tail.split()
    return ProcessRow(
        id=ProcessId(pid, int(fields[START])),
        ppid=int(fields[PPID]),
        name=head.partition("(")[2],
        rss_bytes=int(fields[RSS]) * PAGE_BYTES,
        cpu_s=(int(fields[UTIME]) + int(fields[STIME])) / TICKS_PER_S,
        children_cpu_s=(int(fields[CUTIME]) + int(fields[CSTIME])) / TICKS_PER_S,
        is_zombie=fields[STATE] in ZOMBIE_STATES,
    )


def create_time_s(process: ProcessId) -> float:
    """When it began, in seconds since the epoch, as the wall clock was when this process first asked."""
    return _boot_time_s() + process.start_ticks / TICKS_PER_S


def age_s(process: ProcessId) -> float:
    """For how long it has been there; no change of the wall clock touches it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - process.start_ticks / TICKS_PER_S


@functools.cache
def _boot_time_s() -> int:
    with open("/proc/stat", encoding="ascii") as stat:
        return next(int(line.split()[1]) for line in stat if line.startswith("btime "))


def children_by_parent(rows: dict[int, ProcessRow]) -> dict[int, list[ProcessRow]]:
    """The table turned round, so that many families can be walked in one pass."""
    children: dict[int, list[ProcessRow]] = {}
    for row in rows.values():
        children.setdefault(row.ppid, []).append(row)
    return children


def family(
    leader: int, rows: dict[int, ProcessRow], children: dict[int, list[ProcessRow]]
) -> list[ProcessRow]:
    """The leader and all its descendants, zombies included; empty when the leader is gone."""
    if leader not in rows:
        return []
    found, queue = [], [rows[leader]]
    while queue:
        row = queue.pop()
        found.append(row)
        queue.extend(children.get(row.id.pid, ()))
    return found


def tree(leader: int) -> list[ProcessRow]:
    """As :func:`family`, of the processes as they are now, and without a pass over all others where the kernel can.

    It names a process's children, though it may leave one out while another one of them ends.
    """
    if not _names_children():
        rows = table()
        return family(leader, rows, children_by_parent(rows))
    found, queue = [], [leader]
    while queue:
        if row := read(queue.pop()):
            found.append(row)
            queue.extend(_children(row.id.pid))
    return found


@functools.cache
def _names_children() -> bool:
    """Whether this kernel was built to (CONFIG_PROC_CHILDREN)."""
    return os.path.exists("/proc/thread-self/children")


def _children(pid: int) -> list[int]:
    """Of each of its threads."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb", buffering=0) as children:
                found.extend(map(int, children.read().split()))
    return found


def identify(pid: int) -> ProcessId | None:
    """The identity of a process, a zombie's too; None when there is none of that pid."""
    row = read(pid)
    return row.id if row else None


def is_alive(process: ProcessId) -> bool:
    """Whether that very process still runs; a zombie does not."""
    row = read(process.pid)
    return row is not None and row.id == process and not row.is_zombie


def alive(processes: Iterable[ProcessId]) -> list[ProcessId]:
    """Those that still run."""
    return [process for process in processes if is_alive(process)]


def is_apart(pid: int, ancestor: int) -> bool:
    """Whether a process is there and does not descend from another one; not when that cannot be told any more."""
    while pid > 1:
        row = read(pid)
        if row is None or row.ppid == ancestor:
            return False
        pid = row.ppid
    return True


def in_namespace(namespace: int) -> Iterator[int]:
    """Pids of the processes in a PID namespace, zombies left out."""
    return (pid for pid in pids() if pid_namespace(pid) == namespace)


def with_marker(lease_ref: str) -> Iterator[int]:
    """Pids of the processes whose environment carries the lease's marker."""
    wanted = f"{MARKER_VARIABLE}={lease_ref}".encode()
    for pid in pids():
        try:
            with open(f"/proc/{pid}/environ", "rb") as environ:
                if wanted in environ.read().split(b"\0"):
                    yield pid
        except OSError:
            continue


def pids() -> list[int]:
    """Every pid now."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]
