"""A command line at work: turns on one side, a child process on the other, and a sans-IO connection between them.

Knows which turn an event belongs to and when there is room for another one. What the process says of a failure goes
on without the secrets that it was given in its environment, to whoever asked. Output stops being read while a reader
is behind (backpressure).
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections.abc import Callable

import msgspec

from shared.events import Event, Failure
from shared.framing import LineFramer, LineTooLong
from shared.provider import Command
from shared.redaction import redacted, secret_values
from shared.sansio import Connection, Prompt
from worker.child import Child, spawn
from worker.turn import Turn

BACKLOG_EVENTS = 20_000
"""Events a turn may be behind before its process is no longer read."""
_log = logging.getLogger("asm_endpoint.turn")


class CliProcess:
    """A running command line. Use :meth:`start`; give it back with :meth:`stop`."""

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        connection: Connection,
        exit_grace_s: float,
        secrets: tuple[str, ...],
    ) -> None:
        self.turns_served = 0
        self.is_retired = False
        self._connection = connection
        self._exit_grace_s = exit_grace_s
        self._secrets = secrets
        self._framer = LineFramer()
        self._is_readable = True
        self._turns: dict[str, Turn] = {}
        self._child = Child(popen, self._on_output, self._on_closed)
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
        return cls(spawn(command, before_exec), connection, exit_grace_s, secret_values(command.env))

    @property
    def pid(self) -> int:
        """As in our own PID namespace."""
        return self._child.pid

    @property
    def exited(self) -> asyncio.Future[int]:
        """Its exit code, once it has ended and is reaped."""
        return self._child.exited

    @property
    def has_room(self) -> bool:
        """Whether it can take another turn now."""
        return (
            not self.is_retired
            and not self._connection.is_spent
            and self._child.is_running
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
        """Resident memory now; 0 when it has ended."""
        return self._child.rss_bytes

    def start_turn(self, prompt: Prompt, request_id: str | None = None) -> Turn:
        """Send a prompt; only while :attr:`has_room`. One that cannot be written is the process's last."""
        turn = Turn(request_id, resume=self._child.resume, leave=self._end_turn)
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

    def abort(self, code: str, message: str) -> None:
        """Fail the running turns and end the process."""
        self.is_retired = True
        for turn in self._turns.values():
            turn.deliver([Failure(code=code, message=message)])
        self._child.terminate()

    async def stop(self) -> None:
        """End the process. Raises as :meth:`worker.child.Child.stop`."""
        self.is_retired = True
        await self._child.stop(self._exit_grace_s)

    def _end_turn(self, turn: Turn) -> None:
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
            self._child.terminate()

    def _log_turn(self, message: str, turn: Turn) -> None:
        request = {"request_id": turn.request_id} if turn.request_id else {}
        _log.info(message, extra={"turn": turn.id, "cli_pid": self.pid, **request})

    def _send(self) -> None:
        """Write what the connection has to say."""
        if data := self._connection.data_to_send():
            self._child.write(data)

    def _on_output(self, chunk: bytes) -> None:
        if self._is_readable:
            self._receive(chunk)
        if max((turn.backlog for turn in self._turns.values()), default=0) > BACKLOG_EVENTS:
            self._child.pause()

    def _receive(self, chunk: bytes) -> None:
        try:
            lines = self._framer.push(chunk)
        except LineTooLong as error:
            self._is_readable = False
            self.abort("provider_protocol_error", f"the command line printed too long a line: {error}")
            return
        self._deliver(self._connection.receive(lines))
        self._send()
        if self._connection.would_go_on:
            self.is_retired = True
            self._child.kill()

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

    def _on_closed(self, exit_code: int, stderr: str) -> None:
        self.is_retired = True
        self._deliver(self._connection.closed(exit_code, self._redacted(stderr)))
