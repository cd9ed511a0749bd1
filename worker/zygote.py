"""The zygote: imports everything a worker needs, then forks one worker family per lease.

Started as ``python -P -m worker.zygote FD``; FD is a listening AF_UNIX SEQPACKET socket. The zygote accepts one
connection, of its own user only, answers ``Ready``, and from then on follows the messages of
:mod:`shared.launch`. It ends when that connection ends or on SIGTERM, and kills every family first. It holds no
secret: variables for command lines pass through it as a descriptor that it never reads.

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
import struct
import sys
import time
from typing import NoReturn

import msgspec

from shared import isolation, launch, logs
from shared.launch import Exited, Launch, Launched, LaunchFailed, LaunchSpec, Ready, Stop
from worker import family
from worker.forking import Way, find_way, fork_leader
from worker.rehearsal import Rehearsed, rehearse

LOG_BYTES = 1024 * 1024
"""Bound of zygote.log; the older half gives way."""
STRAY_WAIT_S = 5.0
"""How long the end waits for killed families to be reaped."""


_log = logging.getLogger("asm_endpoint.zygote")


class Family(msgspec.Struct, kw_only=True):
    """A living family: its leader's pid, and how far its end has come."""

    lease_ref: str
    pid: int
    way: Way
    kill_at: float | None = None
    """When SIGKILL follows the SIGTERM, on the monotonic clock; None while it is not being stopped."""
    killed: bool = False


class Zygote:
    """Owns the families; speaks with one supervisor.

    ``lifeline`` is a pipe whose write end only this process holds: a child that sees it closed has lost us before it
    could ask the kernel to tie their deaths together.
    """

    def __init__(
        self, rehearsed: Rehearsed, connection: socket.socket, way: Way, lifeline: tuple[int, int]
    ) -> None:
        self._rehearsed = rehearsed
        self._connection = connection
        self._way = way
        self._lifeline = lifeline
        self._families: dict[int, Family] = {}
        self._is_ending = False
        self._wakeup, wakeup_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wakeup_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def run(self) -> None:
        """Serve until the supervisor leaves or SIGTERM comes; then kill all and wait for it."""
        self._send(Ready(pid=os.getpid(), namespaces=self._way is not Way.PLAIN))
        with selectors.DefaultSelector() as selector:
            selector.register(self._connection, selectors.EVENT_READ)
            selector.register(self._wakeup, selectors.EVENT_READ)
            while not self._is_ending:
                for key, _ in selector.select(self._next_deadline_s()):
                    if key.fileobj is self._connection:
                        self._on_message()
                    else:
                        os.read(self._wakeup, 4096)
                self._kill_overdue()
                self._reap()
        self._end()

    def _on_term(self, *_: object) -> None:
        self._is_ending = True

    def _on_message(self) -> None:
        packet, fds, _, _ = socket.recv_fds(
            self._connection, launch.MAX_MESSAGE_BYTES, len(launch.LAUNCH_FDS), socket.MSG_CMSG_CLOEXEC
        )
        try:
            if not packet:
                self._is_ending = True
                return
            match launch.decode_to_zygote(packet):
                case Launch(spec=spec):
                    self._launch(spec, fds)
                case Stop(lease_ref=lease_ref, kill_after_s=kill_after_s):
                    self._stop(lease_ref, kill_after_s)
        finally:
            for fd in fds:
                os.close(fd)

    def _launch(self, spec: LaunchSpec, fds: list[int]) -> None:
        way = self._way if spec.namespaces else Way.PLAIN
        become = functools.partial(
            _become_family, self._rehearsed, spec, fds, self._lifeline, way is not Way.PLAIN
        )
        try:
            forked = fork_leader(way, become)
        except OSError as error:
            self._send(LaunchFailed(lease_ref=spec.lease_ref, cause=f"cannot fork a worker family: {error}"))
            return
        self._families[forked.pid] = Family(lease_ref=spec.lease_ref, pid=forked.pid, way=way)
        self._send(
            Launched(
                lease_ref=spec.lease_ref,
                pid=forked.pid,
                isolation="process_group" if way is Way.PLAIN else "pid_namespace",
                pid_namespace=forked.namespace,
            )
        )

    def _stop(self, lease_ref: str, kill_after_s: float) -> None:
        for found in self._families.values():
            if found.lease_ref == lease_ref and found.kill_at is None:
                found.kill_at = time.monotonic() + kill_after_s
                os.kill(found.pid, signal.SIGTERM)

    def _next_deadline_s(self) -> float | None:
        deadlines = [found.kill_at for found in self._families.values() if found.kill_at and not found.killed]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for found in self._families.values():
            if found.kill_at is not None and found.kill_at <= now and not found.killed:
                self._kill(found)

    def _kill(self, found: Family) -> None:
        found.killed = True
        os.kill(found.pid, signal.SIGKILL)

    def _reap(self) -> None:
        """Collect the dead. What a dead leader did not take with it has come to us, and is killed here."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if found := self._families.pop(pid, None):
                if found.way is not Way.DIRECT:
                    family.kill_descendants(keep=frozenset(self._families))
                self._report_exit(found, status)

    def _report_exit(self, found: Family, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        self._send(
            Exited(
                lease_ref=found.lease_ref,
                pid=found.pid,
                status=f"exit {code}" if code >= 0 else f"signal {signal.Signals(-code).name}",
                stopping=found.kill_at is not None,
                killed=found.killed,
            )
        )

    def _send(self, message: launch.FromZygote) -> None:
        try:
            self._connection.send(launch.encode(message))
        except OSError:
            self._is_ending = True

    def _end(self) -> None:
        for found in self._families.values():
            self._kill(found)
        deadline = time.monotonic() + STRAY_WAIT_S
        while self._families and time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wakeup, 4096)
            self._reap()
            time.sleep(0.001)


def _become_family(
    rehearsed: Rehearsed, spec: LaunchSpec, fds: list[int], lifeline: tuple[int, int], has_namespace: bool
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


def _peer_uid(connection: socket.socket) -> int:
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", packed)[1]
    return uid


def main(listener_fd: int) -> None:
    """Preload, accept the supervisor, serve."""
    rehearsed = rehearse()
    logs.configure(logs.LogSettings(max_bytes=LOG_BYTES))
    listener = socket.socket(fileno=listener_fd)
    connection, _ = listener.accept()
    listener.close()
    if _peer_uid(connection) != os.getuid():
        raise SystemExit("cannot serve a supervisor of another user")
    way = find_way()
    isolation.adopt_orphans()
    gc.collect()
    gc.freeze()
    Zygote(rehearsed, connection, way, os.pipe2(os.O_CLOEXEC)).run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
