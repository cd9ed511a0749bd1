"""LlamaIndex's ``OpenAILike``."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import openai
import pytest
from lane import Lane
from llama_index.core.llms import ChatMessage, ImageBlock, MessageRole, TextBlock
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

TEXT = "one two three"
PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAAAElFTkSuQmCC"
)


class Person(BaseModel):
    """What structured output is parsed into."""

    name: str
    age: int


@pytest.fixture
def llm(lane: Lane) -> OpenAILike:
    """As its documentation says, for a chat model without function calling."""
    return OpenAILike(
        model=lane.model,
        api_base=lane.base_url,
        api_key=lane.api_key,
        is_chat_model=True,
        is_function_calling_model=False,
        context_window=100_000,
        max_retries=0,
    )


def messages(text: str) -> list[ChatMessage]:
    """A conversation of one message."""
    return [ChatMessage(role=MessageRole.USER, content=text)]


def test_complete(llm: OpenAILike, lane: Lane) -> None:
    assert llm.complete(lane.saying(TEXT)).text == TEXT


def test_chat(llm: OpenAILike, lane: Lane) -> None:
    answer = llm.chat(messages(lane.saying(TEXT)))
    assert answer.message.content == TEXT
    assert answer.message.role == MessageRole.ASSISTANT
    assert answer.raw.usage.total_tokens > 0


def test_stream_complete(llm: OpenAILike, lane: Lane) -> None:
    pieces = list(llm.stream_complete(lane.saying(TEXT)))
    assert "".join(piece.delta or "" for piece in pieces) == pieces[-1].text == TEXT


def test_stream_chat(llm: OpenAILike, lane: Lane) -> None:
    pieces = list(llm.stream_chat(messages(lane.saying(TEXT))))
    assert "".join(piece.delta or "" for piece in pieces) == pieces[-1].message.content == TEXT


def test_async_complete_and_chat(llm: OpenAILike, lane: Lane) -> None:
    async def both() -> list[str | None]:
        completed = await llm.acomplete(lane.saying(TEXT))
        chatted = await llm.achat(messages(lane.saying(TEXT)))
        return [completed.text, chatted.message.content]

    assert asyncio.run(both()) == [TEXT, TEXT]


def test_async_streams(llm: OpenAILike, lane: Lane) -> None:
    async def both() -> list[str]:
        completed = await llm.astream_complete(lane.saying(TEXT))
        chatted = await llm.astream_chat(messages(lane.saying(TEXT)))
        return [
            "".join([piece.delta or "" async for piece in completed]),
            "".join([piece.delta or "" async for piece in chatted]),
        ]

    assert asyncio.run(both()) == [TEXT, TEXT]


def test_a_conversation(llm: OpenAILike, lane: Lane) -> None:
    answer = llm.chat(
        [
            ChatMessage(role=MessageRole.SYSTEM, content="You are brief."),
            ChatMessage(role=MessageRole.USER, content="Hello"),
            ChatMessage(role=MessageRole.ASSISTANT, content="Hello, what is it?"),
            ChatMessage(role=MessageRole.USER, content=lane.saying("nothing")),
        ]
    )
    assert "nothing" in (answer.message.content or "")


def test_text_blocks(llm: OpenAILike, lane: Lane) -> None:
    blocks: Any = [TextBlock(text=text) for text in lane.saying("one two").partition(" ") if text]
    assert llm.chat([ChatMessage(role=MessageRole.USER, blocks=blocks)]).message.content == "one two"


def test_structured_output(llm: OpenAILike, lane: Lane) -> None:
    llm.should_use_structured_outputs = True
    answer = llm.as_structured_llm(Person).complete(lane.saying_json('{"name": "Ada", "age": 36}'))
    assert answer.raw == Person(name="Ada", age=36)


def test_an_image(llm: OpenAILike, lane: Lane) -> None:
    blocks: Any = [TextBlock(text=lane.saying("I see")), ImageBlock(image=base64.b64decode(PICTURE))]
    assert llm.chat([ChatMessage(role=MessageRole.USER, blocks=blocks)]).message.content == "I see"


def test_metadata(llm: OpenAILike, lane: Lane) -> None:
    assert llm.metadata.model_name == lane.model
    assert llm.metadata.is_chat_model


def test_errors_are_the_clients_own(llm: OpenAILike, lane: Lane) -> None:
    with pytest.raises(openai.RateLimitError):
        llm.complete(lane.fails)
    with pytest.raises(openai.AuthenticationError):
        OpenAILike(
            model=lane.model, api_base=lane.base_url, api_key="wrong", is_chat_model=True, max_retries=0
        ).complete("x")
