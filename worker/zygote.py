"""The zygote: imports everything a worker needs, then forks one worker family per lease.

Started as ``python -P -m worker.zygote FD PATH``; FD is a listening AF_UNIX SEQPACKET socket with the name PATH, over
which one supervisor at a time sends the messages of :mod:`shared.launch`. When the supervisor goes without an End, the
families live on for as long as it has said, for another supervisor to adopt them. On SIGTERM, on an End, and when
nobody comes, the zygote kills every family and exits. It holds no secret: variables for command lines pass through it
as a descriptor that it never reads.

It is single-threaded and the parent of every family, which makes three things safe: forking, naming a family by
pid (a pid is free only after we reap it), and dying (each family dies with its parent). It adopts orphans, so a
process that is neither a family nor below one cannot outlive the next round.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from shared import isolation, launch, logs
from shared.launch import (
    Confirm,
    End,
    Exited,
    Hello,
    Launch,
    Launched,
    LaunchFailed,
    LaunchSpec,
    Ready,
    Running,
    Stop,
    Told,
    ToZygote,
)
from worker import family
from worker.forking import Forked, Way, find_way, fork_leader
from worker.rehearsal import Rehearsed, rehearse
from worker.server import exit_text
from worker.uplink import Uplink

LOG_BYTES = 1024 * 1024
"""Bound of zygote.log; the older half gives way."""
STRAY_WAIT_S = 5.0
"""How long the end waits for killed families to be reaped."""
FIRST_CONTACT_S = 30.0
"""How long to wait for the first supervisor; afterwards it is what the last one said."""
RENEW_PERIOD_S = 0.5
"""How often the socket's name is looked after while there is no supervisor."""


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

    def close(self) -> None:
        """Let go of the descriptors."""
        for fd in (self.scoreboard_fd, *self.namespace_fds()):
            os.close(fd)


class Zygote:
    """Owns the families; follows one supervisor after the other.

    ``lifeline`` is a pipe whose write end only this process holds: a child that sees it closed has lost us before it
    could ask the kernel to tie their deaths together.
    """

    def __init__(self, rehearsed: Rehearsed, listener: socket.socket, path: Path, way: Way) -> None:
        self._rehearsed = rehearsed
        self._way = way
        self._lifeline = os.pipe2(os.O_CLOEXEC)
        self._families: dict[str, Family] = {}
        self._is_ending = False
        self._adopt_grace_s = FIRST_CONTACT_S
        self._alone_since: float | None = time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._uplink = Uplink(self._selector, listener, path, self._on_message, self._on_lost)
        self._wakeup, wakeup_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector.register(self._wakeup, selectors.EVENT_READ, lambda: os.read(self._wakeup, 4096))
        signal.set_wakeup_fd(wakeup_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def run(self) -> None:
        """Serve until the end is asked for, or nobody is there to ask; then kill all and wait for it."""
        while not self._is_ending:
            for key, _ in self._selector.select(self._next_deadline_s()):
                act: Callable[[], object] = key.data
                act()
            self._kill_overdue()
            self._reap()
            self._look_after_name()
        self._end()

    def _on_term(self, *_: object) -> None:
        self._is_ending = True

    def _on_lost(self) -> None:
        self._alone_since = time.monotonic()

    def _on_message(self, message: ToZygote, fds: Sequence[int]) -> None:
        match message:
            case Hello(adopt_grace_s=adopt_grace_s, log=log):
                logs.configure(msgspec.structs.replace(log, max_bytes=LOG_BYTES))
                self._adopt_grace_s, self._alone_since = adopt_grace_s, None
                self._tell_all()
            case Launch(spec=spec):
                self._launch(spec, fds)
            case Stop(lease_ref=lease_ref, kill_after_s=kill_after_s):
                self._stop(lease_ref, kill_after_s)
            case Confirm(lease_ref=lease_ref):
                self._forget(lease_ref)
            case End():
                self._is_ending = True

    def _tell_all(self) -> None:
        """What we are and have, to a supervisor that has just come."""
        has_namespaces = self._way is not Way.PLAIN
        self._uplink.send(Ready(protocol=launch.PROTOCOL, pid=os.getpid(), namespaces=has_namespaces))
        for found in self._families.values():
            running = Running(
                lease_ref=found.lease_ref,
                pid=found.forked.pid,
                isolation=found.isolation,
                pid_namespace=found.forked.namespace,
                is_stopping=found.kill_at is not None,
            )
            self._uplink.send(running, (found.scoreboard_fd, *found.namespace_fds()))
            if found.exited is not None:
                self._uplink.send(found.exited)
        self._uplink.send(Told())

    def _launch(self, spec: LaunchSpec, fds: Sequence[int]) -> None:
        way = self._way_for(spec)
        become = functools.partial(
            _become_family, self._rehearsed, spec, fds, self._lifeline, way is not Way.PLAIN
        )
        try:
            forked = fork_leader(way, become)
        except OSError as error:
            self._uplink.send(
                LaunchFailed(lease_ref=spec.lease_ref, cause=f"cannot fork a worker family: {error}")
            )
            return
        scoreboard_fd = os.dup(fds[launch.LAUNCH_FDS.index("scoreboard")])
        started = Family(
            lease_ref=spec.lease_ref,
            forked=forked,
            way=way,
            scoreboard_fd=scoreboard_fd,
            locks=spec.hardening.locks,
        )
        self._families[spec.lease_ref] = started
        fields = {"lease_ref": spec.lease_ref, "request_id": spec.request_id, "family_pid": forked.pid}
        _log.info("family launched", extra=fields)
        launched = Launched(
            lease_ref=spec.lease_ref,
            pid=forked.pid,
            isolation=started.isolation,
            pid_namespace=forked.namespace,
        )
        self._uplink.send(launched, started.namespace_fds())

    def _way_for(self, spec: LaunchSpec) -> Way:
        """The best one; in a user namespace of ours nobody can become another user."""
        is_impossible = self._way is Way.KEEPER and spec.hardening.uid is not None
        return Way.PLAIN if is_impossible or not spec.namespaces else self._way

    def _stop(self, lease_ref: str, kill_after_s: float) -> None:
        found = self._families.get(lease_ref)
        if found is None or found.exited is not None:
            return
        kill_at = time.monotonic() + kill_after_s
        if found.kill_at is None and kill_after_s > 0:
            os.kill(found.forked.pid, signal.SIGTERM)
        found.kill_at = min(kill_at, found.kill_at or kill_at)

    def _forget(self, lease_ref: str) -> None:
        found = self._families.get(lease_ref)
        if found is not None and found.exited is not None:
            del self._families[lease_ref]
            found.close()

    def _running(self) -> list[Family]:
        return [found for found in self._families.values() if found.exited is None]

    def _next_deadline_s(self) -> float | None:
        """Seconds to the next thing that time alone brings about."""
        now = time.monotonic()
        waits = [found.kill_at - now for found in self._running() if found.kill_at and not found.killed]
        if self._alone_since is not None:
            waits += [RENEW_PERIOD_S, self._alone_since + self._adopt_grace_s - now]
        return max(0.0, min(waits)) if waits else None

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for found in self._running():
            if found.kill_at is not None and found.kill_at <= now and not found.killed:
                self._kill(found)

    def _kill(self, found: Family) -> None:
        found.killed = True
        os.kill(found.forked.pid, signal.SIGKILL)

    def _look_after_name(self) -> None:
        """Without a supervisor: stay findable, and end when nobody has come in time."""
        if self._alone_since is not None and not self._is_ending:
            if time.monotonic() - self._alone_since >= self._adopt_grace_s:
                self._is_ending = True
            with contextlib.suppress(OSError):
                self._uplink.renew()

    def _reap(self) -> None:
        """Collect the dead. What a dead leader did not take with it has come to us, and is killed here."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            ended = next((found for found in self._running() if found.forked.pid == pid), None)
            if ended is not None:
                self._on_exit(ended, status)

    def _on_exit(self, ended: Family, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        ended.exited = Exited(
            lease_ref=ended.lease_ref,
            pid=ended.forked.pid,
            status=exit_text(code),
            stopping=ended.kill_at is not None,
            killed=ended.killed,
        )
        if ended.way is not Way.DIRECT:
            family.kill_descendants(keep=frozenset(found.forked.pid for found in self._running()))
        _log.info("family ended: %s", ended.exited.status, extra={"lease_ref": ended.lease_ref})
        self._uplink.send(ended.exited)

    def _end(self) -> None:
        for found in self._running():
            self._kill(found)
        deadline = time.monotonic() + STRAY_WAIT_S
        while self._running() and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.001)
        self._uplink.close()


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


def main(listener_fd: int, path: Path) -> None:
    """Preload, then serve whoever supervises."""
    rehearsed = rehearse()
    logs.configure(logs.LogSettings(max_bytes=LOG_BYTES))
    listener = socket.socket(fileno=listener_fd)
    way = find_way()
    isolation.adopt_orphans()
    isolation.raise_descriptor_limit()
    gc.collect()
    gc.freeze()
    Zygote(rehearsed, listener, path, way).run()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
