"""The projection: one text from deltas and messages, nothing twice, and one outcome."""

from __future__ import annotations

import pytest

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
    Usage,
)
from shared.result import Projection

DONE = Result(stop_reason="end_turn")


def shown_of(*events: Event) -> tuple[str, Projection]:
    """The text that a caller saw, and the projection."""
    projection = Projection()
    pieces = projection.show(events)
    return "".join(piece.content for piece in pieces if isinstance(piece, AssistantDelta)), projection


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ([AssistantDelta("Hel"), AssistantDelta("lo"), DONE], "Hello"),
        ([AssistantMessage("Hello"), DONE], "Hello"),
        ([AssistantDelta("Hel"), AssistantDelta("lo"), AssistantMessage("Hello"), DONE], "Hello"),
        ([AssistantDelta("Hel"), AssistantMessage("Hello"), DONE], "Hello"),
        ([AssistantMessage("a"), AssistantDelta("b"), AssistantMessage("b"), DONE], "ab"),
        ([AssistantMessage("a"), AssistantMessage("a"), DONE], "aa"),
        ([Result(text="Hello")], "Hello"),
        ([AssistantDelta("Hello"), Result(text="Hello")], "Hello"),
        ([RunStarted(), Notice("x"), AssistantMessage(""), DONE], ""),
    ],
)
def test_text_is_shown_once(events: list[Event], text: str):
    """Deltas, whole messages and the final copy, in every mixture."""
    shown, projection = shown_of(*events)
    assert shown == text
    assert projection.completion.text == text
    assert projection.is_over
    assert projection.error is None


def test_a_message_that_contradicts_its_deltas_is_an_error():
    """What was shown cannot be taken back, so the turn fails."""
    shown, projection = shown_of(AssistantDelta("abc"), AssistantMessage("xyz"), DONE)
    assert shown == "abc"
    assert projection.error is not None
    assert projection.error.code == "provider_protocol_error"


def test_pieces_before_a_failure_are_shown():
    """Also when they come in the same batch; pieces after it are not."""
    failure = Failure(code="rate_limit_exceeded", message="slow down", retry_after_s=7)
    shown, projection = shown_of(AssistantDelta("a"), failure, AssistantDelta("b"))
    assert shown == "a"
    assert projection.error is not None
    assert projection.error.status == 429
    assert projection.error.headers() == {
        "retry-after": "7",
        "retry-after-ms": "7000",
        "x-should-retry": "false",
    }


def test_a_request_for_a_tool_ends_the_turn():
    """Nothing after it counts."""
    _, projection = shown_of(ToolUse(tool_name="Bash"), AssistantDelta("done"), DONE)
    assert projection.error is not None
    assert projection.error.code == "tool_use_refused"
    assert "Bash" in projection.error.message


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        (None, "stop"),
        ("anything new", "stop"),
        ("max_tokens", "length"),
        ("MAX_TOKENS", "length"),
        ("refusal", "content_filter"),
        ("safety", "content_filter"),
    ],
)
def test_finish_reasons_are_openais(stop_reason: str | None, finish_reason: str):
    """No provider's own word leaks out."""
    _, projection = shown_of(Result(stop_reason=stop_reason))
    assert projection.completion.finish_reason == finish_reason


def test_the_last_usage_counts():
    """The result's own, or the last update before it."""
    early, late = Usage(prompt_tokens=1), Usage(prompt_tokens=5, completion_tokens=6)
    assert shown_of(CostUpdate(early), Result(usage=late))[1].completion.usage == late
    assert shown_of(CostUpdate(early), DONE)[1].completion.usage == early
    assert late.total_tokens == 11


def test_reasoning_is_kept_apart():
    """It is shown in order, and is not part of the text."""
    projection = Projection()
    pieces = projection.show([Thinking("hm "), AssistantDelta("yes"), DONE])
    assert [type(piece) for piece in pieces] == [Thinking, AssistantDelta]
    assert (projection.completion.reasoning, projection.completion.text) == ("hm ", "yes")


def test_what_nobody_has_counted_is_measured():
    """Characters of text and reasoning since the last count, however they came."""
    projection = Projection()
    projection.show([AssistantDelta("four"), Thinking("123456")])
    assert (projection.usage, projection.uncounted_chars) == (None, 10)
    counted = Usage(prompt_tokens=1)
    projection.show(
        [AssistantDelta("more"), CostUpdate(counted), AssistantDelta("ab"), AssistantMessage("fourmoreabc")]
    )
    assert (projection.usage, projection.uncounted_chars) == (counted, 3)
    projection.show([CostUpdate(None, 0.5)])
    assert (projection.usage, projection.uncounted_chars, projection.cost_usd) == (counted, 3, 0.5)
    projection.show([AssistantDelta("z"), Result(usage=counted, cost_usd=0.75)])
    assert (projection.uncounted_chars, projection.completion.cost_usd) == (0, 0.75)


@pytest.mark.parametrize(
    "event", [AssistantDelta("a"), Thinking("a"), AssistantMessage("a"), Result(text="a")]
)
def test_it_knows_when_a_caller_has_seen_something(event: Event):
    """Which is when the time to the first piece ends."""
    projection = Projection()
    projection.show([RunStarted(), Notice("x"), CostUpdate(Usage())])
    assert not projection.has_shown
    projection.show([event])
    assert projection.has_shown
