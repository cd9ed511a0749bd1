"""Finding the zygote of a state folder, starting one, and making sure that one is gone. Knows nothing of leases.

``zygote.json`` in the state folder says which process it is, and of which folder: in a copy of a state folder it names
somebody else's zygote, which is left alone. A new zygote gets a minimal environment of its own: no variable of ours
that might be a secret. It is started detached, so that it outlives us.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from shared import processes
from shared.processes import ProcessId
from shared.unixsocket import connect_to, listen_at

SOCKET_NAME = "zygote.sock"
IDENTITY_NAME = "zygote.json"
LOG_NAME = "zygote.log"
ZYGOTE_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
"""What the zygote may know of our environment; none of them is ever a secret."""
CONNECT_TIMEOUT_S = 2.0
RENEWAL_WAIT_S = 2.0
"""A living zygote whose socket was removed makes it again within half a second."""
END_WAIT_S = 10.0
POLL_S = 0.02
_log = logging.getLogger("asm_endpoint.zygotes")


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """The content of zygote.json: the process, and device and inode of the state folder that it belongs to."""

    process: ProcessId
    folder: tuple[int, int]


class Zygotes:
    """The zygotes of one state folder, of which at most one lives."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._started: subprocess.Popen[bytes] | None = None

    async def find(self) -> socket.socket | None:
        """A connection to the one that lives; None when none does, or it cannot be reached and was ended therefore."""
        process = self._living()
        if process is None:
            return None
        deadline = time.monotonic() + RENEWAL_WAIT_S
        while processes.is_alive(process):
            try:
                return connect_to(self._home / SOCKET_NAME, CONNECT_TIMEOUT_S)
            except OSError as error:
                if time.monotonic() > deadline:
                    _log.error("cannot reach zygote %s (%s): it is ended with all it has", process.pid, error)
                    await self.end()
                    break
            await asyncio.sleep(POLL_S)
        return None

    def start(self) -> socket.socket:
        """Start one, and connect to it. Raises OSError."""
        path = self._home / SOCKET_NAME
        listener = listen_at(path)
        with listener, open(self._home / LOG_NAME, "a+b") as log:
            self._started = subprocess.Popen(
                (sys.executable, "-P", "-m", "worker.zygote", str(listener.fileno()), str(path)),
                pass_fds=(listener.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={name: os.environ[name] for name in ZYGOTE_VARIABLES if name in os.environ},
                cwd="/",
                start_new_session=True,
            )
            connection = connect_to(path, CONNECT_TIMEOUT_S)
        if process := processes.identify(self._started.pid):
            self._write(Identity(process=process, folder=self._folder()))
        return connection

    async def end(self) -> None:
        """Wait for the one that lives to end; SIGTERM at first, which makes it kill all it has, and SIGKILL at last."""
        process = self._living()
        for number, wait_s in ((signal.SIGTERM, END_WAIT_S), (signal.SIGKILL, END_WAIT_S)):
            if process is None or not processes.is_alive(process):
                break
            _signal(process, number)
            await self._gone(process, wait_s)
        if self._started is not None and self._started.poll() is not None:
            self._started = None
        (self._home / IDENTITY_NAME).unlink(missing_ok=True)

    async def _gone(self, process: ProcessId, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        while processes.is_alive(process) and time.monotonic() < deadline:  # noqa: ASYNC110  # not our child, maybe
            await asyncio.sleep(POLL_S)

    def _living(self) -> ProcessId | None:
        """The process that zygote.json names, if it is this folder's and lives."""
        try:
            content = (self._home / IDENTITY_NAME).read_bytes()
            identity = msgspec.json.decode(content, type=Identity)
        except (OSError, msgspec.MsgspecError):
            return None
        is_ours = identity.folder == self._folder() and processes.is_alive(identity.process)
        return identity.process if is_ours else None

    def _write(self, identity: Identity) -> None:
        new = self._home / f".{IDENTITY_NAME}"
        new.write_bytes(msgspec.json.encode(identity))
        os.replace(new, self._home / IDENTITY_NAME)

    def _folder(self) -> tuple[int, int]:
        status = os.stat(self._home)
        return status.st_dev, status.st_ino


def _signal(process: ProcessId, number: int) -> None:
    """By way of a pidfd, so that nobody else can be meant."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if processes.is_alive(process):
            signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)
