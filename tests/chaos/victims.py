"""Finding what is to be killed, and what has been left: by the process table alone, asking no supervisor."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import msgspec

from shared import processes
from shared.processes import ProcessId, ProcessRow
from tests.chaos.ledger import Victim

HIDDEN_NAME = b"echo-hidden"
"""What echo's hiding grandchildren are called."""


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """The processes of one lease; the first is the zygote's child. ``lease_ref`` is None until it has a folder."""

    lease_ref: str | None
    rows: tuple[ProcessRow, ...]

    def find(self, victim: Victim, *, has_keeper: bool, is_streaming: bool = False) -> ProcessId | None:
        """That process of it, if it runs now. The oldest command line serves while there is a stream."""
        match victim, self._servers(), self._command_lines():
            case Victim.KEEPER, [keeper, *_], _ if has_keeper:
                return keeper.id
            case Victim.LEADER, [_, leader, *_], _ if has_keeper:
                return leader.id
            case Victim.LEADER, [leader, *_], _ if not has_keeper:
                return leader.id
            case Victim.WORKER, [_, _, worker], _ if has_keeper:
                return worker.id
            case Victim.WORKER, [_, worker], _ if not has_keeper:
                return worker.id
            case Victim.COMMAND_LINE, _, [oldest, *_] if is_streaming:
                return oldest.id
            case Victim.STANDBY, _, [_, *_, youngest] if is_streaming:
                return youngest.id
            case Victim.STANDBY, _, [*_, youngest] if not is_streaming:
                return youngest.id
        return None

    def _servers(self) -> list[ProcessRow]:
        """From the zygote's child to gunicorn's worker process, each a child of the one before."""
        chain = [self.rows[0]]
        while True:
            below = [row for row in self.rows if row.ppid == chain[-1].id.pid and is_fork(row)]
            if not below:
                return chain
            chain.append(below[0])

    def _command_lines(self) -> list[ProcessRow]:
        """Those that the worker process has now, oldest first; not what they have daemonised."""
        *_, worker = self._servers()
        below = [row for row in self.rows if row.ppid == worker.id.pid and not row.is_zombie]
        return sorted(below, key=lambda row: row.id.start_ticks)


def is_fork(row: ProcessRow) -> bool:
    """Whether a process is the zygote's program still, and runs."""
    return not row.is_zombie and b"worker.zygote" in command_line(row.id.pid)


def families(zygote: ProcessId) -> list[Family]:
    """All that a zygote has now."""
    rows = processes.table()
    children = processes.children_by_parent(rows)
    return [
        _family(processes.family(top.id.pid, rows, children))
        for top in children.get(zygote.pid, [])
        if not top.is_zombie and is_fork(top)
    ]


def kill(process: ProcessId) -> bool:
    """SIGKILL to that very process; False when it has gone before."""
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(process.pid)
        try:
            if processes.is_alive(process):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                return True
        finally:
            os.close(pidfd)
    return False


def left_behind(root: int, keep: set[int], open_leases: set[str], zygote: ProcessId | None) -> list[int]:
    """Running processes below ``root``, but for ``keep`` and all below them, the zygote and its open leases."""
    rows = processes.table()
    kept = set(keep)
    if zygote is not None:
        kept.update(each.rows[0].id.pid for each in families(zygote) if each.lease_ref in open_leases)
        rows.pop(zygote.pid, None)
    children = processes.children_by_parent({pid: row for pid, row in rows.items() if pid not in kept})
    tops = [root] if zygote is None else [root, zygote.pid]
    below = {row.id for top in tops for row in _descendants(top, children)}
    return [each.pid for each in processes.alive(below)]


def _descendants(top: int, children: dict[int, list[ProcessRow]]) -> list[ProcessRow]:
    found: list[ProcessRow] = []
    queue = [top]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += [row.id.pid for row in below]
    return found


def is_hidden(pid: int) -> bool:
    """Whether it is one of those that no supervisor without namespaces can tell from a stranger."""
    return command_line(pid).startswith(HIDDEN_NAME) and not _file(pid, "environ")


def command_line(pid: int) -> bytes:
    """Its argv; nothing when it has gone."""
    return _file(pid, "cmdline")


def _family(rows: list[ProcessRow]) -> Family:
    return Family(
        lease_ref=next((ref for row in rows if (ref := _lease_ref(row.id.pid))), None), rows=tuple(rows)
    )


def _lease_ref(pid: int) -> str | None:
    """By its working directory, ``leases/REF/workspace`` in the state folder."""
    try:
        folder = Path(os.readlink(f"/proc/{pid}/cwd"))
    except OSError:
        return None
    return folder.parent.name if folder.name.startswith("workspace") else None


def _file(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
