"""A user whose home would run things: a completion does not obey it. Each part of it has a positive control."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor import InferenceEndpoint
from tests.clis.conftest import ask, lease_of, posts, text_of
from tests.clis.hostile import HOSTILE, hostile_home, sprung
from tests.clis.models.server import ModelServer
from tests.clis.table import CLIS, KEY, Cli

pytestmark = [pytest.mark.cli, pytest.mark.process]


def sent(server: ModelServer) -> str:
    """All that the model server was told."""
    return json.dumps([request.body for request in posts(server)])


def test_every_command_line_has_a_hostile_home():
    """With something in it that runs, and something that is read."""
    assert set(HOSTILE) == set(CLIS)
    assert all(hostile.traps and hostile.canaries for hostile in HOSTILE.values())


def test_a_hostile_home_is_not_obeyed(
    cli: Cli, start_supervisor: Callable[..., InferenceEndpoint], server: ModelServer, tmp_path: Path
):
    """Its servers, hooks, extensions, skills, memory and permissions: nothing runs, nothing is read, tools stay off."""
    hostile = hostile_home(cli.provider, tmp_path, server)
    target = tmp_path / "pwned"
    with start_supervisor(cli, tmp_path, **{cli.key_variable: KEY}) as endpoint:
        descriptor = lease_of(endpoint, cli)
        assert text_of(ask(descriptor, "hello")) == "echo: hello"
        refused = ask(descriptor, hostile.tool_prompt(target))
        assert refused.json()["error"]["code"] == "tool_use_refused"
        assert not cli.tools_of(posts(server)[0])
        endpoint.release_endpoint(descriptor)
    assert not [canary for canary in hostile.canaries if canary in sent(server)]
    assert not sprung(tmp_path, hostile.traps)
    assert not target.exists()


def test_control_a_hostile_home_would_be_obeyed(cli: Cli, server: ModelServer, tmp_path: Path):
    """Positive control: the command line by itself steps into every trap, sends every word, and runs the tool."""
    hostile = hostile_home(cli.provider, tmp_path, server)
    target = tmp_path / "pwned"
    output = hostile.obey(cli.provider, tmp_path, server, hostile.tool_prompt(target))
    assert sprung(tmp_path, hostile.traps) == set(hostile.traps), output
    assert [canary for canary in hostile.canaries if canary not in sent(server)] == [], output
    assert target.exists(), output
