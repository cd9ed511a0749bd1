"""A command line at work, run by itself: what reaches the turn when it cannot be read any more."""

from __future__ import annotations

import asyncio
import sys

import pytest

from shared.claude_wire.connection import ClaudeConnection
from shared.events import Event, Failure
from shared.framing import MAX_LINE_BYTES
from shared.provider import Command
from shared.sansio import Prompt
from tests.process.serving import WAIT_S
from worker.runner import CliProcess

pytestmark = pytest.mark.process
ENDLESS_LINE = f"import sys; sys.stdin.readline(); sys.stdout.write('x' * {2 * MAX_LINE_BYTES})"


def test_too_long_a_line_fails_the_turn_once():
    """However much of it still comes, and also what is in the pipe when the process ends."""

    async def scenario() -> list[Event]:
        command = Command(argv=(sys.executable, "-IS", "-c", ENDLESS_LINE), env={}, cwd="/")
        process = CliProcess.start(command, ClaudeConnection(), exit_grace_s=WAIT_S)
        turn = process.start_turn(Prompt(text="hello"))
        events: list[Event] = []
        async with asyncio.timeout(WAIT_S):
            while not turn.is_over:
                events += await turn.next_batch()
            await process.exited
        if turn.backlog:
            events += await turn.next_batch()
        await process.stop()
        return events

    failures = [event for event in asyncio.run(scenario()) if isinstance(event, Failure)]
    assert [failure.code for failure in failures] == ["provider_protocol_error"]
