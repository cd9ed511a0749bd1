"""Budgets on real turns: what is over is stopped, command line and all; and a lease that has spent all of it ends."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from shared.contracts import Budget
from shared.errors import RequestError, WorkerError
from shared.launch import TurnLimits
from supervisor import InferenceEndpoint
from tests.process.serving import ask, until
from tests.process.test_turns import PATIENCE_S, gone, run
from worker.session import Session, open_session, query, stream

pytestmark = pytest.mark.process
LONG = "[[pause:0.05]] " + "word " * 100
ENDLESS = "[[silence]] x"
GRACE_S = 3.0


@pytest.fixture(autouse=True)
def misbehaving_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of echo's markers."""
    monkeypatch.setenv("ASM_ENDPOINT_ECHO_MISBEHAVE", "1")


async def serving(session: Session) -> int:
    """The pid of the one command line that serves, once there is one."""
    async with asyncio.timeout(PATIENCE_S):
        while not session.pool._serving:
            await asyncio.sleep(0.01)
    (process,) = session.pool._serving
    return process.pid


@pytest.mark.parametrize(
    ("budget", "prompt"),
    [
        (Budget(total_tokens=140), LONG),
        (Budget(cli_s=0.5), LONG),
        (Budget(cli_s=0.5), ENDLESS),
        (Budget(cli_s=0.5), "[[ignore-term]] [[silence]] x"),
    ],
    ids=["tokens", "time", "time in silence", "time of what ignores SIGTERM"],
)
def test_a_turn_that_goes_over_is_stopped_with_its_command_line(budget: Budget, prompt: str):
    """It fails with what was spent, its process goes, nothing is kept ready, and the next one is refused."""

    async def scenario(session: Session) -> None:
        turn = asyncio.ensure_future(query(session, prompt))
        pid = await serving(session)
        with pytest.raises(WorkerError, match="budget is used up") as caught:
            await turn
        assert (caught.value.code, caught.value.status) == ("insufficient_quota", 429)
        await gone(pid)
        spent = session.capacity.ledger.spent
        ((name, limit),) = caught.value.envelope()["budget"].items()
        assert limit <= getattr(spent, name) < limit * 2
        with pytest.raises(WorkerError, match="budget is used up"):
            await query(session, "hello")
        async with asyncio.timeout(PATIENCE_S):
            while session.pool.standbys or session.pool._stopping:
                await asyncio.sleep(0.01)
        assert session.capacity.board["failures"] == 1

    run(scenario, budget=budget)


def test_a_turn_within_its_budget_is_not_stopped():
    """Positive control: the same turn with enough of everything."""

    async def scenario(session: Session) -> None:
        words = "word " * 20
        assert (await query(session, "[[pause:0.01]] " + words)).text == words
        totals = session.capacity.board.totals()
        assert (totals.requests, totals.turns, totals.failures) == (1, 1, 0)
        assert (totals.prompt_tokens, totals.completion_tokens, totals.estimated_tokens) == (21, 20, 0)
        assert totals.cli_ms >= 200
        assert (totals.ttfd_count, session.capacity.board["pending_tokens"]) == (1, 0)

    run(scenario, budget=Budget(requests=1, total_tokens=1000, cost_usd=1, cli_s=60))


def test_nothing_is_made_ready_for_a_turn_that_cannot_come():
    """Beside the last one that the budget pays for, no command line waits."""

    async def scenario(session: Session) -> None:
        async with stream(session, "[[pause:0.3]] a b") as turn:
            async for _ in turn:
                assert session.pool.standbys == 0

    run(scenario, TurnLimits(standby_delay_s=0.05, exit_grace_s=0.3), budget=Budget(requests=1))


def test_a_cost_ends_a_budget_when_it_is_reported():
    """At the end of a turn, whose answer is kept; the next is refused."""

    async def scenario(session: Session) -> None:
        for cost in (0.25, 0.5):
            assert (await query(session, f"[[cost:{cost}]] hello")).cost_usd == cost
        with pytest.raises(WorkerError, match=r"0\.75 of 0\.7 cost_usd spent"):
            await query(session, "hello")
        assert session.capacity.board.totals().cost_microusd == 750_000

    run(scenario, budget=Budget(cost_usd=0.7))


def test_a_cost_stops_a_turn_at_the_price_of_those_before():
    """A command line says the cost at the end only; until then it is estimated by tokens."""

    async def scenario(session: Session) -> None:
        await query(session, "[[cost:0.5]] one two three four")
        with pytest.raises(WorkerError, match=r"cost_usd \(.* of it estimated\) spent"):
            await query(session, LONG)
        assert session.capacity.board.totals().cost_microusd == 500_000
        assert session.capacity.board.totals().estimated_cost_microusd > 500_000

    run(scenario, budget=Budget(cost_usd=1.0))


def test_turns_that_run_at_once_stop_together():
    """They share one budget: of tokens, and of time, which four turns spend four times as fast."""

    async def scenario(session: Session) -> None:
        began = time.monotonic()
        outcomes = await asyncio.gather(*(query(session, ENDLESS) for _ in range(4)), return_exceptions=True)
        assert [error.code for error in outcomes] == ["insufficient_quota"] * 4
        spent = session.capacity.ledger.spent
        assert 2.0 <= spent.cli_s < 2.0 + 4 * (time.monotonic() - began)
        assert session.capacity.is_idle
        assert session.capacity.board["budget_exhausted_ns"]

    run(scenario, budget=Budget(cli_s=2.0))


def test_a_silent_turn_is_stopped_by_what_another_one_spends():
    """It need not say anything itself to be over."""

    async def scenario(session: Session) -> None:
        silent = asyncio.ensure_future(query(session, ENDLESS))
        await serving(session)
        talking = asyncio.ensure_future(query(session, LONG))
        outcomes = await asyncio.gather(silent, talking, return_exceptions=True)
        assert [error.code for error in outcomes] == ["insufficient_quota"] * 2

    run(scenario, budget=Budget(total_tokens=140))


def test_a_turn_that_is_left_still_counts():
    """What it said until then is estimated, and kept apart from what was counted."""

    async def scenario(session: Session) -> None:
        async with stream(session, "[[pause:0.02]] " + "word " * 100) as turn:
            pieces = 0
            async for _ in turn:
                pieces += 1
                if pieces == 20:
                    break
        totals = session.capacity.board.totals()
        assert totals.prompt_tokens == 101
        assert (totals.completion_tokens, totals.failures) == (0, 1)
        assert 20 <= totals.estimated_tokens <= 30
        assert session.capacity.board["pending_tokens"] == 0

    run(scenario)


def test_a_budget_that_nobody_can_keep_is_refused():
    """codex does not report what a turn costs."""

    async def scenario() -> None:
        async with open_session("codex", model="any", budget=Budget(cost_usd=1)):
            pass

    with pytest.raises(RequestError, match="does not report what a turn costs") as refused:
        asyncio.run(scenario())
    assert (refused.value.code, refused.value.param) == ("invalid_lease_options", "budget.cost_usd")


def test_the_end_of_a_budget_is_the_end_of_the_lease_after_a_grace():
    """Callers are told so for a while; then the lease closes for that reason, with nothing left."""
    with InferenceEndpoint(serve_arguments=("--set", f"budget_grace_s={GRACE_S:g}")) as endpoint:
        descriptor, _ = endpoint.ensure_endpoint(
            {"model_preference": {"provider": "echo", "id": "any"}}, lease={"budget": {"total_tokens": 140}}
        )
        stopped = ask(descriptor, LONG)
        assert stopped.status_code == 429
        until(lambda: endpoint.endpoint(descriptor).load["in_flight"] == 0)
        refused = ask(descriptor, "hello")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
        until(lambda: endpoint.endpoint(descriptor).state == "closed")
        view = endpoint.endpoint(descriptor)
        assert view.cause == "budget_exhausted"
        assert "of 140 total_tokens" in view.detail
        assert view.load["prompt_tokens"] + view.load["estimated_tokens"] > 140
        with pytest.raises(httpx.ConnectError):
            ask(descriptor, "hello")
