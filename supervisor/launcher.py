"""The supervisor's end of the zygote socket: starts the zygote, sends launches and stops, hears of exits.

The listening socket is made here and handed over, so connecting never has to wait or be tried again. The zygote gets
a minimal environment of its own: no variable of ours that might be a secret.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from shared import launch
from shared.errors import WorkerError
from shared.launch import Exited, FromZygote, Launch, Launched, LaunchFailed, LaunchSpec, Ready, Stop

ZYGOTE_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
"""What the zygote may know of our environment; none of them is ever a secret."""
_log = logging.getLogger("asm_endpoint.launcher")


class Launcher:
    """One zygote. ``on_exit`` hears of every family's end, ``on_lost`` once if the zygote itself goes."""

    def __init__(self, on_exit: Callable[[Exited], None], on_lost: Callable[[], None]) -> None:
        self._on_exit = on_exit
        self._on_lost = on_lost
        self._socket: socket.socket | None = None
        self._zygote: subprocess.Popen[bytes] | None = None
        self._ready: asyncio.Future[Ready] | None = None
        self._launching: dict[str, asyncio.Future[Launched]] = {}

    async def start(self, socket_path: Path, log_path: Path, timeout_s: float) -> Ready:
        """Start the zygote and wait for its Ready. Raises WorkerError ``boot_failed``."""
        loop = asyncio.get_running_loop()
        await self.close(timeout_s)
        self._ready = loop.create_future()
        connection, listener = _socket_pair_at(socket_path)
        with listener, open(log_path, "ab") as log:  # noqa: ASYNC230  # once, at the start
            self._zygote = subprocess.Popen(
                (sys.executable, "-P", "-m", "worker.zygote", str(listener.fileno())),
                pass_fds=(listener.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={name: os.environ[name] for name in ZYGOTE_VARIABLES if name in os.environ},
                cwd="/",
                start_new_session=True,
            )
        connection.setblocking(False)
        self._socket = connection
        loop.add_reader(connection, self._on_readable)
        try:
            return await asyncio.wait_for(asyncio.shield(self._ready), timeout_s)
        except TimeoutError:
            raise WorkerError(
                "boot_failed", f"cannot start the zygote: not ready in {timeout_s:g} s"
            ) from None

    async def launch(self, spec: LaunchSpec, fds: tuple[int, int, int]) -> Launched:
        """Fork a family; ``fds`` in the order of ``LAUNCH_FDS``. Raises WorkerError ``boot_failed``."""
        answer: asyncio.Future[Launched] = asyncio.get_running_loop().create_future()
        self._launching[spec.lease_ref] = answer
        try:
            socket.send_fds(self._connected(), [launch.encode(Launch(spec))], fds)
            return await answer
        except OSError as error:
            raise WorkerError("boot_failed", f"cannot reach the zygote: {error}") from error
        finally:
            del self._launching[spec.lease_ref]

    def stop(self, lease_ref: str, kill_after_s: float) -> None:
        """Ask for a family's end; its Exited follows. With the zygote gone the family is gone too."""
        if self._socket is not None:
            self._socket.send(launch.encode(Stop(lease_ref=lease_ref, kill_after_s=kill_after_s)))

    async def close(self, timeout_s: float) -> None:
        """End the zygote, and with it whatever still runs; SIGKILL when it takes too long."""
        self._disconnect()
        if self._zygote is None:
            return
        zygote, self._zygote = self._zygote, None
        try:
            await asyncio.to_thread(zygote.wait, timeout_s)
        except subprocess.TimeoutExpired:
            zygote.kill()
            await asyncio.to_thread(zygote.wait)

    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise WorkerError("boot_failed", "cannot launch: the zygote is gone")
        return self._socket

    def _disconnect(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _on_readable(self) -> None:
        try:
            packet = self._connected().recv(launch.MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if packet:
            self._on_message(launch.decode_from_zygote(packet))
        else:
            self._lose()

    def _on_message(self, message: FromZygote) -> None:
        match message:
            case Ready() if self._ready and not self._ready.done():
                self._ready.set_result(message)
            case Launched(lease_ref=lease_ref):
                self._answer(lease_ref, message)
            case LaunchFailed(lease_ref=lease_ref, cause=cause):
                self._answer(
                    lease_ref, WorkerError("boot_failed", f"cannot launch lease {lease_ref}: {cause}")
                )
            case Exited():
                self._on_exit(message)

    def _answer(self, lease_ref: str, answer: Launched | WorkerError) -> None:
        waiting = self._launching.get(lease_ref)
        if waiting is None or waiting.done():
            return
        if isinstance(answer, WorkerError):
            waiting.set_exception(answer)
        else:
            waiting.set_result(answer)

    def _lose(self) -> None:
        _log.error("the zygote has gone")
        self._disconnect()
        error = WorkerError("boot_failed", "cannot launch: the zygote has gone")
        for waiting in (self._ready, *self._launching.values()):
            if waiting and not waiting.done():
                waiting.set_exception(error)
        self._on_lost()


def _socket_pair_at(path: Path) -> tuple[socket.socket, socket.socket]:
    """A connected client end and its listener, bound to ``path`` with mode 0600.

    The address goes by way of the folder's descriptor, because a socket address holds only 108 bytes.
    """
    path.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        address = f"/proc/self/fd/{folder}/{path.name}"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        previous = os.umask(0o177)
        try:
            listener.bind(address)
        finally:
            os.umask(previous)
        listener.listen(1)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(address)
        return connection, listener
    finally:
        os.close(folder)
