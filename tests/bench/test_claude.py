"""The first delta of the real claude: through the endpoint with a ready standby, and by the bare command line."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from shared import provider
from shared.claude_wire import ClaudeConnection
from shared.provider import CommandInputs, Prompt
from supervisor import EndpointDescriptor, InferenceEndpoint
from tests.bench.measure import interleaved_medians_s, report
from tests.bench.rawhttp import first_delta_s
from tests.clis.conftest import KEY, MODEL
from tests.clis.models.server import ModelServer

pytestmark = [pytest.mark.bench, pytest.mark.cli]
RUNS = 10
STANDBY_WAIT_S = 60.0
STANDBY_SETTLE_S = 2.0
"""A standby has a process at once and is ready when it has started up, which takes it half a second of work."""
TEXT = "hello there"


def bare_cold_s(claude: Path, server: ModelServer) -> float:
    """Seconds from the spawn of the same command with the same prompt to its first text delta."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("home", "workspace", "tmp"):
            (Path(folder) / name).mkdir()
        inputs = CommandInputs(
            executable=(str(claude),),
            model=MODEL,
            login="api_key",
            workspace=f"{folder}/workspace",
            home=f"{folder}/home",
            user_home=folder,
            variables={"PATH": os.defpath, "ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": server.base_url},
        )
        build = provider.load("claude").command
        assert build is not None
        command = build(inputs)
        started = time.perf_counter()
        with subprocess.Popen(
            command.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=command.env, cwd=command.cwd,
        ) as process:  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            connection = ClaudeConnection()
            connection.start_turn("turn", Prompt(text=TEXT))
            process.stdin.write(connection.data_to_send())
            process.stdin.close()
            for line in process.stdout:
                if b'"text_delta"' in line:
                    elapsed_s = time.perf_counter() - started
                    process.kill()
                    return elapsed_s
    raise AssertionError("claude gave no delta")


def wait_for_standby(endpoint: InferenceEndpoint, descriptor: EndpointDescriptor) -> None:
    """Until one is there, and has had the time to start up."""
    deadline = time.monotonic() + STANDBY_WAIT_S
    while endpoint.endpoint(descriptor).load["standbys"] < 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(STANDBY_SETTLE_S)


def test_a_ready_standby_halves_the_time_to_the_first_delta(
    with_key: InferenceEndpoint, claude: Path, model_server: ModelServer
):
    """Median of ten, in turn."""
    descriptor, _ = with_key.ensure_endpoint({"model_preference": {"provider": "claude", "id": MODEL}})
    body = {"messages": [{"role": "user", "content": TEXT}], "stream": True}

    def warm() -> float:
        wait_for_standby(with_key, descriptor)
        return first_delta_s(descriptor, body)

    warm_s, cold_s = interleaved_medians_s(warm, lambda: bare_cold_s(claude, model_server), RUNS)
    with_key.release_endpoint(descriptor)
    detail = f"endpoint {warm_s * 1e3:.0f} ms, bare claude {cold_s * 1e3:.0f} ms"
    report("claude, first delta with a standby", detail, warm_s / cold_s, "<= 0.5")
    assert warm_s <= 0.5 * cold_s
