"""The state folder on disk: who owns it, how to reach its supervisor, and the admin token. All of it 0700 / 0600."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from pathlib import Path

import msgspec

from shared import processes, tokens
from shared.errors import WorkerError
from shared.processes import ProcessId
from supervisor.starting import find_started

LOCK_NAME = "supervisor.lock"
ADDRESS_NAME = "supervisor.json"
TOKEN_NAME = "admin.token"  # noqa: S105  # a file name
LEASES_NAME = "leases"
PREPARED_NAME = "prepared"
"""Files made once for each version of a command line."""
START_WAIT_S = 10.0
"""For a supervisor that is starting to say where it is."""
START_POLL_S = 0.02

WRITABLE_BY_OTHERS = 0o022
ADMITTING_MODE = 0o710
"""A folder that its group may pass through, without seeing what is in it."""


class Address(msgspec.Struct, frozen=True):
    """The content of supervisor.json. ``start_ticks`` tells the process from a later one of the same pid."""

    url: str
    pid: int
    start_ticks: int = 0

    @property
    def is_served(self) -> bool:
        """Whether that very process still runs; whoever else listens there by now must not be spoken to."""
        return processes.is_alive(ProcessId(self.pid, self.start_ticks))


class StateFolder:
    """One state folder; :meth:`lock` makes this process its only supervisor. Reading creates nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> None:
        """Make the folder, for its owner only; one that others can read is closed to them.

        Raises WorkerError ``boot_failed``: it cannot be made, is not ours, or others can write to it.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.path.stat()
            if status.st_uid != os.geteuid():
                raise self._unusable(f"it belongs to user {status.st_uid}")
            if status.st_mode & WRITABLE_BY_OTHERS:
                raise self._unusable(f"others can write to it; `chmod 700 {self.path}` if that was a mistake")
            if stat.S_IMODE(status.st_mode) != ADMITTING_MODE:
                self.path.chmod(0o700)
            (self.path / LEASES_NAME).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise self._unusable(error.strerror or type(error).__name__) from error

    def lock(self) -> int:
        """Hold the folder until the returned descriptor is closed. Raises WorkerError ``already_running``."""
        self.create()
        try:
            fd = os.open(self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unusable(error.strerror or type(error).__name__) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            address = self.read_address()
            where = f" at {address.url} (pid {address.pid})" if address else ""
            raise WorkerError(
                "already_running", f"cannot serve from {self.path}: a supervisor{where} already does"
            ) from None
        self._write_holder(fd)
        return fd

    def _write_holder(self, fd: int) -> None:
        """Say who holds the lock, to those who wait for its address; where that cannot be said, nobody waits."""
        if us := processes.identify(os.getpid()):
            with contextlib.suppress(OSError):
                os.pwrite(fd, msgspec.json.encode(us) + b"\n", 0)

    def _holder(self) -> ProcessId | None:
        """The process that holds the lock; None when none does. Asking takes no lock, which would be in the way."""
        try:
            first, _, _ = (self.path / LOCK_NAME).read_bytes().partition(b"\n")
            holder = msgspec.json.decode(first, type=ProcessId)
        except (OSError, msgspec.MsgspecError):
            return None
        return holder if processes.is_alive(holder) else None

    def admit(self, gid: int) -> None:
        """Let command lines of that group through to what is theirs; the rest stays ours."""
        for path in self.path.iterdir():
            if path.is_file():
                path.chmod(0o600)
        for folder in (self.path, self.path / LEASES_NAME, self.path / PREPARED_NAME):
            folder.mkdir(exist_ok=True)
            os.chown(folder, -1, gid)
            folder.chmod(ADMITTING_MODE)

    def admin_token(self) -> str:
        """The admin token; made at the first call, afterwards the same."""
        self.create()
        path = self.path / TOKEN_NAME
        with contextlib.suppress(FileNotFoundError):
            if token := path.read_text(encoding="ascii").strip():
                os.chmod(path, 0o600)
                return token
        token = tokens.mint()
        self.write_admin_token(token)
        return token

    def write_admin_token(self, token: str) -> None:
        """Keep this admin token from now on."""
        self._replace(TOKEN_NAME, token.encode() + b"\n")

    def read_token(self) -> str:
        """The admin token of a running supervisor. Raises WorkerError ``supervisor_unavailable``."""
        try:
            return (self.path / TOKEN_NAME).read_text(encoding="ascii").strip()
        except OSError as error:
            raise self._unavailable() from error

    def write_address(self, address: Address) -> None:
        """Say where the supervisor is; only when it is ready."""
        self._replace(ADDRESS_NAME, msgspec.json.encode(address) + b"\n")

    def remove_address(self) -> None:
        """Say that there is none any more."""
        (self.path / ADDRESS_NAME).unlink(missing_ok=True)

    def read_address(self) -> Address | None:
        """Where the supervisor is that runs; None when none does, whatever the file says."""
        try:
            address = msgspec.json.decode((self.path / ADDRESS_NAME).read_bytes(), type=Address)
        except (OSError, msgspec.MsgspecError):
            return None
        return address if address.is_served else None

    def last_port(self) -> int:
        """The port of a supervisor that did not end by itself, or has just left; 0 when there was none."""
        try:
            address = msgspec.json.decode((self.path / ADDRESS_NAME).read_bytes(), type=Address)
        except (OSError, msgspec.MsgspecError):
            return 0
        port = address.url.rpartition(":")[2]
        return int(port) if port.isdecimal() else 0

    def require_address(self) -> Address:
        """Where the supervisor is; one that is starting is waited for, at most :data:`START_WAIT_S`.

        Raises WorkerError ``supervisor_unavailable``, at once when none is starting.
        """
        deadline = time.monotonic() + START_WAIT_S
        while (address := self.read_address()) is None:
            starting = self._holder() or find_started(self.path)
            if starting is None:
                raise self._unavailable()
            if time.monotonic() > deadline:
                raise WorkerError(
                    "supervisor_unavailable",
                    f"cannot reach the supervisor in {self.path}: process {starting.pid} is starting or ending, "
                    f"and has not said where it is in {START_WAIT_S:g} s",
                )
            time.sleep(START_POLL_S)
        return address

    def _unusable(self, cause: str) -> WorkerError:
        return WorkerError("boot_failed", f"cannot use state folder {self.path}: {cause}")

    def _unavailable(self) -> WorkerError:
        return WorkerError(
            "supervisor_unavailable",
            f"cannot find a supervisor in {self.path}; start one with `asm-endpoint serve`",
        )

    def _replace(self, name: str, content: bytes) -> None:
        new = self.path / f".{name}.{os.getpid()}"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(fd, content)
        finally:
            os.close(fd)
        os.replace(new, self.path / name)
