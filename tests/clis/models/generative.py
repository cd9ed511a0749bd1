"""The Google Generative Language API of the scripted model server, as gemini uses it: always streamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.clis.models.markers import Refusal, Script, read_script
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

ERROR_STATUSES: Mapping[int, str] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
REFUSALS: Mapping[Refusal, tuple[int, str]] = {
    "context": (
        400,
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    ),
    "key": (400, "API key not valid. Please pass a valid API key."),
    "limit": (429, "You exceeded your current quota, please check your plan and billing details."),
    "plan": (429, "You exceeded your current quota, please check your plan and billing details."),
    "quota": (429, "Your prepayment credits are depleted."),
}
"""But for ``filter``, which is an answer without candidates."""
CONTEXT_TAG = "<session_context>"
"""Begins a part that the command line puts before the prompt."""


def stream_generate_content(body: Any, serial: int) -> Iterator[Step]:
    """``POST /v1beta/models/MODEL:streamGenerateContent?alt=sse``."""
    contents = body.get("contents") if isinstance(body, dict) else None
    if not isinstance(contents, list):
        yield generative_error(400, message="contents is not specified")
        return
    answered = any("functionResponse" in part for content in contents for part in content.get("parts", ()))
    script = read_script(last_user_text(contents), tool_answered=answered)
    if script.refusal is not None:
        yield from _refuse(script.refusal, script.retry_after_s)
    elif script.status is not None:
        yield generative_error(script.status, retry_after_s=script.retry_after_s)
    else:
        yield from _stream(script, serial)


def generative_error(
    status: int, *, message: str | None = None, retry_after_s: int | None = None
) -> SendJson:
    """An error answer as the service gives it; the time to wait is a detail of the error."""
    return SendJson(status=status, body={"error": _error(status, message, retry_after_s)})


def _refuse(refusal: Refusal, retry_after_s: int | None) -> Iterator[Step]:
    if refusal == "filter":
        yield OpenStream()
        yield SendEvent(None, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}})
        return
    status, message = REFUSALS[refusal]
    yield generative_error(status, message=message, retry_after_s=retry_after_s)


def last_user_text(contents: list[Json]) -> str:
    """The text of the last user content that has any, without the context before it."""
    texts = (_text(content) for content in reversed(contents) if content.get("role") == "user")
    return next((text for text in texts if text.strip()), "")


def _text(content: Json) -> str:
    texts = (part.get("text", "") for part in content.get("parts", ()))
    return "\n".join(text for text in texts if not text.lstrip().startswith(CONTEXT_TAG))


def _stream(script: Script, serial: int) -> Iterator[Step]:
    yield OpenStream()
    yield Sleep(script.first_s)
    parts: list[Json] = [{"text": thought, "thought": True} for thought in script.thoughts]
    parts += [{"text": word} for word in script.words or ()]
    if script.tool is not None and script.fault is None:
        call = {"id": f"call_scripted{serial:06}", "name": script.tool.name, "args": script.tool.arguments}
        parts.append({"functionCall": call})
    for number, part in enumerate(parts):
        if number:
            yield Sleep(script.delay_s)
        yield SendEvent(None, _chunk(script, serial, part))
    yield from _ending(script, serial)


def _ending(script: Script, serial: int) -> Iterator[Step]:
    match script.fault:
        case "error-event":
            yield SendEvent(None, {"error": _error(503)})
        case "reset":
            yield Sleep(BEFORE_RESET_S)
            yield Cut(reset=True)
        case "eof":
            yield Cut(reset=False)
        case "hang":
            yield Sleep(HANG_LIMIT_S)
            yield Cut(reset=False)
        case None:
            yield SendEvent(None, _chunk(script, serial, {"text": ""}, finish_reason=script.stop or "STOP"))


def _chunk(script: Script, serial: int, part: Json, finish_reason: str | None = None) -> Json:
    usage = script.usage
    candidate: Json = {"content": {"role": "model", "parts": [part]}, "index": 0}
    if finish_reason:
        candidate["finishReason"] = finish_reason
    return {
        "candidates": [candidate],
        "usageMetadata": {
            "promptTokenCount": usage.input_tokens,
            "candidatesTokenCount": usage.output_tokens,
            "cachedContentTokenCount": usage.cached_tokens,
            "thoughtsTokenCount": usage.reasoning_tokens,
            "totalTokenCount": usage.input_tokens + usage.output_tokens + usage.reasoning_tokens,
        },
        "modelVersion": "scripted",
        "responseId": f"resp_scripted{serial:06}",
    }


def _error(status: int, message: str | None = None, retry_after_s: int | None = None) -> Json:
    name = ERROR_STATUSES.get(status, "UNKNOWN")
    error: Json = {"code": status, "message": message or f"scripted {name}", "status": name}
    if retry_after_s is not None:
        kind = "type.googleapis.com/google.rpc.RetryInfo"
        error["details"] = [{"@type": kind, "retryDelay": f"{retry_after_s}s"}]
    return error
