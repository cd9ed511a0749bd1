"""What is said of an endpoint's health, and why: ``ok``, ``degraded`` or ``unavailable``. Pure.

Degraded means that the next request may fail or be slow for a reason that somebody should look at; unavailable, that
it will not be served. Being busy is neither: a full queue, a long turn and a slow model are what an endpoint is for.
Worker and supervisor read the same scoreboard by the same rules, so they say the same; what only the supervisor can
know (a late heart, a lease that is ending) it adds.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

import msgspec

from shared.scoreboard import Scoreboard

STANDBYS_FAILED = 1
PROVIDER_FAILED = 3
"""So many failures in a row are no accident any more; fewer may be the model service's momentary trouble."""
RESTART_SHOWN_S = 60.0
"""How long a worker process counts as started anew; as long as deaths are counted before the lease ends."""


class Status(enum.StrEnum):
    """The worst first, as :func:`health` decides."""

    UNAVAILABLE = "unavailable"
    DEGRADED = "degraded"
    OK = "ok"


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why it is not ok: a code for programs and a sentence for people. ``status`` is what it makes of the whole."""

    code: str
    message: str
    status: Status = Status.DEGRADED


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The worst status of its reasons; ok without any."""

    status: Status = Status.OK
    reasons: tuple[Reason, ...] = ()


def health(reasons: Iterable[Reason]) -> Health:
    """The health that these reasons make."""
    found = tuple(reasons)
    status = next((status for status in Status if any(each.status is status for each in found)), Status.OK)
    return Health(status=status, reasons=found)


def worker_reasons(board: Scoreboard, now_ns: int, *, is_supported_version: bool) -> list[Reason]:
    """What the worker itself knows. ``now_ns`` is of the monotonic clock."""
    reasons = []
    if exhausted_ns := board["budget_exhausted_ns"]:
        text = f"the lease's budget was used up {_seconds(now_ns - exhausted_ns):.0f} s ago"
        reasons.append(Reason(code="budget_exhausted", message=text, status=Status.UNAVAILABLE))
    if (failures := board["standby_failures"]) >= STANDBYS_FAILED:
        text = f"{failures} command lines in a row did not start, or ended before they were used"
        reasons.append(Reason(code="standby_failing", message=text))
    if refused_ns := board["login_refused_ns"]:
        ago_s = _seconds(now_ns - refused_ns)
        text = f"the provider refused the login {ago_s:.0f} s ago, and no turn has succeeded since"
        reasons.append(Reason(code="not_logged_in", message=text))
    if (failures := board["provider_failures"]) >= PROVIDER_FAILED:
        text = f"the last {failures} turns failed at the provider"
        reasons.append(Reason(code="provider_failing", message=text))
    if board["boots"] > 1 and (ago_s := _seconds(now_ns - board["booted_ns"])) < RESTART_SHOWN_S:
        text = f"the worker process died and was started again {ago_s:.0f} s ago"
        reasons.append(Reason(code="worker_restarted", message=text))
    if not is_supported_version:
        text = "the command line's version is not one that was tested"
        reasons.append(Reason(code="unsupported_version", message=text))
    return reasons


def _seconds(ns: int) -> float:
    return max(0, ns) / 1e9
