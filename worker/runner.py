"""Running one command-line process: pipes in and out of a sans-IO connection, and a stop ladder that ends it.

The process gets its own session, a pipe for each standard stream, and exactly the environment it is given; what it
says of a failure goes on without the secrets that it was given there, to whoever asked. Reads
stop while a caller is behind (backpressure), every wait in the ladder has a bound, and the process is reaped only
after its whole process group was killed, so its pid cannot name a stranger.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import logging
import os
import select
import signal
import subprocess
from collections import deque
from collections.abc import Callable
from typing import IO

import msgspec

from shared.errors import ProviderError, WorkerError
from shared.events import TERMINAL, Event, Failure
from shared.framing import LineFramer, LineTooLong
from shared.provider import Command, Connection, Prompt
from shared.redaction import redacted, secret_values

READ_BYTES = 1024 * 1024
_read_buffer = memoryview(bytearray(READ_BYTES))
"""One for all, since nobody waits while it is in use: a new one for each read would be mapped and unmapped."""
PIPE_BYTES = 1024 * 1024
"""Asked for a command line's stdout: fewer, larger reads. The usual limit for users without privileges."""
STDERR_TAIL_BYTES = 64 * 1024
BACKLOG_EVENTS = 20_000
"""Events a turn may be behind before its process is no longer read."""
KILL_WAIT_S = 5.0
"""After SIGKILL; longer means a process the kernel cannot end (uninterruptible)."""
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_log = logging.getLogger("asm_endpoint.turn")
_turn_ids = itertools.count(1)


class Turn:
    """One turn on one process: the batches of its events, in order, ending with a terminal one.

    ``request_id`` is the caller's name for it, for logs only.
    """

    def __init__(self, process: CliProcess, request_id: str | None) -> None:
        self.id = f"turn-{next(_turn_ids)}"
        self.request_id = request_id
        self.is_over = False
        self._process = process
        self._events: list[Event] = []
        self._arrived = asyncio.Event()

    def deliver(self, events: list[Event]) -> None:
        """Add events; wakes the reader."""
        self._events += events
        self.is_over = self.is_over or isinstance(events[-1], TERMINAL)
        self._arrived.set()

    @property
    def backlog(self) -> int:
        """How many events wait to be read."""
        return len(self._events)

    async def next_batch(self) -> list[Event]:
        """All events that have arrived since the last call; waits for at least one, or :meth:`stop`."""
        await self._arrived.wait()
        self._arrived.clear()
        batch, self._events = self._events, []
        self._process.resume()
        return batch

    def end(self) -> None:
        """Leave the turn: interrupt it when it is still running. The process then decides whether it goes on."""
        self._process.end_turn(self)

    def stop(self) -> None:
        """:meth:`end` it now, whether anybody is reading or not, and let the reader look."""
        self.end()
        self._arrived.set()


class CliProcess:
    """A running command line. Use :meth:`start`; give it back with :meth:`stop`."""

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        connection: Connection,
        exit_grace_s: float,
        secrets: tuple[str, ...],
    ) -> None:
        self.pid = popen.pid
        self.turns_served = 0
        self.is_retired = False
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._popen = popen
        self._connection = connection
        self._exit_grace_s = exit_grace_s
        self._secrets = secrets
        self._framer = LineFramer()
        self._turns: dict[str, Turn] = {}
        self._stderr = b""
        self._outbox: deque[bytes] = deque()
        self._reading = False
        self._stdin = _pipe(popen.stdin)
        self._stdout = _pipe(popen.stdout)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._stdout.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._stderr_pipe = _pipe(popen.stderr)
        self._pidfd = os.pidfd_open(popen.pid)
        self._ends = select.poll()
        self._ends.register(self._pidfd, select.POLLIN)
        self._loop.add_reader(self._pidfd, self._on_exit)
        self._loop.add_reader(self._stderr_pipe.fileno(), self._on_stderr)
        self.resume()
        connection.handshake()
        self._send()

    @classmethod
    def start(
        cls,
        command: Command,
        connection: Connection,
        exit_grace_s: float,
        before_exec: Callable[[], None] | None = None,
    ) -> CliProcess:
        """Start the command in its own session. Raises ProviderError ``cli_not_found`` or ``provider_crashed``."""
        try:
            popen = subprocess.Popen(
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
            raise ProviderError(
                "cli_not_found", f"cannot start {command.argv[0]}: {error.strerror}"
            ) from error
        except (OSError, ValueError) as error:
            raise ProviderError("provider_crashed", f"cannot start {command.argv[0]}: {error}") from error
        return cls(popen, connection, exit_grace_s, secret_values(command.env))

    @property
    def has_room(self) -> bool:
        """Whether it can take another turn now."""
        return (
            not self.is_retired
            and not self._connection.is_spent
            and self._is_running()
            and len(self._turns) < self._connection.concurrent_turns
            and self.turns_served < self._connection.turns_before_recycle
        )

    @property
    def is_fresh(self) -> bool:
        """Whether it :attr:`has_room` and will have some for a while: for a replacement to start meanwhile."""
        left = self._connection.turns_before_recycle - self.turns_served
        return self.has_room and (self.turns_served == 0 or left >= self._connection.concurrent_turns)

    @property
    def is_ready(self) -> bool:
        """Whether its handshake is done, so that a turn would begin at once."""
        return self._connection.is_ready

    @property
    def is_idle(self) -> bool:
        """Whether no turn runs on it."""
        return not self._turns

    @property
    def rss_bytes(self) -> int:
        """Resident memory now; 0 when it has ended.

        ``/proc`` may show another PID namespace than ours, so the process is looked up there by its pidfd.
        """
        try:
            with open(f"/proc/self/fdinfo/{self._pidfd}", encoding="ascii") as fdinfo:
                pid = next(int(line.split()[1]) for line in fdinfo if line.startswith("Pid:"))
            with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
                return int(statm.read().split()[1]) * PAGE_BYTES
        except (OSError, StopIteration):
            return 0

    def start_turn(self, prompt: Prompt, request_id: str | None = None) -> Turn:
        """Send a prompt; only while :attr:`has_room`. One that cannot be written is the process's last."""
        turn = Turn(self, request_id)
        self._turns[turn.id] = turn
        self.turns_served += 1
        try:
            self._connection.start_turn(turn.id, prompt)
        except BaseException:
            self.is_retired = True
            del self._turns[turn.id]
            raise
        self._send()
        self._log_turn("turn begins", turn)
        return turn

    def end_turn(self, turn: Turn) -> None:
        """Forget a turn; an unfinished one is interrupted, by protocol where there is one, else by SIGTERM."""
        if self._turns.pop(turn.id, None) is None:
            return
        self._log_turn("turn ended" if turn.is_over else "turn cancelled", turn)
        if turn.is_over or self.exited.done():
            return
        if self._connection.interrupt(turn.id):
            self._send()
        else:
            self.is_retired = True
            self._signal(signal.SIGTERM)

    def abort(self, code: str, message: str) -> None:
        """Fail the running turns and end the process."""
        self.is_retired = True
        for turn in self._turns.values():
            turn.deliver([Failure(code=code, message=message)])
        self._signal(signal.SIGTERM)

    def resume(self) -> None:
        """Read stdout again after a pause."""
        if not self._reading and not self._stdout.closed:
            self._reading = True
            self._loop.add_reader(self._stdout.fileno(), self._on_stdout)

    async def stop(self) -> None:
        """End the process: stdin closed, then SIGTERM, then SIGKILL to its group, each after ``exit_grace_s``.

        Raises WorkerError ``survivors`` when it is still there after SIGKILL and 5 seconds.
        """
        self.is_retired = True
        self._close_stdin()
        for number in (signal.SIGTERM, signal.SIGKILL):
            if await self._exits_within(self._exit_grace_s):
                return
            self._signal(number)
        if not await self._exits_within(KILL_WAIT_S):
            raise WorkerError("internal_error", f"cannot stop process {self.pid}: it survived SIGKILL")

    def _log_turn(self, message: str, turn: Turn) -> None:
        request = {"request_id": turn.request_id} if turn.request_id else {}
        _log.info(message, extra={"turn": turn.id, "cli_pid": self.pid, **request})

    def _is_running(self) -> bool:
        """Asked of the kernel, which may know of an end that we have not been told yet."""
        return not self.exited.done() and not self._ends.poll(0)

    async def _exits_within(self, wait_s: float) -> bool:
        await asyncio.wait([self.exited], timeout=wait_s)
        return self.exited.done()

    def _signal(self, number: int) -> None:
        if self.exited.done():
            return
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self.pid, number)
            else:
                signal.pidfd_send_signal(self._pidfd, number)

    def _send(self) -> None:
        """Write what the connection has to say."""
        if data := self._connection.data_to_send():
            self._outbox.append(data)
            self._on_writable()

    def _on_writable(self) -> None:
        fd = self._stdin.fileno() if not self._stdin.closed else -1
        try:
            while self._outbox and fd >= 0:
                written = os.write(fd, self._outbox[0])
                if written < len(self._outbox[0]):
                    self._outbox[0] = self._outbox[0][written:]
                else:
                    self._outbox.popleft()
        except BlockingIOError:
            self._loop.add_writer(fd, self._on_writable)
            return
        except OSError:
            self._outbox.clear()
        if fd >= 0:
            self._loop.remove_writer(fd)

    def _close_stdin(self) -> None:
        if not self._stdin.closed:
            self._loop.remove_writer(self._stdin.fileno())
            self._stdin.close()

    def _on_stdout(self) -> None:
        try:
            chunk = _read(self._stdout.fileno())
        except BlockingIOError:
            return
        if chunk:
            self._receive(chunk)
        if not chunk or max((turn.backlog for turn in self._turns.values()), default=0) > BACKLOG_EVENTS:
            self._pause()

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._stdout.fileno())

    def _receive(self, chunk: bytes) -> None:
        try:
            lines = self._framer.push(chunk)
        except LineTooLong as error:
            self.abort("provider_protocol_error", f"the command line printed too long a line: {error}")
            return
        self._deliver(self._connection.receive(lines))
        self._send()
        if self._connection.would_go_on:
            self.is_retired = True
            self._signal(signal.SIGKILL)

    def _deliver(self, batches: list[tuple[str, list[Event]]]) -> None:
        for turn_id, events in batches:
            if turn := self._turns.get(turn_id):
                turn.deliver(self._without_secrets(events))

    def _without_secrets(self, events: list[Event]) -> list[Event]:
        """A failure is the last event."""
        match events[-1]:
            case Failure(message=message) as failure:
                return [*events[:-1], msgspec.structs.replace(failure, message=self._redacted(message))]
        return events

    def _redacted(self, text: str) -> str:
        return redacted(text, self._secrets)

    def _on_stderr(self) -> None:
        try:
            chunk = _read(self._stderr_pipe.fileno())
        except BlockingIOError:
            return
        self._stderr = (self._stderr + chunk)[-STDERR_TAIL_BYTES:]
        if not chunk:
            self._loop.remove_reader(self._stderr_pipe.fileno())

    def _on_exit(self) -> None:
        """The process is a zombie: read what is left, kill what it left in its group, reap, end its turns."""
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pause()
        self._drain()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        exit_code = self._popen.wait()
        self._close_pipes()
        self.exited.set_result(exit_code)
        self.is_retired = True
        self._deliver(
            self._connection.closed(exit_code, self._redacted(self._stderr.decode(errors="replace")))
        )

    def _drain(self) -> None:
        """What is in the pipes now; a stray that holds them open is not waited for."""
        with contextlib.suppress(OSError):
            while chunk := _read(self._stdout.fileno()):
                self._receive(chunk)
        with contextlib.suppress(OSError):
            while chunk := _read(self._stderr_pipe.fileno()):
                self._stderr = (self._stderr + chunk)[-STDERR_TAIL_BYTES:]

    def _close_pipes(self) -> None:
        self._close_stdin()
        self._loop.remove_reader(self._stderr_pipe.fileno())
        self._stdout.close()
        self._stderr_pipe.close()


def _read(fd: int) -> bytes:
    """What a pipe has now, b"" at its end. Raises BlockingIOError when it has nothing."""
    return bytes(_read_buffer[: os.readv(fd, [_read_buffer])])


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    """A standard stream that Popen was asked to make a pipe, without blocking."""
    if stream is None:
        raise ValueError("the process was started without pipes")
    os.set_blocking(stream.fileno(), False)
    return stream
