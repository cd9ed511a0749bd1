"""Reading a chat-completions request: what this endpoint is pinned to, refuses, and passes over. Pure.

Check order, as in the inference contract: JSON object, model pin, stream, tools, prompt. Sampling parameters that a
command line cannot take are tolerated, because ordinary clients always send some, and named in a response header;
parameters that would change the shape of the answer are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from shared.errors import RequestError
from shared.openai import uses_tools
from shared.provider import Prompt
from worker.prompt import read_prompt

TOLERATED = (
    "frequency_penalty", "logit_bias", "max_completion_tokens", "max_tokens", "presence_penalty",
    "reasoning_effort", "seed", "stop", "temperature", "top_p", "verbosity",
)  # fmt: skip
"""Accepted and without effect; the answer's ``x-ignored-parameters`` header names those that were sent."""


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that may run."""

    prompt: Prompt
    stream: bool
    include_usage: bool
    ignored: tuple[str, ...] = ()


def read_request(body: Any, *, model: str, streaming: bool) -> CompletionRequest:
    """The request in ``body`` for an endpoint pinned to ``model``. Raises RequestError with its code and param."""
    if not isinstance(body, dict):
        raise RequestError("invalid_request", "request body must be a JSON object")
    _check_model(body.get("model"), model)
    stream = _flag(body.get("stream"), "stream")
    if stream and not streaming:
        raise RequestError(
            "streaming_not_published", "streaming is not published for this endpoint", param="stream"
        )
    if uses_tools(body):
        raise RequestError(
            "tools_not_supported",
            "tool-bearing requests are not supported on cli completion endpoints",
            param="tools",
        )
    _check_shape(body)
    return CompletionRequest(
        prompt=read_prompt(body),
        stream=stream,
        include_usage=_include_usage(body.get("stream_options")),
        ignored=tuple(name for name in TOLERATED if body.get(name) is not None),
    )


def _check_model(value: Any, pinned: str) -> None:
    if value is not None and value != pinned:
        raise RequestError(
            "model_mismatch", f"endpoint is pinned to model {pinned}, got {value}", param="model"
        )


def _flag(value: Any, name: str) -> bool:
    if value not in (None, True, False, "true", "false"):
        raise RequestError("invalid_request", f"{name} must be a boolean", param=name)
    return value in (True, "true")


def _include_usage(value: Any) -> bool:
    if value is None:
        return False
    if not isinstance(value, Mapping):
        raise RequestError("invalid_request", "stream_options must be an object", param="stream_options")
    return _flag(value.get("include_usage"), "stream_options.include_usage")


def _check_shape(body: Mapping[str, Any]) -> None:
    response_format = body.get("response_format")
    kind = response_format.get("type") if isinstance(response_format, Mapping) else response_format
    for name, is_supported in (
        ("n", body.get("n") in (None, 1)),
        ("logprobs", body.get("logprobs") in (None, False)),
        ("modalities", body.get("modalities") in (None, ["text"])),
        ("audio", body.get("audio") is None),
        ("response_format", kind in (None, "text")),
    ):
        if not is_supported:
            raise RequestError(
                "unsupported_parameter", f"{name} is not supported on cli completion endpoints", param=name
            )
