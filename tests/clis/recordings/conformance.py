"""Whether a version of a command line still means what was recorded: scenario by scenario, named where it does not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from shared import provider
from shared.events import Event
from shared.provider import CommandInputs
from shared.versions import numbers
from tests.clis.recordings import recorder, recording
from tests.clis.recordings.normal import PATH
from tests.clis.recordings.recording import Recording
from tests.clis.recordings.scenarios import Scenario, Subject

ZERO_WIDTH_SPACE = "\u200b"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One scenario over one version; ``differences`` are lines of a diff, or sentences, and none when all is well."""

    scenario: str
    version: str
    against: str | None
    differences: tuple[str, ...]


def recorded_versions(root: Path, name: str) -> list[str]:
    """The versions of a command line of which there are recordings, oldest first."""
    folders = (each for each in (root / name).glob("*") if each.is_dir())
    return sorted((each.name for each in folders), key=numbers)


def replay(of: Recording) -> dict[str, list[Event]]:
    """Its events, as the provider's connection of today understands it."""
    inputs = CommandInputs(
        executable=(PATH,),
        version=of.version,
        model="any",
        login="api_key",
        workspace=PATH,
        home=PATH,
        user_home=PATH,
        variables={},
    )
    return recording.replay(of, provider.load(of.provider).connect(inputs))


def surprises(scenario: Scenario, events: dict[str, list[Event]]) -> Iterator[str]:
    """Where the last turn does not end as the table says."""
    projection, _ = recording.outcome(list(events.values())[-1])
    end = projection.error.code if projection.error else projection.completion.finish_reason
    text = projection.completion.text.replace(ZERO_WIDTH_SPACE, "")
    if not projection.is_over:
        yield "the turn has no end"
    elif scenario.end not in (None, end):
        yield f"the turn ended as {end}, not as {scenario.end}"
    if scenario.text not in (None, text):
        yield f"the text is {text!r}, not {scenario.text!r}"


def judge(
    scenario: Scenario, made: Recording, events: dict[str, list[Event]], reference: Recording | None
) -> Verdict:
    """What was made now, with the events as they came, against a recording, and against the table."""
    meaning = recording.meaning(made, events)
    differences = list(surprises(scenario, events))
    if recording.meaning(made, replay(made)) != meaning:
        differences.append("the recording replays to something else than what was seen")
    if reference is not None:
        before = recording.meaning(reference, replay(reference))
        differences += list(difflib.unified_diff(before, meaning, lineterm="", n=0))[2:]
    return Verdict(
        scenario=scenario.name,
        version=made.version,
        against=reference.version if reference else None,
        differences=tuple(differences),
    )


def run(
    subject: Subject, program: recorder.Program, scenarios: Iterable[Scenario], root: Path, *, keep: bool
) -> Iterator[Verdict]:
    """Record each scenario and judge it against this version's recording, or else the newest version's.

    ``keep`` writes what is new or differs; what means the same stays as it is recorded.
    """
    versions = recorded_versions(root, subject.provider)
    against = program.version if program.version in versions else next(reversed(versions), None)
    for scenario in scenarios:
        made, events = recorder.record(subject, scenario, program)
        reference = _recorded(root, subject.provider, against, scenario.name)
        verdict = judge(scenario, made, events, reference)
        if keep and (verdict.differences or verdict.against != program.version):
            recording.write(made, root)
        yield verdict


def _recorded(root: Path, name: str, version: str | None, scenario: str) -> Recording | None:
    path = recording.path_of(root, name, version or "", scenario)
    return recording.read(path) if version and path.is_file() else None
