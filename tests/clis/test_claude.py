"""What only claude has: its logins, its ways of taking a prompt for something else, and controls with the locks off."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor import EndpointDescriptor, InferenceEndpoint
from tests.clis.conftest import ask, bare_environ, lease_of, model_request, posts, text_of
from tests.clis.models.server import ModelServer
from tests.clis.table import CLAUDE, Cli

pytestmark = [pytest.mark.cli, pytest.mark.process, pytest.mark.parametrize("cli", ["claude"], indirect=True)]
RUN_TIMEOUT_S = 120
QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "CLAUDE_CODE_MAX_RETRIES": "0",
}
STREAM_JSON = (
    "-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose",
    "--include-partial-messages", "--model", CLAUDE.model, "--strict-mcp-config", "--setting-sources", "",
    "--no-session-persistence", "--permission-mode", "dontAsk",
)  # fmt: skip
CREDENTIALS = {
    "claudeAiOauth": {
        "accessToken": "sk-ant-oat01-dummy",
        "refreshToken": "sk-ant-ort01-dummy",
        "expiresAt": 4_102_444_800_000,
        "scopes": ["user:inference", "user:profile"],
        "subscriptionType": "max",
    }
}


def bare_claude(
    cli: Cli, prompt: str, environ: dict[str, str], cwd: Path, *flags: str, composed: bool
) -> str:
    """The command line by itself, for positive controls; its stdout."""
    lines: list[dict[str, object]] = [
        {"type": "control_request", "request_id": "1", "request": {"subtype": "initialize", "hooks": None}},
        {
            "type": "user",
            "message": {"role": "user", "content": prompt},
            "parent_tool_use_id": None,
            "session_id": "",
        },
    ]
    if composed:
        lines[1]["client_composed"] = True
    ran = subprocess.run(
        (cli.find(), *STREAM_JSON, *flags),
        input="".join(json.dumps(line) + "\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        env=environ,
        cwd=cwd,
        check=False,
    )
    return ran.stdout


def test_without_a_system_prompt_no_empty_block_is_sent(lease: EndpointDescriptor, server: ModelServer):
    """The real service refuses empty text blocks."""
    text_of(ask(lease, "hello"))
    assert all(block["text"].strip() for block in model_request(server).body["system"])


def test_control_a_mentioned_file_would_be_read(cli: Cli, server: ModelServer, tmp_path: Path):
    """Positive control: without the locks the same prompt sends the file."""
    secret = tmp_path / "secret.txt"
    secret.write_text("TOPSECRET")
    home, cwd = tmp_path / "home", tmp_path / "cwd"
    home.mkdir()
    cwd.mkdir()
    bare_claude(
        cli, f"summarise @{secret} please", bare_environ(cli, home, server, **QUIET), cwd, "--tools", "", "--max-turns", "1",
        composed=False,
    )  # fmt: skip
    assert "TOPSECRET" in json.dumps(model_request(server).body)


def test_control_a_command_would_not_arrive(cli: Cli, server: ModelServer, tmp_path: Path):
    """Positive control: without the mark of a composed message, ``/cost`` never reaches the model."""
    output = bare_claude(
        cli, "/cost", bare_environ(cli, tmp_path, server, **QUIET), tmp_path, "--bare", "--disable-slash-commands",
        composed=False,
    )  # fmt: skip
    assert '"num_turns":0' in output
    assert not posts(server)


def test_control_a_tool_would_be_run(cli: Cli, server: ModelServer, tmp_path: Path):
    """Positive control: with the locks off the same script creates the file."""
    target = tmp_path / "pwned"
    arguments = {"command": f"touch {target}", "description": "d"}
    bare_claude(
        cli, f"[[tool:Bash]] [[tool-input:{json.dumps(arguments)}]]", bare_environ(cli, tmp_path, server, **QUIET), tmp_path,
        "--bare", "--disable-slash-commands", "--allowedTools", "Bash", "--max-turns", "5", composed=True,
    )  # fmt: skip
    assert target.exists()


def hostile_home(home: Path) -> Path:
    """A logged-in user whose settings would run things: hooks, MCP servers, permissions, memory. Returns the trap."""
    trap = home / "trapped"
    (home / ".claude").mkdir(parents=True)
    credentials = home / ".claude" / ".credentials.json"
    credentials.write_text(json.dumps(CREDENTIALS))
    credentials.chmod(0o600)
    hook = [{"hooks": [{"type": "command", "command": f"touch {trap}"}]}]
    settings = {
        "permissions": {"allow": ["Bash(*)", "Read(*)", "Write(*)"], "defaultMode": "bypassPermissions"},
        "hooks": {"SessionStart": hook, "UserPromptSubmit": hook, "Stop": hook},
    }
    (home / ".claude" / "settings.json").write_text(json.dumps(settings))
    server = {"command": "touch", "args": [str(trap)]}
    (home / ".claude.json").write_text(json.dumps({"mcpServers": {"trap": server}}))
    (home / ".claude" / "CLAUDE.md").write_text("MEMORY-CANARY")
    return trap


@pytest.mark.parametrize("arguments", [(), ("--harden", "landlock")], ids=["plain", "landlock"])
def test_a_logged_in_user(
    cli: Cli,
    start_supervisor: Callable[..., InferenceEndpoint],
    server: ModelServer,
    tmp_path: Path,
    arguments: tuple[str, ...],
):
    """Their login is used; their hooks, servers, permissions and memory are not; tools stay off."""
    trap = hostile_home(tmp_path)
    with start_supervisor(cli, tmp_path, arguments) as endpoint:
        descriptor = lease_of(endpoint, cli)
        assert text_of(ask(descriptor, "hello")) == "echo: hello"
        request = model_request(server)
        assert request.headers["authorization"] == "Bearer sk-ant-oat01-dummy"
        assert "MEMORY-CANARY" not in json.dumps(request.body)
        target = tmp_path / "pwned"
        refused = ask(descriptor, f'[[tool:Bash]] [[tool-input:{{"command":"touch {target}"}}]]')
        assert refused.json()["error"]["code"] == "tool_use_refused"
        endpoint.release_endpoint(descriptor)
        assert not target.exists()
        assert not trap.exists()


def test_an_oauth_token(cli: Cli, start_supervisor: Callable[..., InferenceEndpoint], server: ModelServer):
    """A login by variable."""
    with start_supervisor(cli, CLAUDE_CODE_OAUTH_TOKEN="sk-ant-oat01-variable") as endpoint:
        descriptor = lease_of(endpoint, cli)
        assert text_of(ask(descriptor, "hello")) == "echo: hello"
        assert model_request(server).headers["authorization"] == "Bearer sk-ant-oat01-variable"


def test_a_login_that_the_command_line_does_not_accept(
    cli: Cli, start_supervisor: Callable[..., InferenceEndpoint], server: ModelServer, tmp_path: Path
):
    """It says so itself, and that is the same error; no hang, no model request."""
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude" / ".credentials.json").write_text(
        json.dumps({"claudeAiOauth": {"accessToken": "x"}})
    )
    with start_supervisor(cli, tmp_path) as endpoint:
        descriptor = lease_of(endpoint, cli)
        refused = ask(descriptor, "hello")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_logged_in")
    assert not posts(server)
