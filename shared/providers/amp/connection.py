"""``amp -x --stream-json --stream-json-input`` as a sans-IO connection: one process, one thread, one turn.

There are no deltas: one ``assistant`` line is one whole message, and one ``result`` line decides. Measured with
@ampcode/cli 0.0.1790142911, recorded in ``tests/transcripts/amp``:

* A failed model request is ``is_error`` with exit code 0; success is a ``result`` that is not.
* What fails before the turn begins (login, credit, connection) is a line on stderr and exit code 1.
* A connection that is cut says nothing at all: the worker's deadlines end such a turn.
* Tools are announced to the service whatever the settings say, so the model may try; the first try ends the turn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from shared.errors import STATUS_CODES
from shared.events import (
    AssistantMessage,
    CostUpdate,
    Event,
    Failure,
    Result,
    RunStarted,
    Thinking,
    ToolUse,
    Usage,
)
from shared.sansio import Prompt

STDERR_TAIL_CHARS = 400
NOT_FOUND = 404
"""Of a page of the service, which says nothing of a model."""
TEXT_CODES = (
    ("invalid or missing api key", "provider_auth_failed"),
    ("access token expired", "provider_auth_failed"),
    ("amp login", "not_logged_in"),
    ("no api key", "not_logged_in"),
    ("credits", "quota_exhausted"),
    ("rate limit", "rate_limit_exceeded"),
    ("overloaded", "provider_overloaded"),
    ("couldn't connect", "provider_connection_failed"),
    ("too large", "context_length_exceeded"),
    ("context window", "context_length_exceeded"),
    ("cancelled", "turn_cancelled"),
    ("amp server returned an error", "provider_error"),
)
"""What is known of amp's messages, on stderr and in results; everything else is a ``provider_error``."""
REFUSED = re.compile(r"api request for \w+ failed: (\d{3})")
"""A status for which amp has no words of its own."""


class WireUsage(msgspec.Struct):
    """Token counts of one message."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None

    def counted(self) -> Usage:
        """As prompt and completion tokens; cached input is part of the prompt."""
        cached = self.cache_read_input_tokens or 0
        return Usage(
            prompt_tokens=self.input_tokens + (self.cache_creation_input_tokens or 0) + cached,
            completion_tokens=self.output_tokens,
            cached_tokens=cached,
        )


class Block(msgspec.Struct):
    """A part of a message."""

    type: str
    text: str = ""
    thinking: str = ""
    name: str = ""
    id: str = ""


class Message(msgspec.Struct):
    """A whole message of the model."""

    content: list[Block] = []
    stop_reason: str | None = None
    usage: WireUsage | None = None


class SystemLine(msgspec.Struct, tag="system"):
    """The turn begins."""

    session_id: str | None = None
    agent_mode: str | None = None


class UserLine(msgspec.Struct, tag="user"):
    """Our own message, or what a tool answered."""


class AssistantLine(msgspec.Struct, tag="assistant"):
    """One message."""

    message: Message


class ResultLine(msgspec.Struct, tag="result"):
    """The end."""

    is_error: bool
    subtype: str = ""
    result: str | None = None
    error: str | None = None


class AnyLine(msgspec.Struct):
    """A line of whatever kind."""

    type: str


DECIDING = ("assistant", "result")
_decode_kind = msgspec.json.Decoder(AnyLine).decode
_decode = msgspec.json.Decoder(SystemLine | UserLine | AssistantLine | ResultLine).decode
_encode = msgspec.json.Encoder().encode


class AmpConnection:
    """One process, one turn. See :class:`shared.sansio.Connection`."""

    concurrent_turns = 1
    turns_before_recycle = 1
    would_go_on = False
    is_spent = False
    is_ready = True

    def __init__(self) -> None:
        self._turn_id: str | None = None
        self._out = b""
        self._stop_reason: str | None = None

    def handshake(self) -> None:
        """Nothing: amp connects by itself and waits for a line."""

    def start_turn(self, turn_id: str, prompt: Prompt) -> None:
        """The user's message; amp has no place for a system prompt, so that stands before the text."""
        self._turn_id = turn_id
        system = (
            f"<system_instructions>\n{prompt.system}\n</system_instructions>\n\n" if prompt.system else ""
        )
        content = [{"type": "text", "text": system + prompt.text}]
        self._out += _encode({"type": "user", "message": {"role": "user", "content": content}}) + b"\n"

    def data_to_send(self) -> bytes:
        """What was not yet given out."""
        data, self._out = self._out, b""
        return data

    def receive(self, lines: Sequence[bytes]) -> list[tuple[str, list[Event]]]:
        """Events of these lines; none before a turn is started or after it has ended."""
        events: list[Event] = []
        turn_id = self._turn_id
        for raw in lines:
            if self._turn_id is None:
                break
            if raw.strip():
                events += self._events(raw)
        return [(turn_id, events)] if events and turn_id is not None else []

    def interrupt(self, turn_id: str) -> bool:
        """Never: one process is one turn, so stopping the process is the interrupt."""
        return False

    def closed(self, exit_code: int, stderr: str) -> list[tuple[str, list[Event]]]:
        """A failure for the open turn, by what stands on stderr."""
        turn_id, self._turn_id = self._turn_id, None
        if turn_id is None:
            return []
        cause = stderr.strip()[-STDERR_TAIL_CHARS:] or "no message on stderr"
        message = f"the command line ended with exit code {exit_code} before its result: {cause}"
        return [(turn_id, [Failure(code=_code(cause, otherwise="provider_crashed"), message=message)])]

    def _events(self, raw: bytes) -> list[Event]:
        try:
            line = _decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return self._odd_line(raw)
        match line:
            case SystemLine():
                return [RunStarted(provider_session_id=line.session_id, model=line.agent_mode)]
            case AssistantLine(message=message):
                return self._message(message)
            case ResultLine():
                self._turn_id = None
                return [self._outcome(line)]
        return []

    def _message(self, message: Message) -> list[Event]:
        events: list[Event] = []
        for block in message.content:
            if block.type == "text":
                events.append(AssistantMessage(block.text))
            elif block.type == "thinking":
                events.append(Thinking(block.thinking))
            elif block.type == "tool_use":
                return [*events, ToolUse(tool_name=block.name, tool_call_id=block.id)]
        self._stop_reason = message.stop_reason
        return [*events, CostUpdate(message.usage.counted())] if message.usage else events

    def _outcome(self, line: ResultLine) -> Event:
        if not line.is_error:
            return Result(stop_reason=self._stop_reason, text=line.result)
        text = line.error or line.result or line.subtype
        return Failure(code=_code(text, otherwise="provider_error"), message=text)

    def _odd_line(self, raw: bytes) -> list[Event]:
        """A JSON object of a kind we do not know is drift to be tolerated; the login dialogue and the rest is not."""
        try:
            kind = _decode_kind(raw).type
        except (msgspec.MsgspecError, UnicodeDecodeError):
            kind = None
        if kind is not None and kind not in DECIDING:
            return []
        self._turn_id = None
        text = raw[:STDERR_TAIL_CHARS].decode(errors="replace")
        code = _code(text, otherwise="provider_protocol_error")
        return [
            Failure(code=code, message=f"the command line printed something that is not its protocol: {text}")
        ]


def _code(text: str, otherwise: str) -> str:
    lowered = text.lower()
    if refused := REFUSED.search(lowered):
        status = int(refused[1])
        return STATUS_CODES[status] if status in STATUS_CODES and status != NOT_FOUND else "provider_error"
    return next((code for phrase, code in TEXT_CODES if phrase in lowered), otherwise)
