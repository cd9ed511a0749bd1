"""One lease's API as an OpenAPI 3.1 document. The request's fields are those of the table in ``worker.parameters``."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from shared import openapi
from shared.errors import PROVIDER_KINDS
from shared.health import Reason
from shared.openapi import ErrorDetail, Json, content, in_path
from worker.parameters import HONOURED, PARAMETERS

IN_A_COMPLETION = (
    "at_capacity", "context_length_exceeded", "idempotency_conflict", "idempotency_key_reused", "insufficient_quota",
    "lease_closed", "model_mismatch", "streaming_not_published", "tools_not_supported", "unsupported_parameter",
    *(code for code in PROVIDER_KINDS if code != "sdk_not_installed"),  # which only native bridges say
)  # fmt: skip
TOKEN: list[Json] = [{"leaseToken": []}]


class ErrorBody(msgspec.Struct, kw_only=True):
    """Every error. With a budget that is used up, what it was and what of it was spent stand beside ``error``."""

    error: ErrorDetail


class ModelObject(msgspec.Struct, kw_only=True):
    """The pinned model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(msgspec.Struct, kw_only=True):
    """A list of one."""

    object: Literal["list"]
    data: list[ModelObject]


class LeaseHealth(msgspec.Struct, kw_only=True):
    """What this worker is, how it is, and how busy."""

    status: str
    reasons: list[Reason]
    endpoint_id: str
    lease_ref: str
    provider: str
    model: str
    cli: dict[str, Any]
    budget: dict[str, Any]
    spent: dict[str, Any]
    load: dict[str, int]


class CancelledRequest(msgspec.Struct, kw_only=True):
    """A completion that was asked to end; who waits for it gets ``turn_cancelled``."""

    id: str
    object: Literal["request"]
    cancelled: bool


class PromptDetails(msgspec.Struct, kw_only=True):
    """Part of the prompt's tokens."""

    cached_tokens: int


class CompletionDetails(msgspec.Struct, kw_only=True):
    """Part of the completion's tokens."""

    reasoning_tokens: int


class UsageObject(msgspec.Struct, kw_only=True):
    """As the provider counted it."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class Message(msgspec.Struct, kw_only=True):
    """The answer."""

    role: Literal["assistant"]
    content: str
    refusal: None
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET


class Choice(msgspec.Struct, kw_only=True):
    """The one choice."""

    index: int
    message: Message
    logprobs: None
    finish_reason: Literal["stop", "length", "content_filter"]


class ChatCompletion(msgspec.Struct, kw_only=True):
    """A whole answer; without ``usage`` where the command line did not count."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: UsageObject | msgspec.UnsetType = msgspec.UNSET


class Delta(msgspec.Struct, kw_only=True):
    """A piece of the answer, or of the reasoning before it."""

    role: Literal["assistant"] | msgspec.UnsetType = msgspec.UNSET
    content: str | msgspec.UnsetType = msgspec.UNSET
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET


class ChunkChoice(msgspec.Struct, kw_only=True):
    """The one choice of a chunk."""

    index: int
    delta: Delta
    logprobs: None
    finish_reason: Literal["stop", "length", "content_filter"] | None


class ChatCompletionChunk(msgspec.Struct, kw_only=True):
    """One server-sent event of a stream, which ends with ``[DONE]``, or with an event that holds an error."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: UsageObject | msgspec.UnsetType | None = msgspec.UNSET


FIELD_TYPES: dict[str, Any] = {
    "max_completion_tokens": int | None,
    "max_tokens": int | None,
    "messages": list[dict[str, Any]] | None,
    "model": str | None,
    "prompt": str | None,
    "response_format": dict[str, Any] | None,
    "stop": str | list[str] | None,
    "stream": bool | None,
    "stream_options": dict[str, Any] | None,
}
"""Of the fields that are read; of the others nothing is asked."""
CompletionBody = msgspec.defstruct(
    "CompletionBody",
    [(name, FIELD_TYPES.get(name, Any), None) for name in sorted(PARAMETERS) if "." not in name],
    kw_only=True,
    namespace={
        "__doc__": "What is read, with ``messages`` or a ``prompt``. Any other field is ignored and reported."
    },
)


def document(version: str) -> Json:
    """The whole document."""
    made = openapi.schemas(
        [
            ErrorBody,
            LeaseHealth,
            ModelObject,
            ModelList,
            CompletionBody,
            ChatCompletion,
            ChatCompletionChunk,
            CancelledRequest,
        ]
    )
    for name, treated in _treatments().items():
        made["CompletionBody"]["properties"][name]["description"] = treated
    events = content(ChatCompletionChunk, "text/event-stream")["content"]
    answer = {
        "content": {**content(ChatCompletion)["content"], **events},
        "headers": {
            "x-asm-ignored-params": {
                "description": "The request's fields that had no effect",
                "schema": {"type": "string"},
            },
            "idempotent-replayed": {
                "description": "Present when another request under this Idempotency-Key made the answer",
                "schema": {"const": "true"},
            },
        },
    }
    lease = "/leases/{lease_ref}"
    paths: dict[str, Json] = {
        "/health": {"get": _operation("What this worker is, how it is, and how busy", content(LeaseHealth))},
        "/openapi.json": {"get": _operation("This document", {})},
        "/v1/models": {"get": _operation("The pinned model, as a list", content(ModelList))},
        "/v1/models/{model_id}": {
            "get": _operation("The pinned model", content(ModelObject), errors=("model_not_found",))
        },
        "/v1/chat/completions": {
            "parameters": [openapi.IDEMPOTENCY_KEY],
            "post": _operation(
                "Run one turn; with stream, its pieces as they come",
                answer,
                body=CompletionBody,
                errors=IN_A_COMPLETION,
            ),
        },
        "/v1/requests/{request_id}/cancel": {
            "post": _operation(
                "End a completion by its x-request-id", content(CancelledRequest), errors=("not_found",)
            )
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "asm-endpoint lease", "version": version},
        "components": {
            "schemas": made,
            "securitySchemes": {"leaseToken": {"type": "http", "scheme": "bearer"}},
        },
        "paths": {
            f"{lease}{path}": {
                **operations,
                "parameters": [
                    *(in_path(name) for name in _names(f"{lease}{path}")),
                    *operations.get("parameters", ()),
                ],
            }
            for path, operations in paths.items()
        },
    }


def _operation(summary: str, answer: Json, *, body: type | None = None, errors: tuple[str, ...] = ()) -> Json:
    return openapi.operation(
        summary,
        answer,
        error_body=ErrorBody,
        security=TOKEN,
        errors=("unauthorized", *errors),
        body=body,
    )


def _names(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]


def _treatments() -> dict[str, str]:
    words = {
        name: "Honoured" if parameter is HONOURED else "Refused" if parameter.is_refused else "Ignored"
        for name, parameter in PARAMETERS.items()
        if "." not in name
    }
    return {
        name: word if word == "Honoured" else f"{word} where its value cannot be honoured"
        for name, word in words.items()
    }
