"""The lines that ``claude -p`` prints: Anthropic's stream events, finished messages, and the result of the turn.

Only the fields that are read; what else a line has is passed over. What a line means is not known here.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.events import Usage


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
