"""What the endpoint adds to the first delta, against the same warm connection driven directly from Python.

The client keeps its connection, as every OpenAI client does: what it has to do before is not the turn's. A real command
line takes its own time with every turn, and the medians of two such series are uncertain by themselves; so the
scripted one, which answers at once, is held to the bound as it is, and a real one with twice that uncertainty allowed.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from supervisor import EndpointDescriptor, InferenceEndpoint
from tests.bench.measure import interleaved_s, median_and_error, report
from tests.bench.rawhttp import connect, first_delta_s
from tests.bench.scripted_codex import MODEL
from tests.bench.warm import BODY, DirectlyDriven, starter_of, starter_of_cli, wait_for_standby
from tests.clis.conftest import lease_of
from tests.clis.models.server import ModelServer
from tests.clis.table import CLIS, Cli
from worker.starter import Starter

pytestmark = pytest.mark.bench
MAX_ADDED_MS = 3.0
RUNS = 40
ALLOWED_ERRORS = 2.0


def added_ms(
    endpoint: InferenceEndpoint, descriptor: EndpointDescriptor, starter: Starter, name: str
) -> tuple[float, float]:
    """The difference of the medians of runs in turn, and its standard error; reported."""

    def ours() -> float:
        wait_for_standby(endpoint, descriptor, direct.settle_s)
        return first_delta_s(descriptor, BODY, kept)

    with asyncio.Runner() as runner, connect(descriptor) as kept:
        direct = DirectlyDriven(runner, starter)
        ours(), direct.first_delta_s()  # each its first time, not measured
        ours_s, direct_s = interleaved_s(ours, direct.first_delta_s, RUNS)
        direct.close()
    endpoint.release_endpoint(descriptor)
    (with_s, with_error_s), (without_s, without_error_s) = map(median_and_error, (ours_s, direct_s))
    added, error = (with_s - without_s) * 1e3, (with_error_s**2 + without_error_s**2) ** 0.5 * 1e3
    report(
        f"added milliseconds to the first delta, {name}",
        f"standard error {error:.2f} ms; endpoint {with_s * 1e3:.1f} ms, directly driven {without_s * 1e3:.1f} ms",
        added,
        f"at most {MAX_ADDED_MS:g}",
    )
    return added, error


def test_what_the_endpoint_adds(scripted: InferenceEndpoint, tmp_path: Path):
    """To a command line that answers at once."""
    descriptor, _ = scripted.ensure_endpoint({"model_preference": {"provider": "codex", "id": MODEL}})
    executable = Path(os.environ["CODEX_PATH"])
    starter = starter_of("codex", executable, MODEL, tmp_path, dict(os.environ))
    added, _error = added_ms(scripted, descriptor, starter, "scripted")
    assert added <= MAX_ADDED_MS


@pytest.mark.cli
@pytest.mark.parametrize("cli", CLIS, indirect=True)
def test_what_the_endpoint_adds_to_a_real_one(
    with_key: InferenceEndpoint, cli: Cli, model_server: ModelServer, prepared: str, tmp_path: Path
):
    """With the model behind it, which is scripted."""
    starter = starter_of_cli(cli, model_server, prepared, tmp_path)
    added, error = added_ms(with_key, lease_of(with_key, cli), starter, cli.provider)
    assert added - ALLOWED_ERRORS * error <= MAX_ADDED_MS
