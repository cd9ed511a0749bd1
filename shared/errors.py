"""Every error this product raises on purpose, and the one table that turns them into HTTP.

::

    EndpointError                  has status, type, code, message, param, retry_after_s, should_retry
    ├── RequestError               the caller's fault: nothing was started or lost
    │   └── Incompatible           the compatibility decision said no; carries the result (supervisor.errors)
    ├── WorkerError                our side's fault: supervisor, zygote or worker family
    │   ├── SurvivorsError         a family could not be killed; carries the proof (supervisor.errors)
    │   └── ReleasesFailed         the same of several leases; carries each outcome (supervisor.errors)
    └── ProviderError              the command line or the model service behind it

A class exists only where a caller branches on it; everything finer is the ``code``. The codes, with their
status and OpenAI error type, are the rows of ``KINDS``. The envelope is OpenAI's:
``{"error": {"message", "type", "param", "code"}}``, with an error's details beside ``error``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec


class Kind(msgspec.Struct, frozen=True):
    """How one error code looks over HTTP: status, and OpenAI's error ``type``."""

    status: int
    type: str


UNAUTHORIZED = 401
_INVALID = "invalid_request_error"
_SERVER = "server_error"

REQUEST_KINDS: dict[str, Kind] = {
    "invalid_request": Kind(400, _INVALID),
    "invalid_consumer_manifest": Kind(400, _INVALID),
    "invalid_context": Kind(400, _INVALID),
    "invalid_lease_options": Kind(400, _INVALID),
    "missing_model_identity": Kind(400, _INVALID),
    "unsupported_provider": Kind(400, _INVALID),
    "unsupported_endpoint_provider": Kind(400, _INVALID),
    "unsupported_extension": Kind(400, _INVALID),
    "conflicting_options": Kind(400, _INVALID),
    "incompatible": Kind(409, _INVALID),
    "idempotency_key_reused": Kind(422, _INVALID),
    "idempotency_conflict": Kind(409, _INVALID),
    "model_mismatch": Kind(400, _INVALID),
    "tools_not_supported": Kind(400, _INVALID),
    "unsupported_parameter": Kind(400, _INVALID),
    "streaming_not_published": Kind(400, _INVALID),
    "context_length_exceeded": Kind(400, _INVALID),
    "misdirected_host": Kind(421, _INVALID),
    "unauthorized": Kind(401, "authentication_error"),
    "not_permitted": Kind(403, "permission_error"),
    "name_taken": Kind(409, _INVALID),
    "not_found": Kind(404, "not_found_error"),
    "method_not_allowed": Kind(405, _INVALID),
    "request_timeout": Kind(408, _INVALID),
    "request_too_large": Kind(413, _INVALID),
    "uri_too_long": Kind(414, _INVALID),
    "unsupported_media_type": Kind(415, _INVALID),
    "headers_too_large": Kind(431, _INVALID),
    "unsupported_transfer_coding": Kind(501, _INVALID),
}

WORKER_KINDS: dict[str, Kind] = {
    "at_capacity": Kind(429, "rate_limit_error"),
    "too_many_connections": Kind(503, _SERVER),
    "memory_pressure": Kind(503, _SERVER),
    "insufficient_quota": Kind(429, "insufficient_quota"),
    "internal_error": Kind(500, _SERVER),
    "boot_failed": Kind(503, _SERVER),
    "hardening_unavailable": Kind(503, _SERVER),
    "lease_closed": Kind(503, _SERVER),
    "shutting_down": Kind(503, _SERVER),
    "supervisor_unavailable": Kind(503, _SERVER),
    "already_running": Kind(503, _SERVER),
    "journal_unavailable": Kind(503, _SERVER),
    "survivors": Kind(500, _SERVER),
}

PROVIDER_KINDS: dict[str, Kind] = {
    "cli_not_found": Kind(503, _SERVER),
    "not_logged_in": Kind(503, _SERVER),
    "sdk_not_installed": Kind(503, _SERVER),
    "provider_auth_failed": Kind(502, _SERVER),
    "provider_rejected_request": Kind(400, _INVALID),
    "content_filter": Kind(400, _INVALID),
    "model_not_found": Kind(404, "not_found_error"),
    "rate_limit_exceeded": Kind(429, "rate_limit_error"),
    "quota_exhausted": Kind(429, "insufficient_quota"),
    "provider_overloaded": Kind(503, _SERVER),
    "provider_error": Kind(502, _SERVER),
    "provider_connection_failed": Kind(502, _SERVER),
    "provider_crashed": Kind(502, _SERVER),
    "provider_protocol_error": Kind(502, _SERVER),
    "provider_timeout": Kind(504, "timeout_error"),
    "tool_use_refused": Kind(502, _SERVER),
    "schema_mismatch": Kind(502, _SERVER),
    "turn_cancelled": Kind(499, _SERVER),
}

STATUS_CODES = {
    400: "provider_rejected_request",
    401: "provider_auth_failed",
    402: "quota_exhausted",
    403: "provider_auth_failed",
    404: "model_not_found",
    408: "provider_timeout",
    413: "context_length_exceeded",
    429: "rate_limit_exceeded",
    503: "provider_overloaded",
    504: "provider_timeout",
    529: "provider_overloaded",
}
"""A model service's HTTP status to our error code; every other status is ``provider_error``."""

LIMITS = frozenset({"rate_limit_exceeded", "quota_exhausted"})
"""Failures that are over after some time, which is told where it is known."""

KINDS: dict[str, Kind] = REQUEST_KINDS | WORKER_KINDS | PROVIDER_KINDS


class EndpointError(Exception):
    """The root. ``code`` must be a row of :data:`KINDS`.

    ``should_retry`` is None when nothing is known; it becomes the ``x-should-retry`` header that OpenAI's
    clients obey. ``retry_after_s`` is in seconds. ``details`` are what programs may read beside OpenAI's fields.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        should_retry: bool | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = KINDS[code]
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.should_retry = should_retry
        self.details = details or {}

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.kind.status

    @property
    def type(self) -> str:
        """OpenAI's error type."""
        return self.kind.type

    def envelope(self) -> dict[str, Any]:
        """The error as OpenAI clients expect it, for JSON bodies and stream chunks alike."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error, **self.details}

    def headers(self) -> dict[str, str]:
        """Response headers that belong to this error."""
        headers = {}
        if self.retry_after_s is not None:
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after_s)))
            headers["retry-after-ms"] = str(round(self.retry_after_s * 1000))
        if self.should_retry is not None:
            headers["x-should-retry"] = "true" if self.should_retry else "false"
        if self.status == UNAUTHORIZED:
            headers["www-authenticate"] = "Bearer"
        return headers


class RequestError(EndpointError):
    """The caller asked for something that cannot be done; nothing was started and nothing is lost."""


class WorkerError(EndpointError):
    """The supervisor, the zygote or a worker family failed."""


class ProviderError(EndpointError):
    """The command line, or the model service it talks to, failed."""


def typed(code: str, message: str, **details: Any) -> EndpointError:
    """The error of the family that ``code`` belongs to; ``details`` as in :class:`EndpointError`."""
    if code in REQUEST_KINDS:
        return RequestError(code, message, **details)
    return (WorkerError if code in WORKER_KINDS else ProviderError)(code, message, **details)
