"""The supervisor's end of the zygote socket: sends launches and stops, hears of exits. Starts and finds no zygote.

What a zygote has from an earlier supervisor is heard in :meth:`Launcher.meet`; from then on, messages are answers to
our own or news of ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable

import msgspec

from shared import launch, logs
from shared.errors import WorkerError
from shared.launch import (
    Confirm,
    End,
    Exited,
    FromZygote,
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
from shared.unixsocket import receive

_log = logging.getLogger("asm_endpoint.launcher")


class Found(msgspec.Struct, kw_only=True, eq=False):
    """A family that the zygote already had. The descriptors are the receiver's."""

    running: Running
    scoreboard_fd: int
    namespace_fd: int | None
    exited: Exited | None = None

    def close(self) -> None:
        """Let go of the descriptors."""
        os.close(self.scoreboard_fd)
        if self.namespace_fd is not None:
            os.close(self.namespace_fd)


class Met(msgspec.Struct, frozen=True, kw_only=True):
    """What a zygote says of itself when it is met."""

    ready: Ready
    families: dict[str, Found]


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """A launched family; ``namespace_fd`` is the receiver's."""

    launched: Launched
    namespace_fd: int | None


class Launcher:
    """One zygote at a time. ``on_exit`` hears of every family's end, ``on_lost`` once if the zygote itself goes."""

    def __init__(self, on_exit: Callable[[Exited], None], on_lost: Callable[[], None]) -> None:
        self._on_exit = on_exit
        self._on_lost = on_lost
        self._socket: socket.socket | None = None
        self._met: asyncio.Future[Met] | None = None
        self._ready: Ready | None = None
        self._families: dict[str, Found] = {}
        self._launching: dict[str, asyncio.Future[Started]] = {}

    @property
    def is_connected(self) -> bool:
        """Whether there is a zygote to launch with."""
        return self._socket is not None

    async def meet(
        self,
        connection: socket.socket,
        *,
        adopt_grace_s: float,
        timeout_s: float,
        log: logs.LogSettings,
    ) -> Met:
        """Take over a connection to a zygote, and hear what it has.

        Raises WorkerError ``boot_failed``: it went away, or was not ready in ``timeout_s``. A zygote that speaks
        another protocol is met too, but its families are not known.
        """
        loop = asyncio.get_running_loop()
        self._met, self._ready, self._families = loop.create_future(), None, {}
        self._socket = connection
        logs.unbound(loop.add_reader, connection, self._on_readable)
        try:
            self._send(Hello(protocol=launch.PROTOCOL, adopt_grace_s=adopt_grace_s, log=log))
            return await asyncio.wait_for(asyncio.shield(self._met), timeout_s)
        except TimeoutError:
            self.leave()
            raise WorkerError(
                "boot_failed", f"cannot start the zygote: not ready in {timeout_s:g} s"
            ) from None
        except OSError as error:
            self.leave()
            raise WorkerError("boot_failed", f"cannot reach the zygote: {error}") from error
        finally:
            self._met = None

    async def launch(self, spec: LaunchSpec, fds: tuple[int, int, int]) -> Started:
        """Fork a family; ``fds`` in the order of ``LAUNCH_FDS``. Raises WorkerError ``boot_failed``."""
        answer: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        self._launching[spec.lease_ref] = answer
        try:
            self._send(Launch(spec), fds)
            return await answer
        except OSError as error:
            raise WorkerError("boot_failed", f"cannot reach the zygote: {error}") from error
        finally:
            del self._launching[spec.lease_ref]

    def stop(self, lease_ref: str, kill_after_s: float) -> None:
        """Ask for a family's end; its Exited follows. With the zygote gone the family is gone too."""
        with contextlib.suppress(OSError, WorkerError):
            self._send(Stop(lease_ref=lease_ref, kill_after_s=kill_after_s))

    def confirm(self, lease_ref: str) -> None:
        """Say that a family's end has been written down."""
        with contextlib.suppress(OSError, WorkerError):
            self._send(Confirm(lease_ref=lease_ref))

    def end(self) -> None:
        """Ask the zygote to kill what it has, and to exit."""
        with contextlib.suppress(OSError, WorkerError):
            self._send(End())
        self.leave()

    def leave(self) -> None:
        """Close the connection; the zygote keeps what it has for as long as it was told."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _send(self, message: ToZygote, fds: tuple[int, ...] = ()) -> None:
        if self._socket is None:
            raise WorkerError("boot_failed", "cannot launch: the zygote is gone")
        socket.send_fds(self._socket, [launch.encode(message)], fds)

    def _on_readable(self) -> None:
        if self._socket is None:
            return
        try:
            packet, fds = receive(
                self._socket, max_bytes=launch.MAX_MESSAGE_BYTES, max_fds=launch.MAX_MESSAGE_FDS
            )
        except BlockingIOError:
            return
        if packet:
            self._on_message(launch.decode_from_zygote(packet), fds)
        else:
            self._lose()

    def _on_message(self, message: FromZygote, fds: list[int]) -> None:
        match message:
            case Ready():
                self._ready = message
                if message.protocol != launch.PROTOCOL:
                    self._have_met()
            case Running():
                scoreboard_fd, *others = fds
                self._families[message.lease_ref] = Found(
                    running=message, scoreboard_fd=scoreboard_fd, namespace_fd=others[0] if others else None
                )
            case Told():
                self._have_met()
            case Launched(lease_ref=lease_ref):
                self._answer(lease_ref, Started(launched=message, namespace_fd=fds[0] if fds else None))
            case LaunchFailed(lease_ref=lease_ref, cause=cause):
                self._answer(
                    lease_ref, WorkerError("boot_failed", f"cannot launch lease {lease_ref}: {cause}")
                )
            case Exited(lease_ref=lease_ref) if self._met is not None and lease_ref in self._families:
                self._families[lease_ref].exited = message
            case Exited():
                self._on_exit(message)

    def _have_met(self) -> None:
        if self._met is not None and self._ready is not None and not self._met.done():
            self._met.set_result(Met(ready=self._ready, families=self._families))

    def _answer(self, lease_ref: str, answer: Started | WorkerError) -> None:
        waiting = self._launching.get(lease_ref)
        if waiting is None or waiting.done():
            if isinstance(answer, Started) and answer.namespace_fd is not None:
                os.close(answer.namespace_fd)
        elif isinstance(answer, WorkerError):
            waiting.set_exception(answer)
        else:
            waiting.set_result(answer)

    def _lose(self) -> None:
        _log.error("the zygote has gone")
        self.leave()
        error = WorkerError("boot_failed", "cannot launch: the zygote has gone")
        for waiting in (self._met, *self._launching.values()):
            if waiting and not waiting.done():
                waiting.set_exception(error)
        self._on_lost()
