"""The stream-json protocol of ``claude -p``, as a sans-IO connection. Used by the claude and echo providers.

Two lines go in per process: an ``initialize`` control request that carries the system prompt (only the first one
counts) and the user message. Events come back as JSON lines: raw Anthropic stream events, one ``assistant``
line per finished content block, and one ``result`` line, which alone decides success. One process serves one
turn. Facts measured on claude 2.1.330, recorded in ``tests/transcripts/claude``:

* API errors end with ``subtype: success`` and ``is_error: true``; the status is in ``api_error_status``.
* A turn that fails in the middle of its answer still has its cost, but token counts of zero; and a last
  ``message_delta`` without a stop reason, which repeats the count from before the answer.
* After ``stop_reason: max_tokens`` or ``refusal``, and after an answer without text, the command line would ask the
  model again by itself, with words of its own, so the turn ends at that stop reason, before the ``result`` line.
* ``assistant`` lines of model ``<synthetic>`` carry error texts, never an answer.
* A usage limit of a login comes with the time at which it ends, an API key's rate limit with none.
* A slash command that the command line runs itself is a success with ``num_turns: 0``.
* ``client_composed`` keeps ``@file`` and ``/command`` prompts plain text; for versions that do not know it,
  a line break before a ``/`` does. In a list of parts only the last one could be a command.
* An ``apply_flag_settings`` control request before the message sets the turn's effort and its most output tokens.
* With a ``jsonSchema`` in ``initialize`` the model has one tool, whose input is the answer; the command line checks it,
  and ends the turn well or badly without another model request. It says nothing about a schema that it does not take,
  and then has no such tool.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from typing import Any

import msgspec

from shared.errors import LIMITS, STATUS_CODES
from shared.events import (
    TERMINAL,
    AssistantDelta,
    AssistantMessage,
    CostUpdate,
    Event,
    Failure,
    Notice,
    Result,
    RunStarted,
    Thinking,
    ToolUse,
    Usage,
)
from shared.provider import Image, Prompt

COMMAND_START = "/"
MAX_TOKENS_VARIABLE = "CLAUDE_CODE_MAX_OUTPUT_TOKENS"
SCHEMA_TOOL = "StructuredOutput"
OUT_OF_TURNS = "error_max_turns"
SYNTHETIC_MODEL = "<synthetic>"
ENDING_STOP_REASONS = frozenset({"max_tokens", "refusal", "model_context_window_exceeded"})
STDERR_TAIL_CHARS = 400
TEXT_CODES = (
    ("prompt is too long", "context_length_exceeded"),
    ("credit balance is too low", "quota_exhausted"),
    ("content filtering", "content_filter"),
)
"""What the text says more exactly than a status of 400, or says without any."""
STATUSLESS_CODES = (
    ("not logged in", "not_logged_in"),
    ("/login", "not_logged_in"),
    ("connection", "provider_connection_failed"),
    ("stream ended", "provider_connection_failed"),
    ("overloaded", "provider_overloaded"),
)
"""What a failed result without a status says besides; 2.1.197 names less than later versions."""


class WireUsage(msgspec.Struct):
    """Anthropic's token counts; thinking tokens are a newer detail."""

    class Details(msgspec.Struct):
        thinking_tokens: int | None = None

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens_details: Details | None = None

    def over(self, earlier: WireUsage | None) -> WireUsage:
        """These counts where they are given, the earlier ones elsewhere."""
        if earlier is None:
            return self
        pick = {
            name: value if value is not None else getattr(earlier, name)
            for name, value in msgspec.structs.asdict(self).items()
        }
        return WireUsage(**pick)

    def counted(self) -> Usage:
        """As prompt and completion tokens; cached input is part of the prompt."""
        cached = self.cache_read_input_tokens or 0
        return Usage(
            prompt_tokens=(self.input_tokens or 0) + (self.cache_creation_input_tokens or 0) + cached,
            completion_tokens=self.output_tokens or 0,
            cached_tokens=cached,
            reasoning_tokens=(self.output_tokens_details and self.output_tokens_details.thinking_tokens) or 0,
        )


class TextDelta(msgspec.Struct, tag="text_delta", gc=False):
    text: str


class ThinkingDelta(msgspec.Struct, tag="thinking_delta"):
    thinking: str


class SignatureDelta(msgspec.Struct, tag="signature_delta"):
    pass


class InputJsonDelta(msgspec.Struct, tag="input_json_delta"):
    partial_json: str = ""


class CitationsDelta(msgspec.Struct, tag="citations_delta"):
    pass


class ContentBlock(msgspec.Struct):
    """One content block of any type; only the fields of text and tool blocks are read."""

    type: str
    text: str = ""
    name: str = ""
    id: str = ""


class Message(msgspec.Struct):
    model: str | None = None
    content: list[ContentBlock] | str = []
    usage: WireUsage | None = None


class MessageStart(msgspec.Struct, tag="message_start"):
    message: Message


class ContentBlockStart(msgspec.Struct, tag="content_block_start"):
    content_block: ContentBlock


class ContentBlockDelta(msgspec.Struct, tag="content_block_delta", gc=False):
    delta: TextDelta | ThinkingDelta | SignatureDelta | InputJsonDelta | CitationsDelta


class ContentBlockStop(msgspec.Struct, tag="content_block_stop"):
    pass


class MessageDelta(msgspec.Struct, tag="message_delta"):
    class Delta(msgspec.Struct):
        stop_reason: str | None = None

    delta: Delta
    usage: WireUsage | None = None


class MessageStop(msgspec.Struct, tag="message_stop"):
    pass


class Ping(msgspec.Struct, tag="ping"):
    pass


class SystemLine(msgspec.Struct, tag="system"):
    subtype: str | None = None
    session_id: str | None = None
    model: str | None = None
    tools: list[str] = []
    attempt: int | None = None
    error_status: int | None = None


class StreamEventLine(msgspec.Struct, tag="stream_event", gc=False):
    event: (
        MessageStart
        | ContentBlockStart
        | ContentBlockDelta
        | ContentBlockStop
        | MessageDelta
        | MessageStop
        | Ping
    )


class AssistantLine(msgspec.Struct, tag="assistant"):
    message: Message
    timestamp: Any = None


class UserLine(msgspec.Struct, tag="user"):
    pass


class ControlResponseLine(msgspec.Struct, tag="control_response"):
    pass


class RateLimitLine(msgspec.Struct, tag="rate_limit_event"):
    class Info(msgspec.Struct):
        resets_at_s: float | None = msgspec.field(default=None, name="resetsAt")

    info: Info = msgspec.field(default_factory=Info, name="rate_limit_info")


class ResultLine(msgspec.Struct, tag="result"):
    subtype: str | None = None
    is_error: bool = False
    num_turns: int | None = None
    result: str | None = None
    stop_reason: str | None = None
    terminal_reason: str | None = None
    api_error: str | None = None
    api_error_status: int | None = None
    api_error_type: str | None = None
    errors: list[str] | None = None
    usage: WireUsage | None = None
    total_cost_usd: float | None = None


Line = (
    SystemLine | StreamEventLine | AssistantLine | UserLine | ControlResponseLine | RateLimitLine | ResultLine
)
_LINE = msgspec.json.Decoder(Line)
_encode = msgspec.json.Encoder().encode


class ClaudeConnection:
    """One process, one turn. See :class:`shared.provider.Connection`."""

    concurrent_turns = 1
    turns_before_recycle = 1
    is_ready = True

    def __init__(self, *, hides_commands: bool = False) -> None:
        self.would_go_on = False
        self._hides_commands = hides_commands
        self.is_spent = False
        self._turn_id: str | None = None
        self._wants_schema = False
        self._schema_call_id: str | None = None
        self._usage: WireUsage | None = None
        self._has_text = False
        self._limit_ends_at_s: float | None = None
        self._retry_after_s: float | None = None
        self._out = b""

    def handshake(self) -> None:
        """Nothing: the only ``initialize`` that counts carries the turn's system prompt."""

    def start_turn(self, turn_id: str, prompt: Prompt) -> None:
        """The turn's settings if it has any, the ``initialize`` request, and the user message."""
        self._turn_id = turn_id
        self._wants_schema = prompt.output_schema is not None
        initialize: dict[str, Any] = {"subtype": "initialize", "hooks": None, "systemPrompt": [prompt.system]}
        if self._wants_schema:
            initialize["jsonSchema"] = prompt.output_schema
        if settings := _settings(prompt):
            self._request({"subtype": "apply_flag_settings", "settings": settings})
        self._request(initialize)
        self._send(
            {
                "type": "user",
                "message": {"role": "user", "content": self._content(prompt)},
                "parent_tool_use_id": None,
                "session_id": "",
                "client_composed": True,
            }
        )

    def data_to_send(self) -> bytes:
        """What was not yet given out."""
        data, self._out = self._out, b""
        return data

    def receive(self, lines: Sequence[bytes]) -> list[tuple[str, list[Event]]]:
        """Events of these lines; none before a turn is started or after it has ended."""
        turn_id = self._turn_id
        if turn_id is None:
            return []
        events: list[Event] = []
        add = events.append
        for line in _decoded(lines):
            if type(line) is StreamEventLine and type(line.event) is ContentBlockDelta:
                delta = line.event.delta
                if type(delta) is TextDelta and not self._wants_schema:
                    add(AssistantDelta(delta.text))
                    continue
            events += [line] if isinstance(line, Notice | Failure) else self._events(line)
            if events and isinstance(events[-1], TERMINAL):
                self._turn_id = None
                break
        return [(turn_id, events)] if events else []

    def interrupt(self, turn_id: str) -> bool:
        """Never: one process is one turn, so stopping the process is the interrupt."""
        return False

    def closed(self, exit_code: int, stderr: str) -> list[tuple[str, list[Event]]]:
        """A failure for the open turn: without a ``result`` line no exit code means success."""
        turn_id, self._turn_id = self._turn_id, None
        if turn_id is None:
            return []
        cause = stderr.strip()[-STDERR_TAIL_CHARS:] or "no message on stderr"
        message = f"the command line ended with exit code {exit_code} before its result: {cause}"
        return [(turn_id, [Failure(code="provider_crashed", message=message)])]

    def _request(self, request: dict[str, Any]) -> None:
        self._send({"type": "control_request", "request_id": request["subtype"], "request": request})

    def _send(self, line: dict[str, Any]) -> None:
        self._out += _encode(line) + b"\n"

    def _content(self, prompt: Prompt) -> str | list[dict[str, Any]]:
        parts = prompt.parts()
        last = parts[-1]
        if self._hides_commands and isinstance(last, str) and last.startswith(COMMAND_START):
            parts[-1] = f"\n{last}"
        return "".join(map(str, parts)) if not prompt.images else [_block(part) for part in parts]

    def _events(self, line: Line) -> list[Event]:
        match line:
            case StreamEventLine(event=event):
                return self._stream_events(event)
            case AssistantLine(message=message) if message.model == SYNTHETIC_MODEL:
                self._retry_after_s = _seconds_until(self._limit_ends_at_s, line.timestamp)
            case AssistantLine(message=message):
                events = self._message_events(message)
                self._has_text = self._has_text or any(_is_text(event) for event in events)
                return events
            case RateLimitLine(info=info):
                self._limit_ends_at_s = info.resets_at_s
            case ResultLine():
                return self._outcome(line)
            case SystemLine(subtype="init"):
                return self._begun(line)
            case SystemLine(subtype="api_retry"):
                return [Notice(f"retry {line.attempt} after status {line.error_status}")]
        return []

    def _begun(self, line: SystemLine) -> list[Event]:
        started = RunStarted(provider_session_id=line.session_id, model=line.model)
        if not self._wants_schema or SCHEMA_TOOL in line.tools:
            return [started]
        self.would_go_on = True
        text = "the command line does not take this JSON schema"
        return [started, Failure(code="provider_rejected_request", message=text)]

    def _stream_events(self, event: Any) -> list[Event]:
        match event:
            case ContentBlockDelta(delta=delta):
                return self._delta(delta)
            case ContentBlockStart(content_block=block):
                return self._tool_events(block)
            case MessageStart(message=message) if message.usage:
                self._usage = message.usage
                return [CostUpdate(message.usage.counted())]
            case MessageDelta():
                return self._message_delta(event)
        return []

    def _delta(self, delta: Any) -> list[Event]:
        """Text is the answer, but beside one that has a schema it is none."""
        match delta:
            case ThinkingDelta(thinking=text) | TextDelta(text=text) if text:
                return [Thinking(text)]
            case InputJsonDelta(partial_json=text) if text and self._wants_schema:
                return [AssistantDelta(text)]
        return []

    def _message_delta(self, event: MessageDelta) -> list[Event]:
        if event.delta.stop_reason is None:
            return []
        if event.usage:
            self._usage = event.usage.over(self._usage)
        usage = self._usage.counted() if self._usage else None
        if event.delta.stop_reason in ENDING_STOP_REASONS or not (self._has_text or self._wants_schema):
            self.would_go_on = True
            return [Result(stop_reason=event.delta.stop_reason, usage=usage)]
        return [CostUpdate(usage)] if usage else []

    def _outcome(self, line: ResultLine) -> list[Event]:
        usage = line.usage.counted() if line.usage else None
        if line.num_turns == 0 and not line.is_error:
            text = "the command line answered by itself, without the model"
            return [CostUpdate(usage), Failure(code="provider_protocol_error", message=text)]
        if not line.is_error and line.subtype == "success":
            cost_usd = line.total_cost_usd
            return [Result(stop_reason=line.stop_reason, text=line.result, usage=usage, cost_usd=cost_usd)]
        has_counted = usage is not None and (usage.total_tokens or self._usage is None)
        used = CostUpdate(usage if has_counted else None, line.total_cost_usd)
        return [used, self._failure(line)]

    def _failure(self, line: ResultLine) -> Failure:
        if self._wants_schema and line.subtype == OUT_OF_TURNS:
            return Failure(code="schema_mismatch", message="the model's answer does not have the JSON schema")
        return _failure(line, self._retry_after_s)

    def _message_events(self, message: Message) -> list[Event]:
        if isinstance(message.content, str):
            return []
        events: list[Event] = []
        for block in message.content:
            if block.type != "text":
                events += self._tool_events(block)
            elif not self._wants_schema:
                events.append(AssistantMessage(block.text))
        return events

    def _tool_events(self, block: ContentBlock) -> list[Event]:
        """A request for a tool; but the one call that gives the answer its schema is none."""
        if not block.type.endswith("tool_use"):
            return []
        if self._wants_schema and block.name == SCHEMA_TOOL and self._schema_call_id in (None, block.id):
            self._schema_call_id = block.id
            return []
        return [ToolUse(tool_name=block.name, tool_call_id=block.id)]


def _seconds_until(moment_s: float | None, timestamp: Any) -> float | None:
    """From the moment at which the command line printed a line, by its own clock, to ``moment_s``."""
    try:
        return None if moment_s is None else moment_s - datetime.datetime.fromisoformat(timestamp).timestamp()
    except (TypeError, ValueError):
        return None


def _is_text(event: Event) -> bool:
    return isinstance(event, AssistantMessage) and bool(event.content)


def _settings(prompt: Prompt) -> dict[str, Any]:
    """What the turn sets of claude's own settings."""
    settings: dict[str, Any] = {}
    if prompt.max_tokens is not None:
        settings["env"] = {MAX_TOKENS_VARIABLE: str(prompt.max_tokens)}
    if prompt.reasoning_effort is not None:
        settings["effortLevel"] = prompt.reasoning_effort
    return settings


def _block(part: str | Image) -> dict[str, Any]:
    """A content block of Anthropic's."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    source = {"type": "base64", "media_type": part.media_type, "data": part.base64}
    return {"type": "image", "source": source}


def _failure(line: ResultLine, retry_after_s: float | None) -> Failure:
    text = line.result or "; ".join(line.errors or ()) or line.terminal_reason or line.subtype or "no message"
    code = _failure_code(line, text.lower())
    return Failure(code=code, message=text, retry_after_s=retry_after_s if code in LIMITS else None)


def _failure_code(line: ResultLine, text: str) -> str:
    status = line.api_error_status
    phrase_code = next((code for phrase, code in TEXT_CODES if phrase in text), None)
    if phrase_code and status in (None, 400):
        return phrase_code
    if line.api_error == "usage_limit_reached":
        return "quota_exhausted"
    if status is not None:
        return STATUS_CODES.get(status, "provider_error")
    if line.api_error == "connection_failed":
        return "provider_connection_failed"
    otherwise = "turn_cancelled" if (line.terminal_reason or "").startswith("aborted") else "provider_error"
    return next((code for phrase, code in STATUSLESS_CODES if phrase in text), otherwise)


Decoded = Line | Notice | Failure


def _decoded(lines: Sequence[bytes]) -> list[Decoded]:
    """The lines, all in one call where they are all known; one by one where something is off."""
    try:
        known: list[Decoded] = _LINE.decode_lines(b"\n".join(lines))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return [_decoded_one(line) for line in lines if line.strip()]
    return known


def _decoded_one(line: bytes) -> Decoded:
    """A JSON object of an unknown kind is drift to be tolerated; anything else is not this protocol."""
    try:
        known: Decoded = _LINE.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _odd_line(line)
    return known


def _odd_line(line: bytes) -> Decoded:
    try:
        content = json.loads(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        text = f"the command line printed {len(line)} bytes that are not a JSON object"
        return Failure(code="provider_protocol_error", message=text)
    try:
        # Node escapes half of a surrogate pair where a text was cut there; strict JSON has no such string.
        known: Decoded = _LINE.decode(json.dumps(content, ensure_ascii=False).encode(errors="replace"))
    except msgspec.MsgspecError:
        return _unknown_line(content.get("type"))
    return known


def _unknown_line(kind: object) -> Notice | Failure:
    if kind in ("result", "assistant"):
        return Failure(code="provider_protocol_error", message=f"the {kind} line has an unknown shape")
    return Notice(f"line of unknown kind {kind!r}")
