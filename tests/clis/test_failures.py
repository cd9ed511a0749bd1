"""The table of what goes wrong, row by row, in front of every real command line; the lease survives each."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from supervisor import EndpointDescriptor, InferenceEndpoint
from tests.clis.conftest import WAIT_S, ask, posts, text_of
from tests.clis.failures import FAILURES, REQUIRED, rows
from tests.clis.models.server import ModelServer
from tests.clis.provoke import assert_fails, assert_is_a_failure, assert_is_fatal, write_drifting
from tests.clis.table import CLIS, Cli

pytestmark = [pytest.mark.cli, pytest.mark.process]


def test_no_command_line_and_no_cause_is_left_out():
    """A row may say that a command line does not tell; it may not be missing."""
    assert set(FAILURES) == set(CLIS)
    for provider, failures in FAILURES.items():
        assert set(failures) >= REQUIRED, provider


@pytest.mark.parametrize(("cli", "cause"), rows("model"), indirect=["cli"])
def test_what_the_model_service_does_reaches_the_caller(
    cli: Cli, lease: EndpointDescriptor, server: ModelServer, cause: str
):
    """In one vocabulary, whichever command line is between; a broken answer is not asked for again."""
    failing = FAILURES[cli.provider][cause]
    assert_fails(lease, failing)
    if failing.has_begun or failing.status == 200:
        assert len(posts(server)) == 2
    assert text_of(ask(lease, "still here")) == "echo: still here"


@pytest.mark.parametrize(("cli", "cause"), rows("deadline"), indirect=["cli"])
def test_a_deadline_ends_the_turn_and_the_model_feels_it(
    cli: Cli, user: Path, server: ModelServer, cause: str
):
    """By its name; the next turn of the session is served."""
    asyncio.run(assert_is_a_failure(cli.provider, cli.model, FAILURES[cli.provider][cause]))
    server.wait_for_hangup(lambda request: request.method == "POST", WAIT_S)


@pytest.mark.parametrize(("cli", "cause"), rows("kill"), indirect=["cli"])
def test_a_command_line_that_is_killed_fails_its_turn_only(
    cli: Cli, with_key: InferenceEndpoint, lease: EndpointDescriptor, cause: str
):
    """The lease goes on with another one."""
    assert_is_fatal(with_key, lease, FAILURES[cli.provider][cause])
    assert text_of(ask(lease, "still here")) == "echo: still here"


@pytest.mark.parametrize(("cli", "cause"), rows("drift"), indirect=["cli"])
def test_a_protocol_that_drifts_is_noticed_at_once(
    cli: Cli, user: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch, cause: str
):
    """At the record that decides, and not by a deadline."""
    failing = FAILURES[cli.provider][cause]
    monkeypatch.setenv(cli.path_variable, str(write_drifting(user, cli.find(), failing)))
    asyncio.run(assert_is_a_failure(cli.provider, cli.model, failing))
