"""OpenAI's chat-completions wire shapes, as this product writes them, and its notion of a tool-bearing request.

Shapes and field order follow OpenAI's API reference for ``chat.completion`` and ``chat.completion.chunk`` objects.
Chunks of one answer differ only in their text, so everything around it is encoded once.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from shared.errors import EndpointError
from shared.events import AssistantDelta, Usage
from shared.result import Completion, Shown

DONE = b"data: [DONE]\n\n"
HEARTBEAT = b": keep-alive\n\n"
_encode = msgspec.json.Encoder().encode


def uses_tools(body: Mapping[str, Any]) -> bool:
    """Whether a request offers, demands or already holds tool calls, in any of the API's spellings."""
    policy = body.get("tool_policy")
    policies = (body, policy) if isinstance(policy, Mapping) else (body,)
    if any(_offers_tools(each) for each in policies):
        return True
    messages = body.get("messages")
    return isinstance(messages, list | tuple) and any(_holds_tool_call(message) for message in messages)


def _offers_tools(body: Mapping[str, Any]) -> bool:
    offered = any(bool(body.get(name)) for name in ("tools", "functions"))
    return offered or any(body.get(name) not in (None, "none") for name in ("tool_choice", "function_call"))


def _holds_tool_call(message: Any) -> bool:
    if not isinstance(message, Mapping):
        return False
    role = message.get("role")
    if isinstance(role, str) and role.strip().lower() in ("tool", "function"):
        return True
    return any(message.get(name) not in (None, "none", [], "") for name in ("tool_calls", "function_call"))


def usage_object(usage: Usage) -> dict[str, Any]:
    """A ``usage`` object with its details."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def model_object(model: str, created: int, provider: str) -> dict[str, Any]:
    """One entry of ``/v1/models``."""
    return {"id": model, "object": "model", "created": created, "owned_by": provider}


def new_completion_id() -> str:
    """A fresh ``chatcmpl-`` id; every completion has its own."""
    return f"chatcmpl-{secrets.token_hex(14)}"


def completion_object(completion: Completion, *, completion_id: str, model: str) -> dict[str, Any]:
    """A whole ``chat.completion``."""
    message: dict[str, Any] = {"role": "assistant", "content": completion.text, "refusal": None}
    if completion.reasoning:
        message["reasoning_content"] = completion.reasoning
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": completion.finish_reason}
    answer = {
        "id": completion_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
    }
    if completion.usage:
        answer["usage"] = usage_object(completion.usage)
    return answer


class ChunkEncoder:
    """Encodes the chunks of one streamed answer as server-sent events."""

    def __init__(self, *, completion_id: str, model: str, include_usage: bool) -> None:
        head = {
            "id": completion_id,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._head = b"data: " + _encode(head)[:-1]
        self._include_usage = include_usage
        self._usage_null = b',"usage":null' if include_usage else b""
        open_choice = self._head + self._usage_null + b',"choices":[{"index":0,"delta":{'
        self._content = open_choice + b'"content":'
        self._reasoning = open_choice + b'"reasoning_content":'
        self._after = b'},"logprobs":null,"finish_reason":null}]}\n\n'

    def role(self) -> bytes:
        """The first chunk: the role and no text."""
        return self._chunk({"role": "assistant", "content": ""}, None)

    def pieces(self, pieces: Iterable[Shown]) -> bytes:
        """All these pieces, one chunk each, as one block of bytes to send."""
        content, reasoning, after, encode = self._content, self._reasoning, self._after, _encode
        return b"".join(
            [
                (content if type(piece) is AssistantDelta else reasoning) + encode(piece.content) + after
                for piece in pieces
            ]
        )

    def end(self, completion: Completion) -> bytes:
        """The finish reason, the usage when it was asked for and is known, and the end mark.

        OpenAI's description of ``include_usage`` has clients prepared for a stream without a usage chunk. One without
        choices whose usage is null would be new to them, and zeros would be numbers that nobody counted.
        """
        parts = [self._chunk({}, completion.finish_reason)]
        if self._include_usage and completion.usage:
            usage = usage_object(completion.usage)
            parts.append(self._head + b',"usage":' + _encode(usage) + b',"choices":[]}\n\n')
        return b"".join((*parts, DONE))

    def error(self, error: EndpointError) -> bytes:
        """A failure after the first chunk: the error envelope, and no end mark after it."""
        return b"data: " + _encode(error.envelope()) + b"\n\n"

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._head + self._usage_null + b',"choices":' + _encode([choice]) + b"}\n\n"
