"""pydantic-ai's agents, over its OpenAI chat model."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from lane import Lane
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, NativeOutput, PromptedOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

TEXT = "one two three"
ADA = '{"name": "Ada", "age": 36}'
PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAAAElFTkSuQmCC"
)


class Person(BaseModel):
    """What structured output is parsed into."""

    name: str
    age: int


def agent(lane: Lane, **more: Any) -> Agent[None, Any]:
    """With a model of the endpoint; a client of its own, because a client belongs to one event loop."""
    provider = OpenAIProvider(base_url=lane.base_url, api_key=more.pop("api_key", lane.api_key))
    return Agent(OpenAIChatModel(lane.model, provider=provider), **more)


def test_run(lane: Lane) -> None:
    result = asyncio.run(agent(lane).run(lane.saying(TEXT)))
    assert result.output == TEXT
    assert result.usage.total_tokens > 0
    assert result.response.finish_reason == "stop"


def test_run_sync(lane: Lane) -> None:
    assert agent(lane).run_sync(lane.saying(TEXT)).output == TEXT


def test_stream(lane: Lane) -> None:
    async def streamed() -> tuple[str, int]:
        async with agent(lane).run_stream(lane.saying(TEXT)) as result:
            pieces = [piece async for piece in result.stream_text(delta=True)]
            return "".join(pieces), result.usage.total_tokens

    text, tokens = asyncio.run(streamed())
    assert text == TEXT
    assert tokens > 0


def test_events(lane: Lane) -> None:
    async def text() -> str:
        async with agent(lane).iter(lane.saying(TEXT)) as run:
            async for _ in run:
                pass
            assert run.result is not None
            return str(run.result.output)

    assert asyncio.run(text()) == TEXT


def test_instructions_and_history(lane: Lane) -> None:
    async def second() -> str:
        brief = agent(lane, instructions="You are brief.", system_prompt="You are kind.")
        first = await brief.run("Hello")
        answer = await brief.run(lane.saying("nothing"), message_history=first.all_messages())
        return str(answer.output)

    assert "nothing" in asyncio.run(second())


def test_settings_do_no_harm(lane: Lane) -> None:
    result = agent(lane).run_sync(
        lane.saying(TEXT), model_settings={"temperature": 0.1, "max_tokens": 100, "seed": 1}
    )
    assert result.output == TEXT


def test_tools_are_refused(lane: Lane) -> None:
    def anything() -> str:
        """A tool."""
        return "x"

    with pytest.raises(ModelHTTPError) as refused:
        agent(lane, tools=[anything]).run_sync("x")
    assert refused.value.status_code == 400


def test_a_wrong_key(lane: Lane) -> None:
    with pytest.raises(ModelHTTPError) as refused:
        agent(lane, api_key="wrong").run_sync("x")
    assert refused.value.status_code == 401


def test_a_refusal_of_the_service(lane: Lane) -> None:
    with pytest.raises(ModelHTTPError) as refused:
        agent(lane).run_sync(lane.fails)
    assert refused.value.status_code == 429


def test_prompted_output(lane: Lane) -> None:
    output = PromptedOutput(Person)
    profile = {"supports_json_object_output": False}
    model = OpenAIChatModel(
        lane.model,
        provider=OpenAIProvider(base_url=lane.base_url, api_key=lane.api_key),
        profile=profile,  # type: ignore[arg-type]
    )
    result = Agent(model, output_type=output).run_sync(lane.saying(ADA))
    assert result.output == Person(name="Ada", age=36)


def test_native_output(lane: Lane) -> None:
    result = agent(lane, output_type=NativeOutput(Person)).run_sync(lane.saying_json(ADA))
    assert result.output == Person(name="Ada", age=36)


def test_an_image(lane: Lane) -> None:
    image = BinaryContent(base64.b64decode(PICTURE), media_type="image/png")
    assert agent(lane).run_sync([lane.saying("I see"), image]).output == "I see"
