"""Running a supervisor: one gunicorn arbiter with one ASGI worker on a loopback socket, on a locked state folder."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication

from shared import isolation, logs, processes
from shared.errors import RequestError, WorkerError
from shared.http import FalconApp
from shared.loopback import is_loopback_address
from shared.redaction import secret_values
from shared.serving import common_settings
from supervisor.api import Counted, create_app
from supervisor.commandlines import CommandLines
from supervisor.database import DATABASE_NAME, Database
from supervisor.hardening import require_available
from supervisor.identities import Identities
from supervisor.journal import Journal
from supervisor.service import Service
from supervisor.settings import Settings
from supervisor.statefolder import PREPARED_NAME, Address, StateFolder

GRACEFUL_S = 60
"""gunicorn's patience with a supervisor that ends all its leases."""
HEARTBEAT_TIMEOUT_S = 60
FLUSH_S = 0.05
_log = logging.getLogger("asm_endpoint.supervisor")


def serve(settings: Settings, listener: socket.socket, *, until_stdin_closes: bool = False) -> None:
    """Serve until SIGTERM or SIGINT, from a state folder that this process has locked; does not return.

    At once raises WorkerError ``hardening_unavailable``, ``boot_failed`` or ``journal_unavailable``.
    """
    folder = StateFolder(settings.home)
    require_available(settings.hardening, settings.home)
    if settings.hardening.gid is not None:
        folder.admit(settings.hardening.gid)
    logs.configure(settings.log, secrets=(folder.admin_token(), *secret_values(os.environ)))
    if settings.log.content:
        _log.warning("prompts and answers are written to the leases' logs (--log-content)")
    Database(
        settings.home / DATABASE_NAME
    ).close()  # what is wrong with it is said here, before anything starts
    host, port = listener.getsockname()[:2]
    us = processes.identify(os.getpid())
    if us is None:
        raise WorkerError("boot_failed", "cannot watch processes: there is no /proc here")
    address = Address(
        url=f"http://{f'[{host}]' if ':' in host else host}:{port}", pid=us.pid, start_ticks=us.start_ticks
    )
    SupervisorServer(settings, folder, listener, address, until_stdin_closes).run()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket on a loopback address. Raises RequestError or WorkerError."""
    if not is_loopback_address(host):
        raise RequestError("invalid_request", f"cannot listen on {host}: only loopback addresses are allowed")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise WorkerError("already_running", f"cannot listen on {host}:{port}: {error.strerror}") from error


class SupervisorServer(BaseApplication):  # type: ignore[misc]
    """The gunicorn application of the supervisor."""

    def __init__(
        self,
        settings: Settings,
        folder: StateFolder,
        listener: socket.socket,
        address: Address,
        until_stdin_closes: bool,
    ) -> None:
        self._settings = settings
        self.wire = settings.wire
        self._folder = folder
        self._listener = listener
        self._address = address
        self._until_stdin_closes = until_stdin_closes
        super().__init__()

    def load_config(self) -> None:
        """gunicorn's settings."""
        settings = {
            **common_settings(),
            "bind": f"fd://{self._listener.fileno()}",
            "timeout": HEARTBEAT_TIMEOUT_S,
            "graceful_timeout": GRACEFUL_S,
            "proc_name": "asm-endpoint supervisor",
            "post_fork": _post_fork,
            "on_exit": lambda _: self._folder.remove_address(),
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> FalconApp:
        """Build the application, in the worker process."""
        home, folder = self._settings.home, self._folder
        database = Database(home / DATABASE_NAME)
        identities = Identities(database, folder.admin_token(), folder.write_admin_token)
        command_lines = CommandLines(
            dict(os.environ), Path.home(), home / PREPARED_NAME, self._settings.hardening
        )
        service = Service(self._settings, command_lines, identities, Journal(database))
        lifespan = Lifespan(service, self._folder, self._address, self._until_stdin_closes)
        further = Counted(service.metrics), lifespan
        return create_app(service, identities, *further, origins=self._settings.cors_origins)


def _post_fork(arbiter: Any, worker: Any) -> None:
    """Without its arbiter the worker process ends at once; the leases go on, for the next supervisor to adopt."""
    isolation.die_with_parent()


class Lifespan:
    """Falcon lifespan middleware: starts the service, ends it on SIGTERM, SIGINT, or when our starter is gone."""

    def __init__(
        self, service: Service, folder: StateFolder, address: Address, until_stdin_closes: bool
    ) -> None:
        self._service = service
        self._folder = folder
        self._address = address
        self._until_stdin_closes = until_stdin_closes
        self._arbiter = os.pidfd_open(address.pid)
        self._ending: asyncio.Task[None] | None = None

    async def process_startup(self, scope: dict[str, Any], event: dict[str, Any]) -> None:
        """Take over or start the zygote, then say where we are."""
        loop = asyncio.get_running_loop()
        isolation.raise_descriptor_limit()
        await self._service.start()
        self._service.on_leave = self._ask_arbiter_to_end
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            loop.add_signal_handler(number, self._begin_end)
        if self._until_stdin_closes:
            loop.add_reader(sys.stdin.fileno(), self._on_stdin)
        self._folder.write_address(self._address)
        _log.info("supervisor ready at %s, state in %s", self._address.url, self._folder.path)

    async def process_shutdown(self, scope: dict[str, Any], event: dict[str, Any]) -> None:
        """The arbiter has gone: end all the same."""
        await self._service.end()
        self._folder.remove_address()

    def _on_stdin(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if not os.read(sys.stdin.fileno(), 4096):
                asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
                self._ask_arbiter_to_end()

    def _ask_arbiter_to_end(self) -> None:
        """By its pidfd: once it is dead, our parent is whoever adopted us, and so is its number."""
        try:
            signal.pidfd_send_signal(self._arbiter, signal.SIGTERM)
        except ProcessLookupError:
            self._begin_end()

    def _begin_end(self) -> None:
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._end())

    async def _end(self) -> None:
        await self._service.end()
        await asyncio.sleep(FLUSH_S)
        _log.info("supervisor ended")
        logging.shutdown()
        os._exit(0)
