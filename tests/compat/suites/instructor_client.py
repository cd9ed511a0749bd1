"""instructor: typed answers, in its modes that need no tools."""

from __future__ import annotations

import asyncio

import instructor
import pytest
from lane import Lane
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

ADA = '{"name": "Ada", "age": 36}'
PARSED = {"name": "Ada", "age": 36}


class Person(BaseModel):
    """What is asked for."""

    name: str
    age: int


def ask(lane: Lane, mode: instructor.Mode, prompt: str) -> Person:
    """A person, made from the answer."""
    client = instructor.from_openai(OpenAI(), mode=mode)
    return client.chat.completions.create(
        model=lane.model,
        messages=[{"role": "user", "content": prompt}],
        response_model=Person,
        max_retries=0,
    )


def test_markdown_json(lane: Lane) -> None:
    assert ask(lane, instructor.Mode.MD_JSON, lane.saying(f"```json\n{ADA}\n```")).model_dump() == PARSED


def test_json_mode(lane: Lane) -> None:
    assert ask(lane, instructor.Mode.JSON, lane.saying_json(ADA)).model_dump() == PARSED


def test_json_schema_mode(lane: Lane) -> None:
    assert ask(lane, instructor.Mode.JSON_SCHEMA, lane.saying_json(ADA)).model_dump() == PARSED


def test_async_json_mode(lane: Lane) -> None:
    async def asked() -> Person:
        client = instructor.from_openai(AsyncOpenAI(), mode=instructor.Mode.JSON)
        return await client.chat.completions.create(
            model=lane.model,
            messages=[{"role": "user", "content": lane.saying_json(ADA)}],
            response_model=Person,
            max_retries=0,
        )

    assert asyncio.run(asked()).model_dump() == PARSED


def test_a_partial_answer_grows(lane: Lane) -> None:
    client = instructor.from_openai(OpenAI(), mode=instructor.Mode.JSON)
    *_, last = client.chat.completions.create_partial(
        model=lane.model,
        messages=[{"role": "user", "content": lane.saying_json(ADA)}],
        response_model=Person,
        max_retries=0,
    )
    assert last.model_dump() == PARSED


def test_an_answer_that_does_not_fit_is_an_error(lane: Lane) -> None:
    with pytest.raises(Exception, match="age"):
        ask(lane, instructor.Mode.MD_JSON, lane.saying('```json\n{"name": "Ada"}\n```'))


def test_tools_are_refused(lane: Lane) -> None:
    with pytest.raises(Exception, match="tool"):
        ask(lane, instructor.Mode.TOOLS, "x")
