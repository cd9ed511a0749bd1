"""The pool in front of every real command line: ready before it is needed, alive when handed out, recycled by turns."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from shared import provider
from shared.launch import TurnLimits
from shared.provider import CommandInputs
from shared.sansio import Connection
from tests.clis.conftest import WAIT_S, model_request, posts
from tests.clis.models.server import ModelServer
from tests.clis.recordings.recorder import Tap
from tests.clis.recordings.recording import Sent, Started
from tests.clis.table import Cli
from worker.session import open_session, query, stream

pytestmark = [pytest.mark.cli, pytest.mark.process]
POLL_S = 0.02
REST_S = 1.0
AT_ONCE = TurnLimits(standby_delay_s=0.0)
HANDSHAKES = {
    "claude": (),  # the only request that counts carries the turn's system prompt
    "codex": ("initialize", "initialized", "thread/start"),
    "gemini": ("initialize", "session/new"),
}
TURNS = {"claude": "control_request", "codex": "turn/start", "gemini": "session/prompt"}
MODELS_LIKE_FLAGS = ("--help", "-p", "--dangerously-skip-permissions", "--yolo", "a b\"c'd")


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(POLL_S)


def test_a_standby_has_done_its_handshake_before_the_turn(
    cli: Cli, user: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
):
    """No model is asked for it; the first thing that is sent for a turn is the turn."""
    chosen, taps = provider.load(cli.provider), []

    def connect(inputs: CommandInputs) -> Connection:
        taps.append(Tap(chosen.connect(inputs)))
        return taps[-1]

    async def scenario() -> None:
        async with open_session(cli.provider, model=cli.model) as session:
            (standby,) = session.pool._standbys
            await until(lambda: standby.is_ready)
            assert not posts(server)
            assert (await query(session, "hello")).text == "echo: hello"

    monkeypatch.setattr(provider, "load", lambda _: msgspec.structs.replace(chosen, connect=connect))
    asyncio.run(scenario())
    steps = taps[0].steps
    began = next(number for number, step in enumerate(steps) if isinstance(step, Started))
    handshake = [kind_of(step.line) for step in steps[:began] if isinstance(step, Sent)]
    turn = [kind_of(step.line) for step in steps[began:] if isinstance(step, Sent)]
    assert handshake[: len(HANDSHAKES[cli.provider])] == list(HANDSHAKES[cli.provider])
    assert turn[0] == TURNS[cli.provider]


def kind_of(line: Any) -> str:
    """What is asked of the command line."""
    return str(line.get("method") or line["type"])


def test_a_standby_that_died_is_replaced(cli: Cli, user: Path, server: ModelServer):
    """And one that died a moment ago is not handed out."""

    async def scenario() -> None:
        async with open_session(cli.provider, model=cli.model, limits=AT_ONCE) as session:
            (first,) = session.pool._standbys
            kill(first.pid)
            await until(lambda: session.pool._standbys not in ([], [first]))
            (second,) = session.pool._standbys
            kill(second.pid)
            assert (await query(session, "hello")).text == "echo: hello"

    asyncio.run(scenario())


def kill(pid: int) -> None:
    """From outside; dead when this returns, without the event loop having had a moment to notice."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_a_standby_rests_and_comes_again(cli: Cli, user: Path, server: ModelServer):
    """Its memory is given back until the next turn."""
    limits = TurnLimits(standby_delay_s=0.0, standby_idle_s=REST_S)

    async def scenario() -> None:
        async with open_session(cli.provider, model=cli.model, limits=limits) as session:
            (standby,) = session.pool._standbys
            await until(standby.exited.done)
            assert (session.pool.standbys, session.pool.standby_rss_bytes) == (0, 0)
            assert (await query(session, "hello")).text == "echo: hello"

    asyncio.run(scenario())


@pytest.mark.parametrize("cli", ["codex", "gemini"], indirect=True)
def test_a_process_is_recycled_by_its_turns(
    cli: Cli, user: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
):
    """It serves as many as it may, one after the other; then another one takes over, and none is left behind."""
    chosen = provider.load(cli.provider)

    async def serving_pids() -> list[int]:
        pids = []
        async with open_session(cli.provider, model=cli.model, standby=0) as session:
            for number in range(5):
                async with stream(session, f"number {number}") as turn:
                    async for _ in turn:
                        (serving,) = session.pool._serving
                assert turn.completion.text == f"echo: number {number}"
                pids.append(serving.pid)
        return pids

    def connect(inputs: CommandInputs) -> Connection:
        connection = chosen.connect(inputs)
        connection.turns_before_recycle = 2
        return connection

    recycled = msgspec.structs.replace(chosen, connect=connect)
    monkeypatch.setattr(provider, "load", lambda _: recycled)
    first, again, second, third, fourth = asyncio.run(serving_pids())
    assert (first, second) == (again, third)
    assert len({first, second, fourth}) == 3
    assert not [pid for pid in (first, second, fourth) if psutil.pid_exists(pid)]


@pytest.mark.parametrize("model", MODELS_LIKE_FLAGS)
def test_a_model_name_that_looks_like_a_flag_is_a_model_name(
    cli: Cli, user: Path, server: ModelServer, model: str
):
    """It arrives at the model service as it is, and nowhere else."""

    async def scenario() -> None:
        async with open_session(cli.provider, model=model, standby=0) as session:
            assert (await query(session, "hello")).text == "echo: hello"

    asyncio.run(scenario())
    request = model_request(server)
    assert cli.model_of(request) == model
    assert not cli.tools_of(request)
