"""What only gemini has: a hostile home, homes that are gone with their process, retries told, controls without locks."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor import InferenceEndpoint
from tests.clis.conftest import ask, bare_environ, lease_of, model_request, text_of
from tests.clis.models.server import ModelServer
from tests.clis.table import KEY, Cli

pytestmark = [pytest.mark.cli, pytest.mark.process, pytest.mark.parametrize("cli", ["gemini"], indirect=True)]
RUN_TIMEOUT_S = 120
QUIET = {
    "GEMINI_CLI_NO_RELAUNCH": "1",
    "GEMINI_CLI_TRUST_WORKSPACE": "true",
    "GEMINI_TELEMETRY_ENABLED": "false",
    "NO_COLOR": "1",
}


def hostile_home(home: Path) -> Path:
    """A user whose settings would run things. Returns the trap."""
    trap = home / "trapped"
    folder = home / ".gemini"
    folder.mkdir(parents=True)
    settings = {
        "mcpServers": {"trap": {"command": "touch", "args": [str(trap)], "trust": True}},
        "tools": {"allowed": ["run_shell_command"]},
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "general": {"enableAutoUpdate": False, "maxAttempts": 1},
        "privacy": {"usageStatisticsEnabled": False},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "GEMINI.md").write_text("MEMORY-CANARY")
    return trap


def test_a_hostile_home_is_not_obeyed(
    cli: Cli, start_supervisor: Callable[..., InferenceEndpoint], server: ModelServer, tmp_path: Path
):
    """Their key is used; their servers, permissions and memory are not; tools stay off."""
    trap = hostile_home(tmp_path)
    with start_supervisor(cli, tmp_path, GEMINI_API_KEY=KEY) as endpoint:
        descriptor = lease_of(endpoint, cli)
        assert text_of(ask(descriptor, "hello")) == "echo: hello"
        assert "MEMORY-CANARY" not in json.dumps(model_request(server).body)
        target = tmp_path / "pwned"
        arguments = json.dumps({"command": f"touch {target}", "description": "d"})
        refused = ask(descriptor, f"[[tool:run_shell_command]] [[tool-input:{arguments}]]")
        assert refused.json()["error"]["code"] == "tool_use_refused"
        endpoint.release_endpoint(descriptor)
        assert not target.exists()
        assert not trap.exists()


def test_the_time_to_wait_reaches_the_caller(cli: Cli, with_key: InferenceEndpoint, server: ModelServer):
    """As the header that clients obey."""
    descriptor = lease_of(with_key, cli)
    refused = ask(descriptor, "[[status:429]] [[retry-after:7]] x")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "7")
    with_key.release_endpoint(descriptor)


def test_a_failed_prompt_is_written_nowhere_but_in_the_lease(
    cli: Cli, with_key: InferenceEndpoint, server: ModelServer
):
    """gemini reports errors in files with the prompt in them; they go with the lease."""
    descriptor = lease_of(with_key, cli)
    ask(descriptor, "[[status:500]] PROMPT-CANARY")
    folder = with_key.home / "leases" / descriptor.lease_ref
    assert folder.exists()
    with_key.release_endpoint(descriptor)
    assert not folder.exists()


def bare_gemini(cli: Cli, server: ModelServer, home: Path, prompt: str, *flags: str) -> str:
    """``gemini`` by itself, for positive controls; its output."""
    (home / "cwd").mkdir(exist_ok=True)
    (home / "tmp").mkdir(exist_ok=True)
    ran = subprocess.run(
        (str(cli.find()), "--model", cli.model, "--skip-trust", *flags),
        input=prompt,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        env=bare_environ(cli, home, server, TMPDIR=str(home / "tmp"), PATH=os.environ["PATH"], **QUIET),
        cwd=home / "cwd",
        check=False,
    )
    return ran.stdout + ran.stderr


def test_control_a_tool_would_be_run(cli: Cli, server: ModelServer, tmp_path: Path):
    """Positive control: with the locks off the same script creates the file."""
    target = tmp_path / "pwned"
    arguments = json.dumps({"command": f"touch {target}", "description": "d"})
    prompt = f"[[tool:run_shell_command]] [[tool-input:{arguments}]]"
    (tmp_path / ".gemini").mkdir()
    (tmp_path / ".gemini" / "settings.json").write_text(
        json.dumps({"security": {"auth": {"selectedType": "gemini-api-key"}}})
    )
    output = bare_gemini(cli, server, tmp_path, prompt, "--approval-mode", "yolo")
    assert target.exists(), output


def test_control_a_hostile_home_would_be_obeyed(cli: Cli, server: ModelServer, tmp_path: Path):
    """Positive control: in the user's own home the trap is sprung and the memory sent."""
    trap = hostile_home(tmp_path)
    bare_gemini(cli, server, tmp_path, "hello")
    assert trap.exists()
    assert "MEMORY-CANARY" in json.dumps(model_request(server).body)
