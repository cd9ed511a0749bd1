"""``codex app-server`` as a sans-IO connection: many conversations at once in one process, one turn in each.

A turn is ``thread/start`` (an ephemeral thread with the system prompt as its base instructions), ``turn/start`` with
the thread's id, notifications, ``turn/completed``. Responses and notifications come in any order. Measured with
0.169.0, recorded in ``tests/transcripts/codex``:

* A thread takes longer to start than a turn, and the first of a process longest: one without a system prompt is
  started in advance.
* A call of a tool that is switched off shows only among the raw items of the model's answer, and codex goes on
  asking the model for as long as it calls. Without those items, whatever follows the first request's token counts is
  a tool attempt.
* A failed turn leaves the process usable; a retried one would repeat its deltas, so retries are switched off.
* Interrupting takes 4 ms and closes the connection to the model service.
"""

from __future__ import annotations

import re
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
    RunStarted,
    Thinking,
    ToolUse,
)
from shared.providers.codex.failures import outcome
from shared.providers.codex.wire import (
    Item,
    Line,
    Params,
    decode_line,
    decode_params,
    decode_thread_started,
    decode_turn_started,
    encode,
)
from shared.sansio import Image, Prompt

CLIENT = {"name": "asm-endpoint", "title": "asm-endpoint", "version": "1"}
DEFAULT_SYSTEM = "You are a helpful assistant."
"""Without any, codex would send its own instructions of 20 kB."""
TEXT_ITEMS = frozenset({"userMessage", "agentMessage", "reasoning"})
CALL_ITEMS = re.compile(r".*_call(?:_output)?|tool_.*")
"""Raw items of a model's answer, or of codex's own to it, that are a use of a tool."""
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


class _HandshakeRefused(Exception):
    """codex does not want to speak with us."""


class CodexConnection:
    """One process, many turns. See :class:`shared.sansio.Connection`."""

    concurrent_turns = 32
    turns_before_recycle = 100
    would_go_on = False

    def __init__(self) -> None:
        self.is_spent = False
        self._is_connected = False
        self._out = b""
        self._last_id = 0
        self._requests: dict[int, tuple[str, _OpenTurn | None]] = {}
        self._turns: dict[str, _OpenTurn] = {}
        self._by_thread: dict[str, _OpenTurn] = {}
        self._spare_thread: str | None = None
        self._spare_request: int | None = None
        self._limit_ends_at_s: float | None = None

    @property
    def is_ready(self) -> bool:
        """Whether there is a thread for the next turn."""
        return self._spare_thread is not None

    def handshake(self) -> None:
        """Say who we are; turns wait for the answer, and a first thread follows it."""
        capabilities = {"experimentalApi": True, "requestAttestation": False}
        self._request("initialize", None, clientInfo=CLIENT, capabilities=capabilities)

    def start_turn(self, turn_id: str, prompt: Prompt) -> None:
        """Take the thread that is ready, if it fits, or ask for one."""
        turn = self._turns[turn_id] = _OpenTurn(turn_id, prompt)
        if self._is_connected:
            self._enter_thread(turn)

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
                turn, events = self._line(decode_line(raw))
            except (msgspec.MsgspecError, UnicodeDecodeError):
                text = f"the command line printed {len(raw)} bytes that are not its protocol"
                return batches + self._fail_all("provider_protocol_error", text)
            except _HandshakeRefused as refused:
                return batches + self._fail_all("provider_protocol_error", str(refused))
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

    def _request(self, method: str, turn: _OpenTurn | None, **params: Any) -> int:
        self._last_id += 1
        self._requests[self._last_id] = (method, turn)
        self._out += encode({"id": self._last_id, "method": method, "params": params})
        return self._last_id

    def _enter_thread(self, turn: _OpenTurn) -> None:
        """Use the spare thread, be it here or under way, where no system prompt asks for another."""
        if turn.prompt.system:
            self._start_thread(turn, turn.prompt.system)
        elif self._spare_thread is not None:
            thread_id, self._spare_thread = self._spare_thread, None
            self._start_codex_turn(turn, thread_id)
        elif self._spare_request is not None:
            self._requests[self._spare_request] = ("thread/start", turn)
            self._spare_request = None
        else:
            self._start_thread(turn)

    def _start_thread(self, turn: _OpenTurn | None, system: str = DEFAULT_SYSTEM) -> int:
        return self._request(
            "thread/start",
            turn,
            approvalPolicy="never",
            sandbox="read-only",
            ephemeral=True,
            baseInstructions=system,
            environments=[],
            experimentalRawEvents=True,
        )

    def _start_codex_turn(self, turn: _OpenTurn, thread_id: str) -> None:
        turn.thread_id = thread_id
        self._by_thread[thread_id] = turn
        prompt = turn.prompt
        options = {"outputSchema": prompt.output_schema, "effort": prompt.reasoning_effort}
        given = {name: value for name, value in options.items() if value is not None}
        parts = [_input(part) for part in prompt.parts()]
        self._request("turn/start", turn, threadId=thread_id, input=parts, **given)

    def _keep_spare(self) -> None:
        """Start the next spare thread when no turn runs: it would take the time of one that does."""
        if (
            not self._turns
            and not self.is_spent
            and self._spare_thread is None
            and self._spare_request is None
        ):
            self._spare_request = self._start_thread(None)

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
            if line.method == "turn/completed":
                raise
            return None, []  # a notification that has nothing we read
        if params.rate_limits is not None:
            self._limit_ends_at_s = params.rate_limits.ends_at_s
        turn = self._by_thread.get(params.thread_id or "")
        if line.id is not None:
            return turn, self._refuse(line)
        if turn is not None and line.method == "turn/completed":
            self._forget(turn)
            end = outcome(params.turn, self._limit_ends_at_s, line.emitted_at_ms)
            return turn, [] if turn.is_unwanted else [end]
        if turn is None or turn.is_unwanted:
            return None, []
        return turn, self._notification(line.method, params, turn)

    def _response(self, method: str, turn: _OpenTurn | None, line: Line) -> list[Event]:
        if line.error is not None:
            return self._refused(method, turn, line.error.message)
        if method == "initialize":
            self._is_connected = True
            self._out += encode({"method": "initialized"})
            for waiting in list(self._turns.values()):
                self._enter_thread(waiting)
            self._keep_spare()
        elif method == "thread/start":
            return self._thread_started(turn, decode_thread_started(line.result).thread.id)
        elif method == "turn/start" and turn is not None:
            turn.codex_id = decode_turn_started(line.result).turn.id
            if turn.is_unwanted:
                self._interrupt(turn)
        return []

    def _thread_started(self, turn: _OpenTurn | None, thread_id: str) -> list[Event]:
        if turn is None:
            self._spare_request, self._spare_thread = None, thread_id
        elif turn.is_unwanted:
            self._forget(turn)
        else:
            self._start_codex_turn(turn, thread_id)
        return []

    def _refused(self, method: str, turn: _OpenTurn | None, message: str) -> list[Event]:
        if method == "initialize":
            raise _HandshakeRefused(f"the command line refused its handshake: {message}")
        if turn is None:
            self.is_spent = self.is_spent or method == "thread/start"
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
            case "rawResponseItem/completed" if params.item and CALL_ITEMS.fullmatch(params.item.type):
                return self._tool_attempt(params.item.name or params.item.type)
            case "turn/started" if params.turn is not None:
                turn.codex_id = params.turn.id
                return [RunStarted(provider_session_id=turn.thread_id)]
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
        self._keep_spare()


def _input(part: str | Image) -> dict[str, Any]:
    """A part of the user's input."""
    if isinstance(part, str):
        return {"type": "text", "text": part, "text_elements": []}
    return {"type": "image", "url": f"data:{part.media_type};base64,{part.base64}"}
