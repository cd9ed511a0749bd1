"""The Anthropic Messages API of the scripted model server."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.clis.models.markers import Refusal, Script, ToolCall, read_script, with_schema
from tests.clis.models.steps import (
    BEFORE_RESET_S,
    HANG_LIMIT_S,
    Cut,
    Json,
    OpenStream,
    SendEvent,
    SendJson,
    Sleep,
    Step,
)

REMINDERS = re.compile(r"\A(?:\s*<system-reminder>.*?</system-reminder>\s*)+", re.DOTALL)

SCHEMA_TOOL = "StructuredOutput"
ANTHROPIC_ERROR_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
REFUSALS: Mapping[Refusal, tuple[int, str]] = {
    "context": (400, "prompt is too long: 250000 tokens > 200000 maximum"),
    "filter": (400, "Output blocked by content filtering policy"),
    "key": (401, "invalid x-api-key"),
    "limit": (429, "This request would exceed your organization's rate limit"),
    "plan": (429, "This request would exceed your account's rate limit"),
    "quota": (400, "Your credit balance is too low to access the Anthropic API."),
}
DEFAULT_RETRY_AFTER_S = 60


@dataclass(frozen=True, kw_only=True)
class AnthropicBlock:
    """One content block, as a stream begins it, as its deltas fill it, and whole."""

    start: Json
    deltas: tuple[Json, ...]
    whole: Json


def anthropic_messages(body: Any, serial: int) -> Iterator[Step]:
    """``POST /v1/messages``, streamed when the body says so."""
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        yield anthropic_error(400, serial, message="messages: Field required")
        return
    script = read_script(last_user_text(messages), tool_answered=_holds_tool_result(messages))
    script = _following_schema(script, body.get("tools") or [])
    if script.refusal is not None:
        yield _anthropic_refusal(script.refusal, serial, script.retry_after_s)
    elif script.status is not None:
        yield anthropic_error(script.status, serial, retry_after_s=script.retry_after_s)
    elif body.get("stream"):
        yield from _anthropic_stream(script, body, serial)
    else:
        yield from _anthropic_whole(script, body, serial)


def _following_schema(script: Script, tools: list[Json]) -> Script:
    """Instead of an echo a call of the one tool by which claude has an answer take a schema, when it is offered."""
    if not script.is_echo or [tool.get("name") for tool in tools] != [SCHEMA_TOOL]:
        return script
    call = ToolCall(name=SCHEMA_TOOL, arguments=with_schema(script, tools[0]["input_schema"]))
    return dataclasses.replace(script, words=None, tool=call)


def anthropic_error(
    status: int, serial: int, *, message: str | None = None, retry_after_s: int | None = None
) -> SendJson:
    """An error answer with the ``type`` that the Messages API gives this status."""
    headers = {"request-id": f"req_scripted{serial:06}"}
    if retry_after_s is not None:
        headers["retry-after"] = str(retry_after_s)
    body = _anthropic_error_body(ANTHROPIC_ERROR_TYPES.get(status, "api_error"), message)
    return SendJson(status=status, body={**body, "request_id": headers["request-id"]}, headers=headers)


def _anthropic_refusal(refusal: Refusal, serial: int, retry_after_s: int | None) -> SendJson:
    """Only a subscription's limit is told in headers that the command line reads."""
    status, message = REFUSALS[refusal]
    answer = anthropic_error(status, serial, message=message, retry_after_s=retry_after_s)
    if refusal != "plan":
        return answer
    ends_at_s = int(time.time()) + (retry_after_s or DEFAULT_RETRY_AFTER_S)
    limits = {"status": "rejected", "reset": str(ends_at_s), "representative-claim": "five_hour"}
    headers = {f"anthropic-ratelimit-unified-{name}": value for name, value in limits.items()}
    return SendJson(status=answer.status, body=answer.body, headers={**answer.headers, **headers})


def last_user_text(messages: list[Any]) -> str:
    """The text of the last user message that has any, without reminders that a client put at its head."""
    texts = (_message_text(message) for message in reversed(messages) if message.get("role") == "user")
    return next((text for text in texts if text.strip()), "")


def _message_text(message: Json) -> str:
    return "\n".join(
        REMINDERS.sub("", block["text"]) for block in _blocks(message) if block["type"] == "text"
    )


def _holds_tool_result(messages: list[Any]) -> bool:
    return any(block["type"] == "tool_result" for message in messages for block in _blocks(message))


def _blocks(message: Json) -> list[Json]:
    content = message.get("content", "")
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _anthropic_stream(script: Script, body: Json, serial: int) -> Iterator[Step]:
    yield OpenStream(headers={"request-id": f"req_scripted{serial:06}"})
    start = _anthropic_message(script, body, serial)
    start |= {"content": [], "stop_reason": None, "usage": {**start["usage"], "output_tokens": 1}}
    yield _anthropic_event("message_start", message=start)
    yield _anthropic_event("ping")
    yield Sleep(script.first_s)
    blocks = _anthropic_blocks(script, serial)
    for index, block in enumerate(blocks):
        yield _anthropic_event("content_block_start", index=index, content_block=block.start)
        for number, delta in enumerate(block.deltas):
            if index + number > 0 and delta["type"] != "signature_delta":
                yield Sleep(script.delay_s)
            yield _anthropic_event("content_block_delta", index=index, delta=delta)
        if script.fault is None or index + 1 < len(blocks):
            yield _anthropic_event("content_block_stop", index=index)
    yield from _anthropic_ending(script)


def _anthropic_ending(script: Script) -> Iterator[Step]:
    match script.fault:
        case "error-event":
            yield SendEvent("error", _anthropic_error_body("overloaded_error"))
        case "reset":
            yield Sleep(BEFORE_RESET_S)
            yield Cut(reset=True)
        case "eof":
            yield Cut(reset=False)
        case "hang":
            yield Sleep(HANG_LIMIT_S)
            yield Cut(reset=False)
        case None:
            usage = {"output_tokens": script.usage.output_tokens}
            delta = {"stop_reason": _anthropic_stop_reason(script), "stop_sequence": None}
            yield _anthropic_event("message_delta", delta=delta, usage=usage)
            yield _anthropic_event("message_stop")


def _anthropic_whole(script: Script, body: Json, serial: int) -> Iterator[Step]:
    blocks = _anthropic_blocks(script, serial)
    pauses = max(0, len(script.thoughts) + len(script.words or ()) - 1)
    yield Sleep(HANG_LIMIT_S if script.fault == "hang" else script.first_s + pauses * script.delay_s)
    message = _anthropic_message(script, body, serial) | {"content": [block.whole for block in blocks]}
    yield SendJson(status=200, body=message, headers={"request-id": f"req_scripted{serial:06}"})


def _anthropic_message(script: Script, body: Json, serial: int) -> Json:
    return {
        "id": f"msg_scripted{serial:06}",
        "type": "message",
        "role": "assistant",
        "model": body.get("model", "scripted"),
        "content": [],
        "stop_reason": _anthropic_stop_reason(script),
        "stop_sequence": None,
        "usage": {
            "input_tokens": script.usage.input_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": script.usage.output_tokens,
            "service_tier": "standard",
        },
    }


def _anthropic_stop_reason(script: Script) -> str:
    return script.stop or ("tool_use" if script.tool else "end_turn")


def _anthropic_blocks(script: Script, serial: int) -> list[AnthropicBlock]:
    blocks = []
    if script.thoughts:
        blocks.append(_thinking_block(script.thoughts))
    if script.words is not None:
        blocks.append(_text_block(script.words))
    if script.tool is not None:
        blocks.append(_tool_block(script.tool, f"toolu_scripted{serial:06}"))
    return blocks


def _thinking_block(thoughts: tuple[str, ...]) -> AnthropicBlock:
    signature = "c2NyaXB0ZWQ="
    deltas = [{"type": "thinking_delta", "thinking": thought} for thought in thoughts]
    return AnthropicBlock(
        start={"type": "thinking", "thinking": "", "signature": ""},
        deltas=(*deltas, {"type": "signature_delta", "signature": signature}),
        whole={"type": "thinking", "thinking": "".join(thoughts), "signature": signature},
    )


def _text_block(words: tuple[str, ...]) -> AnthropicBlock:
    return AnthropicBlock(
        start={"type": "text", "text": ""},
        deltas=tuple({"type": "text_delta", "text": word} for word in words),
        whole={"type": "text", "text": "".join(words)},
    )


def _tool_block(tool: ToolCall, call_id: str) -> AnthropicBlock:
    head = {"type": "tool_use", "id": call_id, "name": tool.name}
    return AnthropicBlock(
        start={**head, "input": {}},
        deltas=({"type": "input_json_delta", "partial_json": json.dumps(tool.arguments)},),
        whole={**head, "input": tool.arguments},
    )


def _anthropic_event(kind: str, **fields: Any) -> SendEvent:
    return SendEvent(kind, {"type": kind, **fields})


def _anthropic_error_body(kind: str, message: str | None = None) -> Json:
    return {"type": "error", "error": {"type": kind, "message": message or f"scripted {kind}"}}
