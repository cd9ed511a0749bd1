"""The real command lines: through the endpoint with a warm one, and started anew for each request."""

from __future__ import annotations

import asyncio
import os
import resource
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from shared import locate, provider
from shared.events import AssistantDelta
from shared.launch import TurnLimits
from shared.provider import CommandInputs, Prompt
from supervisor import EndpointDescriptor, InferenceEndpoint
from tests.bench.measure import interleaved_medians_s, report
from tests.bench.rawhttp import first_delta_s, stream_bytes
from tests.clis.conftest import lease_of
from tests.clis.models.server import ModelServer
from tests.clis.table import KEY, Cli
from worker.starter import Starter

pytestmark = [pytest.mark.bench, pytest.mark.cli]
RUNS = 10
CONCURRENT = 16
STANDBY_WAIT_S = 60.0
STANDBY_SETTLE_S = 2.0
"""A standby has a process at once and is ready when it has started up, which takes it up to a second of work."""
TEXT = "hello there"
BODY = {"messages": [{"role": "user", "content": TEXT}], "stream": True}
WARM_BOUNDS = {"claude": 0.40, "codex": 0.25, "gemini": 0.15}
CPU_BOUNDS = {"codex": 0.5, "gemini": 0.2}


@pytest.fixture(scope="session")
def prepared(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The provider's prepared file, which is made once and not for each request."""
    folder = tmp_path_factory.mktemp("prepared")
    return locate.prepare(provider.load(cli.provider), (str(cli.find()),), None, os.environ, folder)


def spawn_per_request_s(cli: Cli, server: ModelServer, prepared: str) -> float:
    """Seconds from the spawn of the same command with the same prompt to its first piece of text."""

    async def once(folder: str) -> float:
        inputs = CommandInputs(
            executable=(str(cli.find()),),
            model=cli.model,
            login="api_key",
            workspace=f"{folder}/workspace",
            home=f"{folder}/home",
            user_home=folder,
            variables={"PATH": os.environ["PATH"], cli.key_variable: KEY, **cli.variables(server)},
            prepared=prepared,
        )
        started = time.perf_counter()
        process = Starter(provider.load(cli.provider), inputs, TurnLimits()).start()
        turn = process.start_turn(Prompt(text=TEXT))
        while not any(isinstance(event, AssistantDelta) for event in await turn.next_batch()):
            pass
        elapsed_s = time.perf_counter() - started
        await process.stop()
        return elapsed_s

    with tempfile.TemporaryDirectory() as folder:
        for name in ("home", "workspace", "tmp"):
            (Path(folder) / name).mkdir()
        return asyncio.run(once(folder))


def wait_for_standby(endpoint: InferenceEndpoint, descriptor: EndpointDescriptor) -> None:
    """Until one is there, and has had the time to start up."""
    deadline = time.monotonic() + STANDBY_WAIT_S
    while endpoint.endpoint(descriptor).load["standbys"] < 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(STANDBY_SETTLE_S)


def test_a_warm_first_delta(with_key: InferenceEndpoint, cli: Cli, model_server: ModelServer, prepared: str):
    """Median of ten, in turn."""
    descriptor = lease_of(with_key, cli)

    def warm() -> float:
        wait_for_standby(with_key, descriptor)
        return first_delta_s(descriptor, BODY)

    warm_s, cold_s = interleaved_medians_s(
        warm, lambda: spawn_per_request_s(cli, model_server, prepared), RUNS
    )
    with_key.release_endpoint(descriptor)
    bound = WARM_BOUNDS[cli.provider]
    detail = f"endpoint {warm_s * 1e3:.0f} ms, one {cli.provider} for each request {cold_s * 1e3:.0f} ms"
    report(f"first delta, {cli.provider}", detail, warm_s / cold_s, f"at most {bound:g}")
    assert warm_s <= bound * cold_s


def family_cpu_s(endpoint: InferenceEndpoint, descriptor: EndpointDescriptor) -> float:
    """Processor time of the lease's processes so far."""
    times = [psutil.Process(row.pid).cpu_times() for row in endpoint.endpoint(descriptor).processes]
    return sum(each.user + each.system for each in times)


@pytest.mark.parametrize("cli", CPU_BOUNDS, indirect=True)
def test_processor_time_of_many_at_once(
    with_key: InferenceEndpoint, cli: Cli, model_server: ModelServer, prepared: str
):
    """Sixteen at once on one warm lease, and one process for each."""
    descriptor = lease_of(with_key, cli, concurrency=CONCURRENT)
    wait_for_standby(with_key, descriptor)
    before_s = family_cpu_s(with_key, descriptor)
    with ThreadPoolExecutor(CONCURRENT) as threads:
        list(threads.map(lambda _: stream_bytes(descriptor, BODY), range(CONCURRENT)))
    ours_s = family_cpu_s(with_key, descriptor) - before_s
    with_key.release_endpoint(descriptor)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(CONCURRENT):
        spawn_per_request_s(cli, model_server, prepared)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spawned_s = after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
    bound = CPU_BOUNDS[cli.provider]
    detail = f"{CONCURRENT} turns: one lease {ours_s:.2f} s, a process for each {spawned_s:.2f} s"
    report(f"processor time, {cli.provider}", detail, ours_s / spawned_s, f"at most {bound:g}")
    assert ours_s <= bound * spawned_s
