"""Budgets in front of the real command lines: the model feels the stop, and a cost is what the command line says."""

from __future__ import annotations

import pytest

from supervisor import InferenceEndpoint, RequestError
from tests.clis.conftest import WAIT_S, ask, chunks_of, lease_of, text_of, until
from tests.clis.models.server import ModelServer
from tests.clis.table import Cli

pytestmark = [pytest.mark.cli, pytest.mark.process]
LONG = "[[deltas:3000]] [[delay:0.01]] x"
TOKENS = 600


@pytest.mark.parametrize("streaming", [False, True])
def test_a_turn_that_goes_over_is_stopped_at_the_model(
    cli: Cli, with_key: InferenceEndpoint, server: ModelServer, streaming: bool
):
    """The model server sees the command line hang up; the caller is told what was spent, in both forms."""
    budget = {"total_tokens": TOKENS}
    descriptor = lease_of(with_key, cli, budget=budget)
    try:
        answer = ask(descriptor, LONG, stream=streaming)
        assert answer.status_code == (200 if streaming else 429)
        body = chunks_of(answer)[-1] if streaming else answer.json()
        assert body["error"]["code"] == "insufficient_quota", body
        assert body["budget"] == budget
        assert TOKENS < body["spent"]["total_tokens"] < 2 * TOKENS
        server.wait_for_hangup(lambda request: request.method == "POST", WAIT_S)
        until(lambda: with_key.endpoint(descriptor).load["in_flight"] == 0)
        assert ask(descriptor, "hello").status_code == 429
        until(lambda: with_key.endpoint(descriptor).load["standbys"] == 0)
    finally:
        with_key.release_endpoint(descriptor)


def test_what_a_turn_has_cost_is_what_the_command_line_says(
    cli: Cli, with_key: InferenceEndpoint, server: ModelServer
):
    """Where it says anything; elsewhere a budget of costs is refused, because nobody could keep it."""
    if not cli.reports_cost:
        with pytest.raises(RequestError, match="does not report what a turn costs"):
            lease_of(with_key, cli, budget={"cost_usd": 1.0})
        return
    descriptor = lease_of(with_key, cli, budget={"cost_usd": 0.001})
    try:
        text_of(ask(descriptor, "[[usage:1000,500,0,0]] hello"))
        load = with_key.endpoint(descriptor).load
        assert load["cost_microusd"] > 1000
        assert load["priced_tokens"] == load["prompt_tokens"] + load["completion_tokens"] == 1500
        refused = ask(descriptor, "hello")
        assert (refused.status_code, refused.json()["budget"]) == (429, {"cost_usd": 0.001})
        assert refused.json()["spent"]["cost_usd"] == load["cost_microusd"] / 1_000_000
    finally:
        with_key.release_endpoint(descriptor)


def test_a_turn_that_the_model_refused_has_used_nothing(
    cli: Cli, with_key: InferenceEndpoint, server: ModelServer
):
    """Where the command line says so; where it says nothing, the prompt is estimated, and never counted."""
    descriptor = lease_of(with_key, cli)
    try:
        assert ask(descriptor, "[[status:429]] x").status_code == 429
        load = with_key.endpoint(descriptor).load
        assert (load["failures"], load["prompt_tokens"], load["completion_tokens"]) == (1, 0, 0)
        assert load["estimated_tokens"] == (0 if cli.reports_cost else 4)
        assert load["pending_tokens"] == 0
    finally:
        with_key.release_endpoint(descriptor)
