"""The supervisor's API as an OpenAPI 3.1 document, made from the structs that the routes really read and write."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from shared import openapi
from shared.contracts import (
    CompatibilityResult,
    ConsumerManifest,
    EndpointDescriptor,
    ExecutionContext,
    InferenceRequest,
    LeaseOptions,
)
from shared.health import Health
from shared.openapi import ErrorDetail, Json, content, in_path, query
from supervisor.caller import CallerLimits
from supervisor.proof import ReleaseProof
from supervisor.views import LeaseReleased, LeaseView, NewToken, Released, TokenView

MAX_EXPIRES_IN_S = 100 * 366 * 86_400.0
ADMIN_ONLY: list[Json] = [{"adminToken": []}]
EVERY_CALLER: list[Json] = [*ADMIN_ONLY, {"apiToken": []}]
WITH_A_TOKEN = ("journal_unavailable", "not_permitted", "unauthorized")
IN_A_LEASE_REQUEST = (
    "conflicting_options", "idempotency_key_reused", "incompatible", "invalid_consumer_manifest", "invalid_context",
    "invalid_lease_options", "missing_model_identity", "unsupported_endpoint_provider", "unsupported_extension",
    "unsupported_provider",
)  # fmt: skip
IN_A_START = (
    "at_capacity", "boot_failed", "cli_not_found", "lease_closed", "memory_pressure", "not_logged_in",
    "provider_crashed", "shutting_down", "survivors",
)  # fmt: skip


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


class ErrorBody(msgspec.Struct, kw_only=True):
    """Every error; what belongs to an incompatible request, a release or a release of many stands beside it.

    So does, where a longer time to live was asked for than this caller may have, the longest, in seconds.
    """

    error: ErrorDetail
    compatibility: CompatibilityResult | None = None
    proof: ReleaseProof | None = None
    endpoints: list[LeaseReleased] | None = None
    max_ttl_s: float | None = None


class Renewal(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a renewal reads, in seconds."""

    ttl_s: float


class LeaseList(msgspec.Struct, kw_only=True):
    """Every lease."""

    endpoints: list[LeaseView]


class LeaseLog(msgspec.Struct, kw_only=True):
    """The end of one lease's log."""

    log: str


class Left(msgspec.Struct, kw_only=True):
    """The answer of a supervisor that leaves."""

    left: bool


class ReleasedList(msgspec.Struct, kw_only=True):
    """How each of several leases ended."""

    endpoints: list[LeaseReleased]


class TokenBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What ``POST /v1/tokens`` reads."""

    name: str
    expires_in_s: Annotated[float, Meta(gt=0, le=MAX_EXPIRES_IN_S)] | None = None
    limits: CallerLimits = CallerLimits()


class TokenList(msgspec.Struct, kw_only=True):
    """Every named token."""

    tokens: list[TokenView]


class Revoked(msgspec.Struct, kw_only=True):
    """The answer to a revocation, with the leases that were released with it."""

    revoked: bool
    endpoints: list[LeaseReleased]


BODIES = (
    EnsureBody, EnsureAnswer, ErrorBody, Health, Renewal, LeaseList, LeaseLog, LeaseView, Left, Released, ReleasedList,
    ConsumerManifest, TokenBody, TokenList, NewToken, Revoked,
)  # fmt: skip


def document(version: str) -> Json:
    """The whole document."""
    lease_ref, token_name = in_path("lease_ref"), in_path("name")
    ended = {"name": "ended", "in": "query", "schema": {"type": "boolean"}}

    return {
        "openapi": "3.1.0",
        "info": {"title": "asm-endpoint supervisor", "version": version},
        "components": {
            "schemas": openapi.schemas(BODIES),
            "securitySchemes": {
                "adminToken": {"type": "http", "scheme": "bearer"},
                "apiToken": {"type": "http", "scheme": "bearer"},
            },
        },
        "paths": {
            "/healthz": {
                "get": _operation(
                    "Whether leases can be made, and what is wrong",
                    Health,
                    security=[],
                    also={"503": {"description": "They cannot", **content(Health)}},
                )
            },
            "/metrics": {"get": _operation("Prometheus metrics", security=ADMIN_ONLY)},
            "/openapi.json": {"get": _operation("This document")},
            "/v1/consumer-manifest": {
                "get": _operation("The manifest of a fitting consumer", ConsumerManifest)
            },
            "/v1/providers": {"get": _operation("Publications, and what is installed")},
            "/v1/endpoints": {
                "get": {
                    **_operation(
                        "Every open lease the caller may see, and ended ones if asked for",
                        LeaseList,
                        errors=("invalid_request",),
                    ),
                    "parameters": [query("group"), query("owner"), ended],
                },
                "delete": {
                    **_operation(
                        "End the leases of a group or an owner at once, with proofs",
                        ReleasedList,
                        errors=("invalid_request", "survivors"),
                    ),
                    "parameters": [query("group"), query("owner")],
                },
                "post": {
                    **_operation(
                        "Lease an endpoint",
                        EnsureAnswer,
                        body=EnsureBody,
                        status="201",
                        errors=(*IN_A_LEASE_REQUEST, *IN_A_START),
                    ),
                    "parameters": [openapi.IDEMPOTENCY_KEY],
                },
            },
            "/v1/endpoints/{lease_ref}": {
                "parameters": [lease_ref],
                "get": _operation("One lease", LeaseView, errors=("not_found",)),
                "delete": _operation("End a lease, with proof", Released, errors=("survivors",)),
            },
            "/v1/endpoints/{lease_ref}/log": {
                "parameters": [lease_ref],
                "get": _operation(
                    "The end of a lease's log, without secrets", LeaseLog, errors=("not_found",)
                ),
            },
            "/v1/leave": {
                "post": _operation(
                    "Leave every lease to the next supervisor, and end",
                    Left,
                    security=ADMIN_ONLY,
                    errors=("shutting_down",),
                )
            },
            "/v1/endpoints/{lease_ref}/renew": {
                "parameters": [lease_ref],
                "post": _operation(
                    "Let a lease live longer",
                    LeaseView,
                    body=Renewal,
                    errors=("invalid_lease_options", "not_found"),
                ),
            },
            "/v1/tokens": {
                "get": _operation("Every named token, never itself", TokenList, security=ADMIN_ONLY),
                "post": _operation(
                    "Add a token",
                    NewToken,
                    body=TokenBody,
                    status="201",
                    security=ADMIN_ONLY,
                    errors=("name_taken",),
                ),
            },
            "/v1/tokens/{name}": {
                "parameters": [token_name],
                "delete": {
                    **_operation(
                        "Refuse a token from now on",
                        Revoked,
                        security=ADMIN_ONLY,
                        errors=("invalid_request", "not_found", "survivors"),
                    ),
                    "parameters": [query("release", "boolean")],
                },
            },
            "/v1/tokens/{name}/rotate": {
                "parameters": [token_name],
                "post": _operation(
                    "A new token in place of the old one",
                    NewToken,
                    security=ADMIN_ONLY,
                    errors=("not_found",),
                ),
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
    errors: tuple[str, ...] = (),
    also: Json | None = None,
) -> Json:
    """One method of a path. ``errors`` are the codes of its own; those of its token come with them."""
    security = EVERY_CALLER if security is None else security
    return openapi.operation(
        summary,
        content(answer),
        error_body=ErrorBody,
        security=security,
        errors=(*(WITH_A_TOKEN if security else ()), *errors),
        status=status,
        body=body,
        also=also,
    )
