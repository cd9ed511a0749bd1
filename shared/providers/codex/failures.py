"""How a turn of codex ended: its words for causes, and ours. Read from the protocol's schema of 0.169.0."""

from __future__ import annotations

import re

from shared.errors import LIMITS, STATUS_CODES
from shared.events import Event, Failure, Result
from shared.providers.codex.wire import Turn, TurnError

INCOMPLETE = "Incomplete response returned, reason: "
INFO_CODES = {
    "badRequest": "provider_rejected_request",
    "contextWindowExceeded": "context_length_exceeded",
    "cyberPolicy": "content_filter",
    "flexUnavailable": "provider_overloaded",
    "inferenceHookDenied": "provider_rejected_request",
    "internalServerError": "provider_error",
    "misalignmentPolicyViolation": "content_filter",
    "modelNotFound": "model_not_found",
    "policyCapacityUnavailable": "provider_overloaded",
    "rateLimitExceeded": "rate_limit_exceeded",
    "sandboxError": "provider_error",
    "serverOverloaded": "provider_overloaded",
    "sessionBudgetExceeded": "quota_exhausted",
    "threadRollbackFailed": "provider_error",
    "tooManyDenials": "tool_use_refused",
    "unauthorized": "provider_auth_failed",
    "usageLimitExceeded": "quota_exhausted",
}
"""codex's own word for a cause to our error code; ``other`` is left to the text."""
DETAILED_INFO_CODES = {
    "activeTurnNotSteerable": "provider_protocol_error",
    "httpConnectionFailed": "provider_connection_failed",
    "responseStreamConnectionFailed": "provider_connection_failed",
    "responseStreamDisconnected": "provider_connection_failed",
    "responseTooManyFailedAttempts": "provider_error",
}
"""The same for the words that come with a detail, where that is no HTTP status."""
TEXT_CODES = (
    ("stream disconnected", "provider_connection_failed"),
    ("missing environment variable", "not_logged_in"),
    ("context window", "context_length_exceeded"),
    ("invalid prompt", "content_filter"),
    ("usage policy", "content_filter"),
    ("timed out", "provider_timeout"),
    ('{"error"', "provider_rejected_request"),
    ('{"detail"', "provider_rejected_request"),
)
"""Where the word is ``other``, the beginning of what is known of the message. A 400 is the service's own body."""
WAIT = re.compile(r"try again in\s*(\d+(?:\.\d+)?)\s*(ms|s)", re.IGNORECASE)
"""What the service says in words: codex itself looks for the same."""


def outcome(turn: Turn | None, limit_ends_at_s: float | None, now_ms: float | None) -> Event:
    """How a turn ended. A limit of the plan that is reached, and codex's clock, tell how long to wait."""
    if turn is None:
        return Failure(code="provider_protocol_error", message="the turn ended, and nothing was said of how")
    if turn.status == "completed":
        return Result(stop_reason="completed")
    if turn.status == "interrupted":
        return Failure(code="turn_cancelled", message="the turn was interrupted")
    if turn.error is None:
        return Failure(code="provider_protocol_error", message=f"the turn ended as {turn.status!r}")
    message = turn.error.message
    _, is_incomplete, reason = message.partition(INCOMPLETE)
    if is_incomplete:
        return Result(stop_reason=reason.strip())
    code = failure_code(turn.error)
    wait_s = _wait_s(message, limit_ends_at_s, now_ms) if code in LIMITS else None
    return Failure(code=code, message=message, retry_after_s=wait_s)


def failure_code(error: TurnError) -> str:
    """Our code for a failed turn."""
    match error.info:
        case dict() as info if info:
            word, detail = next(iter(info.items()))
            status = detail.get("httpStatusCode") if isinstance(detail, dict) else None
            otherwise = DETAILED_INFO_CODES.get(word, "provider_error")
            return STATUS_CODES.get(status, "provider_error") if status else otherwise
        case str(word) if word in INFO_CODES:
            return INFO_CODES[word]
    text = error.message.lower()
    return next((code for phrase, code in TEXT_CODES if phrase in text), "provider_error")


def _wait_s(message: str, limit_ends_at_s: float | None, now_ms: float | None) -> float | None:
    if found := WAIT.search(message):
        return float(found[1]) / (1000 if found[2].lower() == "ms" else 1)
    if limit_ends_at_s is None or now_ms is None:
        return None
    return limit_ends_at_s - now_ms / 1000
