"""What goes wrong with a command line: how it is made to, and what a caller sees of it. One table for all of them.

A row is a cause. Most causes are what the scripted model does for a prompt; a deadline passes in silence, a process is
killed, and a protocol drifts when a program between us and the command line changes what it prints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

By: TypeAlias = Literal["model", "deadline", "kill", "drift"]


@dataclass(frozen=True, kw_only=True)
class Failing:
    """One cause. ``end`` is the error's code; with status 200, the finish reason."""

    by: By = "model"
    prompt: str
    status: int
    end: str
    retry_after: str | None = None
    """The header's value."""
    has_begun: bool = False
    """Whether pieces of the answer came before it, so that a stream's status was 200."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """Deadlines, in seconds, under which it happens."""
    drift: tuple[str, str] = ("", "")
    """What the command line prints, and what is read instead."""


def _refused(prompt: str, status: int, code: str, retry_after: str | None = None) -> Failing:
    return Failing(prompt=f"{prompt} x", status=status, end=code, retry_after=retry_after)


def _broken(fault: str, code: str, status: int = 502) -> Failing:
    return Failing(
        prompt=f"[[deltas:5]] [[delay:0.02]] [[{fault}]] x", status=status, end=code, has_begun=True
    )


def _ended(stop_reason: str, finish_reason: str) -> Failing:
    return Failing(prompt=f"[[stop:{stop_reason}]] x", status=200, end=finish_reason)


def _late(prompt: str, **limits: float) -> Failing:
    return Failing(by="deadline", prompt=prompt, status=504, end="provider_timeout", limits=limits)


def _drifted(printed: str, read: str) -> Failing:
    return Failing(
        by="drift",
        prompt="x",
        status=502,
        end="provider_protocol_error",
        has_begun=True,
        drift=(printed, read),
    )


EVERYWHERE: Mapping[str, Failing] = {
    "no such key": _refused("[[refuse:key]]", 502, "provider_auth_failed"),
    "unauthorised": _refused("[[status:401]]", 502, "provider_auth_failed"),
    "forbidden": _refused("[[status:403]]", 502, "provider_auth_failed"),
    "rate limit": _refused("[[status:429]]", 429, "rate_limit_exceeded"),
    "rate limit with its time": _refused(
        "[[refuse:limit]] [[retry-after:7]]", 429, "rate_limit_exceeded", "7"
    ),
    "plan used up": _refused("[[refuse:plan]] [[retry-after:70]]", 429, "quota_exhausted", "70"),
    "quota used up": _refused("[[refuse:quota]]", 429, "quota_exhausted"),
    "overloaded": _refused("[[status:503]]", 503, "provider_overloaded"),
    "overloaded, in Anthropic's words": _refused("[[status:529]]", 503, "provider_overloaded"),
    "server error": _refused("[[status:500]]", 502, "provider_error"),
    "gateway timeout": _refused("[[status:504]]", 504, "provider_timeout"),
    "bad request": _refused("[[status:400]]", 400, "provider_rejected_request"),
    "unknown model": _refused("[[status:404]]", 404, "model_not_found"),
    "context length": _refused("[[refuse:context]]", 400, "context_length_exceeded"),
    "prompt filtered": _refused("[[refuse:filter]]", 400, "content_filter"),
    "empty answer": Failing(prompt="[[empty]] x", status=200, end="stop"),
    "stream cut": _broken("eof", "provider_connection_failed"),
    "connection reset": _broken("reset", "provider_connection_failed"),
    "error in the stream": _broken("error-event", "provider_overloaded", 503),
    "no first output": _late("[[hang]] x", first_output_s=6.0),
    "silence": _late("[[text:begun]] [[hang]] x", silence_s=2.0),
    "too long": _late("[[deltas:5000]] [[delay:0.05]] x", total_s=6.0),
    "crash": Failing(
        by="kill", prompt="[[text:begun]] [[hang]] x", status=502, end="provider_crashed", has_begun=True
    ),
}
"""What is the same for all command lines; a provider's own rows are added, or take the place of these."""

FAILURES: Mapping[str, Mapping[str, Failing]] = {
    "claude": {
        **EVERYWHERE,
        # An API key's limits have no time that claude would print; those of a login do: test_claude.py.
        "rate limit with its time": _refused(
            "[[refuse:limit]] [[retry-after:7]]", 429, "rate_limit_exceeded"
        ),
        "plan used up": _refused("[[refuse:plan]] [[retry-after:70]]", 429, "rate_limit_exceeded"),
        "answer cut at a limit": _ended("max_tokens", "length"),
        "answer filtered": _ended("refusal", "content_filter"),
        "protocol drift": _drifted('"is_error":false', '"is_error":"no"'),
    },
    "codex": {
        **EVERYWHERE,
        "answer cut at a limit": _ended("max_output_tokens", "length"),
        "answer filtered": _ended("content_filter", "content_filter"),
        "protocol drift": _drifted('"status":"completed"', '"state":"completed"'),
    },
    "gemini": {
        **EVERYWHERE,
        "plan used up": _refused("[[refuse:plan]] [[retry-after:70]]", 429, "rate_limit_exceeded", "70"),
        # gemini tells nobody why there is no answer, or no more of it.
        "prompt filtered": _refused("[[refuse:filter]]", 502, "provider_connection_failed"),
        "empty answer": _refused("[[empty]]", 502, "provider_error"),
        "error in the stream": _broken("error-event", "provider_connection_failed"),
        "answer cut at a limit": _ended("MAX_TOKENS", "stop"),
        "answer filtered": _ended("SAFETY", "stop"),
        "answer filtered to nothing": _refused("[[empty]] [[stop:SAFETY]]", 502, "provider_error"),
        "protocol drift": _drifted('"stopReason":"end_turn"', '"stopReason":"finished"'),
    },
}
REQUIRED = frozenset({*EVERYWHERE, "answer cut at a limit", "answer filtered", "protocol drift"})
"""Causes that every command line in front of the scripted model has to have a row for."""


STUBBED: Mapping[str, Failing] = {
    "no such key": _refused(
        "[[dies:Error: Invalid or missing API key. Run 'amp login' to authenticate.]]",
        502,
        "provider_auth_failed",
    ),
    "forbidden": _refused(
        "[[dies:Error: Access token expired. Run 'amp login' to refresh.]]", 502, "provider_auth_failed"
    ),
    "rate limit": _refused(
        "[[dies:Error: API request for getUserInfo failed: 429]]", 429, "rate_limit_exceeded"
    ),
    "quota used up": _refused("[[dies:Error: Out of credits (scripted)]]", 429, "quota_exhausted"),
    "overloaded": _refused(
        "[[error:Model Provider Overloaded Try again in a few seconds.]]", 503, "provider_overloaded"
    ),
    "server error": _refused(
        "[[dies:Error: Amp server returned an error. Try again in a moment.]]", 502, "provider_error"
    ),
    "an error of a kind not known": _refused("[[error:Something new.]]", 502, "provider_error"),
    "no connection": _refused(
        "[[dies:Error: Couldn't connect to the Amp server at http://x.]]", 502, "provider_connection_failed"
    ),
    "context length": _refused(
        "[[dies:Error: Execute mode input is too large to send safely]]", 400, "context_length_exceeded"
    ),
    "login dialogue": _refused("[[prints:No API key found. Starting login flow...]]", 503, "not_logged_in"),
    "no first output": _late("[[hang]] x", first_output_s=1.0),
    "silence": _late("[[stall]] x", silence_s=1.0),
    "too long": _late("[[stall]] x", total_s=2.0),
    "crash": Failing(by="kill", prompt="[[stall]] x", status=502, end="provider_crashed", has_begun=True),
    "protocol drift": _refused('[[prints:{"type":"result","success":true}]]', 502, "provider_protocol_error"),
}
"""amp's: what its stub prints is what was recorded of the real one."""
AMP_STATUSES: Mapping[int | None, str] = {
    401: "provider_auth_failed",
    402: "quota_exhausted",
    403: "provider_auth_failed",
    404: "provider_error",
    429: "rate_limit_exceeded",
    500: "provider_error",
    None: "provider_connection_failed",
}
"""What the real amp is told by its service, or by nobody, before a turn begins; and the code that it ends with."""


def rows(by: By) -> list[tuple[str, str]]:
    """Provider and cause of every row of that kind, of the command lines in front of the scripted model."""
    return [
        (provider, cause)
        for provider, failures in FAILURES.items()
        for cause, failing in failures.items()
        if failing.by == by
    ]
