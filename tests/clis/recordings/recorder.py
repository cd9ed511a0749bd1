"""Recording: one process of a real command line, started as a lease would, over the scripted model. Effectful."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from shared import locate, provider
from shared.events import AssistantDelta, Event
from shared.launch import TurnLimits
from shared.provider import CommandInputs
from shared.result import Projection
from shared.sansio import Connection, Prompt
from tests.clis.amp import RefusingService
from tests.clis.models.server import ModelServer
from tests.clis.recordings.normal import Normaliser
from tests.clis.recordings.recording import (
    Asked,
    Ended,
    Interrupted,
    Printed,
    Recording,
    Sent,
    Started,
    Step,
    outcome,
)
from tests.clis.recordings.scenarios import Scenario, Subject
from tests.clis.table import KEY
from worker.confinement import Confinement
from worker.runner import CliProcess
from worker.starter import Starter
from worker.turn import Turn

TURN_TIMEOUT_S = 60.0
AFTERWARDS = "still here"


class Tap:
    """A connection that keeps what passes through it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._names: dict[str, str] = {}
        self.steps: list[Step] = []
        self.events: dict[str, list[Event]] = {}

    @property
    def is_open(self) -> bool:
        """Until the last turn is over: what comes then depends on how fast we end the process."""
        return not self.events or not outcome(list(self.events.values())[-1])[0].is_over

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def start_turn(self, turn_id: str, prompt: Prompt) -> None:
        name = self._names[turn_id] = f"turn-{len(self._names) + 1}"
        self.events[name] = []
        self.steps.append(Started(turn=name, text=prompt.text, system=prompt.system))
        self._connection.start_turn(turn_id, prompt)

    def receive(self, lines: Sequence[bytes]) -> list[tuple[str, list[Event]]]:
        batches: list[tuple[str, list[Event]]] = []
        for line in filter(bytes.strip, lines):
            was_open = self.is_open
            seen = self._connection.receive([line])
            batches += seen
            if was_open:
                self.steps.append(Printed(_parsed(line)))
                self._keep(seen)
        return batches

    def interrupt(self, turn_id: str) -> bool:
        if self.is_open:
            self.steps.append(Interrupted(self._names[turn_id]))
        return self._connection.interrupt(turn_id)

    def closed(self, exit_code: int, stderr: str) -> list[tuple[str, list[Event]]]:
        self.steps.append(Ended(exit_code=exit_code, stderr=stderr))
        batches = self._connection.closed(exit_code, stderr)
        self._keep(batches if self.is_open else [])
        return batches

    def data_to_send(self) -> bytes:
        data = self._connection.data_to_send()
        self.steps += [Sent(_parsed(line)) for line in data.splitlines()] if self.is_open else []
        return data

    def _keep(self, batches: list[tuple[str, list[Event]]]) -> None:
        for turn_id, events in batches:
            self.events[self._names[turn_id]] += events


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return line.decode(errors="replace")


@dataclass(frozen=True, kw_only=True)
class Program:
    """An installed command line: its executable, its version, and the file that was prepared for it."""

    executable: Path
    version: str
    prepared: str

    @property
    def folders(self) -> set[str]:
        """Where it may say that it is."""
        places = (self.executable, self.executable.resolve())
        modules = (parent for place in places for parent in place.parents if parent.name == "node_modules")
        return {str(each) for each in (*places, *modules)}


def look(subject: Subject, executable: Path, folder: Path) -> Program:
    """What is known of that executable; ``folder`` keeps what is prepared. Raises RuntimeError without a version."""
    chosen = provider.load(subject.provider)
    environ = {"PATH": os.environ["PATH"]}
    version = locate.read_version(chosen.executable, (str(executable),), environ, TURN_TIMEOUT_S)
    if version is None:
        raise RuntimeError(f"cannot record {subject.provider}: {executable} tells no version")
    prepared = locate.prepare(chosen, (str(executable),), version, environ, folder)
    return Program(executable=executable, version=version, prepared=prepared)


def record(
    subject: Subject, scenario: Scenario, program: Program
) -> tuple[Recording, dict[str, list[Event]]]:
    """That scenario over that program, in the normal form, and the events as they came.

    Call it in a loopback-only network. Raises TimeoutError for a turn that does not end in a minute, and for one
    that was interrupted without the model feeling it.
    """
    with tempfile.TemporaryDirectory(prefix="asm-endpoint-recording-") as folder, ModelServer() as server:
        with _service(scenario, server) as url:
            inputs = _inputs(subject, scenario, program, Path(folder), url)
            tap = asyncio.run(_run(subject, scenario, inputs, server))
        normaliser = Normaliser({folder, *program.folders})
        recording = Recording(
            provider=subject.provider,
            version=program.version,
            scenario=scenario.name,
            asked=_asked(subject, server),
            steps=tuple(_normal(step, normaliser) for step in tap.steps),
        )
        return recording, tap.events


@contextlib.contextmanager
def _service(scenario: Scenario, server: ModelServer) -> Iterator[str]:
    """What the command line takes for its service."""
    if scenario.refused_with is not None:
        with RefusingService(scenario.refused_with) as refusing:
            yield refusing.url
    else:
        yield scenario.url or server.base_url


def _inputs(subject: Subject, scenario: Scenario, program: Program, folder: Path, url: str) -> CommandInputs:
    for each in ("workspace", "home", "tmp", "user-home"):
        (folder / each).mkdir(mode=0o700)
    environ = {"PATH": os.environ["PATH"], subject.url_variable: url + subject.url_suffix}
    if scenario.login == "api_key":
        environ[subject.key_variable] = KEY
    return CommandInputs(
        executable=(str(program.executable),),
        version=program.version,
        model=subject.model,
        login=scenario.login,
        workspace=str(folder / "workspace"),
        home=str(folder / "home"),
        user_home=str(folder / "user-home"),
        variables=locate.passed_variables(provider.load(subject.provider), environ),
        prepared=program.prepared,
        settings=scenario.settings,
    )


async def _run(subject: Subject, scenario: Scenario, inputs: CommandInputs, server: ModelServer) -> Tap:
    chosen = provider.load(subject.provider)
    tap = Tap(chosen.connect(inputs))
    tapped = msgspec.structs.replace(chosen, connect=lambda _: tap)
    starter = Starter(tapped, inputs, TurnLimits(), confinement=Confinement())
    process = starter.start()
    try:
        async with asyncio.timeout(TURN_TIMEOUT_S):
            turn = process.start_turn(Prompt(text=scenario.prompt, system=scenario.system))
            await _follow(turn, until_first_piece=scenario.is_interrupted)
            if scenario.is_interrupted:
                await _interrupt(turn, process, server)
            turn.end()
    finally:
        await process.stop()
    return tap


async def _follow(turn: Turn, *, until_first_piece: bool = False) -> None:
    """As a session does: to the end that a caller would see."""
    projection = Projection()
    while not projection.is_over:
        events = await turn.next_batch()
        projection.show(events)
        if until_first_piece and any(isinstance(event, AssistantDelta) for event in events):
            return


async def _interrupt(turn: Turn, process: CliProcess, server: ModelServer) -> None:
    """Leave the turn; the model feels it, and a process that lives on serves another one."""
    turn.end()
    await asyncio.to_thread(server.wait_for_hangup, lambda request: request.method == "POST")
    if process.has_room:
        another = process.start_turn(Prompt(text=AFTERWARDS))
        await _follow(another)
        another.end()


def _asked(subject: Subject, server: ModelServer) -> Asked | None:
    if subject.cli is None:
        return None
    requests = [request for request in server.requests if request.method == "POST"]
    offered = [json.dumps(tool) for request in requests for tool in subject.cli.tools_of(request)]
    return Asked(
        requests=len(requests),
        tools=tuple(dict.fromkeys(offered)),
    )


def _normal(step: Step, normaliser: Normaliser) -> Step:
    match step:
        case Sent(line):
            return Sent(normaliser.value(line))
        case Printed(line):
            return Printed(normaliser.value(line))
        case Ended():
            return Ended(exit_code=step.exit_code, stderr=normaliser.text(step.stderr))
    return step
