"""What ``codex app-server`` prints: JSON-RPC lines without a version field. Recorded with 0.169.0."""

from __future__ import annotations

from typing import Any

import msgspec

from shared.errors import STATUS_CODES
from shared.events import Usage


class RpcError(msgspec.Struct):
    """Why a request of ours failed."""

    message: str = "no message"
    code: int | None = None


class Line(msgspec.Struct):
    """A response (``id``), a notification (``method``), or a request to us (both)."""

    id: int | str | None = None
    method: str | None = None
    params: msgspec.Raw = msgspec.Raw(b"{}")
    result: msgspec.Raw = msgspec.Raw(b"{}")
    error: RpcError | None = None


class Named(msgspec.Struct):
    """Anything with an id."""

    id: str


class ThreadStarted(msgspec.Struct):
    """The result of ``thread/start``."""

    thread: Named


class TurnStarted(msgspec.Struct):
    """The result of ``turn/start``, and ``turn/started``."""

    turn: Named


class HttpStatus(msgspec.Struct):
    """The detail of a failed connection."""

    http_status_code: int | None = msgspec.field(default=None, name="httpStatusCode")


class TurnError(msgspec.Struct):
    """Why a turn failed; ``info`` is a word, or a word with a detail."""

    message: str = "no message"
    info: str | dict[str, HttpStatus | None] | None = msgspec.field(default=None, name="codexErrorInfo")


class Turn(msgspec.Struct):
    """The end of a turn."""

    id: str
    status: str
    error: TurnError | None = None


class Item(msgspec.Struct):
    """One item of a turn; only messages have a text that is read."""

    type: str
    text: str = ""


class TokenCounts(msgspec.Struct, rename="camel"):
    """Tokens of one model request."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_output_tokens: int = 0

    def counted(self) -> Usage:
        """As usage of a turn; cached and reasoning tokens are parts of the other two."""
        return Usage(
            prompt_tokens=self.input_tokens,
            completion_tokens=self.output_tokens,
            cached_tokens=self.cached_input_tokens,
            reasoning_tokens=self.reasoning_output_tokens,
        )


class TokenUsage(msgspec.Struct):
    """The counts that matter: those of the last model request."""

    last: TokenCounts


class Params(msgspec.Struct, rename="camel"):
    """What the notifications that we read carry, each only some of it."""

    thread_id: str | None = None
    delta: str = ""
    message: str = ""
    will_retry: bool = False
    item: Item | None = None
    turn: Turn | None = None
    token_usage: TokenUsage | None = None
    error: TurnError | None = None


decode_line = msgspec.json.Decoder(Line).decode
decode_params = msgspec.json.Decoder(Params).decode
decode_thread_started = msgspec.json.Decoder(ThreadStarted).decode
decode_turn_started = msgspec.json.Decoder(TurnStarted).decode
_encode = msgspec.json.Encoder().encode


def encode(message: dict[str, Any]) -> bytes:
    """One line."""
    return _encode(message) + b"\n"


INFO_CODES = {
    "badRequest": "provider_rejected_request",
    "contextWindowExceeded": "context_length_exceeded",
    "cyberPolicy": "provider_rejected_request",
    "internalServerError": "provider_error",
    "modelNotFound": "model_not_found",
    "serverOverloaded": "provider_overloaded",
    "sessionBudgetExceeded": "quota_exhausted",
    "unauthorized": "provider_auth_failed",
    "usageLimitExceeded": "quota_exhausted",
}
"""codex's own word for a cause to our error code."""
TEXT_CODES = (
    ("stream disconnected", "provider_connection_failed"),
    ("missing environment variable", "not_logged_in"),
    ("context window", "context_length_exceeded"),
    ("timed out", "provider_timeout"),
    ('{"error"', "provider_rejected_request"),
    ('{"detail"', "provider_rejected_request"),
)
"""Where the word is ``other``, the beginning of what is known of the message. A 400 is the service's own body."""


def failure_code(error: TurnError) -> str:
    """Our code for a failed turn."""
    if isinstance(error.info, dict):
        status = next((detail.http_status_code for detail in error.info.values() if detail), None)
        return STATUS_CODES.get(status, "provider_error") if status else "provider_connection_failed"
    if error.info in INFO_CODES:
        return INFO_CODES[error.info]
    text = error.message.lower()
    return next((code for phrase, code in TEXT_CODES if phrase in text), "provider_error")
