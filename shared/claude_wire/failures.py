"""Why a turn of claude failed: what it says of causes, and our codes for them.

* API errors end with ``subtype: success`` and ``is_error: true``; the status is in ``api_error_status``.
* A usage limit of a login comes with the time at which it ends, an API key's rate limit with none.
* An answer that does not have its JSON schema would need another model request, and there is none left.
"""

from __future__ import annotations

import datetime
from typing import Any

from shared.claude_wire.lines import ResultLine
from shared.errors import LIMITS, STATUS_CODES
from shared.events import Failure

OUT_OF_TURNS = "error_max_turns"
TEXT_CODES = (
    ("prompt is too long", "context_length_exceeded"),
    ("credit balance is too low", "quota_exhausted"),
    ("content filtering", "content_filter"),
)
"""What the text says more exactly than a status of 400, or says without any."""
STATUSLESS_CODES = (
    ("not logged in", "not_logged_in"),
    ("/login", "not_logged_in"),
    ("connection", "provider_connection_failed"),
    ("stream ended", "provider_connection_failed"),
    ("overloaded", "provider_overloaded"),
)
"""What a failed result without a status says besides; 2.1.197 names less than later versions."""


def failure(line: ResultLine, *, wants_schema: bool, retry_after_s: float | None) -> Failure:
    """What a result that is none says; ``retry_after_s`` counts where it is a limit that was reached."""
    if wants_schema and line.subtype == OUT_OF_TURNS:
        return Failure(code="schema_mismatch", message="the model's answer does not have the JSON schema")
    text = line.result or "; ".join(line.errors or ()) or line.terminal_reason or line.subtype or "no message"
    code = _code(line, text.lower())
    return Failure(code=code, message=text, retry_after_s=retry_after_s if code in LIMITS else None)


def _code(line: ResultLine, text: str) -> str:
    status = line.api_error_status
    phrase_code = next((code for phrase, code in TEXT_CODES if phrase in text), None)
    if phrase_code and status in (None, 400):
        return phrase_code
    if line.api_error == "usage_limit_reached":
        return "quota_exhausted"
    if status is not None:
        return STATUS_CODES.get(status, "provider_error")
    if line.api_error == "connection_failed":
        return "provider_connection_failed"
    otherwise = "turn_cancelled" if (line.terminal_reason or "").startswith("aborted") else "provider_error"
    return next((code for phrase, code in STATUSLESS_CODES if phrase in text), otherwise)


def seconds_until(moment_s: float | None, timestamp: Any) -> float | None:
    """From the moment at which the command line printed a line, by its own clock, to ``moment_s``."""
    try:
        return None if moment_s is None else moment_s - datetime.datetime.fromisoformat(timestamp).timestamp()
    except (TypeError, ValueError):
        return None
