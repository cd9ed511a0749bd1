"""What only gemini has: commands behind invisible characters, a login dialogue, an estimate of the context, reports."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shared import provider
from shared.errors import EndpointError
from shared.launch import TurnLimits
from shared.providers.gemini import connection
from shared.providers.gemini.connection import ZERO_WIDTH_SPACE
from supervisor import InferenceEndpoint
from tests.clis.conftest import ask, lease_of, model_request, posts, until
from tests.clis.models.server import ModelServer
from tests.clis.table import KEY, Cli
from worker.capacity import Capacity
from worker.inputs import private_inputs
from worker.pool import Pool
from worker.session import Session, query
from worker.starter import Starter

pytestmark = [pytest.mark.cli, pytest.mark.process, pytest.mark.parametrize("cli", ["gemini"], indirect=True)]
COMMAND_PREFIXES = ("", "\ufeff", "\u00a0", "\u2028", "\u3000\n", "\u200b\ufeff", "\x1c")
"""What JavaScript trims, alone and after what it does not; and what Python would call a blank and JavaScript not."""


def in_a_session(
    cli: Cli, server: ModelServer, home: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> tuple[str, list[str]]:
    """One turn as a library call: its text or the code it failed with, and the files in its workspace at the end."""
    for name, value in {**cli.variables(server), cli.key_variable: KEY, "HOME": str(home)}.items():
        monkeypatch.setenv(name, value)

    async def turn() -> tuple[str, list[str]]:
        async with private_inputs("gemini", model=cli.model) as inputs:
            pool = Pool(Starter(provider.load("gemini"), inputs, TurnLimits()).start, 0)
            session = Session(pool, TurnLimits(), Capacity(concurrency=1, queue_limit=0))
            try:
                outcome = (await query(session, text)).text
            except EndpointError as error:
                outcome = error.code
            await session.close()
            return outcome, os.listdir(inputs.workspace)

    return asyncio.run(turn())


@pytest.mark.parametrize("prefix", COMMAND_PREFIXES)
def test_an_invisible_character_hides_no_command(
    cli: Cli, server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
):
    """It arrives as text, and no file is made."""
    outcome, files = in_a_session(cli, server, tmp_path, monkeypatch, f"{prefix}/init")
    assert outcome == f"echo: {ZERO_WIDTH_SPACE}{prefix}/init"
    assert cli.user_text(model_request(server)) == f"{prefix}/init"
    assert files == []


def test_control_a_command_would_be_run(
    cli: Cli, server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Positive control: without the lock the same prompt writes a file and asks no model."""
    monkeypatch.setattr(connection, "COMMAND_STARTS", ())
    outcome, files = in_a_session(cli, server, tmp_path, monkeypatch, "\ufeff/init")
    assert files == ["GEMINI.md"], outcome
    assert not posts(server)


def test_a_prompt_beyond_the_context_is_told_apart(
    cli: Cli, server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """By gemini's own estimate, without a model request; longer than the endpoint takes, so as a library call."""
    outcome, _ = in_a_session(cli, server, tmp_path, monkeypatch, "word " * 1_000_000)
    assert outcome == "context_length_exceeded"
    assert not posts(server)


def test_a_login_that_is_not_accepted_is_no_login(
    cli: Cli, start_supervisor: Callable[..., InferenceEndpoint], server: ModelServer, tmp_path: Path
):
    """gemini would ask for a code, and take the next prompt for it."""
    folder = tmp_path / ".gemini"
    folder.mkdir()
    expired = {"access_token": "ya29.dummy", "refresh_token": "1//dummy", "expiry_date": 1}
    (folder / "oauth_creds.json").write_text(json.dumps(expired))
    with start_supervisor(cli, tmp_path) as endpoint:
        descriptor = lease_of(endpoint, cli)
        for _ in range(2):
            refused = ask(descriptor, "hello")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_logged_in")
        until(lambda: not endpoint.endpoint(descriptor).processes[2:])
        endpoint.release_endpoint(descriptor)
    assert not posts(server)


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
