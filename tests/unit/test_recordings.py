"""Every recording of a real command line means what the table of scenarios says, to the connections of today."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared.events import Event
from shared.provider import CommandInputs, load
from shared.versions import numbers
from tests.clis.recordings import conformance
from tests.clis.recordings.normal import Normaliser
from tests.clis.recordings.recording import (
    TRANSCRIPTS,
    Printed,
    Recording,
    as_bytes,
    meaning,
    path_of,
    read,
    replay,
    write,
)
from tests.clis.recordings.scenarios import SUBJECTS, Scenario
from tests.clis.table import PINS

RECORDINGS = sorted(path for name in SUBJECTS for path in (TRANSCRIPTS / name).glob("*/*.jsonl"))
MACHINE = re.compile(r"/(?:tmp|root|home|work|usr|var|opt|mnt|Users)/|127\.0\.0\.1:(?!1\b)\d")
SCENARIOS = {
    (name, scenario.name): scenario for name, subject in SUBJECTS.items() for scenario in subject.scenarios
}


def scenario_of(recording: Recording) -> Scenario:
    """Its row of the table."""
    return SCENARIOS[recording.provider, recording.scenario]


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: "-".join((*path.parts[-3:-1], path.stem)))
def test_a_recording_means_what_the_table_says(path: Path):
    """Its turn ends as it must, with the text that was asked for, and the model was offered no tool."""
    recording = read(path)
    assert path == path_of(TRANSCRIPTS, recording.provider, recording.version, recording.scenario)
    assert list(conformance.surprises(scenario_of(recording), conformance.replay(recording))) == []
    assert recording.asked is None or recording.asked.tools == ()
    assert not MACHINE.search(path.read_text())


@pytest.mark.parametrize("name", SUBJECTS)
def test_both_ends_of_a_supported_range_are_recorded_whole(name: str):
    """Every row of the table that the command line has, and no other; the same for the pinned version between."""
    versions = conformance.recorded_versions(TRANSCRIPTS, name)
    supported = load(name).supported_versions
    assert supported is not None
    assert (versions[0], versions[-1]) == (supported.oldest, supported.newest)
    assert PINS[SUBJECTS[name].package] in versions
    wanted = {scenario.name for scenario in SUBJECTS[name].scenarios}
    for version in versions:
        assert {path.stem for path in (TRANSCRIPTS / name / version).glob("*.jsonl")} == wanted


def completion() -> Recording:
    """A recording of codex, whose answers have ids."""
    newest = conformance.recorded_versions(TRANSCRIPTS, "codex")[-1]
    return read(path_of(TRANSCRIPTS, "codex", newest, "completion"))


def understood(recording: Recording) -> list[str]:
    """What it means."""
    return meaning(recording, conformance.replay(recording))


def changed(recording: Recording, old: str, new: str) -> Recording:
    """The recording with other words on stdout."""
    steps = tuple(
        Printed(json.loads(as_bytes(step.line).decode().replace(old, new)))
        if isinstance(step, Printed)
        else step
        for step in recording.steps
    )
    assert steps != recording.steps
    return msgspec.structs.replace(recording, steps=steps)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"delta": "hello"', '"delta": "hullo"'),
        ("item/agentMessage/delta", "item/agentMessage/piece"),
        ('"outputTokens": 45', '"outputTokens": 46'),
        ('"status": "completed"', '"status": "failed"'),
        ('"type": "agentMessage"', '"type": "webSearch"'),
    ],
    ids=["a word", "a name", "a count", "an end", "a kind"],
)
def test_a_change_of_meaning_is_seen(old: str, new: str):
    """Positive control: words, names of events, usage, outcome and kinds all count."""
    recording = completion()
    verdict = conformance.judge(
        scenario_of(recording),
        changed(recording, old, new),
        conformance.replay(changed(recording, old, new)),
        recording,
    )
    assert verdict.differences
    assert verdict.scenario == "completion"


@pytest.mark.parametrize(
    ("old", "new"),
    [("id-3", "id-77"), ('"platformOs": "linux"', '"platformOs": "hurd"'), ('"durationMs": 0', '"durationMs": 5')],
)  # fmt: skip
def test_a_change_without_meaning_is_not(old: str, new: str):
    """Ids, times, and what nobody reads."""
    recording = completion()
    assert understood(changed(recording, old, new)) == understood(recording)


def test_what_the_model_service_saw_counts():
    """One more request, or a tool that is offered, is a difference even where the answer is the same."""
    recording = completion()
    assert recording.asked is not None
    for asked in (
        msgspec.structs.replace(recording.asked, requests=2),
        msgspec.structs.replace(recording.asked, tools=('{"name": "shell"}',)),
    ):
        assert understood(msgspec.structs.replace(recording, asked=asked)) != understood(recording)


@pytest.mark.parametrize("name", ["codex", "gemini"])
def test_answers_find_the_requests_that_are_made_now(name: str):
    """A recording outlives a change of the ids that we give."""
    newest = conformance.recorded_versions(TRANSCRIPTS, name)[-1]
    recording = read(path_of(TRANSCRIPTS, name, newest, "completion"))
    inputs = CommandInputs(
        executable=("x",), model="m", login="api_key", workspace="/w", home="/h", user_home="/u", variables={}
    )
    connection: Any = load(name).connect(inputs)
    connection._last_id = 1000
    assert meaning(recording, replay(recording, connection)) == understood(recording)


def test_a_file_holds_a_whole_recording(tmp_path: Path):
    """What is read is what was written."""
    recording = completion()
    write(recording, tmp_path)
    assert read(path_of(tmp_path, "codex", recording.version, "completion")) == recording


def test_a_turn_without_an_end_or_with_another_one_is_a_surprise():
    """Named in words."""
    scenario = Scenario(name="x", end="stop", text="a")
    nothing: list[Event] = []
    assert list(conformance.surprises(scenario, {"turn-1": nothing})) == [
        "the turn has no end",
        "the text is '', not 'a'",
    ]
    events = conformance.replay(read(path_of(TRANSCRIPTS, "claude", "2.1.197", "rate-limit")))
    assert list(conformance.surprises(Scenario(name="x", end="stop"), events)) == [
        "the turn ended as rate_limit_exceeded, not as stop"
    ]


def test_versions_are_in_the_order_of_their_numbers(tmp_path: Path):
    """Not of their letters."""
    for version in ("2.1.1000", "2.1.197", "2.1.330"):
        (tmp_path / "claude" / version).mkdir(parents=True)
    (tmp_path / "claude" / "old.jsonl").touch()
    assert conformance.recorded_versions(tmp_path, "claude") == ["2.1.197", "2.1.330", "2.1.1000"]
    assert conformance.recorded_versions(tmp_path, "nobody") == []
    assert numbers("unknown") == ()


def test_the_normal_form():
    """Paths, ports, ids, times and hosts go; words and counts stay; the same id is the same number everywhere."""
    first, second = "01a20219-2b43-7b92-b2f5-a9c8a6a765c7", "d3654ad8-a180-4418-b1bc-7288e30c0383"
    line = {
        "cwd": "/tmp/x/workspace",
        "id": first,
        "nested": [{first: second, "durationMs": 12, "emittedAtMs": 5, "pid": 7, "serverName": "vm"}],
        "text": f'hello at "/tmp/x/home/a.json", see {first} and msg_scripted000017 or http://127.0.0.1:4321/v1',
        "input_tokens": 123456,
        "total_cost_usd": 0.25,
        "long": "x" * 1000,
        "many": list(range(100)),
        "ok": True,
        "none": None,
    }
    assert Normaliser({"/tmp/x"}).value(line) == {
        "cwd": "/lease/path",
        "id": "id-1",
        "nested": [{"id-1": "id-2", "durationMs": 0, "emittedAtMs": 0, "pid": 0, "serverName": "host"}],
        "text": 'hello at "/lease/path", see id-1 and msg_scripted000001 or http://127.0.0.1:1/v1',
        "input_tokens": 123456,
        "total_cost_usd": 0.25,
        "long": "x" * 120,
        "many": [0, 1, 2, 3],
        "ok": True,
        "none": None,
    }
    assert (
        Normaliser({"/tmp/x"}).text("\x1b[2m2026-11-27T09:00:00.123Z\x1b[0m at /tmp/x/a.js:3")
        == "2000-01-01T00:00:00Z at /lease/path:3"
    )
