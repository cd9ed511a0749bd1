"""Finding a family of processes and proving it gone. The only module that uses psutil.

A process is identified by pid and create time, never by pid alone. One pass over the process table serves all
families (asking psutil for each family's children would scan the table once per process).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
import psutil

from shared.launch import MARKER_VARIABLE
from shared.pidns import pid_namespace


class ProcessId(msgspec.Struct, frozen=True, order=True):
    """A process that cannot be confused with a later one of the same pid."""

    pid: int
    create_time: float


class ProcessRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the process table. ``cpu_s`` is user and system time."""

    id: ProcessId
    ppid: int
    name: str
    rss_bytes: int
    cpu_s: float
    is_zombie: bool


def table() -> dict[int, ProcessRow]:
    """The process table now, by pid."""
    rows = {}
    wanted = ["pid", "ppid", "create_time", "name", "memory_info", "cpu_times", "status"]
    for process in psutil.process_iter(wanted):
        info = process.info
        if info["create_time"] is None or info["memory_info"] is None:
            continue
        rows[info["pid"]] = ProcessRow(
            id=ProcessId(info["pid"], info["create_time"]),
            ppid=info["ppid"] or 0,
            name=info["name"] or "",
            rss_bytes=info["memory_info"].rss,
            cpu_s=info["cpu_times"].user + info["cpu_times"].system if info["cpu_times"] else 0.0,
            is_zombie=info["status"] == psutil.STATUS_ZOMBIE,
        )
    return rows


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


def available_memory_bytes() -> int:
    """Memory of the machine that can be had without swapping."""
    return int(psutil.virtual_memory().available)


def identify(pid: int) -> ProcessId | None:
    """The identity of a running process, None when there is none of that pid."""
    try:
        return ProcessId(pid, psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def is_alive(process: ProcessId) -> bool:
    """Whether that very process still runs; a zombie does not."""
    try:
        found = psutil.Process(process.pid)
        is_same: bool = found.create_time() == process.create_time
        return is_same and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def alive(processes: Iterable[ProcessId]) -> list[ProcessId]:
    """Those that still run."""
    return [process for process in processes if is_alive(process)]


def in_namespace(namespace: int) -> Iterator[int]:
    """Pids of the running processes in a PID namespace."""
    return (pid for pid in psutil.pids() if pid_namespace(pid) == namespace)


def with_marker(lease_ref: str) -> Iterator[int]:
    """Pids of the processes whose environment carries the lease's marker."""
    wanted = f"{MARKER_VARIABLE}={lease_ref}".encode()
    for pid in psutil.pids():
        try:
            with open(f"/proc/{pid}/environ", "rb") as environ:
                if wanted in environ.read().split(b"\0"):
                    yield pid
        except OSError:
            continue
