"""Places for turns: bounded, fair, never lost."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from shared.contracts import Budget
from shared.errors import WorkerError
from shared.events import Result, Usage
from shared.result import Projection
from shared.scoreboard import local
from worker.capacity import RETRY_AFTER_S, Capacity

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


def test_a_budget_ends():
    """The turn that reaches it is served, the next is refused for good, and the lease says since when."""

    async def scenario() -> None:
        capacity = Capacity(concurrency=2, queue_limit=0, budget=Budget(requests=1))
        async with capacity.place(WAIT_S):
            running_ns = capacity.board["budget_exhausted_ns"]
        exhausted_ns = capacity.board["budget_exhausted_ns"]
        assert running_ns == 0 < exhausted_ns
        with pytest.raises(WorkerError) as refused:
            async with capacity.place(WAIT_S):
                pass
        assert refused.value.code == "insufficient_quota"
        assert capacity.board["budget_exhausted_ns"] == exhausted_ns
        assert (capacity.board["requests"], capacity.board["failures"]) == (1, 0)

    run(scenario())


def test_who_waits_in_vain_is_told_at_once():
    """Not when the place becomes free, and not when the queue's time is over."""

    async def scenario() -> None:
        capacity, release, order = (
            Capacity(concurrency=1, queue_limit=5, budget=Budget(requests=2)),
            asyncio.Event(),
            [],
        )
        tasks = [asyncio.create_task(hold(capacity, release, order, name)) for name in range(4)]
        await settle()
        assert (capacity.board["in_flight"], capacity.board["queued"]) == (1, 3)
        tasks[0].cancel()
        await settle()
        assert order == [0, 1]
        assert (capacity.board["in_flight"], capacity.board["queued"]) == (1, 0)
        refused = await asyncio.gather(*tasks[2:], return_exceptions=True)
        assert [error.code for error in refused] == ["insufficient_quota"] * 2
        release.set()
        await tasks[1]
        assert capacity.is_idle
        assert capacity.board["in_flight"] == 0

    run(scenario())


def test_who_waits_is_told_when_a_turn_has_used_everything_up():
    """Also by tokens, when the turn ends, and however many wait."""

    async def scenario() -> None:
        capacity = Capacity(concurrency=1, queue_limit=5, budget=Budget(total_tokens=10))
        release, order = asyncio.Event(), []
        async with capacity.place(WAIT_S) as account:
            waiting = [asyncio.create_task(hold(capacity, release, order, name)) for name in range(3)]
            await settle()
            projection = Projection()
            projection.show([Result(usage=Usage(completion_tokens=10))])
            account.observe(projection, 0.0)
        assert capacity.board["queued"] == 0
        refused = await asyncio.gather(*waiting, return_exceptions=True)
        assert [error.code for error in refused] == ["insufficient_quota"] * 3
        assert not order
        assert capacity.is_idle
        assert capacity.board["budget_exhausted_ns"]

    run(scenario())


def test_a_dead_worker_process_holds_no_place():
    """The next one starts from nothing held, with what was spent."""
    board = local()
    capacity = Capacity(concurrency=1, queue_limit=0, board=board)
    board["in_flight"], board["queued"], board["pending_tokens"] = 2, 3, 7
    board["requests"] = 5
    capacity.recover()
    assert capacity.is_idle
    assert (board["in_flight"], board["queued"], board["failures"]) == (0, 0, 2)
    assert (board["requests"], board["estimated_tokens"]) == (5, 7)


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_refused_callers_come_back_at_different_moments(chance: float):
    """Between once and twice the time, by chance."""

    async def scenario() -> None:
        capacity = Capacity(concurrency=1, queue_limit=0, jitter=lambda: chance)
        async with capacity.place(WAIT_S):
            with pytest.raises(WorkerError) as refused:
                async with capacity.place(WAIT_S):
                    pass
        assert refused.value.retry_after_s == RETRY_AFTER_S * (1 + chance)
        assert refused.value.headers() == {
            "retry-after": str(math.ceil(RETRY_AFTER_S * (1 + chance))),
            "retry-after-ms": str(int(RETRY_AFTER_S * (1 + chance) * 1000)),
        }

    run(scenario())


class Caller:
    """One caller in a random story: it waits, holds a place until told to go, and may leave at any time."""

    def __init__(self, capacity: Capacity, wait_s: float, granted: list[Caller]) -> None:
        self.go = asyncio.Event()
        self.task = asyncio.create_task(self._live(capacity, wait_s, granted))

    async def _live(self, capacity: Capacity, wait_s: float, granted: list[Caller]) -> None:
        async with capacity.place(wait_s):
            granted.append(self)
            await self.go.wait()


@pytest.mark.parametrize("seed", range(24))
def test_any_story_keeps_the_counts_true(seed: int):
    """Arriving, leaving in every phase, ending, waiting too long, in random order and without a pause between them.

    Never more run or wait than may; the board says what is; places go in the order of arrival; nothing stays taken.
    """

    async def scenario() -> None:
        story, concurrency, queue_limit = random.Random(seed), 1 + seed % 3, seed % 5
        capacity = Capacity(concurrency=concurrency, queue_limit=queue_limit)
        callers: list[Caller] = []
        granted: list[Caller] = []
        chapters: list[int] = []
        for _ in range(300):
            step = story.random()
            unfinished = [caller for caller in callers if not caller.task.done()]
            if step < 0.45 or not unfinished:
                callers.append(Caller(capacity, story.choice((WAIT_S, WAIT_S, 0.001)), granted))
            elif step < 0.65:
                story.choice(unfinished).task.cancel()
            elif step < 0.85:
                story.choice(unfinished).go.set()
            else:
                await asyncio.sleep(story.choice((0, 0, 0.002)))
            assert capacity.board["in_flight"] <= concurrency
            assert capacity.board["queued"] <= queue_limit
            if step >= 0.95:
                await settle()
                chapters.append(len(granted))
                holding = [caller for caller in granted if not caller.task.done()]
                waiting = [c for c in callers if not c.task.done() and c not in granted]
                assert capacity.board["in_flight"] == len(holding)
                assert capacity.board["queued"] == len(waiting)
                assert not waiting or len(holding) == concurrency
        for caller in callers:
            caller.go.set()
        await asyncio.gather(*(caller.task for caller in callers), return_exceptions=True)
        for first, last in itertools.pairwise((0, *chapters, len(granted))):
            # Whoever was given a place in a later chapter came later: two that are given theirs in one moment may
            # wake up in any order.
            before = [callers.index(caller) for caller in granted[:first]]
            after = [callers.index(caller) for caller in granted[first:last]]
            assert not before or not after or max(before) < min(after)
        assert len(granted) > 10
        assert capacity.is_idle
        assert (capacity.board["in_flight"], capacity.board["queued"]) == (0, 0)
        assert capacity.board["requests"] == len(granted)
        failed = sum(caller.task.cancelled() for caller in granted)
        assert capacity.board["failures"] == failed

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
