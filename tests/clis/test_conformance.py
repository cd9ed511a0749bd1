"""The pinned command lines still mean what was recorded of them, and the command that records says where one does not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.clis.netns import is_loopback_only
from tests.clis.recordings import conformance, recorder
from tests.clis.recordings.recording import TRANSCRIPTS, path_of, read, write
from tests.clis.recordings.scenarios import SUBJECTS, Scenario, Subject
from tests.clis.table import MODULES, PINS

pytestmark = [pytest.mark.cli, pytest.mark.process]
RUN_TIMEOUT_S = 120
ROWS = [(name, scenario) for name, subject in SUBJECTS.items() for scenario in subject.scenarios]
Programs = Callable[[Subject], recorder.Program]


@pytest.fixture(scope="session")
def program_of(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """What is known of each pinned command line; a skip without it, which CI does not allow."""
    known: dict[str, recorder.Program] = {}

    def look(subject: Subject) -> recorder.Program:
        if not is_loopback_only():
            pytest.skip("real command lines run only in a loopback-only network, and none is permitted here")
        found = sorted(MODULES.glob(subject.executable))
        if not found:
            pytest.skip(f"{subject.provider} is not installed; `make clis` installs it where npm is there")
        if subject.provider not in known:
            folder = tmp_path_factory.mktemp("prepared")
            known[subject.provider] = recorder.look(subject, found[0], folder)
        return known[subject.provider]

    return look


@pytest.mark.parametrize(("name", "scenario"), ROWS, ids=lambda row: getattr(row, "name", row))
def test_a_pinned_command_line_means_what_is_recorded(
    program_of: Programs, name: str, scenario: Scenario, tmp_path: Path
):
    """Row by row, against the recording of the same version."""
    program = program_of(SUBJECTS[name])
    (verdict,) = conformance.run(SUBJECTS[name], program, [scenario], TRANSCRIPTS, keep=False)
    assert verdict.against == program.version == PINS[SUBJECTS[name].package]
    assert verdict.differences == ()


def record(transcripts: Path, *argv: str, code: int) -> str:
    """What the command prints, for two rows of codex, which is the quickest."""
    if not is_loopback_only() or not any(MODULES.glob(SUBJECTS["codex"].executable)):
        pytest.skip("codex is not installed, or no loopback-only network is permitted here")
    rows = ("--scenario", "deltas", "--scenario", "rate-limit")
    ran = subprocess.run(
        (sys.executable, "-m", "tests.clis.recordings", "--cli", "codex", *rows, "--transcripts", transcripts, *argv),
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        cwd=TRANSCRIPTS.parents[1],
        check=False,
    )  # fmt: skip
    assert ran.returncode == code, ran.stdout + ran.stderr
    return " ".join(ran.stdout.split())


def test_a_changed_recording_is_named_and_fails_the_command(tmp_path: Path):
    """Positive control. Only the row that differs is named, and kept as it is now; to check alone keeps nothing."""
    pinned = PINS["@openai/codex"]
    shutil.copytree(TRANSCRIPTS / "codex" / pinned, tmp_path / "codex" / pinned)
    path = path_of(tmp_path, "codex", pinned, "deltas")
    before, untouched = path.read_text(), path_of(tmp_path, "codex", pinned, "rate-limit").read_bytes()
    path.write_text(before.replace('"w2 "', '"other "').replace("w2 w3", "other w3"))
    changed = path.read_text()
    assert changed != before

    printed = record(tmp_path, "--check", code=1)
    assert f"deltas DIFFERS from {pinned}" in printed
    assert f"rate-limit means the same as {pinned}" in printed
    assert '-turn-1 assistant_delta {"content": "other "}' in printed
    assert '+turn-1 assistant_delta {"content": "w2 "}' in printed
    assert "2 scenarios, 1 of them with a difference" in printed
    assert path.read_text() == changed

    record(tmp_path, code=1)
    assert '"w2 "' in path.read_text()
    record(tmp_path, code=0)
    assert path_of(tmp_path, "codex", pinned, "rate-limit").read_bytes() == untouched


def test_a_version_without_recordings_is_held_against_the_newest_and_recorded(tmp_path: Path):
    """Beside the others; the first of all has nothing to be held against but the table."""
    path = path_of(tmp_path, "codex", PINS["@openai/codex"], "deltas")
    assert "deltas is new" in record(tmp_path, code=0)
    made = read(path)
    shutil.rmtree(path.parent)
    for version in ("0.1.0", "99.0.0", "9.0.0"):
        write(msgspec.structs.replace(made, version=version), tmp_path)
    assert "deltas means the same as 99.0.0" in record(tmp_path, code=0)
    assert read(path).version == made.version
