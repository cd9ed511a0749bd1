"""One turn of ``claude -p``, in its stream-json protocol, as a sans-IO connection. One process serves one turn.

Events come back as JSON lines: raw Anthropic stream events, one ``assistant`` line per finished content block, and
one ``result`` line, which alone decides success.

* A turn that fails in the middle of its answer still has its cost, but token counts of zero; and a last
  ``message_delta`` without a stop reason, which repeats the count from before the answer.
* After ``stop_reason: max_tokens`` or ``refusal``, and after an answer without text, the command line would ask the
  model again by itself, with words of its own, so the turn ends at that stop reason, before the ``result`` line.
* ``assistant`` lines of model ``<synthetic>`` carry error texts, never an answer.
* A slash command that the command line runs itself is a success with ``num_turns: 0``.
* With a ``jsonSchema`` in ``initialize`` the model has one tool, whose input is the answer; the command line checks it,
  and ends the turn well or badly without another model request. It says nothing about a schema that it does not take,
  and then has no such tool.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared.claude_wire.decoding import decoded
from shared.claude_wire.encoding import encoded
from shared.claude_wire.failures import failure, seconds_until
from shared.claude_wire.lines import (
    AssistantLine,
    ContentBlock,
    ContentBlockDelta,
    ContentBlockStart,
    InputJsonDelta,
    Line,
    Message,
    MessageDelta,
    MessageStart,
    RateLimitLine,
    ResultLine,
    StreamEventLine,
    SystemLine,
    TextDelta,
    ThinkingDelta,
    WireUsage,
)
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
)
from shared.sansio import Prompt

SCHEMA_TOOL = "StructuredOutput"
SYNTHETIC_MODEL = "<synthetic>"
ENDING_STOP_REASONS = frozenset({"max_tokens", "refusal", "model_context_window_exceeded"})
STDERR_TAIL_CHARS = 400


class ClaudeConnection:
    """One process, one turn. See :class:`shared.sansio.Connection`."""

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
        self._out += encoded(prompt, hides_commands=self._hides_commands)

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
        for line in decoded(lines):
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

    def _events(self, line: Line) -> list[Event]:
        match line:
            case StreamEventLine(event=event):
                return self._stream_events(event)
            case AssistantLine(message=message) if message.model == SYNTHETIC_MODEL:
                self._retry_after_s = seconds_until(self._limit_ends_at_s, line.timestamp)
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
        failed = failure(line, wants_schema=self._wants_schema, retry_after_s=self._retry_after_s)
        return [used, failed]

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


def _is_text(event: Event) -> bool:
    return isinstance(event, AssistantMessage) and bool(event.content)
