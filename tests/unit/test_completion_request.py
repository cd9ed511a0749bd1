"""What a request may hold: the pin, the flags, no tools, nothing that would change the answer's shape."""

from __future__ import annotations

from typing import Any

import pytest

from shared.errors import RequestError
from shared.provider import TurnOptions
from worker.completion import CompletionRequest, read_request

MESSAGES = [{"role": "user", "content": "x"}]
TOOL_SPELLINGS = [
    {"tools": [{"type": "function"}]},
    {"tool_choice": "auto"},
    {"tool_choice": {"type": "function"}},
    {"functions": [{"name": "f"}]},
    {"function_call": "auto"},
    {"messages": [*MESSAGES, {"role": "tool", "content": "x", "tool_call_id": "1"}]},
    {"messages": [*MESSAGES, {"role": "TOOL", "content": "x"}]},
    {"messages": [*MESSAGES, {"role": "function", "name": "f", "content": "x"}]},
    {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}, *MESSAGES]},
    {"messages": [{"role": "assistant", "function_call": {"name": "f"}}, *MESSAGES]},
    {"tool_policy": {"tools": [{}]}},
]


def read(streaming: bool = True, **body: Any) -> CompletionRequest:
    """A request for an endpoint that is pinned to ``pinned``."""
    return read_request({"messages": MESSAGES, **body}, model="pinned", streaming=streaming)


def refusal(streaming: bool = True, **body: Any) -> RequestError:
    """The error of a request that is refused."""
    with pytest.raises(RequestError) as refused:
        read(streaming, **body)
    return refused.value


@pytest.mark.parametrize("model", [None, "pinned"])
def test_the_model_may_be_absent_or_the_pinned_one(model: str | None):
    """Nothing else is needed."""
    assert read(model=model).prompt.text == "x"


@pytest.mark.parametrize("model", ["other", "Pinned", "", 5])
def test_another_model_is_refused(model: Any):
    """The message names both."""
    error = refusal(model=model)
    assert (error.code, error.param) == ("model_mismatch", "model")
    assert error.message == f"endpoint is pinned to model pinned, got {model}"


@pytest.mark.parametrize("spelling", TOOL_SPELLINGS)
def test_tools_are_refused_in_every_spelling(spelling: dict[str, Any]):
    """Offered, demanded, or already in the history."""
    error = refusal(**spelling)
    assert (error.code, error.status) == ("tools_not_supported", 400)
    assert "tool-bearing requests" in error.message


@pytest.mark.parametrize(
    "spelling", [{"tools": []}, {"tools": None}, {"tool_choice": "none"}, {"functions": []}]
)
def test_no_tools_in_many_words_is_no_tools(spelling: dict[str, Any]):
    """Clients send empty lists."""
    assert read(**spelling).prompt.text == "x"


@pytest.mark.parametrize(("value", "streams"), [(None, False), (False, False), (True, True), ("true", True)])
def test_stream_is_a_flag(value: Any, streams: bool):
    """As in the contract, the string counts too."""
    assert read(stream=value).stream is streams


def test_streaming_has_to_be_published():
    """An endpoint without it refuses it."""
    assert refusal(False, stream=True).code == "streaming_not_published"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"stream": "yes"}, "stream"),
        ({"stream": 2}, "stream"),
        ({"stream_options": 5}, "stream_options"),
        ({"stream_options": {"include_usage": "x"}}, "stream_options.include_usage"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
def test_what_cannot_be_honoured_is_refused(body: dict[str, Any], param: str):
    """The error names the parameter."""
    assert refusal(**body).param == param


def test_sampling_parameters_are_tolerated_and_named():
    """Ordinary clients always send some; the answer says which had no effect."""
    request = read(
        temperature=0.5, max_tokens=2048, top_p=None, n=1, response_format={"type": "text"}, user="u"
    )
    assert request.ignored == ("max_tokens", "temperature", "user")


def test_stop_is_read():
    """Into strings."""
    assert read(stop="END").stop == ("END",)
    assert read(stop=None).stop == ()
    assert refusal(stop=["a"] * 5).param == "stop"


@pytest.mark.parametrize("body", [None, [], "x", 5])
def test_a_body_is_an_object(body: Any):
    """Everything else is refused first."""
    with pytest.raises(RequestError, match="request body must be a JSON object"):
        read_request(body, model="pinned", streaming=True)


ALL = TurnOptions(max_tokens=True, reasoning_efforts=("low",), response_formats=("json_object",))


@pytest.mark.parametrize(
    ("body", "max_tokens"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": None}, 5),
    ],
)
def test_the_most_tokens_of_an_answer(body: dict[str, Any], max_tokens: int | None):
    """By either name; the newer one counts. Where no command line takes it, it is not looked at."""
    request = {"messages": MESSAGES, **body}
    assert read_request(request, model="m", streaming=True, options=ALL).prompt.max_tokens == max_tokens
    assert read(max_tokens="x").prompt.max_tokens is None


@pytest.mark.parametrize("value", [0, -1, 1.5, "5", True, []])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_other_numbers_of_tokens_are_refused(name: str, value: Any):
    """By name."""
    with pytest.raises(RequestError) as refused:
        read_request({"messages": MESSAGES, name: value}, model="m", streaming=True, options=ALL)
    assert (refused.value.code, refused.value.param) == ("invalid_request", name)


def test_what_the_command_line_takes_is_part_of_the_prompt():
    """And what it does not take is not."""
    body = {"messages": MESSAGES, "reasoning_effort": "low", "response_format": {"type": "json_object"}}
    prompt = read_request(body, model="m", streaming=True, options=ALL).prompt
    assert (prompt.reasoning_effort, prompt.output_schema) == ("low", {"type": "object"})
    assert read(reasoning_effort="low").prompt.reasoning_effort is None
