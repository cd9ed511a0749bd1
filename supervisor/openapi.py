"""The supervisor's API as an OpenAPI 3.1 document, made from the structs that the routes really read and write."""

from __future__ import annotations

from typing import Any

import msgspec

from shared.contracts import (
    CompatibilityResult,
    ConsumerManifest,
    EndpointDescriptor,
    ExecutionContext,
    InferenceRequest,
    LeaseOptions,
)
from supervisor.views import LeaseView, Released

REF = "#/components/schemas/{name}"
Json = dict[str, Any]
SECURITY: list[Json] = [{"adminToken": []}]


class EnsureBody(msgspec.Struct, kw_only=True):
    """What ``POST /v1/endpoints`` reads."""

    request: InferenceRequest
    consumer_manifest: ConsumerManifest | None = None
    context: ExecutionContext | None = None
    lease: LeaseOptions | None = None


class EnsureAnswer(msgspec.Struct, kw_only=True):
    """What it answers."""

    endpoint: EndpointDescriptor
    compatibility: CompatibilityResult


class ErrorDetail(msgspec.Struct, kw_only=True):
    """OpenAI's error object."""

    message: str
    type: str
    code: str
    param: str | None = None


class ErrorBody(msgspec.Struct, kw_only=True):
    """Every error; ``compatibility`` with a 409."""

    error: ErrorDetail
    compatibility: CompatibilityResult | None = None


class Renewal(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a renewal reads, in seconds."""

    ttl_s: float


class LeaseList(msgspec.Struct, kw_only=True):
    """Every lease."""

    endpoints: list[LeaseView]


BODIES = (EnsureBody, EnsureAnswer, ErrorBody, Renewal, LeaseList, LeaseView, Released, ConsumerManifest)


def document(version: str) -> Json:
    """The whole document."""
    _, schemas = msgspec.json.schema_components(BODIES, ref_template=REF)
    lease_ref = {"name": "lease_ref", "in": "path", "required": True, "schema": {"type": "string"}}
    key = {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 256}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "asm-endpoint supervisor", "version": version},
        "components": {
            "schemas": schemas,
            "securitySchemes": {"adminToken": {"type": "http", "scheme": "bearer"}},
        },
        "paths": {
            "/healthz": {"get": _operation("Whether leases can be made", security=[])},
            "/metrics": {"get": _operation("Prometheus metrics")},
            "/openapi.json": {"get": _operation("This document")},
            "/v1/consumer-manifest": {
                "get": _operation("The manifest of a fitting consumer", ConsumerManifest)
            },
            "/v1/providers": {"get": _operation("Publications, and what is installed")},
            "/v1/endpoints": {
                "get": _operation("Every lease", LeaseList),
                "post": {
                    **_operation("Lease an endpoint", EnsureAnswer, body=EnsureBody, status="201"),
                    "parameters": [key],
                },
            },
            "/v1/endpoints/{lease_ref}": {
                "parameters": [lease_ref],
                "get": _operation("One lease", LeaseView),
                "delete": _operation("End a lease, with proof", Released),
            },
            "/v1/endpoints/{lease_ref}/renew": {
                "parameters": [lease_ref],
                "post": _operation("Let a lease live longer", LeaseView, body=Renewal),
            },
        },
    }


def _operation(
    summary: str,
    answer: type | None = None,
    *,
    body: type | None = None,
    status: str = "200",
    security: list[Json] | None = None,
) -> Json:
    operation: Json = {
        "summary": summary,
        "security": SECURITY if security is None else security,
        "responses": {status: {"description": summary, **_content(answer)}, "default": _error()},
    }
    if body:
        operation["requestBody"] = {"required": True, **_content(body)}
    return operation


def _error() -> Json:
    return {"description": "A typed error", **_content(ErrorBody)}


def _content(kind: type | None) -> Json:
    if kind is None:
        return {}
    return {"content": {"application/json": {"schema": {"$ref": REF.format(name=kind.__name__)}}}}
