"""The zygote: imports everything a worker needs, then forks one worker family per lease.

Started as ``python -P -m worker.zygote FD PATH``; FD is a listening AF_UNIX SEQPACKET socket with the name PATH, over
which one supervisor at a time sends the messages of :mod:`shared.launch`. When the supervisor goes without an End, the
families live on for as long as it has said, for another supervisor to adopt them. On SIGTERM, on an End, and when
nobody comes, the zygote kills every family and exits. It holds no secret: variables for command lines pass through it
as a descriptor that it never reads.

It is single-threaded and the parent of every family, so each family dies with it. It adopts orphans, so a process that
is neither a family nor below one cannot outlive the next round.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from shared import isolation, launch, logs, program
from shared.launch import (
    Confirm,
    End,
    Exited,
    Hello,
    Launch,
    LaunchFailed,
    LaunchSpec,
    Ready,
    Stop,
    Told,
    ToZygote,
)
from worker.families import Families
from worker.forking import Way, find_way
from worker.rehearsal import Rehearsed, rehearse
from worker.uplink import Uplink

LOG_BYTES = 1024 * 1024
"""Bound of zygote.log; the older half gives way."""
STRAY_WAIT_S = 5.0
"""How long the end waits for killed families to be reaped."""
FIRST_CONTACT_S = 30.0
"""How long to wait for the first supervisor; afterwards it is what the last one said."""
RENEW_PERIOD_S = 0.5
"""How often the socket's name is looked after while there is no supervisor."""


class Zygote:
    """Follows one supervisor after the other, and goes when none comes."""

    def __init__(
        self, rehearsed: Rehearsed, listener: socket.socket, path: Path, way: Way, program: str
    ) -> None:
        self._program = program
        self._has_namespaces = way is not Way.PLAIN
        self._families = Families(rehearsed, way, self._on_exit)
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
            self._families.kill_overdue()
            self._families.reap()
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
                self._families.stop(lease_ref, kill_after_s)
            case Confirm(lease_ref=lease_ref):
                self._families.forget(lease_ref)
            case End():
                self._is_ending = True

    def _tell_all(self) -> None:
        """What we are and have, to a supervisor that has just come."""
        self._uplink.send(
            Ready(
                protocol=launch.PROTOCOL,
                pid=os.getpid(),
                namespaces=self._has_namespaces,
                program=self._program,
            )
        )
        for found in self._families:
            self._uplink.send(found.running(), (found.scoreboard_fd, *found.namespace_fds()))
            if found.exited is not None:
                self._uplink.send(found.exited)
        self._uplink.send(Told())

    def _launch(self, spec: LaunchSpec, fds: Sequence[int]) -> None:
        try:
            started = self._families.launch(spec, fds)
        except OSError as error:
            cause = f"cannot fork a worker family: {error}"
            self._uplink.send(LaunchFailed(lease_ref=spec.lease_ref, cause=cause))
        else:
            self._uplink.send(started.launched(), started.namespace_fds())

    def _on_exit(self, message: Exited) -> None:
        self._uplink.send(message)

    def _next_deadline_s(self) -> float | None:
        """Seconds to the next thing that time alone brings about."""
        now = time.monotonic()
        kill_at = self._families.next_kill_at()
        waits = [] if kill_at is None else [kill_at - now]
        if self._alone_since is not None:
            waits += [RENEW_PERIOD_S, self._alone_since + self._adopt_grace_s - now]
        return max(0.0, min(waits)) if waits else None

    def _look_after_name(self) -> None:
        """Without a supervisor: stay findable, and end when nobody has come in time."""
        if self._alone_since is not None and not self._is_ending:
            if time.monotonic() - self._alone_since >= self._adopt_grace_s:
                self._is_ending = True
            with contextlib.suppress(OSError):
                self._uplink.renew()

    def _end(self) -> None:
        self._families.kill_all()
        deadline = time.monotonic() + STRAY_WAIT_S
        while self._families.running() and time.monotonic() < deadline:
            self._families.reap()
            time.sleep(0.001)
        self._uplink.close()


def main(listener_fd: int, path: Path) -> None:
    """Preload, then serve whoever supervises."""
    imported = program.fingerprint()
    rehearsed = rehearse()
    logs.configure(logs.LogSettings(max_bytes=LOG_BYTES))
    listener = socket.socket(fileno=listener_fd)
    way = find_way()
    isolation.adopt_orphans()
    isolation.raise_descriptor_limit()
    gc.collect()
    gc.freeze()
    Zygote(rehearsed, listener, path, way, imported).run()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
