"""One recorded process: what it was told, what it printed, how it ended; as a file, and replayed. Pure but for files.

A recording is kept in a normal form (``tests.clis.recordings.normal``), both directions in the order in which they
came. A replay runs today's connection over it: answers find the requests that this connection makes, whatever
their ids, so a recording outlives a change of what we send.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

import msgspec

from shared.events import AssistantDelta, Event, Notice
from shared.result import Projection
from shared.sansio import Connection, Prompt

TRANSCRIPTS = Path(__file__).parents[2] / "transcripts"


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="start", tag_field="step"):
    """A turn is started."""

    turn: str
    text: str
    system: str


class Sent(msgspec.Struct, frozen=True, tag="sent", tag_field="step"):
    """One line to the command line."""

    line: Any


class Printed(msgspec.Struct, frozen=True, tag="printed", tag_field="step"):
    """One line of its stdout; a string where it was no JSON."""

    line: Any


class Interrupted(msgspec.Struct, frozen=True, tag="interrupt", tag_field="step"):
    """A turn is cancelled."""

    turn: str


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="end", tag_field="step"):
    """The process is gone."""

    exit_code: int
    stderr: str


Step = Started | Sent | Printed | Interrupted | Ended
_decode_step = msgspec.json.Decoder(Step).decode


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the model service saw: how many requests, and the tools that they offered."""

    requests: int
    tools: tuple[str, ...]


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario over one version; no ``asked`` where there was no scripted model."""

    provider: str
    version: str
    scenario: str
    asked: Asked | None
    steps: tuple[Step, ...]


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    provider: str
    version: str
    scenario: str
    asked: Asked | None


def path_of(root: Path, provider: str, version: str, scenario: str) -> Path:
    """Where that recording is kept."""
    return root / provider / version / f"{scenario}.jsonl"


def write(recording: Recording, root: Path = TRANSCRIPTS) -> None:
    """Keep it, one step a line."""
    path = path_of(root, recording.provider, recording.version, recording.scenario)
    head = _Head(
        provider=recording.provider,
        version=recording.version,
        scenario=recording.scenario,
        asked=recording.asked,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in (head, *recording.steps)))


def read(path: Path) -> Recording:
    """The recording in that file. Raises msgspec.MsgspecError for another shape."""
    first, *rest = path.read_bytes().splitlines()
    head = msgspec.json.decode(first, type=_Head)
    steps = tuple(map(_decode_step, rest))
    return Recording(steps=steps, **{name: getattr(head, name) for name in head.__struct_fields__})


def replay(recording: Recording, connection: Connection) -> dict[str, list[Event]]:
    """The events of each turn, as that connection understands the recording."""
    events: dict[str, list[Event]] = {}
    answers = _Answers(connection)
    connection.handshake()
    for step in recording.steps:
        batches: list[tuple[str, list[Event]]] = []
        match step:
            case Started():
                events[step.turn] = []
                connection.start_turn(step.turn, Prompt(text=step.text, system=step.system))
            case Sent(line):
                answers.expect(line)
            case Printed(line):
                batches = connection.receive([as_bytes(answers.readdressed(line))])
            case Interrupted(turn):
                connection.interrupt(turn)
            case Ended():
                batches = connection.closed(step.exit_code, step.stderr)
        for turn, batch in batches:
            events[turn] += batch
    return events


def as_bytes(line: Any) -> bytes:
    """A recorded line as it was printed."""
    return line.encode() if isinstance(line, str) else json.dumps(line).encode()


class _Answers:
    """Gives recorded answers the ids of the requests that a connection makes now: the nth of a method to the nth."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._methods: dict[Any, str] = {}
        self._ids: defaultdict[str, deque[Any]] = defaultdict(deque)

    def expect(self, recorded: Any) -> None:
        """A request was made when this was recorded."""
        if isinstance(recorded, dict) and "id" in recorded and "method" in recorded:
            self._methods[recorded["id"]] = recorded["method"]

    def readdressed(self, line: Any) -> Any:
        """The line; if it is an answer, to the request that was made now."""
        for sent in self._connection.data_to_send().splitlines():
            request = json.loads(sent)
            if "id" in request and "method" in request:
                self._ids[request["method"]].append(request["id"])
        if not isinstance(line, dict) or "method" in line or line.get("id") not in self._methods:
            return line
        waiting = self._ids[self._methods[line["id"]]]
        return {**line, "id": waiting.popleft()} if waiting else line


def outcome(events: list[Event]) -> tuple[Projection, list[Event]]:
    """How callers see a turn, and its events up to the one that ended it."""
    projection = Projection()
    for number, event in enumerate(events, 1):
        projection.show([event])
        if projection.is_over:
            return projection, events[:number]
    return projection, events


def meaning(recording: Recording, events: dict[str, list[Event]]) -> list[str]:
    """What a recording says in our own terms, one line each: two that mean the same are equal.

    Words, codes, usage and what the model service saw; not the services' own texts, no ids, no times to wait, and no
    notices, which change nothing. Of a turn that was interrupted, what came up to its first piece: the rest depends on
    the moment.
    """
    interrupted = {step.turn for step in recording.steps if isinstance(step, Interrupted)}
    lines = [f"asked {msgspec.json.encode(recording.asked).decode()}"] if recording.asked else []
    for turn, its_events in events.items():
        _, shown = outcome(its_events)
        if turn in interrupted:
            shown = shown[: next(n for n, event in enumerate(shown, 1) if isinstance(event, AssistantDelta))]
        lines += [f"{turn} {_words(event)}" for event in shown if not isinstance(event, Notice)]
    return lines


def _words(event: Event) -> str:
    fields = msgspec.to_builtins(event)
    kind = fields.pop("type")
    told = {
        name: value
        for name, value in fields.items()
        if value is not None and name not in ("message", "provider_session_id", "tool_call_id")
    }
    if "retry_after_s" in told:
        told["retry_after_s"] = "told"
    return f"{kind} {json.dumps(told)}"
