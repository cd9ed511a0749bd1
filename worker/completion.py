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
from shared.provider import TurnOptions
from shared.sansio import Prompt
from worker.formats import read_schema
from worker.parameters import ignored_names
from worker.prompt import read_prompt
from worker.stop import read_stop

NO_OPTIONS = TurnOptions()


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that may run."""

    prompt: Prompt
    stream: bool
    include_usage: bool
    stop: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def read_request(
    body: Any, *, model: str, streaming: bool, options: TurnOptions = NO_OPTIONS
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
    ignored = ignored_names(body, options)
    return CompletionRequest(
        prompt=_prompt(body, options),
        stream=stream,
        include_usage=include_usage,
        stop=read_stop(body.get("stop")),
        ignored=ignored,
    )


def _prompt(body: Mapping[str, Any], options: TurnOptions) -> Prompt:
    effort = body.get("reasoning_effort")
    return msgspec.structs.replace(
        read_prompt(body, options.image_types),
        output_schema=read_schema(body.get("response_format")),
        max_tokens=_max_tokens(body) if options.max_tokens else None,
        reasoning_effort=effort if effort in options.reasoning_efforts else None,
    )


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    """The newer name counts where both are given."""
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if type(value) is not int or value < 1:
            raise RequestError("invalid_request", f"{name} must be a positive integer", param=name)
        return value
    return None


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
