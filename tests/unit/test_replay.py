"""Answers under a key: shared while they are made, repeated afterwards, never made twice, and kept within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from shared.errors import EndpointError, ProviderError, RequestError, WorkerError
from shared.launch import TurnLimits
from shared.openai import HEARTBEAT
from worker import replay
from worker.cancellation import Cancellation, Requests
from worker.recording import WINDOW_BYTES, Reader
from worker.replay import Replays

PATIENCE_S = 10.0
BODY = {"messages": [{"role": "user", "content": "x"}]}


class Script:
    """An answer that is made as the test says: blocks, and errors to fail with."""

    def __init__(self, *given: bytes | EndpointError) -> None:
        self.made = 0
        self.has_begun = False
        self.was_cancelled = False
        self.is_closed = False
        self.steps: asyncio.Queue[bytes | EndpointError | None] = asyncio.Queue()
        self.given_blocks = 0
        for step in given:
            self.steps.put_nowait(step)

    def end(self) -> Script:
        self.steps.put_nowait(None)
        return self

    def __call__(self) -> Script:
        self.made += 1
        return self

    def cancel(self) -> None:
        self.was_cancelled = True
        self.steps.put_nowait(ProviderError("turn_cancelled", "cancelled"))

    async def open(self) -> None:
        await asyncio.sleep(0)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (step := await self.steps.get()) is not None:
            if isinstance(step, EndpointError):
                raise step
            self.has_begun = True
            yield step
            self.given_blocks += 1

    async def close(self) -> None:
        self.is_closed = True


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """With a bound on its time."""
    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


def replays(**limits: float) -> Replays:
    """With these of the named times."""
    return Replays(TurnLimits(**limits))


async def whole(reader: Reader) -> bytes:
    """All it reads."""
    await reader.open()
    return b"".join([block async for block in reader])


async def until(condition: Callable[[], Any]) -> None:
    """Poll; the scenario has a bound."""
    while not condition():
        await asyncio.sleep(0.001)


def test_an_answer_is_made_once_and_given_again():
    """Byte for byte, as often as it is asked for."""

    async def scenario() -> None:
        kept, script = replays(), Script(b"one ", b"two").end()
        first, is_repeat = kept.reader("k", BODY, script)
        assert not is_repeat
        assert await whole(first) == b"one two"
        await first.close()
        for _ in range(3):
            again, is_repeat = kept.reader("k", {**BODY}, script)
            assert is_repeat
            assert await whole(again) == b"one two"
            await again.close()
        assert (script.made, script.is_closed) == (1, True)

    run(scenario)


def test_a_repeat_while_it_is_made_reads_along_from_the_beginning():
    """Each at its own pace."""

    async def scenario() -> None:
        kept, script = replays(), Script(b"one ")
        first, _ = kept.reader("k", BODY, script)
        await first.open()
        second, _ = kept.reader("k", BODY, script)
        reading = [asyncio.ensure_future(whole(reader)) for reader in (first, second)]
        await until(lambda: script.given_blocks == 1)
        script.steps.put_nowait(b"two")
        script.end()
        assert await asyncio.gather(*reading) == [b"one two"] * 2
        assert script.made == 1

    run(scenario)


def test_another_body_under_the_same_key_is_refused():
    """Whatever the order of its fields; another key is another answer."""

    async def scenario() -> None:
        kept, script = replays(), Script(b"x").end()
        await whole(kept.reader("k", {"a": 1, "b": 2}, script)[0])
        assert await whole(kept.reader("k", {"b": 2, "a": 1}, script)[0]) == b"x"
        with pytest.raises(RequestError) as refused:
            kept.reader("k", {"a": 1}, script)
        assert (refused.value.code, refused.value.status) == ("idempotency_key_reused", 422)
        other = Script(b"y").end()
        assert await whole(kept.reader("other", {"a": 1}, other)[0]) == b"y"

    run(scenario)


def test_a_failure_before_a_command_line_has_begun_frees_the_key():
    """Nothing has happened, so nothing would happen twice."""

    async def scenario() -> None:
        kept = replays()
        refused = Script(WorkerError("at_capacity", "full"))
        with pytest.raises(WorkerError):
            await kept.reader("k", BODY, refused)[0].open()
        better = Script(b"now").end()
        reader, is_repeat = kept.reader("k", BODY, better)
        assert not is_repeat
        assert await whole(reader) == b"now"

    run(scenario)


def test_a_failure_after_that_is_the_answer():
    """For as long as an answer would be."""

    async def scenario() -> None:
        kept, script = replays(), Script(ProviderError("provider_overloaded", "x"))
        script.has_begun = True
        for _ in range(2):
            with pytest.raises(ProviderError, match="x"):
                await kept.reader("k", BODY, script)[0].open()
        assert script.made == 1

    run(scenario)


def test_a_reader_that_leaves_does_not_end_it_for_another():
    """The last one does, after a time to come back, and what it then is stays."""

    async def scenario() -> None:
        kept, script = replays(reattach_s=0.01), Script(b"one ")
        first, _ = kept.reader("k", BODY, script)
        second, _ = kept.reader("k", BODY, script)
        await first.open()
        await first.close()
        await asyncio.sleep(0.03)
        assert not script.is_closed
        await second.close()
        await until(lambda: script.is_closed)
        await asyncio.sleep(0)
        with pytest.raises(ProviderError) as ended:
            await kept.reader("k", BODY, script)[0].open()
        assert (ended.value.code, ended.value.should_retry) == ("turn_cancelled", False)
        assert script.made == 1

    run(scenario)


def test_a_caller_that_comes_back_in_time_goes_on():
    """As after a lost connection."""

    async def scenario() -> None:
        kept, script = replays(reattach_s=PATIENCE_S), Script(b"one ")
        first, _ = kept.reader("k", BODY, script)
        await first.open()
        await first.close()
        second, is_repeat = kept.reader("k", BODY, script)
        script.steps.put_nowait(b"two")
        script.end()
        assert is_repeat
        assert await whole(second) == b"one two"

    run(scenario)


def test_a_caller_that_is_cancelled_while_it_waits_has_left():
    """As when its connection ends before the first block."""

    async def scenario() -> None:
        kept, script = replays(reattach_s=0.01), Script()
        waiting = asyncio.ensure_future(kept.reader("k", BODY, script)[0].open())
        await asyncio.sleep(0.01)
        waiting.cancel()
        await until(lambda: script.is_closed)
        again = Script(b"x").end()
        assert await whole(kept.reader("k", BODY, again)[0]) == b"x"

    run(scenario)


def test_an_answer_is_forgotten_after_its_time():
    """Then the key is free."""

    async def scenario() -> None:
        kept, script = replays(replay_s=0.01), Script(b"x").end()
        await whole(kept.reader("k", BODY, script)[0])
        await until(lambda: not kept._entries)
        assert kept._total_bytes == 0
        assert not kept.reader("k", BODY, Script(b"y").end())[1]

    run(scenario)


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch):
    """The oldest answer goes first; that it was given is still known."""
    monkeypatch.setattr(replay, "MAX_KEPT_BYTES", 100)

    async def scenario() -> None:
        kept = replays()
        for name in "abc":
            await whole(kept.reader(name, BODY, Script(b"x" * 40).end())[0])
        assert kept._total_bytes == 80
        with pytest.raises(RequestError) as gone:
            kept.reader("a", BODY, Script())
        assert (gone.value.code, gone.value.status) == ("idempotency_conflict", 409)
        assert await whole(kept.reader("b", BODY, Script())[0]) == b"x" * 40

    run(scenario)


def test_keys_are_bounded(monkeypatch: pytest.MonkeyPatch):
    """The oldest is forgotten."""
    monkeypatch.setattr(replay, "MAX_KEYS", 2)

    async def scenario() -> None:
        kept = replays()
        for name in "abc":
            await whole(kept.reader(name, BODY, Script(b"x").end())[0])
        assert set(kept._entries) == {"b", "c"}

    run(scenario)


def test_a_large_answer_is_given_whole_to_whoever_reads_it_but_not_again(monkeypatch: pytest.MonkeyPatch):
    """And is made no faster than its slowest reader reads."""
    monkeypatch.setattr(replay, "MAX_ANSWER_BYTES", 1000)
    block = b"x" * (WINDOW_BYTES // 4)

    async def scenario() -> None:
        kept, script = replays(), Script(*[block] * 40).end()
        fast, _ = kept.reader("k", BODY, script)
        slow, _ = kept.reader("k", BODY, script)
        await slow.open()
        reading = asyncio.ensure_future(whole(fast))
        await asyncio.sleep(0.05)
        assert script.given_blocks < 8
        assert kept._total_bytes == 0
        assert await whole(slow) == block * 40
        assert await reading == block * 40
        with pytest.raises(RequestError, match="not made twice"):
            kept.reader("k", BODY, Script())

    run(scenario)


def test_a_slow_reader_that_leaves_holds_nobody_up(monkeypatch: pytest.MonkeyPatch):
    """The others go on."""
    monkeypatch.setattr(replay, "MAX_ANSWER_BYTES", 1000)
    block = b"x" * WINDOW_BYTES

    async def scenario() -> None:
        kept, script = replays(), Script(*[block] * 10).end()
        fast, _ = kept.reader("k", BODY, script)
        slow, _ = kept.reader("k", BODY, script)
        reading = asyncio.ensure_future(whole(fast))
        await asyncio.sleep(0.02)
        assert not reading.done()
        await slow.close()
        assert await reading == block * 10

    run(scenario)


def test_silence_is_filled_for_each_reader_and_is_no_part_of_the_answer():
    """Heartbeats are a matter of one connection."""

    async def scenario() -> None:
        kept, script = replays(heartbeat_s=0.01), Script(b"one", HEARTBEAT)
        reader, _ = kept.reader("k", BODY, script)
        await reader.open()
        blocks = aiter(reader)
        assert [await anext(blocks), await anext(blocks)] == [b"one", HEARTBEAT]
        script.end()
        await until(lambda: script.is_closed)
        assert await whole(kept.reader("k", BODY, script)[0]) == b"one"

    run(scenario)


def test_cancelling_any_of_its_requests_ends_it_for_all():
    """By the id of the first or of a repeat; not by one that has left."""

    async def scenario() -> None:
        kept, script, requests = replays(), Script(), Requests()
        first, second = (kept.reader("k", BODY, script)[0] for _ in range(2))
        first.known_as("r1", requests)
        second.known_as("r2", requests)
        waiting = [asyncio.ensure_future(reader.open()) for reader in (first, second)]
        await asyncio.sleep(0)
        assert requests.cancel("r2")
        for each in waiting:
            with pytest.raises(ProviderError, match="cancelled"):
                await each
        assert script.was_cancelled
        assert not requests.cancel("r1")
        assert not requests.cancel("r2")

    run(scenario)


def test_requests_of_one_id_are_cancelled_together():
    """A caller may give several the same."""
    requests, ended = Requests(), []
    with (
        requests.known_as("r", lambda: ended.append(1)),
        requests.known_as("r", lambda: ended.append(2)),
        requests.known_as(None, lambda: ended.append(3)),
    ):
        assert requests.cancel("r")
        assert not requests.cancel("other")
    assert ended == [1, 2]
    assert not requests.cancel("r")


def test_a_cancellation_is_met_at_the_next_step_when_nothing_waits():
    """And ends what waits at once, but only once."""
    early, ended = Cancellation(), []
    early.ask()
    with pytest.raises(ProviderError) as met:
        early.ends(ended.append)
    assert (met.value.code, met.value.status) == ("turn_cancelled", 499)
    late = Cancellation()
    late.ends(ended.append)
    late.ask()
    late.ask()
    assert [error.code for error in ended] == ["turn_cancelled"]
