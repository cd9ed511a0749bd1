"""LiteLLM as a library, with the endpoint as an OpenAI-compatible provider."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import litellm
import pytest
from lane import Lane

TEXT = "one two three"
ADA = '{"name": "Ada", "age": 36}'
SHORT_S = 0.5


def arguments(lane: Lane, text: str = TEXT, **more: Any) -> dict[str, Any]:
    """Of a completion whose answer is that text."""
    return {
        "model": f"openai/{lane.model}",
        "api_base": lane.base_url,
        "api_key": lane.api_key,
        "messages": [{"role": "user", "content": lane.saying(text)}],
        "num_retries": 0,
        **more,
    }


def text_of(chunks: Any) -> str:
    """The text of a stream."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_completion(lane: Lane) -> None:
    answer: Any = litellm.completion(**arguments(lane))
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0


def test_async_completion(lane: Lane) -> None:
    answer: Any = asyncio.run(litellm.acompletion(**arguments(lane)))
    assert answer.choices[0].message.content == TEXT


def test_stream(lane: Lane) -> None:
    chunks = list(litellm.completion(**arguments(lane), stream=True))
    assert text_of(chunks) == TEXT
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_async_stream(lane: Lane) -> None:
    async def streamed() -> str:
        stream: Any = await litellm.acompletion(**arguments(lane), stream=True)
        return text_of([chunk async for chunk in stream])

    assert asyncio.run(streamed()) == TEXT


def test_stream_with_usage(lane: Lane) -> None:
    chunks = list(litellm.completion(**arguments(lane), stream=True, stream_options={"include_usage": True}))
    usages = [usage for chunk in chunks if (usage := getattr(chunk, "usage", None))]
    assert len(usages) == 1
    assert usages[0].total_tokens == usages[0].prompt_tokens + usages[0].completion_tokens > 0


def test_a_stream_is_built_again_from_its_chunks(lane: Lane) -> None:
    chunks = list(litellm.completion(**arguments(lane), stream=True))
    rebuilt: Any = litellm.stream_chunk_builder(chunks)
    assert rebuilt.choices[0].message.content == TEXT


def test_a_conversation(lane: Lane) -> None:
    messages = [
        {"role": "system", "content": "You are brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello, what is it?"},
        {"role": "user", "content": lane.saying("nothing")},
    ]
    answer: Any = litellm.completion(**arguments(lane, messages=messages))
    assert "nothing" in answer.choices[0].message.content


def test_sampling_parameters_do_no_harm(lane: Lane) -> None:
    sampling = {"temperature": 0.2, "top_p": 0.9, "seed": 1, "max_tokens": 100}
    answer: Any = litellm.completion(
        **arguments(lane), **sampling, drop_params=True
    )  # it knows some models' names
    assert answer.choices[0].message.content == TEXT


def test_structured_output(lane: Lane) -> None:
    messages = [{"role": "user", "content": lane.saying_json(ADA)}]
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    person = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}}
    answer: Any = litellm.completion(**arguments(lane, messages=messages), response_format=person)
    assert json.loads(answer.choices[0].message.content) == json.loads(ADA)


def test_batch(lane: Lane) -> None:
    prompts = [[{"role": "user", "content": lane.saying(f"number {each}")}] for each in range(4)]
    answers: Any = litellm.batch_completion(**arguments(lane, messages=prompts))
    assert [answer.choices[0].message.content for answer in answers] == [
        f"number {each}" for each in range(4)
    ]


def test_a_wrong_key(lane: Lane) -> None:
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(**arguments(lane, api_key="wrong"))


def test_another_model(lane: Lane) -> None:
    with pytest.raises((litellm.BadRequestError, litellm.NotFoundError)):
        litellm.completion(**arguments(lane, model="openai/another"))


def test_tools_are_refused(lane: Lane) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(**arguments(lane), tools=[tool])


def test_a_refusal_of_the_service(lane: Lane) -> None:
    with pytest.raises(litellm.RateLimitError):
        litellm.completion(**arguments(lane, messages=[{"role": "user", "content": lane.fails}]))


def test_a_timeout(lane: Lane) -> None:
    messages = [{"role": "user", "content": lane.endless}]
    with pytest.raises(litellm.Timeout):
        litellm.completion(**arguments(lane, messages=messages), timeout=SHORT_S)
