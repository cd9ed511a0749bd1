"""The OpenAI Responses API of the scripted model server, as codex uses it: always streamed."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
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

ERROR_CODES: Mapping[int, tuple[str, str]] = {
    400: ("invalid_request_error", "invalid_value"),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "forbidden"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
    500: ("server_error", "internal_error"),
    503: ("server_error", "server_is_overloaded"),
}
"""Type and code that the service gives these statuses."""
FAILED: Mapping[Refusal, tuple[str, str]] = {
    "context": ("context_length_exceeded", "Your input exceeds the context window of this model."),
    "filter": ("invalid_prompt", "Invalid prompt: it was flagged as potentially violating our usage policy."),
    "limit": ("rate_limit_exceeded", "Rate limit reached for scripted. Please try again in {wait_s}s."),
}
"""Refusals that the service tells in a stream that it has begun: code and message."""
REFUSED: Mapping[Refusal, tuple[int, str, str]] = {
    "key": (401, "invalid_api_key", "Incorrect API key provided."),
    "plan": (429, "usage_limit_reached", "The usage limit has been reached"),
    "quota": (
        429,
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
}
"""Those that are an answer of their own: status, type, which is also the code, and message."""
DEFAULT_RETRY_AFTER_S = 60


def responses(body: Any, serial: int) -> Iterator[Step]:
    """``POST /v1/responses``."""
    items = body.get("input") if isinstance(body, dict) else None
    if not isinstance(items, list):
        yield responses_error(400, serial, message="Missing required parameter: 'input'.")
        return
    answered = any(str(item.get("type", "")).endswith("call_output") for item in items)
    script = _following_schema(read_script(last_user_text(items), tool_answered=answered), body)
    if script.refusal is not None:
        yield from _refuse(script.refusal, serial, script.retry_after_s or DEFAULT_RETRY_AFTER_S)
    elif script.status is not None:
        yield responses_error(script.status, serial, retry_after_s=script.retry_after_s)
    else:
        yield from _stream(script, body, serial)


def _following_schema(script: Script, body: Json) -> Script:
    """Instead of an echo an answer with the schema that the request demands, if it does."""
    wanted = (body.get("text") or {}).get("format") or {}
    if not script.is_echo or wanted.get("type") != "json_schema":
        return script
    return dataclasses.replace(script, words=(json.dumps(with_schema(script, wanted["schema"])),))


def responses_error(
    status: int, serial: int, *, message: str | None = None, retry_after_s: int | None = None
) -> SendJson:
    """An error answer with the type and code that the service gives this status."""
    kind, code = ERROR_CODES.get(status, ("server_error", "server_error"))
    headers = {"x-request-id": f"req_scripted{serial:06}"}
    if retry_after_s is not None:
        headers["retry-after"] = str(retry_after_s)
    error = {"message": message or f"scripted {code}", "type": kind, "param": None, "code": code}
    return SendJson(status=status, body={"error": error}, headers=headers)


def _refuse(refusal: Refusal, serial: int, wait_s: int) -> Iterator[Step]:
    if refusal in FAILED:
        code, message = FAILED[refusal]
        identity = {"id": f"resp_scripted{serial:06}", "object": "response"}
        yield OpenStream()
        yield _event("response.created", response={**identity, "status": "in_progress", "output": []})
        failed = {"code": code, "message": message.format(wait_s=wait_s)}
        yield _event("response.failed", response={**identity, "status": "failed", "error": failed})
        return
    status, kind, message = REFUSED[refusal]
    error: Json = {"message": message, "type": kind, "param": None, "code": kind}
    limits = {"used-percent": "100", "window-minutes": "300", "reset-at": str(int(time.time()) + wait_s)}
    headers = (
        {f"x-codex-primary-{name}": value for name, value in limits.items()} if refusal == "plan" else {}
    )
    yield SendJson(status=status, body={"error": error}, headers=headers)


def last_user_text(items: list[Json]) -> str:
    """The text of the last user message that has any."""
    texts = (_text(item) for item in reversed(items) if item.get("role") == "user")
    return next((text for text in texts if text.strip()), "")


def _text(item: Json) -> str:
    content = item.get("content", "")
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content)


def _stream(script: Script, body: Json, serial: int) -> Iterator[Step]:
    yield OpenStream(headers={"x-request-id": f"req_scripted{serial:06}"})
    identity = {"id": f"resp_scripted{serial:06}", "object": "response", "model": body.get("model")}
    yield _event("response.created", response={**identity, "status": "in_progress", "output": []})
    yield Sleep(script.first_s)
    outputs: list[Json] = []
    if script.thoughts:
        yield from _reasoning(script, f"rs_scripted{serial:06}", outputs)
    if script.words is not None:
        yield from _message(script, f"msg_scripted{serial:06}", outputs)
    if script.fault is not None:
        yield from _fault(script, identity)
        return
    if script.tool is not None:
        item = _call(script.tool, f"call_scripted{serial:06}")
        outputs.append(item)
        yield _event("response.output_item.added", output_index=len(outputs) - 1, item=item)
        yield _event("response.output_item.done", output_index=len(outputs) - 1, item=item)
    yield _ending(script, {**identity, "output": outputs, "usage": _usage(script)})


def _reasoning(script: Script, item_id: str, outputs: list[Json]) -> Iterator[Step]:
    place = {"item_id": item_id, "output_index": 0, "summary_index": 0}
    item = {"id": item_id, "type": "reasoning", "summary": []}
    yield _event("response.output_item.added", output_index=0, item=item)
    part = {"type": "summary_text", "text": ""}
    yield _event("response.reasoning_summary_part.added", **place, part=part)
    for number, thought in enumerate(script.thoughts):
        if number:
            yield Sleep(script.delay_s)
        yield _event("response.reasoning_summary_text.delta", **place, delta=thought)
    whole = "".join(script.thoughts)
    part = {"type": "summary_text", "text": whole}
    yield _event("response.reasoning_summary_text.done", **place, text=whole)
    yield _event("response.reasoning_summary_part.done", **place, part=part)
    outputs.append({**item, "summary": [part], "encrypted_content": "c2NyaXB0ZWQ="})
    yield _event("response.output_item.done", output_index=0, item=outputs[-1])


def _message(script: Script, item_id: str, outputs: list[Json]) -> Iterator[Step]:
    index = len(outputs)
    place = {"item_id": item_id, "output_index": index, "content_index": 0}
    item = {"id": item_id, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    yield _event("response.output_item.added", output_index=index, item=item)
    part = {"type": "output_text", "text": "", "annotations": []}
    yield _event("response.content_part.added", **place, part=part)
    for number, word in enumerate(script.words or ()):
        if number or outputs:
            yield Sleep(script.delay_s)
        yield _event("response.output_text.delta", **place, delta=word)
    if script.fault is not None:
        return
    whole = "".join(script.words or ())
    part = {"type": "output_text", "text": whole, "annotations": []}
    yield _event("response.output_text.done", **place, text=whole)
    yield _event("response.content_part.done", **place, part=part)
    outputs.append({**item, "status": "completed", "content": [part]})
    yield _event("response.output_item.done", output_index=index, item=outputs[-1])


def _call(tool: ToolCall, call_id: str) -> Json:
    """A call in the form that the service gives to this kind of tool."""
    head = {"id": f"fc_{call_id}", "call_id": call_id, "status": "completed"}
    if tool.name == "local_shell":
        return {**head, "type": "local_shell_call", "action": {"type": "exec", "env": {}, **tool.arguments}}
    if tool.name == "apply_patch":
        return {
            **head,
            "type": "custom_tool_call",
            "name": tool.name,
            "input": tool.arguments.get("input", ""),
        }
    return {**head, "type": "function_call", "name": tool.name, "arguments": json.dumps(tool.arguments)}


def _fault(script: Script, identity: Json) -> Iterator[Step]:
    match script.fault:
        case "error-event":
            error = {"code": "server_is_overloaded", "message": "scripted server_is_overloaded"}
            yield _event("response.failed", response={**identity, "status": "failed", "error": error})
        case "reset":
            yield Sleep(BEFORE_RESET_S)
            yield Cut(reset=True)
        case "eof":
            yield Cut(reset=False)
        case _:
            yield Sleep(HANG_LIMIT_S)
            yield Cut(reset=False)


def _ending(script: Script, response: Json) -> SendEvent:
    if script.stop is None:
        return _event("response.completed", response={**response, "status": "completed"})
    details = {"reason": script.stop}
    return _event(
        "response.incomplete", response={**response, "status": "incomplete", "incomplete_details": details}
    )


def _usage(script: Script) -> Json:
    usage = script.usage
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _event(kind: str, **fields: Any) -> SendEvent:
    return SendEvent(kind, {"type": kind, **fields})
