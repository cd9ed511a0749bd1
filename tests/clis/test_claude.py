"""What only claude has: its logins, its ways of taking a prompt for something else, and controls with the locks off."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor import EndpointDescriptor, InferenceEndpoint
from tests.clis.conftest import ask, bare_environ, lease_of, model_request, posts, text_of
from tests.clis.failures import Failing
from tests.clis.hostile import hostile_home, sprung
from tests.clis.models.server import ModelServer
from tests.clis.provoke import assert_fails
from tests.clis.table import CLAUDE, Cli

pytestmark = [pytest.mark.cli, pytest.mark.process, pytest.mark.parametrize("cli", ["claude"], indirect=True)]
RUN_TIMEOUT_S = 120
LIMIT_OF_A_LOGIN = Failing(
    prompt="[[refuse:plan]] [[retry-after:70]] x", status=429, end="quota_exhausted", retry_after="70"
)
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


@pytest.mark.parametrize("arguments", [(), ("--harden", "landlock")], ids=["plain", "landlock"])
def test_a_logged_in_user(
    cli: Cli,
    start_supervisor: Callable[..., InferenceEndpoint],
    server: ModelServer,
    tmp_path: Path,
    arguments: tuple[str, ...],
):
    """Their login is used, in their own home; nothing else of it is: the flags alone keep it out."""
    hostile = hostile_home(cli.provider, tmp_path, server)
    target = tmp_path / "pwned"
    with start_supervisor(cli, tmp_path, arguments) as endpoint:
        descriptor = lease_of(endpoint, cli)
        assert text_of(ask(descriptor, "hello")) == "echo: hello"
        assert model_request(server).headers["authorization"] == "Bearer sk-ant-oat01-dummy"
        refused = ask(descriptor, hostile.tool_prompt(target))
        assert refused.json()["error"]["code"] == "tool_use_refused"
        endpoint.release_endpoint(descriptor)
    sent = json.dumps([request.body for request in posts(server)])
    assert not [canary for canary in hostile.canaries if canary in sent]
    assert not sprung(tmp_path, hostile.traps)
    assert not target.exists()


def test_an_oauth_token(cli: Cli, start_supervisor: Callable[..., InferenceEndpoint], server: ModelServer):
    """A login by variable; when its plan is used up, claude tells until when."""
    with start_supervisor(cli, CLAUDE_CODE_OAUTH_TOKEN="sk-ant-oat01-variable") as endpoint:
        descriptor = lease_of(endpoint, cli)
        assert text_of(ask(descriptor, "hello")) == "echo: hello"
        assert model_request(server).headers["authorization"] == "Bearer sk-ant-oat01-variable"
        assert_fails(descriptor, LIMIT_OF_A_LOGIN)


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
