"""``codex app-server`` as a sans-IO connection: many conversations at once in one process, one turn in each.

A turn is ``thread/start`` (an ephemeral thread with the system prompt as its base instructions), ``turn/start`` with
the thread's id, notifications, ``turn/completed``. Responses and notifications come in any order. Measured with
0.169.0, recorded in ``tests/transcripts/codex``:

* A call of a tool that is switched off shows as nothing but another model request, for as long as the model goes
  on calling; whatever follows the first request's token counts is therefore a tool attempt.
* A failed turn leaves the process usable; a retried one would repeat its deltas, so retries are switched off.
* Interrupting takes 4 ms and closes the connection to the model service.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from shared.events import (
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
from shared.provider import Image, Prompt
from shared.providers.codex.wire import (
    Item,
    Line,
    Params,
    Turn,
    decode_line,
    decode_params,
    decode_thread_started,
    decode_turn_started,
    encode,
    failure_code,
)

CLIENT = {"name": "asm-endpoint", "title": "asm-endpoint", "version": "1"}
DEFAULT_SYSTEM = "You are a helpful assistant."
"""Without any, codex would send its own instructions of 20 kB."""
TEXT_ITEMS = frozenset({"userMessage", "agentMessage", "reasoning"})
INCOMPLETE = "Incomplete response returned, reason: "
METHOD_NOT_FOUND = -32601
STDERR_TAIL_CHARS = 400


class _OpenTurn:
    """One turn's way through the protocol."""

    def __init__(self, turn_id: str, prompt: Prompt) -> None:
        self.id = turn_id
        self.prompt = prompt
        self.thread_id: str | None = None
        self.codex_id: str | None = None
        self.is_unwanted = False
        self.has_usage = False


class CodexConnection:
    """One process, many turns. See :class:`shared.provider.Connection`."""

    concurrent_turns = 32
    turns_before_recycle = 100
    would_go_on = False

    def __init__(self) -> None:
        self.is_spent = False
        self._is_ready = False
        self._out = b""
        self._last_id = 0
        self._requests: dict[int, tuple[str, _OpenTurn | None]] = {}
        self._turns: dict[str, _OpenTurn] = {}
        self._by_thread: dict[str, _OpenTurn] = {}

    def handshake(self) -> None:
        """Say who we are; turns wait for the answer."""
        capabilities = {"experimentalApi": True, "requestAttestation": False}
        self._request("initialize", None, clientInfo=CLIENT, capabilities=capabilities)

    def start_turn(self, turn_id: str, prompt: Prompt) -> None:
        """Ask for a thread of the turn's own."""
        turn = self._turns[turn_id] = _OpenTurn(turn_id, prompt)
        if self._is_ready:
            self._start_thread(turn)

    def interrupt(self, turn_id: str) -> bool:
        """Cancel it, as soon as codex has given it a name."""
        turn = self._turns.get(turn_id)
        if turn is not None:
            turn.is_unwanted = True
            self._interrupt(turn)
        return True

    def receive(self, lines: Sequence[bytes]) -> list[tuple[str, list[Event]]]:
        """Events of these lines, by turn."""
        batches: list[tuple[str, list[Event]]] = []
        for raw in lines:
            if not raw.strip():
                continue
            try:
                line = decode_line(raw)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                return batches + self._fail_all(
                    "provider_protocol_error",
                    f"the command line printed {len(raw)} bytes that are not its protocol",
                )
            turn, events = self._line(line)
            if turn is not None and events:
                if batches and batches[-1][0] == turn.id:
                    batches[-1][1].extend(events)
                else:
                    batches.append((turn.id, events))
        return batches

    def closed(self, exit_code: int, stderr: str) -> list[tuple[str, list[Event]]]:
        """A failure for every open turn."""
        cause = stderr.strip()[-STDERR_TAIL_CHARS:] or "no message on stderr"
        return self._fail_all(
            "provider_crashed",
            f"the command line ended with exit code {exit_code} before the turn did: {cause}",
        )

    def data_to_send(self) -> bytes:
        """What was not yet given out."""
        data, self._out = self._out, b""
        return data

    def _request(self, method: str, turn: _OpenTurn | None, **params: Any) -> None:
        self._last_id += 1
        self._requests[self._last_id] = (method, turn)
        self._out += encode({"id": self._last_id, "method": method, "params": params})

    def _start_thread(self, turn: _OpenTurn) -> None:
        self._request(
            "thread/start",
            turn,
            approvalPolicy="never",
            sandbox="read-only",
            ephemeral=True,
            baseInstructions=turn.prompt.system or DEFAULT_SYSTEM,
            environments=[],
        )

    def _interrupt(self, turn: _OpenTurn) -> None:
        if turn.codex_id is not None:
            self._request("turn/interrupt", None, threadId=turn.thread_id, turnId=turn.codex_id)

    def _fail_all(self, code: str, message: str) -> list[tuple[str, list[Event]]]:
        self.is_spent = True
        failures: list[tuple[str, list[Event]]] = [
            (turn_id, [Failure(code=code, message=message)]) for turn_id in self._turns
        ]
        self._turns.clear()
        self._by_thread.clear()
        return failures

    def _line(self, line: Line) -> tuple[_OpenTurn | None, list[Event]]:
        if line.method is None:
            method, turn = self._requests.pop(line.id, ("", None)) if isinstance(line.id, int) else ("", None)
            return turn, self._response(method, turn, line)
        try:
            params = decode_params(line.params)
        except msgspec.MsgspecError:
            return None, []  # a notification that has nothing we read
        turn = self._by_thread.get(params.thread_id or "")
        if line.id is not None:
            return turn, self._refuse(line)
        if turn is None or turn.is_unwanted:
            if turn is not None and params.turn is not None and line.method == "turn/completed":
                self._forget(turn)
            return None, []
        return turn, self._notification(line.method, params, turn)

    def _response(self, method: str, turn: _OpenTurn | None, line: Line) -> list[Event]:
        if line.error is not None:
            return self._refused(method, turn, line.error.message)
        if method == "initialize":
            self._is_ready = True
            self._out += encode({"method": "initialized"})
            for waiting in list(self._turns.values()):
                self._start_thread(waiting)
        elif method == "thread/start" and turn is not None:
            return self._thread_started(turn, line.result)
        elif method == "turn/start" and turn is not None:
            turn.codex_id = decode_turn_started(line.result).turn.id
            if turn.is_unwanted:
                self._interrupt(turn)
        return []

    def _thread_started(self, turn: _OpenTurn, result: bytes | msgspec.Raw) -> list[Event]:
        turn.thread_id = decode_thread_started(result).thread.id
        if turn.is_unwanted:
            self._forget(turn)
            return []
        self._by_thread[turn.thread_id] = turn
        prompt = turn.prompt
        options = {"outputSchema": prompt.output_schema, "effort": prompt.reasoning_effort}
        given = {name: value for name, value in options.items() if value is not None}
        parts = [_input(part) for part in prompt.parts()]
        self._request("turn/start", turn, threadId=turn.thread_id, input=parts, **given)
        return [RunStarted(provider_session_id=turn.thread_id)]

    def _refused(self, method: str, turn: _OpenTurn | None, message: str) -> list[Event]:
        if turn is None:
            self.is_spent = self.is_spent or method == "initialize"
            return []
        self._forget(turn)
        code = "context_length_exceeded" if "input_too_large" in message else "provider_rejected_request"
        return [Failure(code=code, message=f"{method}: {message}")]

    def _refuse(self, line: Line) -> list[Event]:
        """codex asks us for something: only tools do."""
        error = {"code": METHOD_NOT_FOUND, "message": "not supported on a completion endpoint"}
        self._out += encode({"id": line.id, "error": error})
        return self._tool_attempt(line.method or "")

    def _notification(self, method: str, params: Params, turn: _OpenTurn) -> list[Event]:
        events: list[Event] = []
        match method:
            case "item/agentMessage/delta":
                events = [AssistantDelta(params.delta)]
            case "item/reasoning/summaryTextDelta" | "item/reasoning/textDelta":
                events = [Thinking(params.delta)]
            case "item/started" | "item/completed" if params.item is not None:
                events = self._item(method, params.item)
            case "thread/tokenUsage/updated" if params.token_usage is not None:
                usage = params.token_usage.last.counted()
                events = [
                    CostUpdate(usage) if usage.total_tokens else Notice("the service gave no token counts")
                ]
            case "turn/completed" if params.turn is not None:
                self._forget(turn)
                return [_outcome(params.turn)]
            case "error" | "warning":
                return [Notice(params.message or (params.error.message if params.error else method))]
        if events and turn.has_usage:
            return self._tool_attempt()
        turn.has_usage = turn.has_usage or params.token_usage is not None
        return events

    def _item(self, method: str, item: Item) -> list[Event]:
        if item.type not in TEXT_ITEMS:
            return self._tool_attempt(item.type)
        is_answer = item.type == "agentMessage" and method == "item/completed"
        return [AssistantMessage(item.text)] if is_answer else []

    def _tool_attempt(self, name: str = "unknown") -> list[Event]:
        self.is_spent = True
        return [ToolUse(tool_name=name)]

    def _forget(self, turn: _OpenTurn) -> None:
        self._turns.pop(turn.id, None)
        self._by_thread.pop(turn.thread_id or "", None)


def _input(part: str | Image) -> dict[str, Any]:
    """A part of the user's input."""
    if isinstance(part, str):
        return {"type": "text", "text": part, "text_elements": []}
    return {"type": "image", "url": f"data:{part.media_type};base64,{part.base64}"}


def _outcome(turn: Turn) -> Event:
    if turn.status == "completed":
        return Result(stop_reason="completed")
    if turn.status == "interrupted":
        return Failure(code="turn_cancelled", message="the turn was interrupted")
    if turn.error is None:
        return Failure(code="provider_error", message=f"the turn ended as {turn.status}")
    _, is_incomplete, reason = turn.error.message.partition(INCOMPLETE)
    if is_incomplete:
        return Result(stop_reason=reason.strip())
    return Failure(code=failure_code(turn.error), message=turn.error.message)
