"""The families of one zygote: forking them, stopping them, collecting their dead, and what is still to be told of them.

Safe without locks because the zygote has one thread and is every family's parent: a family's pid is free for others
only after it was collected here. Knows nothing of supervisors.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import msgspec

from shared import launch
from shared.launch import Exited, Launched, LaunchSpec, Running
from worker import family
from worker.forking import Forked, Way, fork_leader
from worker.rehearsal import Rehearsed
from worker.server import exit_text

_log = logging.getLogger("asm_endpoint.zygote")


class Family(msgspec.Struct, kw_only=True, eq=False):
    """A family: what was forked, what a later supervisor needs of it, and how far its end has come."""

    lease_ref: str
    forked: Forked
    way: Way
    scoreboard_fd: int
    locks: tuple[str, ...] = ()
    """Of its command lines."""
    kill_at: float | None = None
    """When SIGKILL follows the SIGTERM, on the monotonic clock; None while it is not being stopped."""
    killed: bool = False
    exited: Exited | None = None
    """Its end, until a supervisor has confirmed it."""

    @property
    def isolation(self) -> str:
        """As the contract calls it."""
        return "+".join(("process_group" if self.way is Way.PLAIN else "pid_namespace", *self.locks))

    def namespace_fds(self) -> tuple[int, ...]:
        """The descriptor that holds its namespace's number, if it has one of its own."""
        return () if self.forked.namespace_fd is None else (self.forked.namespace_fd,)

    def running(self) -> Running:
        """The family as a later supervisor is told of it."""
        return Running(
            lease_ref=self.lease_ref,
            pid=self.forked.pid,
            isolation=self.isolation,
            pid_namespace=self.forked.namespace,
            is_stopping=self.kill_at is not None,
        )

    def launched(self) -> Launched:
        """The same, as the answer to its launch."""
        return Launched(
            lease_ref=self.lease_ref,
            pid=self.forked.pid,
            isolation=self.isolation,
            pid_namespace=self.forked.namespace,
        )

    def close(self) -> None:
        """Let go of the descriptors."""
        for fd in (self.scoreboard_fd, *self.namespace_fds()):
            os.close(fd)


class Families:
    """All of them by lease. ``on_exit`` hears of each end.

    ``lifeline`` is a pipe whose write end only this process holds: a child that sees it closed has lost us before it
    could ask the kernel to tie their deaths together.
    """

    def __init__(self, rehearsed: Rehearsed, way: Way, on_exit: Callable[[Exited], None]) -> None:
        self._rehearsed = rehearsed
        self._way = way
        self._on_exit = on_exit
        self._lifeline = os.pipe2(os.O_CLOEXEC)
        self._families: dict[str, Family] = {}

    def __iter__(self) -> Iterator[Family]:
        return iter(self._families.values())

    def launch(self, spec: LaunchSpec, fds: Sequence[int]) -> Family:
        """Fork one; ``fds`` in the order of ``LAUNCH_FDS``. Raises OSError: nothing was forked."""
        way = self._way_for(spec)
        become = functools.partial(
            _become_family, self._rehearsed, spec, fds, self._lifeline, way is not Way.PLAIN
        )
        scoreboard_fd = os.dup(fds[launch.LAUNCH_FDS.index("scoreboard")])
        try:
            forked = fork_leader(way, become)
        except OSError:
            os.close(scoreboard_fd)
            raise
        started = self._families[spec.lease_ref] = Family(
            lease_ref=spec.lease_ref,
            forked=forked,
            way=way,
            scoreboard_fd=scoreboard_fd,
            locks=spec.hardening.locks,
        )
        fields = {"lease_ref": spec.lease_ref, "request_id": spec.request_id, "family_pid": forked.pid}
        _log.info("family launched", extra=fields)
        return started

    def stop(self, lease_ref: str, kill_after_s: float) -> None:
        """SIGTERM now, unless there is no time for it, and SIGKILL after ``kill_after_s``."""
        found = self._families.get(lease_ref)
        if found is None or found.exited is not None:
            return
        kill_at = time.monotonic() + kill_after_s
        if found.kill_at is None and kill_after_s > 0:
            os.kill(found.forked.pid, signal.SIGTERM)
        found.kill_at = min(kill_at, found.kill_at or kill_at)

    def forget(self, lease_ref: str) -> None:
        """Its end has been written down."""
        found = self._families.get(lease_ref)
        if found is not None and found.exited is not None:
            del self._families[lease_ref]
            found.close()

    def running(self) -> list[Family]:
        """Those that have not ended."""
        return [found for found in self._families.values() if found.exited is None]

    def next_kill_at(self) -> float | None:
        """When the next SIGKILL is due, on the monotonic clock."""
        due = [found.kill_at for found in self.running() if found.kill_at and not found.killed]
        return min(due, default=None)

    def kill_overdue(self) -> None:
        """SIGKILL to those whose time is up."""
        now = time.monotonic()
        for found in self.running():
            if found.kill_at is not None and found.kill_at <= now and not found.killed:
                _kill(found)

    def kill_all(self) -> None:
        """SIGKILL to all; they are still to be collected."""
        for found in self.running():
            _kill(found)

    def reap(self) -> None:
        """Collect the dead. What a dead leader did not take with it has come to us, and is killed here."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            ended = next((found for found in self.running() if found.forked.pid == pid), None)
            if ended is not None:
                self._ended(ended, status)

    def _ended(self, ended: Family, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        ended.exited = Exited(
            lease_ref=ended.lease_ref,
            pid=ended.forked.pid,
            status=exit_text(code),
            stopping=ended.kill_at is not None,
            killed=ended.killed,
        )
        if ended.way is not Way.DIRECT:
            family.kill_descendants(keep=frozenset(found.forked.pid for found in self.running()))
        _log.info("family ended: %s", ended.exited.status, extra={"lease_ref": ended.lease_ref})
        self._on_exit(ended.exited)

    def _way_for(self, spec: LaunchSpec) -> Way:
        """The best one; in a user namespace of ours nobody can become another user."""
        is_impossible = self._way is Way.KEEPER and spec.hardening.uid is not None
        return Way.PLAIN if is_impossible or not spec.namespaces else self._way


def _kill(found: Family) -> None:
    """All of the leader's group at once: by itself it takes the others along only after its own memory is cleared."""
    found.killed = True
    with contextlib.suppress(ProcessLookupError):  # it has none yet, or is a keeper
        os.killpg(found.forked.pid, signal.SIGKILL)
    os.kill(found.forked.pid, signal.SIGKILL)


def _become_family(
    rehearsed: Rehearsed,
    spec: LaunchSpec,
    fds: Sequence[int],
    lifeline: tuple[int, int],
    has_namespace: bool,
) -> NoReturn:
    """In the forked child: run the family and never come back into the zygote's code."""
    status = 1
    try:
        reader, writer = lifeline
        os.close(writer)
        family.run(rehearsed, spec, fds, reader, has_namespace)
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        _log.exception("cannot go on")
    finally:
        sys.stderr.flush()
        os._exit(status & 0xFF)
