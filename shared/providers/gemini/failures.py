"""How a turn of gemini ended: its stop reasons, error codes and messages in our terms. Measured with 0.61.0."""

from __future__ import annotations

import re

from shared.errors import STATUS_CODES
from shared.events import Event, Failure, Result, ToolUse, Usage
from shared.providers.gemini.wire import RpcError, RpcResult

RETRY_AFTER = re.compile(r"retry after (\d+(?:\.\d+)?)\s*s")
TEXT_CODES = (
    ("is not found", "model_not_found"),
    ("not_found", "model_not_found"),
    ("terminated", "provider_connection_failed"),
    ("fetch failed", "provider_connection_failed"),
    ("api key not valid", "provider_auth_failed"),
    ("api key is missing", "not_logged_in"),
    ("authenticat", "not_logged_in"),
    ("exceeds the maximum number of tokens", "context_length_exceeded"),
)
"""What the message says more exactly than its code: 404, and a connection that was cut, both come as 500."""
QUOTA = re.compile(r"daily quota|current quota|credits")
"""In a 429 without a time to wait: nothing that passes by itself soon."""
STOP_FAILURES = {
    "cancelled": Failure(code="turn_cancelled", message="the turn was cancelled"),
    "max_tokens": Failure(
        code="context_length_exceeded",
        message="the prompt is longer than the model's context, as gemini estimates it",
    ),
}
NO_TEXT = Failure(
    code="provider_error",
    message="the model gave no text: filtered, cut at a limit, or empty; gemini does not say which",
)
CUT_OFF = Failure(
    code="provider_connection_failed",
    message="the answer was cut off, or the service filtered the prompt; gemini does not say which",
)


def outcome(result: RpcResult, *, has_text: bool) -> Event:
    """How a turn ended that was not refused; ``has_text`` when the model said something."""
    reason, quota = result.stop_reason, result.meta.quota
    if reason == "end_turn":
        if not quota.model_usage:
            return CUT_OFF
        counts = quota.token_count
        usage = Usage(prompt_tokens=counts.input_tokens, completion_tokens=counts.output_tokens)
        return Result(stop_reason=reason, usage=usage) if has_text else NO_TEXT
    if reason == "max_turn_requests":
        return ToolUse(tool_name="unknown")
    if reason == "refusal":
        return Result(stop_reason=reason)
    unknown = f"the turn ended for an unknown reason: {reason!r}"
    return STOP_FAILURES.get(reason or "", Failure(code="provider_protocol_error", message=unknown))


def failure(error: RpcError) -> Failure:
    """What a refused request is."""
    message = error.message.lower()
    wait = RETRY_AFTER.search(message)
    code = STATUS_CODES.get(error.code, "provider_error")
    if error.code == 429:
        code = "quota_exhausted" if not wait and QUOTA.search(message) else code
    elif error.code == 400 or code == "provider_error":
        code = next((code for phrase, code in TEXT_CODES if phrase in message), code)
    return Failure(code=code, message=error.message, retry_after_s=float(wait[1]) if wait else None)
