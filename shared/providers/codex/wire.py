"""What ``codex app-server`` prints: JSON-RPC lines without a version field. Recorded with 0.169.0."""

from __future__ import annotations

from typing import Any

import msgspec

from shared.events import Usage

ALL_PERCENT = 100


class RpcError(msgspec.Struct):
    """Why a request of ours failed."""

    message: str = "no message"
    code: int | None = None


class Line(msgspec.Struct):
    """A response (``id``), a notification (``method``), or a request to us (both).

    ``emitted_at_ms`` is the time of a notification by codex's own clock.
    """

    id: int | str | None = None
    method: str | None = None
    params: msgspec.Raw = msgspec.Raw(b"{}")
    result: msgspec.Raw = msgspec.Raw(b"{}")
    error: RpcError | None = None
    emitted_at_ms: float | None = msgspec.field(default=None, name="emittedAtMs")


class Named(msgspec.Struct):
    """Anything with an id."""

    id: str


class ThreadStarted(msgspec.Struct):
    """The result of ``thread/start``."""

    thread: Named


class TurnStarted(msgspec.Struct):
    """The result of ``turn/start``, and ``turn/started``."""

    turn: Named


class TurnError(msgspec.Struct):
    """Why a turn failed; ``info`` is a word, or a word with a detail."""

    message: str = "no message"
    info: Any = msgspec.field(default=None, name="codexErrorInfo")


class Turn(msgspec.Struct):
    """The end of a turn."""

    id: str
    status: str
    error: TurnError | None = None


class Item(msgspec.Struct):
    """One item of a turn, or of the model's own answer; only messages have a text that is read, only calls a name."""

    type: str
    text: str = ""
    name: str | None = None


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


class LimitWindow(msgspec.Struct, rename="camel"):
    """How much of a plan's limit is used, and until when the count goes on."""

    used_percent: float = 0
    resets_at: float | None = None


class RateLimits(msgspec.Struct):
    """The windows of a ChatGPT plan."""

    primary: LimitWindow | None = None
    secondary: LimitWindow | None = None

    @property
    def ends_at_s(self) -> float | None:
        """When the last of the limits that are reached ends; None where none is."""
        windows = (self.primary, self.secondary)
        ends = [window.resets_at for window in windows if window and window.used_percent >= ALL_PERCENT]
        return max((end for end in ends if end is not None), default=None)


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
    rate_limits: RateLimits | None = None


decode_line = msgspec.json.Decoder(Line).decode
decode_params = msgspec.json.Decoder(Params).decode
decode_thread_started = msgspec.json.Decoder(ThreadStarted).decode
decode_turn_started = msgspec.json.Decoder(TurnStarted).decode
_encode = msgspec.json.Encoder().encode


def encode(message: dict[str, Any]) -> bytes:
    """One line."""
    return _encode(message) + b"\n"
