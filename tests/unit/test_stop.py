"""Stop strings: the same answer for every way of cutting it into pieces, and never more held back than needed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest

from shared.errors import RequestError
from shared.events import (
    AssistantDelta,
    AssistantMessage,
    CostUpdate,
    Event,
    Failure,
    Result,
    Thinking,
    Usage,
)
from shared.result import Projection
from worker.answer import Answer
from worker.stop import MAX_CHARS, StopMatcher, read_stop

ALPHABET = "ab"
STOPS = (
    ("a",), ("b", "a"), ("ab",), ("aa",), ("aab",), ("aba", "b"), ("abab", "ba"), ("bb", "abb"), ("aaa", "ab", "ba"),
    ("bba", "aabb"), ("abaab",),
)  # fmt: skip
TEXTS = ["".join(letters) for length in range(7) for letters in itertools.product(ALPHABET, repeat=length)]


def expected(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """By definition: the text before the stop string that is complete first, the longest of those."""
    for end in range(len(text) + 1):
        if ending := [stop for stop in stops if text[:end].endswith(stop)]:
            return text[: end - max(map(len, ending))], True
    return text, False


def splits(text: str) -> Iterator[list[str]]:
    """Every way to cut a text into pieces that are not empty."""
    for cuts in itertools.product((False, True), repeat=max(0, len(text) - 1)):
        pieces, start = [], 0
        for at, is_cut in enumerate(cuts, 1):
            if is_cut:
                pieces.append(text[start:at])
                start = at
        yield [*pieces, text[start:]]


@pytest.mark.parametrize("stops", STOPS, ids=" ".join)
def test_every_split_of_every_text_gives_the_same(stops: tuple[str, ...]):
    """All texts of up to six letters, each cut in every way; and what is held back may begin a stop string."""
    for text in TEXTS:
        shown, is_met = expected(text, stops)
        for pieces in splits(text):
            matcher = StopMatcher(stops)
            given = ""
            for number, piece in enumerate(pieces, 1):
                given += matcher.feed(piece)
                arrived = "".join(pieces[:number])
                held = arrived.removeprefix(given)
                assert matcher.is_met or not held or any(stop.startswith(held) for stop in stops)
            given += matcher.rest()
            assert (given, matcher.is_met, matcher.given_chars) == (shown, is_met, len(shown)), pieces


def test_random_texts_and_stops():
    """Longer ones, with a fixed seed."""
    chance = random.Random(7)
    for _ in range(3000):
        text = "".join(chance.choices("ab\n", k=chance.randrange(40)))
        stops = tuple(
            "".join(chance.choices("ab\n", k=chance.randint(1, 6))) for _ in range(chance.randint(1, 4))
        )
        matcher, rest, given = StopMatcher(stops), text, ""
        while rest:
            size = chance.randint(1, 9)
            given += matcher.feed(rest[:size])
            rest = rest[size:]
        given += matcher.rest()
        assert (given, matcher.is_met) == expected(text, stops)


def test_what_cannot_begin_a_stop_string_is_not_held_back():
    """A stream with a stop string that never comes is not delayed."""
    matcher = StopMatcher(("END",))
    assert matcher.feed("one ") == "one "
    assert matcher.feed("two E") == "two "
    assert matcher.feed("N ") == "EN "
    assert matcher.feed("EN") == ""
    assert matcher.rest() == "EN"


@pytest.mark.parametrize(
    ("value", "strings"),
    [
        (None, ()),
        ("x", ("x",)),
        ([], ()),
        (["a", "b"], ("a", "b")),
        (["a"] * 4, ("a",) * 4),
        ("x" * MAX_CHARS, ("x" * MAX_CHARS,)),
    ],
)
def test_stop_is_a_string_or_up_to_four(value: Any, strings: tuple[str, ...]):
    """As OpenAI takes it."""
    assert read_stop(value) == strings


@pytest.mark.parametrize(
    "value", ["", [""], ["a"] * 5, 5, {"a": 1}, [5], [None], "x" * (MAX_CHARS + 1), False]
)
def test_other_stops_are_refused(value: Any):
    """By name."""
    with pytest.raises(RequestError) as refused:
        read_stop(value)
    assert (refused.value.code, refused.value.param) == ("invalid_request", "stop")


def shown_of(answer: Answer, *batches: list[Event]) -> list[str]:
    """The text of what is shown of each batch."""
    return ["".join(piece.content for piece in answer.show(batch)) for batch in batches]


def answer_until(*stop: str) -> Answer:
    """An answer to eight characters of prompt."""
    return Answer(Projection(), stop, prompt_chars=8)


def test_a_cut_answer_ends_by_itself_and_estimates_what_was_not_counted():
    """Twelve more characters are three more tokens; what comes after the stop string does not count as answer."""
    answer = answer_until("END")
    counted = Usage(prompt_tokens=5, completion_tokens=1)
    shown = shown_of(
        answer,
        [CostUpdate(counted), AssistantDelta("one "), AssistantDelta("two E")],
        [AssistantDelta("NDx")],
    )
    assert shown == ["one two ", ""]
    assert (answer.is_cut, answer.is_over) == (True, True)
    completion = answer.completion
    assert (completion.text, completion.finish_reason) == ("one two ", "stop")
    assert completion.usage == Usage(prompt_tokens=5, completion_tokens=1 + 3)


def test_a_cut_answer_that_nobody_counted_is_estimated_whole():
    """From the lengths of prompt and answer."""
    answer = answer_until("END")
    shown_of(answer, [AssistantDelta("fourEND.")])
    assert answer.completion.usage == Usage(prompt_tokens=2, completion_tokens=2)


def test_what_was_held_back_comes_at_the_end_of_the_turn():
    """Also when the end says no more than that."""
    answer = answer_until("END")
    assert shown_of(answer, [AssistantDelta("one E")], [Result(usage=Usage(prompt_tokens=1))]) == [
        "one ",
        "E",
    ]
    assert (answer.is_cut, answer.completion.text, answer.completion.usage) == (
        False,
        "one E",
        Usage(prompt_tokens=1),
    )


def test_a_failed_turn_gives_nothing_that_was_held_back():
    """There is an error instead."""
    answer = answer_until("END")
    failure = Failure(code="provider_error", message="x")
    assert shown_of(answer, [AssistantDelta("one E")], [failure]) == ["one ", ""]


def test_reasoning_is_not_searched():
    """It is no part of the text, and nothing of it is shown after the end."""
    answer = answer_until("END")
    assert shown_of(answer, [Thinking("END "), AssistantDelta("xEND"), Thinking("more")]) == ["END x"]


def test_a_whole_message_is_cut_too():
    """Where no deltas come."""
    answer = answer_until("END", "stop")
    assert shown_of(answer, [AssistantMessage("one stop two END")]) == ["one "]
    assert answer.completion.text == "one "
