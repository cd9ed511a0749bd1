"""What processes and a state folder hold, by kind, so that two moments can be compared."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from supervisor.database import DATABASE_NAME
from supervisor.statefolder import ADDRESS_NAME, LEASES_NAME, LOCK_NAME, PREPARED_NAME, TOKEN_NAME
from supervisor.zygotes import IDENTITY_NAME, SOCKET_NAME
from supervisor.zygotes import LOG_NAME as ZYGOTE_LOG_NAME

CHANGING = re.compile(r"(?<=wgunicorn-)\w+|\d+")
"""What tells two descriptors of the same kind apart by name: numbers, and gunicorn's names for its heartbeat files."""
LISTENING = "0A"
KEPT_FILES = frozenset({LOCK_NAME, TOKEN_NAME, DATABASE_NAME, ZYGOTE_LOG_NAME, LEASES_NAME, PREPARED_NAME})
"""Of a supervisor that has ended well."""
LIVE_FILES = frozenset(
    {ADDRESS_NAME, SOCKET_NAME, IDENTITY_NAME, f"{DATABASE_NAME}-wal", f"{DATABASE_NAME}-shm"}
)
"""More, of one that runs."""
STEADY_S = 0.5
SETTLE_S = 10.0
"""For connections and folders to go after their leases."""
POLL_S = 0.05


def held_by(pid: int) -> Counter[str]:
    """How many threads a process has, and descriptors of each kind."""
    kinds = Counter(thread=len(os.listdir(f"/proc/{pid}/task")))
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
        kinds[CHANGING.sub("N", target)] += 1
    return kinds


def steady(pid: int) -> Counter[str]:
    """The same, once it has not changed for a moment."""
    deadline = time.monotonic() + SETTLE_S
    held, since = held_by(pid), time.monotonic()
    while time.monotonic() < min(since + STEADY_S, deadline):
        time.sleep(POLL_S)
        if (now := held_by(pid)) != held:
            held, since = now, time.monotonic()
    return held


def stays(look: Callable[[], list[str]]) -> list[str]:
    """What a look finds, if it is still found after a while; else its last, empty answer."""
    deadline = time.monotonic() + SETTLE_S
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return found


def more(before: Mapping[str, Counter[str]], pids: Mapping[str, int]) -> list[str]:
    """What those processes hold more of than the ones in their places did before."""
    found = {name: held_by(pid) - before[name] for name, pid in pids.items()}
    return [f"{name}: {dict(kinds)}" for name, kinds in found.items() if kinds]


def listening(ports: set[int]) -> list[str]:
    """Those of the ports at which somebody listens in this network."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    open_ports = {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == LISTENING}
    return [f"port {port} of a lease that has ended" for port in sorted(ports & open_ports)]


def workspaces(home: Path) -> list[str]:
    """Folders of leases in a state folder."""
    return [f"workspace {path.name}" for path in (home / LEASES_NAME).iterdir()]


def unknown_files(home: Path, *, is_served: bool, others: set[str]) -> list[str]:
    """What else is in a state folder; ``others`` are the caller's own."""
    known = KEPT_FILES | others | (LIVE_FILES if is_served else set())
    return sorted(f"file {path.name}" for path in home.iterdir() if path.name not in known)
