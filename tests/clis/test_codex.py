"""What only codex has: whose login and model provider it uses, a hostile home, its catalogue, controls without locks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor import InferenceEndpoint
from tests.clis.conftest import ask, bare_environ, lease_of, model_request, posts, text_of
from tests.clis.models.server import ModelServer
from tests.clis.table import CODEX, Cli

pytestmark = [pytest.mark.cli, pytest.mark.process, pytest.mark.parametrize("cli", ["codex"], indirect=True)]
RUN_TIMEOUT_S = 120
MODELS = ("gpt-6.1-sol", "gpt-5.5", "mock-1")


def config(server: ModelServer, home: Path, login: str) -> Path:
    """A user's own settings: their model provider, and whatever could run things. Returns the trap."""
    trap = home / "trapped"
    folder = home / ".codex"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(
        f"""
model_provider = "mine"
sandbox_mode = "danger-full-access"
approval_policy = "never"
notify = ["touch", "{trap}"]
[model_providers.mine]
name = "Mine"
base_url = "{server.base_url}/v1"
wire_api = "responses"
{login}
[mcp_servers.trap]
command = "touch"
args = ["{trap}"]
[features]
shell_tool = true
unified_exec = true
"""
    )
    (folder / "AGENTS.md").write_text("MEMORY-CANARY")
    return trap


def assert_locked(endpoint: InferenceEndpoint, cli: Cli, server: ModelServer, trap: Path, key: str) -> None:
    """It completes with that key, sends no memory, runs nothing."""
    descriptor = lease_of(endpoint, cli)
    assert text_of(ask(descriptor, "hello")) == "echo: hello"
    request = model_request(server)
    assert cli.key_of(request) == key
    assert "MEMORY-CANARY" not in json.dumps(request.body)
    assert not cli.tools_of(request)
    target = trap.with_name("pwned")
    refused = ask(descriptor, f'[[tool:exec_command]] [[tool-input:{{"cmd":"touch {target}"}}]]')
    assert refused.json()["error"]["code"] == "tool_use_refused"
    endpoint.release_endpoint(descriptor)
    assert not target.exists()
    assert not trap.exists()


def test_a_users_own_model_provider_is_kept(
    cli: Cli, start_supervisor: Callable[..., InferenceEndpoint], server: ModelServer, tmp_path: Path
):
    """With the variable that it names for its key; their tools, servers, programs and memory are not."""
    trap = config(server, tmp_path, 'env_key = "MY_OWN_KEY"')
    with start_supervisor(cli, tmp_path, MY_OWN_KEY="own-key", OPENAI_API_KEY="other") as endpoint:
        assert_locked(endpoint, cli, server, trap, "own-key")


@pytest.mark.parametrize("arguments", [(), ("--harden", "landlock")], ids=["plain", "landlock"])
def test_a_logged_in_user(
    cli: Cli,
    start_supervisor: Callable[..., InferenceEndpoint],
    server: ModelServer,
    tmp_path: Path,
    arguments: tuple[str, ...],
):
    """The login in ``auth.json`` is used, and the file stays as it was."""
    trap = config(server, tmp_path, "requires_openai_auth = true")
    auth = tmp_path / ".codex" / "auth.json"
    auth.write_text(json.dumps({"OPENAI_API_KEY": "key-of-the-login"}))
    before = auth.read_bytes()
    with start_supervisor(cli, tmp_path, arguments) as endpoint:
        assert_locked(endpoint, cli, server, trap, "key-of-the-login")
    assert auth.read_bytes() == before
    assert not auth.is_symlink()


@pytest.mark.parametrize("model", MODELS)
def test_no_tool_hides_anywhere_in_a_request(
    cli: Cli, with_key: InferenceEndpoint, server: ModelServer, model: str
):
    """Neither in the tools nor among the input items, for the service's own names and for an unknown one."""
    descriptor, _ = with_key.ensure_endpoint({"model_preference": {"provider": "codex", "id": model}})
    text_of(ask(descriptor, "hello"))
    request = model_request(server)
    assert request.body["model"] == model
    assert cli.tools_of(request) == []
    with_key.release_endpoint(descriptor)


def test_a_looping_model_is_stopped(cli: Cli, with_key: InferenceEndpoint, server: ModelServer):
    """codex itself would answer it for as long as it goes on."""
    descriptor = lease_of(with_key, cli)
    refused = ask(descriptor, "[[tool:exec_command]] [[tool-input:{}]]")
    assert refused.json()["error"]["code"] == "tool_use_refused"
    assert len(posts(server)) <= cli.requests_of_a_tool_attempt
    with_key.release_endpoint(descriptor)


def bare_codex(cli: Cli, server: ModelServer, home: Path, prompt: str, model: str, *flags: str) -> str:
    """``codex exec`` by itself, for positive controls; its stdout."""
    local = (
        f'{{name="local",base_url="{server.base_url}/v1",env_key="OPENAI_API_KEY",wire_api="responses",'
        "request_max_retries=0,stream_max_retries=0}"
    )
    overrides = (
        'model_provider="local"',
        f"model_providers.local={local}",
        "analytics.enabled=false",
        "check_for_update_on_startup=false",
    )
    (home / "cwd").mkdir(exist_ok=True)
    ran = subprocess.run(
        (
            str(cli.find()), "exec", "--json", "--skip-git-repo-check", "--model", model, *flags,
            *(part for override in overrides for part in ("-c", override)), prompt,
        ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        env=bare_environ(cli, home, server, CODEX_HOME=str(home / ".codex")),
        cwd=home / "cwd",
        check=False,
    )  # fmt: skip
    return ran.stdout + ran.stderr


def test_control_a_tool_would_be_run(cli: Cli, server: ModelServer, tmp_path: Path):
    """Positive control: with the locks off the same script creates the file."""
    (tmp_path / ".codex").mkdir()
    target = tmp_path / "pwned"
    output = bare_codex(
        cli, server, tmp_path, f'[[tool:exec_command]] [[tool-input:{{"cmd":"touch {target}"}}]]', "mock-1",
        "--sandbox", "danger-full-access",
    )  # fmt: skip
    assert target.exists(), output


def test_control_tools_would_be_offered(cli: Cli, server: ModelServer, tmp_path: Path):
    """Positive control: without our catalogue a request has them, for the service's own models in hidden places."""
    (tmp_path / ".codex").mkdir()
    for model in ("gpt-5.5", "gpt-6.1-sol"):
        server.clear()
        bare_codex(cli, server, tmp_path, "hello", model)
        assert CODEX.tools_of(model_request(server)), model


def test_control_a_hostile_home_would_be_obeyed(cli: Cli, server: ModelServer, tmp_path: Path):
    """Positive control: with the user's own CODEX_HOME the trap is sprung and the memory sent."""
    trap = config(server, tmp_path, 'env_key = "OPENAI_API_KEY"')
    bare_codex(cli, server, tmp_path, "hello", "mock-1")
    assert trap.exists()
    assert "MEMORY-CANARY" in json.dumps(model_request(server).body)
