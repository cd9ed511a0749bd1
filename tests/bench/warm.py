"""A warm command line, with an endpoint before it or driven directly from Python."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from shared import locate, provider
from shared.events import AssistantDelta
from shared.launch import TurnLimits
from shared.provider import CommandInputs
from shared.sansio import Prompt
from supervisor import EndpointDescriptor, InferenceEndpoint
from tests.clis.models.server import ModelServer
from tests.clis.table import KEY, Cli
from worker.runner import CliProcess
from worker.starter import Starter

STANDBY_WAIT_S = 60.0
STANDBY_SETTLE_S = 2.0
"""A standby has a process at once and is ready when it has started up, which takes it up to a second of work."""
BETWEEN_TURNS_S = 0.5
"""A process that goes on has its next conversation ready within 50 ms."""
TEXT = "hello there"
BODY = {"messages": [{"role": "user", "content": TEXT}], "stream": True}


def starter_of(
    provider_name: str,
    executable: Path,
    model: str,
    folder: Path,
    variables: dict[str, str],
    prepared: str = "",
) -> Starter:
    """Starts the same command as a lease does, in ``folder``, and with what a lease would pass of ``variables``."""
    for name in ("home", "workspace", "tmp"):
        (folder / name).mkdir()
    chosen = provider.load(provider_name)
    inputs = CommandInputs(
        executable=(str(executable),),
        model=model,
        login="api_key",
        workspace=f"{folder}/workspace",
        home=f"{folder}/home",
        user_home=str(folder),
        variables=locate.passed_variables(chosen, variables),
        prepared=prepared,
    )
    return Starter(chosen, inputs, TurnLimits())


def starter_of_cli(cli: Cli, server: ModelServer, prepared: str, folder: Path) -> Starter:
    """Starts a real command line as a lease would here.

    Our own environment counts too: where it names certificates, codex reads them anew with every turn.
    """
    ours = {name: value for name, value in os.environ.items() if name not in cli.login_variables}
    variables = {**ours, cli.key_variable: KEY, **cli.variables(server)}
    return starter_of(cli.provider, cli.find(), cli.model, folder, variables, prepared)


async def turn_s(process: CliProcess, started_s: float) -> float:
    """Seconds from ``started_s`` to the first piece of text of one turn, which is then run to its end."""
    turn = process.start_turn(Prompt(text=TEXT))
    while not any(isinstance(event, AssistantDelta) for event in await turn.next_batch()):
        pass
    elapsed_s = time.perf_counter() - started_s
    while not turn.is_over:
        await turn.next_batch()
    turn.end()
    return elapsed_s


class DirectlyDriven:
    """One warm process after the other, driven from Python with nothing between but pipes and the connection."""

    def __init__(self, runner: asyncio.Runner, starter: Starter) -> None:
        self._runner = runner
        self._starter = starter
        self._process = runner.run(self._start())
        self._has_been_used = False

    @property
    def settle_s(self) -> float:
        """How long to leave alone the process that takes the next turn, which can be a new one, as with a lease."""
        return BETWEEN_TURNS_S if self._has_been_used else STANDBY_SETTLE_S

    async def _start(self) -> CliProcess:
        return self._starter.start()

    async def _turn_s(self) -> float:
        await asyncio.sleep(self.settle_s)
        elapsed_s = await turn_s(self._process, time.perf_counter())
        self._has_been_used = self._process.has_room
        if not self._process.has_room:
            used, self._process = self._process, self._starter.start()
            await used.stop()
        return elapsed_s

    def first_delta_s(self) -> float:
        """Seconds from the request to its first piece of text; a process with no turn left is replaced after it."""
        return self._runner.run(self._turn_s())

    def close(self) -> None:
        """End the last one."""
        self._runner.run(self._process.stop())


def wait_for_standby(
    endpoint: InferenceEndpoint, descriptor: EndpointDescriptor, settle_s: float = STANDBY_SETTLE_S
) -> None:
    """Until one is there, and has had the time to start up."""
    deadline = time.monotonic() + STANDBY_WAIT_S
    while endpoint.endpoint(descriptor).load["standbys"] < 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(settle_s)
