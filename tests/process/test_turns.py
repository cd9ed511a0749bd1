"""One command line's turns as library calls see them: every deadline, the stop ladder, a slow reader, heartbeats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psutil
import pytest

from shared.errors import ProviderError, WorkerError
from shared.launch import TurnLimits
from shared.openai import HEARTBEAT, ChunkEncoder
from worker.capacity import RETRY_AFTER_S
from worker.runner import BACKLOG_EVENTS
from worker.session import Session, open_session, query, stream
from worker.sse import EventStream

pytestmark = pytest.mark.process
SHORT_S = 0.2
GRACE_S = 0.3
PATIENCE_S = 20.0
SOON = TurnLimits(exit_grace_s=GRACE_S)


@pytest.fixture(autouse=True)
def misbehaving_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of echo's markers."""
    monkeypatch.setenv("ASM_ENDPOINT_ECHO_MISBEHAVE", "1")


def run(scenario: Callable[[Session], Awaitable[None]], limits: TurnLimits = SOON, **more: Any) -> None:
    """The scenario in a session of its own, after which no process is left."""

    async def whole() -> None:
        async with open_session("echo", model="any", limits=limits, **more) as session:
            await scenario(session)

    before = children()
    asyncio.run(asyncio.wait_for(whole(), PATIENCE_S))
    assert children() <= before


def children() -> set[int]:
    """Pids below this process."""
    return {process.pid for process in psutil.Process().children(recursive=True)}


async def gone(pid: int) -> None:
    """Wait for a process to end, with a deadline."""
    async with asyncio.timeout(PATIENCE_S):
        while psutil.pid_exists(pid):
            await asyncio.sleep(0.01)


DEADLINES = {
    "first_output_s": ("[[silence]] x", {}),
    "silence_s": ("[[pause:1]] a b", {}),
    "total_s": ("[[pause:0.05]] " + "w " * 200, {"silence_s": 30.0}),
}


@pytest.mark.parametrize("name", DEADLINES)
def test_each_deadline_fails_the_turn_by_its_name(name: str):
    """And the next turn of the same session is served."""
    prompt, more = DEADLINES[name]
    limits = TurnLimits(**{"exit_grace_s": GRACE_S, **more, name: SHORT_S})

    async def scenario(session: Session) -> None:
        with pytest.raises(ProviderError, match=f"deadline {name} of {SHORT_S:g} s") as caught:
            await query(session, prompt)
        assert (caught.value.code, caught.value.status) == ("provider_timeout", 504)
        assert caught.value.should_retry is False

    run(scenario, limits)


def test_after_a_deadline_the_next_turn_is_served():
    """One late answer costs that answer only."""

    async def scenario(session: Session) -> None:
        with pytest.raises(ProviderError, match="first_output_s"):
            await query(session, "[[silence]] x")
        assert (await query(session, "still here")).text == "still here"

    run(scenario, TurnLimits(first_output_s=2.0, exit_grace_s=GRACE_S))


def test_nobody_waits_in_the_queue_for_longer_than_queue_s():
    """The refusal says what it waited for, and a retry may help."""

    async def scenario(session: Session) -> None:
        async with stream(session, "[[pause:30]] a b") as running:
            await anext(running.batches(0.01))
            with pytest.raises(WorkerError, match="no place became free in") as caught:
                await query(session, "hello")
            assert caught.value.code == "at_capacity"
            assert (caught.value.retry_after_s or 0) >= RETRY_AFTER_S

    run(scenario, TurnLimits(queue_s=SHORT_S, exit_grace_s=GRACE_S), concurrency=1)


def test_a_command_line_that_ignores_sigterm_is_killed():
    """The ladder's last step."""

    async def scenario(session: Session) -> None:
        async with stream(session, "[[ignore-term]] [[pause:0.1]] a b c d e f g h i j") as turn:
            await anext(turn.batches())
            serving = next(iter(session.pool._serving))
        await gone(serving.pid)
        assert await serving.exited == -9

    run(scenario)


def test_a_reader_that_is_behind_stops_the_command_line_and_loses_nothing():
    """Backpressure reaches the pipe: memory stays bounded, and every piece arrives in the end."""

    async def scenario(session: Session) -> None:
        count = BACKLOG_EVENTS * 5
        pieces = 0
        largest = 0
        async with stream(session, f"[[burst:{count}]] x") as turn:
            async for batch in turn.batches():
                largest = max(largest, len(batch))
                pieces += len(batch)
                await asyncio.sleep(0.05)
            assert pieces == count
            assert turn.completion.text == "w " * count
        assert largest < count

    run(scenario)


@pytest.mark.parametrize(
    ("marker", "code"),
    [
        ("[[garbage]]", "provider_protocol_error"),
        ("[[half-line]]", "provider_crashed"),
        ("[[exit:0]]", "provider_crashed"),
        (f"[[huge-line:{17 * 1024 * 1024}]]", "provider_protocol_error"),
        ("[[tool:Bash]]", "tool_use_refused"),
        ("[[error:529]]", "provider_overloaded"),
    ],
)
def test_misbehaviour_is_a_typed_failure_and_the_session_goes_on(marker: str, code: str):
    """Each kind of bad end, then a good turn."""

    async def scenario(session: Session) -> None:
        with pytest.raises(ProviderError) as caught:
            await query(session, f"{marker} hello")
        assert caught.value.code == code
        assert (await query(session, "hello")).text == "hello"

    run(scenario)


def test_a_line_of_sixteen_mebibytes_is_read():
    """The limit is above what real command lines print."""

    async def scenario(session: Session) -> None:
        assert (await query(session, f"[[huge-line:{16 * 1024 * 1024 - 100}]] hello")).text == "hello"

    run(scenario)


def test_silence_on_a_stream_is_filled_with_heartbeats():
    """A comment line after each heartbeat_s without output, and the answer after them."""

    async def scenario(session: Session) -> None:
        encoder = ChunkEncoder(completion_id="chatcmpl-1", model="any", include_usage=False)
        events = EventStream(stream(session, "[[pause:0.8]] hello"), encoder, session.limits)
        await events.open()
        sent = await collected(events)
        await events.close()
        assert sent.count(HEARTBEAT) >= 2
        assert sent[0] == encoder.role()
        assert b'"content":"hello"' in b"".join(sent)
        assert sent[-1].endswith(b"data: [DONE]\n\n")

    run(scenario, TurnLimits(status_hold_s=0.1, heartbeat_s=0.1, exit_grace_s=GRACE_S))


@pytest.mark.parametrize(("hold_s", "is_a_status"), [(PATIENCE_S, True), (0.0, False)])
def test_a_refusal_is_a_status_while_the_status_is_held(hold_s: float, is_a_status: bool):
    """And an error object in the stream, without the end mark, after that."""

    async def scenario(session: Session) -> None:
        encoder = ChunkEncoder(completion_id="chatcmpl-1", model="any", include_usage=False)
        events = EventStream(stream(session, "[[error:429]]"), encoder, session.limits)
        if is_a_status:
            with pytest.raises(ProviderError, match="scripted error"):
                await events.open()
            return
        await events.open()
        sent = await collected(events)
        await events.close()
        assert b'"code":"rate_limit_exceeded"' in sent[-1]
        assert b"[DONE]" not in b"".join(sent)

    run(scenario, TurnLimits(status_hold_s=hold_s, exit_grace_s=GRACE_S))


async def collected(events: EventStream) -> list[bytes]:
    """All sent pieces."""
    pieces: AsyncIterator[bytes] = aiter(events)
    return [piece async for piece in pieces]


@pytest.mark.parametrize("moment_s", [0.0, 0.01, 0.05, 0.2])
def test_leaving_at_any_moment_frees_the_place_and_ends_the_command_line(moment_s: float):
    """Before it starts, while it starts, while it speaks."""

    async def scenario(session: Session) -> None:
        tasks = [asyncio.ensure_future(query(session, "[[pause:0.5]] a b c")) for _ in range(8)]
        await asyncio.sleep(moment_s)
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
        assert session.capacity.is_idle
        async with asyncio.timeout(PATIENCE_S):
            while session.pool._serving or session.pool._stopping:
                await asyncio.sleep(0.01)
        assert (await query(session, "hello")).text == "hello"

    run(scenario)
