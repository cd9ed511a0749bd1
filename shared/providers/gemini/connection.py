"""``gemini --acp`` as a sans-IO connection: JSON-RPC 2.0 lines, one session for each turn, many at once.

Measured with 0.61.0, recorded in ``tests/transcripts/gemini-acp``:

* A session is made in advance, because making one takes longer than all the rest of a warm turn, and one at a time,
  because several at once wait for one another's lock files: for seconds, and at 16 for ever.
* Success is ``end_turn`` with a ``model_usage``; without one the answer was cut off, or gemini answered by itself.
* With one model request allowed for each session, a tool attempt ends the turn as ``max_turn_requests``.
* The system prompt file is one for the process, and changes of it reach running sessions: a turn's own system prompt
  therefore goes before the user's text, in a part of its own.
* A prompt that begins with ``/`` or ``$`` would be a command, whatever JavaScript's ``trim()`` takes away before it;
  a character that it does not take away, and that nobody sees, keeps it text.
* A login that is not accepted begins a dialogue on stdout, and the next protocol line would be taken for its answer.
* gemini's own estimate that a prompt does not fit ends the turn as ``max_tokens``, without any request.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

from shared.events import AssistantDelta, Event, Failure, RunStarted, Thinking, ToolUse
from shared.providers.gemini.failures import failure, outcome
from shared.providers.gemini.wire import (
    Line,
    RpcError,
    RpcResult,
    SessionParams,
    decode_line,
    decode_update,
    encode,
)
from shared.sansio import Image, Prompt

COMMAND_STARTS = ("/", "$")
INVISIBLE = frozenset({"C", "Z"})
"""Unicode's general categories of controls, format characters and separators: all that ``trim()`` knows, and more."""
ZERO_WIDTH_SPACE = "\u200b"
SESSIONS_READY = 2
"""Sessions made in advance; each keeps about 0.35 MB."""
METHOD_NOT_FOUND = -32601
STDERR_TAIL_CHARS = 400
LOGIN_DIALOGUE = re.compile(rb"authoriz|\x1b\[")
"""A URL to visit, a code to enter, or the terminal sequences around them."""


class _OpenTurn:
    """One turn's way through the protocol."""

    def __init__(self, turn_id: str, prompt: Prompt) -> None:
        self.id = turn_id
        self.prompt = prompt
        self.session_id: str | None = None
        self.is_unwanted = False
        self.has_text = False


class GeminiConnection:
    """One process, many turns. See :class:`shared.sansio.Connection`."""

    concurrent_turns = 32
    turns_before_recycle = 50

    def __init__(self, workspace: str) -> None:
        self.would_go_on = False
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
        self._is_connected = False
        self._cannot_start: Failure | None = None

    @property
    def is_ready(self) -> bool:
        """Whether there is a session for the next turn."""
        return bool(self._sessions)

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
                line = decode_line(raw)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                return batches + self._odd_line(raw)
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
        text = f"the command line ended with exit code {exit_code} before the turn did: {cause}"
        return self._fail_all(Failure(code="provider_crashed", message=text))

    def data_to_send(self) -> bytes:
        """What was not yet given out."""
        data, self._out = self._out, b""
        return data

    def _odd_line(self, raw: bytes) -> list[tuple[str, list[Event]]]:
        if not self._is_connected and LOGIN_DIALOGUE.search(raw):
            self.would_go_on = True
            self._cannot_start = Failure(
                code="not_logged_in",
                message="the login was not accepted, and gemini asks for a new one: run `gemini` once and sign in",
            )
            return self._fail_all(self._cannot_start)
        text = f"the command line printed {len(raw)} bytes that are not its protocol"
        return self._fail_all(Failure(code="provider_protocol_error", message=text))

    def _send(self, message: dict[str, Any]) -> None:
        self._out += encode({"jsonrpc": "2.0", **message}) + b"\n"

    def _request(self, method: str, turn: _OpenTurn | None, **params: Any) -> None:
        self._last_id += 1
        self._requests[self._last_id] = (method, turn)
        self._send({"id": self._last_id, "method": method, "params": params})

    def _ask_for_session(self) -> None:
        """One at a time, until there is one for each turn that waits and SESSIONS_READY more."""
        wanted = len(self._waiting) + SESSIONS_READY - len(self._sessions)
        if self._is_connected and wanted > 0 and not self._is_session_asked and not self._cannot_start:
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

    def _fail_all(self, failure: Failure) -> list[tuple[str, list[Event]]]:
        self.is_spent = True
        failures: list[tuple[str, list[Event]]] = [(turn_id, [failure]) for turn_id in self._turns]
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
        events = self._update(params.update)
        turn.has_text = turn.has_text or any(isinstance(event, AssistantDelta) for event in events)
        return turn, events

    def _response(self, method: str, turn: _OpenTurn | None, line: Line) -> list[Event]:
        if method == "initialize" and line.error is None:
            self._is_connected = True
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
                return [started, failure(line.error)]
            end = outcome(line.result or RpcResult(), has_text=turn.has_text)
            self.is_spent = self.is_spent or isinstance(end, ToolUse)
            return [started, end]
        elif method in ("initialize", "session/new"):
            self.is_spent = True
            self._cannot_start = failure(line.error or RpcError())
        return []

    def _refuse(self, line: Line) -> list[Event]:
        """gemini asks us for a permission, a file or a terminal: only tools do."""
        error = {"code": METHOD_NOT_FOUND, "message": "not supported on a completion endpoint"}
        self._send({"id": line.id, "error": error})
        self.is_spent = True
        return [ToolUse(tool_name=line.method or "unknown")]

    def _update(self, raw: msgspec.Raw) -> list[Event]:
        try:
            update = decode_update(raw)
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


def _parts(prompt: Prompt) -> list[dict[str, str]]:
    """The turn's own system prompt, if any, and the user's input, whose text must not look like a command."""
    parts = [_part(part) for part in prompt.parts()]
    if prompt.system:
        system = f"<system_instructions>\n{prompt.system}\n</system_instructions>\n"
        return [{"type": "text", "text": system}, *parts]
    texts = [part for part in parts if part["type"] == "text"]
    if _first_visible("".join(part["text"] for part in texts)) in COMMAND_STARTS:
        texts[0]["text"] = ZERO_WIDTH_SPACE + texts[0]["text"]
    return parts


def _part(part: str | Image) -> dict[str, str]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "image", "mimeType": part.media_type, "data": part.base64}


def _first_visible(text: str) -> str:
    visible = (character for character in text if unicodedata.category(character)[0] not in INVISIBLE)
    return next(visible, "")
