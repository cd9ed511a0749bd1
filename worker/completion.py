"""Reading a chat-completions request: what this endpoint is pinned to, refuses, and passes over. Pure.

Check order, as in the inference contract: JSON object, model pin, stream, tools, prompt. How each field is treated is
in :mod:`worker.parameters`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from shared.errors import RequestError
from shared.openai import uses_tools
from shared.provider import Prompt, TurnOptions
from worker.parameters import ignored_names
from worker.prompt import read_prompt
from worker.stop import read_stop


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that may run."""

    prompt: Prompt
    stream: bool
    include_usage: bool
    stop: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def read_request(
    body: Any, *, model: str, streaming: bool, options: TurnOptions | None = None
) -> CompletionRequest:
    """The request in ``body`` for an endpoint pinned to ``model``, whose command line takes these ``options``.

    Raises RequestError with its code and param.
    """
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
    include_usage = _include_usage(body.get("stream_options"))
    ignored = ignored_names(body, options or TurnOptions())
    return CompletionRequest(
        prompt=read_prompt(body),
        stream=stream,
        include_usage=include_usage,
        stop=read_stop(body.get("stop")),
        ignored=ignored,
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
