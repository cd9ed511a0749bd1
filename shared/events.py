"""The core event vocabulary: what every provider's output is turned into, and nothing provider-specific.

A turn is a sequence of these events that ends with exactly one :class:`Result` (the command line's own terminal
record said success) or one :class:`Failure`. The kinds follow the event envelope of the inference contract.
"""

from __future__ import annotations

import msgspec


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one turn. ``cached_tokens`` are part of ``prompt_tokens``, ``reasoning_tokens`` of the completion."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


class RunStarted(msgspec.Struct, frozen=True, kw_only=True, tag="run_started"):
    """The command line has taken the turn. ``provider_session_id`` is its own name for the conversation."""

    provider_session_id: str | None = None
    model: str | None = None


class AssistantDelta(msgspec.Struct, frozen=True, tag="assistant_delta", gc=False):
    """A piece of the answer's text, never trimmed."""

    content: str


class AssistantMessage(msgspec.Struct, frozen=True, tag="assistant_message"):
    """A complete text block of the answer; its beginning may have come as deltas already."""

    content: str


class Thinking(msgspec.Struct, frozen=True, tag="thinking", gc=False):
    """A piece of the model's reasoning text."""

    content: str


class ToolUse(msgspec.Struct, frozen=True, kw_only=True, tag="tool_use"):
    """The model asked for a tool. On a completion endpoint this ends the turn."""

    tool_name: str
    tool_call_id: str = ""


class CostUpdate(msgspec.Struct, frozen=True, tag="cost_update"):
    """What the turn has used so far, everything before this event counted; None is not known. The last one counts."""

    usage: Usage | None = None
    cost_usd: float | None = None


class Notice(msgspec.Struct, frozen=True, tag="notice"):
    """Something worth logging that changes nothing: warnings, retries, unknown lines."""

    content: str


class Result(msgspec.Struct, frozen=True, kw_only=True, tag="result"):
    """The turn succeeded. ``stop_reason`` is the provider's word; ``text`` its own copy of the whole answer."""

    stop_reason: str | None = None
    text: str | None = None
    usage: Usage | None = None
    cost_usd: float | None = None


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag="error"):
    """The turn failed. ``code`` is a row of ``shared.errors.PROVIDER_KINDS``."""

    code: str
    message: str
    retry_after_s: float | None = None


Event = (
    RunStarted
    | AssistantDelta
    | AssistantMessage
    | Thinking
    | ToolUse
    | CostUpdate
    | Notice
    | Result
    | Failure
)
TERMINAL = (Result, Failure)
PREAMBLE = (RunStarted, Notice, CostUpdate)
"""What comes before the model answers: words of the command line itself, and the count of the prompt."""
