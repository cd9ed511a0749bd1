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

from shared.sansio import Prompt
from supervisor import EndpointDescriptor, InferenceEndpoint
from tests.bench.measure import interleaved_medians_s, report
from tests.bench.rawhttp import first_delta_s, stream_bytes
from tests.bench.warm import BODY, TEXT, starter_of, starter_of_cli, turn_s, wait_for_standby
from tests.clis.amp import RefusingService, find_amp, serve, write_stub
from tests.clis.amp import lease_of as lease_of_amp
from tests.clis.conftest import lease_of
from tests.clis.models.server import ModelServer
from tests.clis.table import KEY, Cli

pytestmark = [pytest.mark.bench, pytest.mark.cli]
RUNS = 10
CONCURRENT = 16
WARM_BOUNDS = {"claude": 0.40, "codex": 0.25, "gemini": 0.15}
AMP_BOUND = 0.10
CPU_BOUNDS = {"codex": 0.5, "gemini": 0.2}


def spawn_per_request_s(cli: Cli, server: ModelServer, prepared: str) -> float:
    """Seconds from the spawn of the same command with the same prompt to its first piece of text."""

    async def once(folder: str) -> float:
        started_s = time.perf_counter()
        process = starter_of_cli(cli, server, prepared, Path(folder)).start()
        elapsed_s = await turn_s(process, started_s)
        await process.stop()
        return elapsed_s

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(once(folder))


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


def test_a_warm_first_message_of_amp(tmp_path: Path):
    """Its service is proprietary, so: a stub behind the endpoint, against how long the real amp takes to ask anything.

    Spawning amp for each request cannot be faster than its own way to its first contact with its service.
    """
    amp = find_amp()
    (tmp_path / "lease").mkdir()

    def real_s() -> float:
        with RefusingService(500) as service, tempfile.TemporaryDirectory() as folder:
            variables = {"PATH": os.environ["PATH"], "AMP_API_KEY": KEY, "AMP_URL": service.url}
            asyncio.run(refused_turn(amp, folder, variables))
            assert service.first_contact_s is not None
            return service.first_contact_s - started[-1]

    started: list[float] = []

    async def refused_turn(amp: Path, folder: str, variables: dict[str, str]) -> None:
        starter = starter_of("amp", amp, "default", Path(folder), variables)
        started.append(time.perf_counter())
        process = starter.start()
        turn = process.start_turn(Prompt(text=TEXT))
        while not turn.is_over:
            await turn.next_batch()
        turn.end()
        await process.stop()

    with serve(write_stub(tmp_path), tmp_path, AMP_API_KEY=KEY) as endpoint:
        descriptor = lease_of_amp(endpoint)

        def warm() -> float:
            wait_for_standby(endpoint, descriptor)
            return first_delta_s(descriptor, BODY)

        warm_s, cold_s = interleaved_medians_s(warm, real_s, RUNS)
        endpoint.release_endpoint(descriptor)
    detail = f"stub through the endpoint {warm_s * 1e3:.1f} ms, the real amp's way to its service {cold_s * 1e3:.0f} ms"
    report("first message, amp", detail, warm_s / cold_s, f"at most {AMP_BOUND:g}")
    assert warm_s <= AMP_BOUND * cold_s


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
