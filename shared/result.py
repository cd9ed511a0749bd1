"""The projection of a turn's events to what callers see: visible text, reasoning, usage, one outcome.

``query`` folds a whole turn with it and ``stream`` shows each step of it, so the two can never disagree. Text is
the deltas, plus the part of a complete message that has not come as deltas yet, and never anything twice.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from shared.errors import EndpointError, typed
from shared.events import (
    AssistantDelta,
    AssistantMessage,
    CostUpdate,
    Event,
    Failure,
    Result,
    Thinking,
    ToolUse,
    Usage,
)

Shown = AssistantDelta | Thinking
"""What callers of ``stream`` get, one by one."""

FINISH_REASONS = {
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_context_window_exceeded": "length",
    "max_turns": "length",
    "error_max_turns": "length",
    "refusal": "content_filter",
    "content_filter": "content_filter",
    "safety": "content_filter",
}
"""Providers' stop reasons that do not mean "stop" in OpenAI's vocabulary. All others do."""


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one successful turn. ``finish_reason`` is OpenAI's: stop, length or content_filter.

    ``usage`` and ``cost_usd`` are the provider's own words; None where it said none.
    """

    text: str
    reasoning: str = ""
    finish_reason: str = "stop"
    usage: Usage | None = None
    cost_usd: float | None = None


class Projection:
    """Folds batches of events. Afterwards either :attr:`error` is set, or :attr:`completion` once finished."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._block_start = 0
        self._reasoning: list[str] = []
        self._result: Result | None = None
        self.usage: Usage | None = None
        """The last count."""
        self.uncounted_chars = 0
        """Characters of text and reasoning that came after it."""
        self.cost_usd: float | None = None
        self.error: EndpointError | None = None
        """Why the turn failed; set once, and nothing is shown after it."""

    @property
    def is_over(self) -> bool:
        """Whether the turn has ended, well or badly."""
        return self._result is not None or self.error is not None

    @property
    def has_shown(self) -> bool:
        """Whether a caller has seen anything of the answer."""
        return bool(self._text or self._reasoning)

    @property
    def completion(self) -> Completion:
        """The outcome so far; final once :attr:`is_over` without an error."""
        stop_reason = self._result.stop_reason if self._result else None
        return Completion(
            text="".join(self._text),
            reasoning="".join(self._reasoning),
            finish_reason=FINISH_REASONS.get((stop_reason or "").lower(), "stop"),
            usage=self.usage,
            cost_usd=self.cost_usd,
        )

    def show(self, events: Iterable[Event]) -> list[Shown]:
        """What a caller should see of these events: text and reasoning, in order.

        Stops at the turn's end: at a Result, or with :attr:`error` set at a failure, a request for a tool, or a
        message that contradicts its own deltas.
        """
        shown: list[Shown] = []
        add, add_text = shown.append, self._text.append
        chars = 0
        for event in () if self.is_over else events:
            if type(event) is AssistantDelta:
                add_text(event.content)
                add(event)
                chars += len(event.content)
            else:
                self.uncounted_chars += chars
                chars = 0
                self._fold(event, shown)
                if self.is_over:
                    break
        self.uncounted_chars += chars
        return shown

    def _fold(self, event: Event, shown: list[Shown]) -> None:
        match event:
            case Thinking(content):
                self._reasoning.append(content)
                self.uncounted_chars += len(content)
                shown.append(event)
            case AssistantMessage(content):
                self._fold_message(content, shown)
            case CostUpdate(usage, cost_usd):
                self._count(usage, cost_usd)
            case Result():
                self._result = event
                if not self._text:
                    self._show_text(event.text or "", shown)
                self._count(event.usage, event.cost_usd)
            case ToolUse(tool_name=name):
                self._fail(
                    "tool_use_refused",
                    f"the model asked for the tool {name!r}, and a completion endpoint runs none",
                )
            case Failure(code=code, message=message, retry_after_s=retry_after_s):
                self._fail(code, message, retry_after_s)

    def _count(self, usage: Usage | None, cost_usd: float | None) -> None:
        if usage is not None:
            self.usage, self.uncounted_chars = usage, 0
        if cost_usd is not None:
            self.cost_usd = cost_usd

    def _fold_message(self, message: str, shown: list[Shown]) -> None:
        seen = "".join(self._text[self._block_start :])
        if message.startswith(seen):
            self._show_text(message[len(seen) :], shown)
        else:
            self._fail("provider_protocol_error", "the final message contradicts the deltas before it")
        self._block_start = len(self._text)

    def _show_text(self, text: str, shown: list[Shown]) -> None:
        if text:
            self._text.append(text)
            self.uncounted_chars += len(text)
            shown.append(AssistantDelta(text))

    def _fail(self, code: str, cause: str, retry_after_s: float | None = None) -> None:
        self.error = typed(code, f"cannot complete: {cause}", retry_after_s=retry_after_s, should_retry=False)
