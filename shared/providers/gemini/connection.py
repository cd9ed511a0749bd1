"""``gemini --acp`` as a sans-IO connection: JSON-RPC 2.0 lines, one session for each turn, many at once.

Measured with 0.61.0, recorded in ``tests/transcripts/gemini-acp``:

* A session is made in advance, because making one takes longer than all the rest of a warm turn, and one at a time,
  because several at once wait for one another's lock files: for seconds, and at 16 for ever.
* Success is ``end_turn`` with a ``model_usage``; without one the answer was cut off, or gemini answered by itself.
* With one model request allowed for each session, a tool attempt ends the turn as ``max_turn_requests``.
* The system prompt file is one for the process, and changes of it reach running sessions: a turn's own system prompt
  therefore goes before the user's text, in a part of its own.
* A prompt that begins with ``/`` or ``$`` would be a command, blanks or not; an invisible character keeps it text.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

from shared.errors import STATUS_CODES
from shared.events import AssistantDelta, Event, Failure, Result, RunStarted, Thinking, ToolUse, Usage
from shared.provider import Image, Prompt

COMMAND_START = re.compile(r"\s*[/$]")
ZERO_WIDTH_SPACE = "\u200b"
SESSIONS_READY = 2
"""Sessions made in advance; each keeps about 0.35 MB."""
LOGIN_DIALOGUE = b"to authorize the application"
METHOD_NOT_FOUND = -32601
STDERR_TAIL_CHARS = 400
RETRY_AFTER = re.compile(r"retry after (\d+(?:\.\d+)?)\s*s")
TEXT_CODES = (
    ("is not found", "model_not_found"),
    ("not_found", "model_not_found"),
    ("terminated", "provider_connection_failed"),
    ("fetch failed", "provider_connection_failed"),
    ("api key not valid", "provider_auth_failed"),
    ("api key is missing", "not_logged_in"),
    ("auth", "not_logged_in"),
    ("exceeds the maximum number of tokens", "context_length_exceeded"),
    ("quota", "quota_exhausted"),
)
"""What the message says more exactly than its code: 404, and a connection that was cut, both come as 500."""


class TokenCount(msgspec.Struct):
    """Tokens of one turn."""

    input_tokens: int = 0
    output_tokens: int = 0


class Quota(msgspec.Struct):
    """What the turn used; ``model_usage`` is empty when no model answered to the end."""

    token_count: TokenCount = msgspec.field(default_factory=TokenCount)
    model_usage: list[msgspec.Raw] = []


class Meta(msgspec.Struct):
    """gemini's addition to ACP."""

    quota: Quota = msgspec.field(default_factory=Quota)


class RpcResult(msgspec.Struct, rename="camel"):
    """The fields of the results that we read."""

    session_id: str | None = None
    stop_reason: str | None = None
    meta: Meta = msgspec.field(default_factory=Meta, name="_meta")


class RpcError(msgspec.Struct):
    """``code`` is the model service's HTTP status, or JSON-RPC's own."""

    code: int = 0
    message: str = "no message"


class Content(msgspec.Struct):
    """A piece of text."""

    text: str = ""


class Update(msgspec.Struct, rename="camel"):
    """What a session has to tell."""

    session_update: str
    content: Content | msgspec.UnsetType = msgspec.UNSET
    title: str = ""


class SessionParams(msgspec.Struct, rename="camel"):
    """Of a notification or a request to us."""

    session_id: str = ""
    update: msgspec.Raw = msgspec.Raw(b"{}")


class Line(msgspec.Struct):
    """A response, a notification, or a request to us."""

    id: int | str | None = None
    method: str | None = None
    params: SessionParams | None = None
    result: RpcResult | None = None
    error: RpcError | None = None


_decode_line = msgspec.json.Decoder(Line).decode
_decode_update = msgspec.json.Decoder(Update).decode
_encode = msgspec.json.Encoder().encode


class _OpenTurn:
    """One turn's way through the protocol."""

    def __init__(self, turn_id: str, prompt: Prompt) -> None:
        self.id = turn_id
        self.prompt = prompt
        self.session_id: str | None = None
        self.is_unwanted = False


class GeminiConnection:
    """One process, many turns. See :class:`shared.provider.Connection`."""

    concurrent_turns = 32
    turns_before_recycle = 50
    would_go_on = False

    def __init__(self, workspace: str) -> None:
        self.is_spent = False
        self._workspace = workspace
        self._out = b""
        self._last_id = 0
        self._requests: dict[int, tuple[str, _OpenTurn | None]] = {}
        self._turns: dict[str, _OpenTurn] = {}
        self._by_session: dict[str, _OpenTurn] = {}
        self._sessions: deque[str] = deque()
        self._waiting: deque[_OpenTurn] = deque()
        self._is_session_asked = False
        self._is_ready = False
        self._cannot_start: Failure | None = None

    def handshake(self) -> None:
        """Say who we are and that we offer nothing; sessions follow the answer."""
        file_system = {"readTextFile": False, "writeTextFile": False}
        self._request(
            "initialize",
            None,
            protocolVersion=1,
            clientCapabilities={"fs": file_system, "terminal": False},
            clientInfo={"name": "asm-endpoint", "version": "1"},
        )

    def start_turn(self, turn_id: str, prompt: Prompt) -> None:
        """Take a session that is ready, or wait for one."""
        turn = self._turns[turn_id] = _OpenTurn(turn_id, prompt)
        self._waiting.append(turn)
        self._serve_waiting()

    def interrupt(self, turn_id: str) -> bool:
        """Cancel the turn in its session; gemini then closes its connection to the model service."""
        turn = self._turns.get(turn_id)
        if turn is not None:
            turn.is_unwanted = True
            if turn.session_id is not None:
                self._send({"method": "session/cancel", "params": {"sessionId": turn.session_id}})
        return True

    def receive(self, lines: Sequence[bytes]) -> list[tuple[str, list[Event]]]:
        """Events of these lines, by turn."""
        batches: list[tuple[str, list[Event]]] = []
        for raw in lines:
            if not raw.strip():
                continue
            try:
                line = _decode_line(raw)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                return batches + self._fail_all(*_odd_line(raw))
            turn, events = self._line(line)
            if turn is not None and events and not turn.is_unwanted:
                if batches and batches[-1][0] == turn.id:
                    batches[-1][1].extend(events)
                else:
                    batches.append((turn.id, events))
        return batches + self._fail_waiting()

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

    def _send(self, message: dict[str, Any]) -> None:
        self._out += _encode({"jsonrpc": "2.0", **message}) + b"\n"

    def _request(self, method: str, turn: _OpenTurn | None, **params: Any) -> None:
        self._last_id += 1
        self._requests[self._last_id] = (method, turn)
        self._send({"id": self._last_id, "method": method, "params": params})

    def _ask_for_session(self) -> None:
        """One at a time, until there is one for each turn that waits and SESSIONS_READY more."""
        wanted = len(self._waiting) + SESSIONS_READY - len(self._sessions)
        if self._is_ready and wanted > 0 and not self._is_session_asked and not self._cannot_start:
            self._is_session_asked = True
            self._request("session/new", None, cwd=self._workspace, mcpServers=[])

    def _serve_waiting(self) -> None:
        while self._waiting and self._sessions:
            turn = self._waiting.popleft()
            if turn.is_unwanted:
                self._turns.pop(turn.id, None)
                continue
            turn.session_id = self._sessions.popleft()
            self._by_session[turn.session_id] = turn
            self._request("session/prompt", turn, sessionId=turn.session_id, prompt=_parts(turn.prompt))
        self._ask_for_session()

    def _fail_waiting(self) -> list[tuple[str, list[Event]]]:
        """No session, no turn."""
        if self._cannot_start is None:
            return []
        failed: list[tuple[str, list[Event]]] = [(turn.id, [self._cannot_start]) for turn in self._waiting]
        for turn in self._waiting:
            self._turns.pop(turn.id, None)
        self._waiting.clear()
        return failed

    def _fail_all(self, code: str, message: str) -> list[tuple[str, list[Event]]]:
        self.is_spent = True
        failures: list[tuple[str, list[Event]]] = [
            (turn_id, [Failure(code=code, message=message)]) for turn_id in self._turns
        ]
        self._turns.clear()
        self._by_session.clear()
        self._waiting.clear()
        return failures

    def _line(self, line: Line) -> tuple[_OpenTurn | None, list[Event]]:
        if line.method is None:
            method, turn = self._requests.pop(line.id, ("", None)) if isinstance(line.id, int) else ("", None)
            return turn, self._response(method, turn, line)
        params = line.params or SessionParams()
        turn = self._by_session.get(params.session_id)
        if line.id is not None:
            return turn, self._refuse(line)
        if turn is None or line.method != "session/update":
            return None, []
        return turn, self._update(params.update)

    def _response(self, method: str, turn: _OpenTurn | None, line: Line) -> list[Event]:
        if method == "initialize" and line.error is None:
            self._is_ready = True
            self._ask_for_session()
        elif method == "session/new" and line.result is not None and line.result.session_id:
            self._is_session_asked = False
            self._sessions.append(line.result.session_id)
            self._serve_waiting()
        elif method == "session/prompt" and turn is not None:
            self._turns.pop(turn.id, None)
            self._by_session.pop(turn.session_id or "", None)
            started = RunStarted(provider_session_id=turn.session_id)
            if line.error is not None:
                return [started, _failure(line.error)]
            return [started, self._outcome(line.result or RpcResult())]
        elif method in ("initialize", "session/new"):
            self.is_spent = True
            self._cannot_start = _failure(line.error or RpcError())
        return []

    def _refuse(self, line: Line) -> list[Event]:
        """gemini asks us for a permission, a file or a terminal: only tools do."""
        error = {"code": METHOD_NOT_FOUND, "message": "not supported on a completion endpoint"}
        self._send({"id": line.id, "error": error})
        self.is_spent = True
        return [ToolUse(tool_name=line.method or "unknown")]

    def _update(self, raw: msgspec.Raw) -> list[Event]:
        try:
            update = _decode_update(raw)
        except msgspec.MsgspecError:
            return []  # an update that has nothing we read
        text = update.content.text if update.content is not msgspec.UNSET else ""
        match update.session_update:
            case "agent_message_chunk":
                return [AssistantDelta(text)] if text else []
            case "agent_thought_chunk":
                return [Thinking(text)] if text else []
            case "tool_call":
                self.is_spent = True
                return [ToolUse(tool_name=update.title or "unknown")]
        return []

    def _outcome(self, result: RpcResult) -> Event:
        counts = result.meta.quota.token_count
        match result.stop_reason:
            case "end_turn" if result.meta.quota.model_usage:
                usage = Usage(prompt_tokens=counts.input_tokens, completion_tokens=counts.output_tokens)
                return Result(stop_reason="end_turn", usage=usage)
            case "end_turn":
                text = "the answer was cut off, or the model did not answer"
                return Failure(code="provider_connection_failed", message=text)
            case "max_turn_requests":
                self.is_spent = True
                return ToolUse(tool_name="unknown")
            case "max_tokens" | "refusal":
                return Result(stop_reason=result.stop_reason)
            case "cancelled":
                return Failure(code="turn_cancelled", message="the turn was cancelled")
        text = f"the turn ended for an unknown reason: {result.stop_reason!r}"
        return Failure(code="provider_protocol_error", message=text)


def _parts(prompt: Prompt) -> list[dict[str, str]]:
    """The turn's own system prompt, if any, and the user's input, whose text must not look like a command."""
    parts = [_part(part) for part in prompt.parts()]
    if prompt.system:
        system = f"<system_instructions>\n{prompt.system}\n</system_instructions>\n"
        return [{"type": "text", "text": system}, *parts]
    first = next((part for part in parts if part["type"] == "text"), None)
    if first is not None and COMMAND_START.match(first["text"]):
        first["text"] = ZERO_WIDTH_SPACE + first["text"]
    return parts


def _part(part: str | Image) -> dict[str, str]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "image", "mimeType": part.media_type, "data": part.base64}


def _odd_line(raw: bytes) -> tuple[str, str]:
    """What a line that is no JSON means: without a login that works, gemini prints where to get one, and waits."""
    if LOGIN_DIALOGUE in raw:
        return "not_logged_in", "the command line asks for a login, which a completion endpoint cannot give"
    return "provider_protocol_error", f"the command line printed {len(raw)} bytes that are not its protocol"


def _failure(error: RpcError) -> Failure:
    message = error.message.lower()
    code = STATUS_CODES.get(error.code) if error.code not in (400, 429, 500) else None
    if code is None:
        phrase_code = next((code for phrase, code in TEXT_CODES if phrase in message), None)
        code = phrase_code or STATUS_CODES.get(error.code, "provider_error")
    wait = RETRY_AFTER.search(message)
    return Failure(code=code, message=error.message, retry_after_s=float(wait[1]) if wait else None)
