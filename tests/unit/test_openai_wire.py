"""The bytes that clients read: chunks, usage, errors, ids."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared import openai
from shared.errors import ProviderError
from shared.events import AssistantDelta, Thinking, Usage
from shared.openai import ChunkEncoder
from shared.result import Completion

USAGE = Usage(prompt_tokens=5, completion_tokens=7, cached_tokens=2, reasoning_tokens=3)
HARD_TEXT = 'quote " backslash \\ newline \n emoji \U0001f600 nul \x00 data: [DONE]\n\n'


def encoder(include_usage: bool = False) -> ChunkEncoder:
    """An encoder of one answer."""
    return ChunkEncoder(completion_id="chatcmpl-1", model='m"odel', include_usage=include_usage)


def events(data: bytes) -> list[Any]:
    """The decoded events; the end mark as it is."""
    texts = [part.removeprefix(b"data: ") for part in data.split(b"\n\n") if part]
    return [text if text == b"[DONE]" else json.loads(text) for text in texts]


@pytest.mark.parametrize("include_usage", [False, True])
def test_every_chunk_has_the_same_frame(include_usage: bool):
    """id, object, created and model; usage is null in all but the last when it was asked for."""
    made = encoder(include_usage)
    data = (
        made.role()
        + made.pieces([AssistantDelta("a"), Thinking("b")])
        + made.end(Completion(text="a", usage=USAGE))
    )
    *chunks, done = events(data)
    assert done == b"[DONE]"
    assert {(chunk["id"], chunk["object"], chunk["model"]) for chunk in chunks} == {
        ("chatcmpl-1", "chat.completion.chunk", 'm"odel')
    }
    assert len({chunk["created"] for chunk in chunks}) == 1
    with_choices = [chunk for chunk in chunks if chunk["choices"]]
    assert all(("usage" in chunk) is include_usage for chunk in with_choices)
    assert all(chunk.get("usage") is None for chunk in with_choices)
    assert (len(chunks) - len(with_choices)) == (1 if include_usage else 0)


def test_deltas_are_spec_shaped():
    """Role first, then content or reasoning, then an empty delta with the finish reason."""
    made = encoder()
    data = (
        made.role() + made.pieces([Thinking("hm"), AssistantDelta(HARD_TEXT)]) + made.end(Completion(text=""))
    )
    choices = [chunk["choices"][0] for chunk in events(data)[:-1]]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "hm"},
        {"content": HARD_TEXT},
        {},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "stop"]
    assert all(choice["index"] == 0 and choice["logprobs"] is None for choice in choices)


def test_a_batch_is_its_pieces_one_by_one():
    """Batching changes the sends, not the bytes."""
    made = encoder()
    pieces: list[AssistantDelta | Thinking] = [AssistantDelta("a"), Thinking("b"), AssistantDelta("c")]
    assert made.pieces(pieces) == b"".join(made.pieces([piece]) for piece in pieces)


def test_usage_has_its_details():
    """Cached and reasoning tokens are part of the counts."""
    *_, last, _ = events(encoder(include_usage=True).end(Completion(text="", usage=USAGE)))
    assert last["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }


def test_usage_that_nobody_counted_is_not_told():
    """The chunk for it is left out, as a whole answer's field is: zeros would be a count, and a null no news."""
    *chunks, done = events(encoder(include_usage=True).end(Completion(text="t")))
    assert [(chunk["choices"][0]["finish_reason"], chunk["usage"]) for chunk in chunks] == [("stop", None)]
    assert done == b"[DONE]"


def test_an_error_in_the_stream_is_the_envelope_and_the_end():
    """No end mark follows it."""
    assert events(encoder().error(ProviderError("provider_overloaded", "too much"))) == [
        {
            "error": {
                "message": "too much",
                "type": "server_error",
                "param": None,
                "code": "provider_overloaded",
            }
        }
    ]


def test_a_whole_completion():
    """Text, reasoning, finish reason, usage; and no usage when the provider told none."""
    completion = Completion(text="t", reasoning="r", finish_reason="length", usage=USAGE)
    answer = openai.completion_object(completion, completion_id="chatcmpl-1", model="m")
    assert answer["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": "t", "refusal": None, "reasoning_content": "r"},
        "logprobs": None,
        "finish_reason": "length",
    }
    assert answer["usage"]["total_tokens"] == 12
    bare = openai.completion_object(Completion(text="t"), completion_id="x", model="m")
    assert "usage" not in bare
    assert "reasoning_content" not in bare["choices"][0]["message"]


def test_ids_are_never_used_twice():
    """Each completion has its own."""
    ids = {openai.new_completion_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(each.startswith("chatcmpl-") for each in ids)
