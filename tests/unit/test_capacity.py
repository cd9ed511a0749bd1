"""Places for turns: bounded, fair, never lost."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from shared.contracts import Budget
from shared.errors import WorkerError
from shared.events import Usage
from worker.capacity import Capacity

WAIT_S = 5.0
SHORT_S = 0.02


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run with a bound."""
    asyncio.run(asyncio.wait_for(coroutine, WAIT_S))


async def hold(capacity: Capacity, release: asyncio.Event, order: list[int], name: int) -> None:
    """Take a place and keep it until released."""
    async with capacity.place(WAIT_S):
        order.append(name)
        await release.wait()


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_places_go_first_come_first_served_and_the_queue_is_bounded():
    """Two run, two wait, the fifth is told to come back."""

    async def scenario() -> None:
        capacity, release, order = Capacity(concurrency=2, queue_limit=2), asyncio.Event(), []
        tasks = [asyncio.create_task(hold(capacity, release, order, name)) for name in range(4)]
        await settle()
        assert order == [0, 1]
        assert (capacity.board["in_flight"], capacity.board["queued"]) == (2, 2)
        with pytest.raises(WorkerError) as refused:
            async with capacity.place(WAIT_S):
                pass
        assert (refused.value.code, refused.value.status) == ("at_capacity", 429)
        assert int(refused.value.headers()["retry-after"]) >= 1
        release.set()
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2, 3]
        assert capacity.is_idle
        assert (capacity.board["in_flight"], capacity.board["requests"]) == (0, 4)

    run(scenario())


def test_waiting_has_a_bound():
    """Who waited too long is refused and forgotten."""

    async def scenario() -> None:
        capacity, release = Capacity(concurrency=1, queue_limit=5), asyncio.Event()
        holder = asyncio.create_task(hold(capacity, release, [], 0))
        await settle()
        with pytest.raises(WorkerError, match=r"no place became free in 0\.02 s"):
            async with capacity.place(SHORT_S):
                pass
        assert capacity.board["queued"] == 0
        release.set()
        await holder
        assert capacity.is_idle

    run(scenario())


@pytest.mark.parametrize("cancelled", [0, 1, 2])
def test_a_caller_who_leaves_takes_no_place_along(cancelled: int):
    """Running, just handed a place, or still waiting: the others are served."""

    async def scenario() -> None:
        capacity, release, order = Capacity(concurrency=1, queue_limit=5), asyncio.Event(), []
        tasks = [asyncio.create_task(hold(capacity, release, order, name)) for name in range(3)]
        await settle()
        tasks[cancelled].cancel()
        if cancelled == 0:
            tasks[1].cancel()  # in the very moment in which it is handed the place
        release.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert capacity.is_idle
        assert capacity.board["in_flight"] == 0
        assert 2 in order or cancelled == 2

    run(scenario())


@pytest.mark.parametrize(
    ("budget", "used"),
    [
        (Budget(requests=1), Usage()),
        (Budget(total_tokens=10), Usage(prompt_tokens=4, completion_tokens=6)),
    ],
)
def test_a_budget_ends(budget: Budget, used: Usage):
    """The turn that reaches it is served, the next is refused for good."""

    async def scenario() -> None:
        capacity = Capacity(concurrency=1, queue_limit=0, budget=budget)
        async with capacity.place(WAIT_S):
            capacity.use(used)
        with pytest.raises(WorkerError) as refused:
            async with capacity.place(WAIT_S):
                pass
        assert (refused.value.code, refused.value.type) == ("budget_exhausted", "insufficient_quota")
        assert refused.value.headers() == {"x-should-retry": "false"}

    run(scenario())


def test_failures_are_counted_and_free_the_place():
    """Also a cancelled turn is one that failed."""

    async def scenario() -> None:
        capacity = Capacity(concurrency=1, queue_limit=0)
        with pytest.raises(ValueError, match="x"):
            async with capacity.place(WAIT_S):
                raise ValueError("x")
        assert capacity.is_idle
        assert capacity.board["failures"] == 1

    run(scenario())
