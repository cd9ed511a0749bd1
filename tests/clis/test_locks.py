"""Completion only: a model asks for every kind of tool, and none is run. The same calls without locks do run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from supervisor import EndpointDescriptor, InferenceEndpoint
from tests.clis.attempts import ATTEMPTS, CONTROLS, FAMILIES, SECRET, scene_in
from tests.clis.conftest import ask, posts, text_of, until
from tests.clis.hostile import hostile_home
from tests.clis.models.server import ModelServer
from tests.clis.table import CLIS, Cli

pytestmark = [pytest.mark.cli, pytest.mark.process]


def pairs(tools: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    """Provider and tool."""
    return [(provider, tool) for provider, names in tools.items() for tool in names]


def test_every_family_of_tools_is_asked_for():
    """Of every command line."""
    assert set(ATTEMPTS) == set(CLIS)
    for provider, attempts in ATTEMPTS.items():
        assert {attempt.family for attempt in attempts.values()} == FAMILIES, provider


@pytest.mark.parametrize(
    ("cli", "tool"), pairs({name: tuple(tools) for name, tools in ATTEMPTS.items()}), indirect=["cli"]
)
def test_no_tool_is_run(
    cli: Cli, with_key: InferenceEndpoint, lease: EndpointDescriptor, server: ModelServer, tool: str
):
    """A typed refusal; none was offered, nothing is made, read or fetched; and that command line is gone."""

    def command_lines() -> set[int]:
        return {process.pid for process in with_key.endpoint(lease).processes[2:]}

    scene = scene_in(with_key.home / "leases" / lease.lease_ref / "workspace", server.base_url)
    until(lambda: len(command_lines()) == 1)
    before = command_lines()
    refused = ask(lease, ATTEMPTS[cli.provider][tool].prompt(tool, scene))
    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "tool_use_refused"), refused.text
    assert len(posts(server)) <= cli.requests_of_a_tool_attempt
    assert not cli.tools_of(posts(server)[0])
    assert text_of(ask(lease, "still here")) == "echo: still here"
    until(lambda: not before & command_lines())
    assert SECRET not in json.dumps([request.body for request in server.requests])
    assert not [request.path for request in server.requests if "canary" in request.path]
    assert not scene.target.exists()
    scene.secret.unlink()


@pytest.mark.parametrize(("cli", "tool"), pairs(dict(CONTROLS)), indirect=["cli"])
def test_control_a_tool_would_be_run(cli: Cli, server: ModelServer, tmp_path: Path, tool: str):
    """Positive control: without locks the same call makes the file, or sends what is in the other to the model."""
    hostile = hostile_home(cli.provider, tmp_path, server)
    (tmp_path / "cwd").mkdir()
    scene = scene_in(tmp_path / "cwd", server.base_url)
    attempt = ATTEMPTS[cli.provider][tool]
    output = hostile.obey(cli.provider, tmp_path, server, attempt.prompt(tool, scene))
    sent = json.dumps([request.body for request in posts(server)])
    assert scene.target.exists() is (attempt.family != "file read"), output
    assert (SECRET in sent) is (attempt.family != "file write"), output
