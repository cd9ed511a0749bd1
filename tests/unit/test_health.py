"""Health by its rules: each reason comes and goes for its own cause, and being busy is none."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from shared import scoreboard
from shared.errors import PROVIDER_KINDS, WorkerError, typed
from shared.health import PROVIDER_FAILED, RESTART_SHOWN_S, Health, Reason, Status, health, worker_reasons
from supervisor.health import Facts, supervisor_health
from worker.trouble import LOGIN_CODES, OF_THIS_REQUEST, Trouble

NOW_NS = 1_000_000_000_000


def codes(
    board: scoreboard.Scoreboard, now_ns: int = NOW_NS, *, is_supported_version: bool = True
) -> list[str]:
    """The codes of what the worker knows."""
    return [each.code for each in worker_reasons(board, now_ns, is_supported_version=is_supported_version)]


def end_turn(trouble: Trouble, error: BaseException | None = None) -> None:
    """One turn that works, or fails with that error."""

    async def turn() -> None:
        async with trouble.of_turn():
            if error:
                raise error

    if error is None:
        asyncio.run(turn())
    else:
        with pytest.raises(type(error)):
            asyncio.run(turn())


def test_without_reasons_it_is_ok():
    """And a busy board has none."""
    board = scoreboard.local()
    for name in ("in_flight", "queued", "requests", "failures", "boots"):
        board[name] = 1
    board["in_flight"], board["queued"], board["failures"] = 64, 1024, 10**6
    assert codes(board) == []
    assert health([]).status == "ok"
    assert health([]).reasons == ()


def test_the_worst_reason_decides():
    """Whatever the order."""
    mild = Reason(code="a", message="a")
    grave = Reason(code="b", message="b", status=Status.UNAVAILABLE)
    assert health([mild]).status == "degraded"
    assert health([mild, grave]).status == health([grave, mild]).status == "unavailable"


def test_a_lease_without_budget_serves_nobody():
    """That is more than a trouble, and it does not end."""
    board = scoreboard.local()
    board["budget_exhausted_ns"] = NOW_NS - 5_000_000_000
    (reason,) = worker_reasons(board, NOW_NS, is_supported_version=True)
    assert (reason.code, reason.status) == ("budget_exhausted", "unavailable")
    assert "5 s ago" in reason.message


def test_provider_failures_count_in_a_row():
    """A single one is no reason; a success in between begins anew."""
    board = scoreboard.local()
    trouble = Trouble(board)
    failure = typed("provider_overloaded", "busy")
    for _ in range(2):
        for _ in range(PROVIDER_FAILED - 1):
            end_turn(trouble, failure)
        assert codes(board) == []
        end_turn(trouble)
    for _ in range(PROVIDER_FAILED):
        end_turn(trouble, failure)
    assert codes(board) == ["provider_failing"]
    end_turn(trouble)
    assert codes(board) == []


@pytest.mark.parametrize("code", ["not_logged_in", "provider_auth_failed"])
def test_one_refused_login_is_a_reason_until_a_turn_works(code: str):
    """It will not go away by itself."""
    board = scoreboard.local()
    trouble = Trouble(board)
    end_turn(trouble, typed(code, "no"))
    assert codes(board) == ["not_logged_in"]
    end_turn(trouble)
    assert codes(board) == []


@pytest.mark.parametrize(
    "error",
    [
        *(typed(code, "no") for code in sorted(OF_THIS_REQUEST)),
        WorkerError("at_capacity", "no"),
        typed("context_length_exceeded", "no"),
        asyncio.CancelledError(),
        ValueError(),
    ],
    ids=repr,
)
def test_what_one_request_did_is_no_reason(error: BaseException):
    """Neither for the next failure in a row, nor does it end the row."""
    board = scoreboard.local()
    trouble = Trouble(board)
    for _ in range(PROVIDER_FAILED - 1):
        end_turn(trouble, typed("provider_error", "no"))
    end_turn(trouble, error)
    assert codes(board) == []
    end_turn(trouble, typed("provider_error", "no"))
    assert codes(board) == ["provider_failing"]


def test_the_named_codes_exist():
    """A code that nobody raises any more would never count."""
    assert set(PROVIDER_KINDS) >= OF_THIS_REQUEST | LOGIN_CODES


def test_standbys_that_fail_are_a_reason_until_a_turn_works():
    """The first one already: the next turn will be slow, or fail."""
    board = scoreboard.local()
    trouble = Trouble(board)
    trouble.standby_failed()
    assert codes(board) == ["standby_failing"]
    end_turn(trouble)
    assert codes(board) == []


def test_a_restart_is_a_reason_for_a_while():
    """The first start is none."""
    board = scoreboard.local()
    board["boots"], board["booted_ns"] = 1, NOW_NS
    assert codes(board) == []
    board["boots"] = 2
    assert codes(board) == ["worker_restarted"]
    assert codes(board, NOW_NS + int((RESTART_SHOWN_S - 1) * 1e9)) == ["worker_restarted"]
    assert codes(board, NOW_NS + int(RESTART_SHOWN_S * 1e9)) == []


def test_an_untested_version_is_a_reason():
    """For as long as it is installed."""
    assert codes(scoreboard.local(), is_supported_version=False) == ["unsupported_version"]


SUPERVISOR = Facts(
    is_ending=False, has_zygote=True, is_journal_failing=False, available_bytes=2, min_available_bytes=1
)


def test_a_supervisor_without_trouble_is_ok():
    """Enough memory included."""
    assert supervisor_health(SUPERVISOR) == Health()


@pytest.mark.parametrize(
    ("fact", "status", "code"),
    [
        ({"is_ending": True}, "unavailable", "shutting_down"),
        ({"is_journal_failing": True}, "unavailable", "journal_unavailable"),
        ({"available_bytes": 0}, "unavailable", "memory_pressure"),
        ({"has_zygote": False}, "degraded", "zygote_gone"),
    ],
)
def test_each_trouble_of_a_supervisor_has_its_reason(fact: dict, status: str, code: str):
    """Unavailable while no lease can be made; a zygote that is gone is started again by the next one."""
    found = supervisor_health(msgspec.structs.replace(SUPERVISOR, **fact))
    assert (found.status, [reason.code for reason in found.reasons]) == (status, [code])


def test_a_supervisor_that_ends_does_not_complain_that_its_zygote_has():
    """It was asked to."""
    found = supervisor_health(msgspec.structs.replace(SUPERVISOR, is_ending=True, has_zygote=False))
    assert [reason.code for reason in found.reasons] == ["shutting_down"]
