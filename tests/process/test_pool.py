"""Standbys of a session: how many, when they rest, when they come again, and that no dead one is handed out."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import psutil
import pytest

from shared.errors import RequestError, WorkerError
from shared.launch import TurnLimits
from shared.sansio import Prompt
from worker.session import Session, open_session, query, stream

pytestmark = pytest.mark.process
PATIENCE_S = 20.0
POLL_S = 0.01
REST_S = 0.2
AT_ONCE = TurnLimits(standby_delay_s=0.0)


def run(scenario: Callable[[Session], Awaitable[None]], standby: int, limits: TurnLimits = AT_ONCE) -> None:
    """The scenario in a session of its own."""

    async def whole() -> None:
        async with open_session("echo", model="any", standby=standby, limits=limits) as session:
            await scenario(session)

    asyncio.run(asyncio.wait_for(whole(), PATIENCE_S))
    assert not running()


def running() -> set[int]:
    """Command lines that run below this process."""
    return {
        child.pid for child in psutil.Process().children(recursive=True) if "echo_cli" in command_line(child)
    }


def command_line(process: psutil.Process) -> str:
    """Its argv as one text; empty when it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # a zombie too
        return ""


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(POLL_S)


def test_without_standbys_nothing_runs_but_turns():
    """Not before the first, and not after it."""

    async def scenario(session: Session) -> None:
        assert not running()
        assert (await query(session, "hello")).text == "hello"
        assert session.pool.standbys == 0
        await until(lambda: not running())

    run(scenario, standby=0)


def test_a_prompt_that_cannot_be_written_keeps_no_process():
    """Whoever sends many of them would have as many command lines, whatever the concurrency."""

    schema: dict[str, Any] = {}
    for _ in range(sys.getrecursionlimit()):
        schema = {"anyOf": [schema]}

    async def scenario(session: Session) -> None:
        for _ in range(3):
            with pytest.raises(RecursionError):
                await query(session, Prompt(text="hello", output_schema=schema))
        await until(lambda: not running())
        assert (await query(session, "hello")).text == "hello"

    run(scenario, standby=0)


@pytest.mark.parametrize("size", [1, 3])
def test_as_many_standbys_as_asked_for_and_again_after_a_turn(size: int):
    """One serves the turn and is not used again; another one comes in its place."""

    async def scenario(session: Session) -> None:
        await until(lambda: len(running()) == size)
        assert session.pool.standbys == size
        assert session.pool.standby_rss_bytes > 0
        first = running()
        async with stream(session, "a b c") as turn:
            async for _ in turn:
                pass
        await until(lambda: len(running()) == size and session.pool.standbys == size)
        assert len(running() & first) == size - 1

    run(scenario, standby=size)


def test_standbys_rest_after_a_while_and_come_again_on_demand():
    """In a library session as in a lease."""

    async def scenario(session: Session) -> None:
        await until(lambda: bool(running()))
        await until(lambda: not running())
        assert session.pool.standbys == 0
        assert session.pool.standby_rss_bytes == 0
        assert (await query(session, "hello")).text == "hello"
        await until(lambda: session.pool.standbys == 1)

    run(scenario, standby=1, limits=TurnLimits(standby_delay_s=0.0, standby_idle_s=REST_S))


def test_a_standby_does_not_rest_while_turns_go_on():
    """Each turn begins its time anew."""

    async def scenario(session: Session) -> None:
        end = asyncio.get_running_loop().time() + 4 * REST_S
        while asyncio.get_running_loop().time() < end:
            await query(session, "hello")
            await until(lambda: session.pool.standbys == 1)

    run(scenario, standby=1, limits=TurnLimits(standby_delay_s=0.0, standby_idle_s=REST_S))


def test_a_dead_standby_is_never_handed_out():
    """Killed a moment before it is needed; nobody had the time to notice."""

    async def scenario(session: Session) -> None:
        await until(lambda: session.pool.standbys == 1)
        kill(running())
        assert (await query(session, "hello")).text == "hello"

    run(scenario, standby=1)


def test_a_standby_that_died_is_replaced_once_until_the_next_turn():
    """Before anyone asks for it; but what kills them all is left to a turn to meet and report."""

    async def scenario(session: Session) -> None:
        for _ in range(2):
            await until(lambda: session.pool.standbys == 1)
            kill(first := running())
            await until(functools.partial(is_replaced, session, first))
            kill(running())
            await until(lambda: session.pool.standbys == 0)
            assert not running()
            assert (await query(session, "hello")).text == "hello"

    run(scenario, standby=1)


def is_replaced(session: Session, lost: set[int]) -> bool:
    """Whether a standby runs that is none of those."""
    return session.pool.standbys == 1 and bool(running() - lost)


def kill(pids: set[int]) -> None:
    """From outside; dead when this returns, without the event loop having had a moment to notice."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_half_of_a_surrogate_pair_is_no_prompt():
    """Refused before a command line is asked, which could not be sent it."""

    async def scenario(session: Session) -> None:
        for prompt in ("\ud800", Prompt(text="x", system="\udfff")):
            with pytest.raises(RequestError, match="the prompt is no text"):
                await query(session, prompt)
        assert (await query(session, "hello")).text == "hello"

    run(scenario, standby=1)


def test_a_closed_session_starts_nothing():
    """A late turn is refused, and no timer wakes it up."""
    kept: list[Session] = []

    async def scenario() -> None:
        async with open_session("echo", model="any", limits=AT_ONCE) as session:
            kept.append(session)
            await query(session, "hello")
        with pytest.raises(WorkerError) as refused:
            await query(session, "late")
        assert refused.value.code == "lease_closed"
        session.pool.refill()
        assert not running()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))
