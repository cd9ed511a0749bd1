"""A child process: in a session of its own, with a pipe for each standard stream, until it is reaped.

Every wait of its stop ladder has a bound, and it is reaped only after its whole process group was killed, so its pid
cannot name a stranger. What it is told and what it says is bytes here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Callable

from shared.errors import ProviderError, WorkerError
from shared.provider import Command
from worker.pipes import Stderr, Stdin, Stdout

KILL_WAIT_S = 5.0
"""After SIGKILL; longer means a process the kernel cannot end (uninterruptible)."""
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def spawn(command: Command, before_exec: Callable[[], None] | None) -> subprocess.Popen[bytes]:
    """The command, started with exactly its environment.

    Raises ProviderError ``cli_not_found`` or ``provider_crashed``.
    """
    try:
        return subprocess.Popen(
            command.argv,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=command.env,
            cwd=command.cwd,
            start_new_session=True,
            preexec_fn=before_exec,  # noqa: PLW1509  # workers have one thread
        )
    except (FileNotFoundError, PermissionError) as error:
        raise ProviderError("cli_not_found", f"cannot start {command.argv[0]}: {error.strerror}") from error
    except (OSError, ValueError) as error:
        raise ProviderError("provider_crashed", f"cannot start {command.argv[0]}: {error}") from error


class Child:
    """One that was spawned. ``receive`` gets its output; ``closed`` its exit code and the end of its stderr, once."""

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        receive: Callable[[bytes], None],
        closed: Callable[[int, str], None],
    ) -> None:
        self.pid = popen.pid
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._popen = popen
        self._closed = closed
        self._stdin = Stdin(popen.stdin)
        self._stdout = Stdout(popen.stdout, receive)
        self._pidfd = os.pidfd_open(popen.pid)
        self._ends = select.poll()
        self._ends.register(self._pidfd, select.POLLIN)
        self._loop.add_reader(self._pidfd, self._on_exit)
        self._stderr = Stderr(popen.stderr)
        self._stdout.resume()

    @property
    def is_running(self) -> bool:
        """Asked of the kernel, which may know of an end that we have not been told yet."""
        return not self.exited.done() and not self._ends.poll(0)

    @property
    def rss_bytes(self) -> int:
        """Resident memory now; 0 when it has ended.

        ``/proc`` may show another PID namespace than ours, so the process is looked up there by its pidfd, whose
        number is another file's once it is closed.
        """
        if self.exited.done():
            return 0
        try:
            with open(f"/proc/self/fdinfo/{self._pidfd}", encoding="ascii") as fdinfo:
                pid = next(int(line.split()[1]) for line in fdinfo if line.startswith("Pid:"))
            with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
                return int(statm.read().split()[1]) * PAGE_BYTES
        except (OSError, StopIteration):
            return 0

    def write(self, data: bytes) -> None:
        """Into its stdin, as it takes it."""
        self._stdin.write(data)

    def pause(self) -> None:
        """Receive nothing for now, which makes the process wait."""
        self._stdout.pause()

    def resume(self) -> None:
        """Receive again."""
        self._stdout.resume()

    def terminate(self) -> None:
        """SIGTERM, to the process alone."""
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, to its process group."""
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def stop(self, exit_grace_s: float) -> None:
        """End the process: stdin closed, then SIGTERM, then SIGKILL to its group, each after ``exit_grace_s``.

        Raises WorkerError ``internal_error`` when it is still there after SIGKILL and 5 seconds.
        """
        self._stdin.close()
        for end in (self.terminate, self.kill):
            if await self._exits_within(exit_grace_s):
                return
            end()
        if not await self._exits_within(KILL_WAIT_S):
            raise WorkerError("internal_error", f"cannot stop process {self.pid}: it survived SIGKILL")

    async def _exits_within(self, wait_s: float) -> bool:
        await asyncio.wait([self.exited], timeout=wait_s)
        return self.exited.done()

    def _on_exit(self) -> None:
        """The process is a zombie: read what is left, kill what it left in its group, reap, and tell."""
        self._loop.remove_reader(self._pidfd)
        self._stdout.pause()
        self._stdout.drain()
        self._stderr.drain()
        os.close(self._pidfd)  # until now whoever reads what is left may still want to signal it
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        exit_code = self._popen.wait()
        for pipe in (self._stdin, self._stdout, self._stderr):
            pipe.close()
        self.exited.set_result(exit_code)
        self._closed(exit_code, self._stderr.tail)
