"""Every command and program in the README runs, as it stands there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shared.provider import load, names

pytestmark = pytest.mark.process
ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RUN_TIMEOUT_S = 120
END_TIMEOUT_S = 60
SETUP_BLOCK, SESSION_BLOCK = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
(PROGRAM_BLOCK,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def with_our_commands(home: Path) -> dict[str, str]:
    """An environment in which `asm-endpoint` is this one and keeps its state in ``home``."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    return {**os.environ, "PATH": path, "ASM_ENDPOINT_HOME": str(home)}


def test_the_two_commands_are_targets_of_the_makefile():
    """`make demo` and `make test` are there; what they run is run by the other tests and by CI."""
    commands = [line.split("#")[0].split() for line in SETUP_BLOCK.strip().splitlines()]
    assert commands == [["make", "demo"], ["make", "test"]]
    for command in commands:
        subprocess.run(
            (*command, "--dry-run"), cwd=ROOT, check=True, capture_output=True, timeout=RUN_TIMEOUT_S
        )


def test_the_program_with_the_official_client_runs():
    """It answers, streams, and prints a proof without survivors."""
    answer = subprocess.run(
        (sys.executable, "-W", "error", "-c", PROGRAM_BLOCK),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("Say hello\nSay hello")
    assert "survivors=()" in answer.stdout


def test_the_shell_session_runs(tmp_path: Path):
    """Each command of the session succeeds against the supervisor that its first line starts."""
    session = SESSION_BLOCK.replace("asm-endpoint serve &", "asm-endpoint serve & supervisor=$!; ", 1)
    script = f"set -eu\ntrap 'kill -TERM $supervisor; wait $supervisor' EXIT\n{session}"
    environ = with_our_commands(tmp_path)
    with subprocess.Popen(
        ("sh", "-c", script),
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            output, _ = shell.communicate(timeout=RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            raise
    assert shell.returncode == 0, output
    assert "http://127.0.0.1:" in output
    assert '"object":"list"' in output
    assert not (tmp_path / "supervisor.json").exists()


def test_the_supported_versions_are_those_of_the_provider_files():
    """One row for each command line that is published."""
    for name in names():
        if supported := load(name).supported_versions:
            assert re.search(rf"^\| `{name}` \| [\w ]+ {re.escape(str(supported))} \|", README, re.MULTILINE)


def test_the_measured_table_is_filled_in():
    """The README shows measured ratios, each with the bound it is held to."""
    assert "BENCH_TABLE" not in README
    assert len(re.findall(r"^\|.*(?:>=|<=|≥|≤).*\|$", README, re.MULTILINE)) >= 5
