"""The official client, at several major versions: sync, async, raw responses, streaming helpers, retries, timeouts."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from lane import Lane
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

TEXT = "one two three"
ADA = '{"name": "Ada", "age": 36}'
PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAAAElFTkSuQmCC"
)
SHORT_S = 0.5
WAIT_S = 30.0
POLL_S = 0.02


class Person(BaseModel):
    """What structured output is parsed into."""

    name: str
    age: int


@pytest.fixture
def client() -> Iterator[OpenAI]:
    """Configured as its users do it: from OPENAI_BASE_URL and OPENAI_API_KEY."""
    with OpenAI() as made:
        yield made


def user(text: str) -> list[Any]:
    """A conversation of one message."""
    return [{"role": "user", "content": text}]


def ask(client: OpenAI, lane: Lane, text: str = TEXT, **more: Any) -> Any:
    """A completion whose answer is that text."""
    return client.chat.completions.create(model=lane.model, messages=user(lane.saying(text)), **more)


def text_of(chunks: Any) -> str:
    """The text of a stream."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def run(action: Callable[[AsyncOpenAI], Any]) -> Any:
    """The result of an action with an asynchronous client."""

    async def inside() -> Any:
        async with AsyncOpenAI() as client:
            return await action(client)

    return asyncio.run(inside())


def counting(client: OpenAI) -> tuple[OpenAI, list[str]]:
    """The same client, and the paths of the requests that it sends from now on, retries included."""
    sent: list[str] = []
    plain = client._client.send  # the one place that all versions send through

    def send(request: Any, **more: Any) -> Any:
        sent.append(request.url.path)
        return plain(request, **more)

    client._client.send = send  # type: ignore[method-assign]
    return client, sent


def test_completion(client: OpenAI, lane: Lane) -> None:
    answer = ask(client, lane)
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == lane.model
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.completion_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer._request_id


def test_ids_are_of_one_answer_each(client: OpenAI, lane: Lane) -> None:
    assert ask(client, lane).id != ask(client, lane).id


def test_completion_fits_the_clients_own_types(client: OpenAI, lane: Lane) -> None:
    raw = client.chat.completions.with_raw_response.create(model=lane.model, messages=user(lane.saying(TEXT)))
    ChatCompletion.model_validate_json(raw.content, strict=True)


def test_chunks_fit_the_clients_own_types(client: OpenAI, lane: Lane) -> None:
    with client.chat.completions.with_streaming_response.create(
        model=lane.model,
        messages=user(lane.saying(TEXT)),
        stream=True,
        stream_options={"include_usage": True},
    ) as raw:
        events = [line.removeprefix("data: ") for line in raw.iter_lines() if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    for event in events:
        ChatCompletionChunk.model_validate_json(event, strict=True)


def test_async_completion(lane: Lane) -> None:
    answer = run(
        lambda client: client.chat.completions.create(model=lane.model, messages=user(lane.saying(TEXT)))
    )
    assert answer.choices[0].message.content == TEXT


def test_async_answers_are_not_mixed_up(lane: Lane) -> None:
    async def all_of_them(client: AsyncOpenAI) -> list[str]:
        answers = await asyncio.gather(
            *(
                client.chat.completions.create(model=lane.model, messages=user(lane.saying(f"number {each}")))
                for each in range(8)
            )
        )
        return [answer.choices[0].message.content or "" for answer in answers]

    assert run(all_of_them) == [f"number {each}" for each in range(8)]


def test_stream(client: OpenAI, lane: Lane) -> None:
    chunks = list(ask(client, lane, stream=True))
    assert text_of(chunks) == TEXT
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["stop"]
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert all(chunk.usage is None for chunk in chunks)


def test_stream_comes_in_pieces(client: OpenAI, lane: Lane) -> None:
    chunks = list(ask(client, lane, stream=True))
    assert len([chunk for chunk in chunks if chunk.choices[0].delta.content]) == 3


def test_stream_with_usage(client: OpenAI, lane: Lane) -> None:
    *chunks, last = ask(client, lane, stream=True, stream_options={"include_usage": True})
    assert all(chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens > 0


def test_async_stream(lane: Lane) -> None:
    async def streamed(client: AsyncOpenAI) -> str:
        stream = await client.chat.completions.create(
            model=lane.model, messages=user(lane.saying(TEXT)), stream=True
        )
        return text_of([chunk async for chunk in stream])

    assert run(streamed) == TEXT


def test_raw_response(client: OpenAI, lane: Lane) -> None:
    raw = client.chat.completions.with_raw_response.create(model=lane.model, messages=user(lane.saying(TEXT)))
    assert raw.status_code == 200
    assert raw.headers["content-type"].startswith("application/json")
    assert raw.headers["x-request-id"] == raw.request_id
    assert raw.parse().choices[0].message.content == TEXT


def test_raw_response_of_a_stream(client: OpenAI, lane: Lane) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=lane.model, messages=user(lane.saying(TEXT)), stream=True
    )
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert text_of(raw.parse()) == TEXT


def test_streaming_response(client: OpenAI, lane: Lane) -> None:
    with client.chat.completions.with_streaming_response.create(
        model=lane.model, messages=user(lane.saying(TEXT))
    ) as raw:
        assert raw.parse().choices[0].message.content == TEXT


def test_async_streaming_response(lane: Lane) -> None:
    async def lines(client: AsyncOpenAI) -> list[str]:
        async with client.chat.completions.with_streaming_response.create(
            model=lane.model, messages=user(lane.saying(TEXT)), stream=True
        ) as raw:
            return [line async for line in raw.iter_lines() if line]

    assert run(lines)[-1] == "data: [DONE]"


def test_stream_helper(client: OpenAI, lane: Lane) -> None:
    with client.chat.completions.stream(model=lane.model, messages=user(lane.saying(TEXT))) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(deltas) == TEXT
    assert final.choices[0].message.content == TEXT
    assert final.choices[0].finish_reason == "stop"


def test_async_stream_helper(lane: Lane) -> None:
    async def streamed(client: AsyncOpenAI) -> Any:
        async with client.chat.completions.stream(
            model=lane.model, messages=user(lane.saying(TEXT)), stream_options={"include_usage": True}
        ) as stream:
            kinds = {event.type async for event in stream}
            return kinds, await stream.get_final_completion()

    kinds, final = run(streamed)
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.choices[0].message.content == TEXT
    assert final.usage.total_tokens > 0


def test_models(client: OpenAI, lane: Lane) -> None:
    assert [model.id for model in client.models.list()] == [lane.model]
    assert client.models.retrieve(lane.model).id == lane.model


def test_async_models(lane: Lane) -> None:
    async def names(client: AsyncOpenAI) -> list[str]:
        return [model.id async for model in client.models.list()]

    assert run(names) == [lane.model]


def test_another_model_is_not_found(client: OpenAI, lane: Lane) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("another")
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


def test_a_conversation(client: OpenAI, lane: Lane) -> None:
    answer = client.chat.completions.create(
        model=lane.model,
        messages=[
            {"role": "system", "content": "You are brief."},
            {"role": "developer", "content": "You are kind."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hello, what is it?"},
            {"role": "user", "content": lane.saying("nothing")},
        ],
    )
    assert "nothing" in (answer.choices[0].message.content or "")


def test_content_in_parts(client: OpenAI, lane: Lane) -> None:
    parts: Any = [{"type": "text", "text": text} for text in lane.saying("one two").partition(" ") if text]
    answer = client.chat.completions.create(model=lane.model, messages=[{"role": "user", "content": parts}])
    assert answer.choices[0].message.content == "one two"


def test_any_text_comes_back(client: OpenAI, lane: Lane) -> None:
    text = 'line one\nline "two" \\ ünïcödé 你好 \U0001f600'
    assert ask(client, lane, text).choices[0].message.content == text
    assert text_of(ask(client, lane, text, stream=True)) == text


def test_what_cannot_be_honoured_is_named(client: OpenAI, lane: Lane) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=lane.model,
        messages=user(lane.saying(TEXT)),
        temperature=0.5,
        top_p=0.9,
        seed=7,
        presence_penalty=0.1,
    )
    named = ",".join(
        value for name, value in raw.headers.items() if name.endswith(("-parameters", "-params"))
    )
    assert {name.strip() for name in named.split(",")} >= {"temperature", "top_p", "seed", "presence_penalty"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("stop", "text"), [("three", "one two "), (["x", "wo th"], "one t"), (["four"], TEXT)]
)
def test_stop(client: OpenAI, lane: Lane, stop: Any, text: str, stream: bool) -> None:
    answer = ask(client, lane, stop=stop, stream=stream)
    if stream:
        chunks = list(answer)
        assert text_of(chunks) == text
        assert chunks[-1].choices[0].finish_reason == "stop"
    else:
        assert answer.choices[0].message.content == text
        assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}, None),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, "tools"),
        ({"functions": [{"name": "f", "parameters": {}}]}, None),
        ({"extra_body": {"stream": "maybe"}}, "stream"),
    ],
)  # fmt: skip
def test_what_is_refused(client: OpenAI, lane: Lane, more: dict[str, Any], param: str | None) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, lane, **more)
    error = refused.value
    assert error.code
    assert error.type == "invalid_request_error"
    assert param is None or error.param == param
    assert error.request_id


def test_another_model_is_refused(client: OpenAI, lane: Lane) -> None:
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as refused:
        client.chat.completions.create(model="another", messages=user("x"))
    assert refused.value.param == "model"


def test_no_messages_are_refused(client: OpenAI, lane: Lane) -> None:
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=lane.model, messages=[])


def test_a_wrong_key(lane: Lane) -> None:
    with OpenAI(api_key="wrong") as client, pytest.raises(openai.AuthenticationError) as refused:
        ask(client, lane)
    assert refused.value.status_code == 401


def test_what_is_not_there(client: OpenAI, lane: Lane) -> None:
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model=lane.model, input="x")


def test_a_request_that_is_too_large(client: OpenAI, lane: Lane) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        ask(client, lane, "x" * 9_000_000)
    assert refused.value.status_code == 413


def test_a_failure_after_the_start_is_not_tried_again(client: OpenAI, lane: Lane) -> None:
    counted, sent = counting(client)
    with pytest.raises(openai.RateLimitError) as failed:
        counted.chat.completions.create(model=lane.model, messages=user(lane.fails))
    assert failed.value.code == "rate_limit_exceeded"
    assert failed.value.response.headers["x-should-retry"] == "false"
    assert len(sent) == 1


def test_a_stream_that_breaks_off_raises(client: OpenAI, lane: Lane) -> None:
    received: list[Any] = []
    with pytest.raises(openai.APIError):
        received.extend(
            client.chat.completions.create(model=lane.model, messages=user(lane.breaks), stream=True)
        )
    assert text_of(received)


def test_a_refusal_for_want_of_room_is_tried_again(lane: Lane) -> None:
    with OpenAI(base_url=lane.narrow_url, api_key=lane.narrow_key, max_retries=8) as made:
        client, sent = counting(made)
        occupied = client.chat.completions.create(model=lane.model, messages=user(lane.long), stream=True)
        next(iter(occupied))
        leave = threading.Timer(SHORT_S, occupied.close)
        leave.start()
        assert ask(client, lane).choices[0].message.content == TEXT
        leave.join()
    assert len(sent) > 2


def test_no_room_at_all(lane: Lane) -> None:
    with OpenAI(base_url=lane.narrow_url, api_key=lane.narrow_key, max_retries=0) as client:
        occupied = client.chat.completions.create(model=lane.model, messages=user(lane.long), stream=True)
        next(iter(occupied))
        with pytest.raises(openai.RateLimitError) as refused:
            ask(client, lane)
        occupied.close()
        assert refused.value.response.headers["retry-after"]
        _until_there_is_room(client, lane)


@pytest.mark.parametrize("stream", [False, True])
def test_a_timeout_frees_the_place(lane: Lane, stream: bool) -> None:
    with OpenAI(base_url=lane.narrow_url, api_key=lane.narrow_key, max_retries=0) as client:
        _until_there_is_room(client, lane)
        with pytest.raises(openai.APITimeoutError):
            for _ in client.chat.completions.create(
                model=lane.model, messages=user(lane.endless), stream=stream, timeout=SHORT_S
            ):
                pass
        _until_there_is_room(client, lane)


def test_an_async_call_that_is_cancelled_frees_the_place(lane: Lane) -> None:
    async def cancelled() -> None:
        async with AsyncOpenAI(base_url=lane.narrow_url, api_key=lane.narrow_key, max_retries=0) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(SHORT_S):
                    await client.chat.completions.create(model=lane.model, messages=user(lane.endless))

    asyncio.run(cancelled())
    with OpenAI(base_url=lane.narrow_url, api_key=lane.narrow_key, max_retries=0) as client:
        _until_there_is_room(client, lane)


def test_a_stream_that_is_left_frees_the_place(lane: Lane) -> None:
    with OpenAI(base_url=lane.narrow_url, api_key=lane.narrow_key, max_retries=0) as client:
        _until_there_is_room(client, lane)
        with client.chat.completions.create(
            model=lane.model, messages=user(lane.long), stream=True
        ) as stream:
            next(iter(stream))
        _until_there_is_room(client, lane)


@pytest.mark.parametrize("stream", [False, True])
def test_a_repeat_under_an_idempotency_key_is_the_same_answer(
    client: OpenAI, lane: Lane, stream: bool
) -> None:
    headers = {"Idempotency-Key": uuid.uuid4().hex}

    def once() -> tuple[Any, str]:
        raw = client.chat.completions.with_raw_response.create(
            model=lane.model, messages=user(lane.saying(TEXT)), stream=stream, extra_headers=headers
        )
        answer = raw.parse()
        chunks = list(answer) if stream else [answer]
        return [chunk.model_dump() for chunk in chunks], raw.headers.get("idempotent-replayed", "")

    (first, is_first_replayed), (second, is_second_replayed) = once(), once()
    assert first == second
    assert (is_first_replayed, is_second_replayed) == ("", "true")


def test_an_idempotency_key_is_of_one_body(client: OpenAI, lane: Lane) -> None:
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    ask(client, lane, extra_headers=headers)
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        ask(client, lane, "another", extra_headers=headers)
    assert refused.value.code == "idempotency_key_reused"


def test_a_request_is_cancelled_by_its_id(lane: Lane) -> None:
    request_id = uuid.uuid4().hex
    with OpenAI(base_url=lane.narrow_url, api_key=lane.narrow_key, max_retries=0) as client:
        _until_there_is_room(client, lane)
        stream = client.chat.completions.create(
            model=lane.model,
            messages=user(lane.long),
            stream=True,
            extra_headers={"X-Request-Id": request_id},
        )
        next(iter(stream))
        answer = client.post(f"/requests/{request_id}/cancel", cast_to=httpx_response())
        assert answer.json() == {"id": request_id, "object": "request", "cancelled": True}
        with pytest.raises(openai.APIError) as cancelled:
            list(stream)
        assert cancelled.value.code == "turn_cancelled"
        _until_there_is_room(client, lane)


def httpx_response() -> Any:
    """The response class of the HTTP library that this version is built on."""
    base: Any = openai._base_client
    return (base.httpx if hasattr(base, "httpx") else base.httpx2).Response


def test_structured_output_is_parsed(client: OpenAI, lane: Lane) -> None:
    answer = client.chat.completions.parse(
        model=lane.model, messages=user(lane.saying_json(ADA)), response_format=Person
    )
    assert answer.choices[0].message.parsed == Person(name="Ada", age=36)


def test_structured_output_is_made(client: OpenAI, lane: Lane) -> None:
    answer = client.chat.completions.parse(
        model=lane.model, messages=user("Name anybody"), response_format=Person
    )
    assert isinstance(answer.choices[0].message.parsed, Person)


def test_structured_output_is_streamed(client: OpenAI, lane: Lane) -> None:
    with client.chat.completions.stream(
        model=lane.model, messages=user(lane.saying_json(ADA)), response_format=Person
    ) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == Person(name="Ada", age=36)


def test_json_mode(client: OpenAI, lane: Lane) -> None:
    answer = client.chat.completions.create(
        model=lane.model, messages=user(lane.saying_json(ADA)), response_format={"type": "json_object"}
    )
    assert json.loads(answer.choices[0].message.content or "") == json.loads(ADA)


def test_an_image(client: OpenAI, lane: Lane) -> None:
    image: Any = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}
    parts: Any = [{"type": "text", "text": lane.saying("I see")}, image]
    answer = client.chat.completions.create(model=lane.model, messages=[{"role": "user", "content": parts}])
    assert answer.choices[0].message.content == "I see"


def _until_there_is_room(client: OpenAI, lane: Lane) -> None:
    """Poll for a completion, with a deadline."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            assert ask(client, lane).choices[0].message.content == TEXT
        except openai.RateLimitError:
            assert time.monotonic() < deadline, "the place is still taken"
            time.sleep(POLL_S)
        else:
            return
