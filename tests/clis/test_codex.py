"""What only codex has: whose login and model provider it uses, a hostile home, its catalogue, controls without locks."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.errors import PROVIDER_KINDS, REQUEST_KINDS
from shared.providers.codex.connection import CALL_ITEMS
from shared.providers.codex.failures import DETAILED_INFO_CODES, INFO_CODES
from supervisor import InferenceEndpoint
from tests.clis.conftest import ask, bare_environ, lease_of, model_request, posts, text_of
from tests.clis.hostile import HostileHome, hostile_home, sprung
from tests.clis.models.server import ModelServer
from tests.clis.table import CODEX, Cli

pytestmark = [pytest.mark.cli, pytest.mark.process, pytest.mark.parametrize("cli", ["codex"], indirect=True)]
RUN_TIMEOUT_S = 120
TOOLLESS_ITEMS = {
    "additional_tools", "agent_message", "compaction", "compaction_trigger", "configuration_update",
    "context_compaction", "message", "other", "reasoning",
}  # fmt: skip
MODELS = ("gpt-6.1-sol", "gpt-5.5", "mock-1")


def hostile_user(home: Path, server: ModelServer, login: str) -> HostileHome:
    """A hostile home with that login."""
    hostile = hostile_home("codex", home, server)
    config = home / ".codex" / "config.toml"
    config.write_text(config.read_text().replace('env_key = "OPENAI_API_KEY"', login))
    return hostile


def assert_locked(
    endpoint: InferenceEndpoint, cli: Cli, server: ModelServer, home: Path, hostile: HostileHome, key: str
) -> None:
    """It completes with that key, and obeys nothing else in that home."""
    target = home / "pwned"
    descriptor = lease_of(endpoint, cli)
    assert text_of(ask(descriptor, "hello")) == "echo: hello"
    assert cli.key_of(model_request(server)) == key
    refused = ask(descriptor, hostile.tool_prompt(target))
    assert refused.json()["error"]["code"] == "tool_use_refused"
    endpoint.release_endpoint(descriptor)
    sent = json.dumps([request.body for request in posts(server)])
    assert not [canary for canary in hostile.canaries if canary in sent]
    assert not sprung(home, hostile.traps)
    assert not target.exists()


def test_a_users_own_model_provider_is_kept(
    cli: Cli, start_supervisor: Callable[..., InferenceEndpoint], server: ModelServer, tmp_path: Path
):
    """With the variable that it names for its key; their tools, servers, programs and memory are not."""
    hostile = hostile_user(tmp_path, server, 'env_key = "MY_OWN_KEY"')
    with start_supervisor(cli, tmp_path, MY_OWN_KEY="own-key", OPENAI_API_KEY="other") as endpoint:
        assert_locked(endpoint, cli, server, tmp_path, hostile, "own-key")


@pytest.mark.parametrize("arguments", [(), ("--harden", "landlock")], ids=["plain", "landlock"])
def test_a_logged_in_user(
    cli: Cli,
    start_supervisor: Callable[..., InferenceEndpoint],
    server: ModelServer,
    tmp_path: Path,
    arguments: tuple[str, ...],
):
    """The login in ``auth.json`` is used, and the file stays as it was."""
    hostile = hostile_user(tmp_path, server, "requires_openai_auth = true")
    auth = tmp_path / ".codex" / "auth.json"
    auth.write_text(json.dumps({"OPENAI_API_KEY": "key-of-the-login"}))
    before = auth.read_bytes()
    with start_supervisor(cli, tmp_path, arguments) as endpoint:
        assert_locked(endpoint, cli, server, tmp_path, hostile, "key-of-the-login")
    assert auth.read_bytes() == before
    assert not auth.is_symlink()


@pytest.fixture(scope="module")
def schema(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The definitions of codex's own protocol, as the installed codex prints them."""
    folder = tmp_path_factory.mktemp("schema")
    subprocess.run(
        (str(cli.find()), "app-server", "generate-json-schema", "--experimental", "--out", str(folder)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=RUN_TIMEOUT_S,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        check=True,
    )
    return json.loads((folder / "codex_app_server_protocol.v2.schemas.json").read_text())["definitions"]


def test_every_cause_of_the_protocol_has_a_code(schema: Any):
    """None is missing, and none is made up: a new codex shows here what it has added."""
    kinds = schema["CodexErrorInfo"]["anyOf"]
    words = {word for kind in kinds for word in kind.get("enum", ())}
    assert words == {*INFO_CODES, "other"}
    assert {word for kind in kinds for word in kind.get("properties", ())} == set(DETAILED_INFO_CODES)
    assert (
        not {*INFO_CODES.values(), *DETAILED_INFO_CODES.values()} - set(PROVIDER_KINDS) - set(REQUEST_KINDS)
    )


def test_every_kind_of_raw_item_is_known_for_a_tool_or_not(schema: Any):
    """What a model may answer with."""
    kinds = {kind["properties"]["type"]["enum"][0] for kind in schema["ResponseItem"]["oneOf"]}
    assert {kind for kind in kinds if not CALL_ITEMS.fullmatch(kind)} == TOOLLESS_ITEMS


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


def test_control_tools_would_be_offered(cli: Cli, server: ModelServer, tmp_path: Path):
    """Positive control: without our catalogue a request has them, for the service's own models in hidden places."""
    (tmp_path / ".codex").mkdir()
    for model in ("gpt-5.5", "gpt-6.1-sol"):
        server.clear()
        bare_codex(cli, server, tmp_path, "hello", model)
        assert CODEX.tools_of(model_request(server)), model
