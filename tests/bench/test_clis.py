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
from tests.clis.amp import RefusingService, find_amp, serve, write_stub
from tests.clis.amp import lease_of as lease_of_amp
from tests.clis.conftest import lease_of
from tests.clis.models.server import ModelServer
from tests.clis.table import CLIS, KEY, Cli
from worker.runner import CliProcess
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
AMP_BOUND = 0.10
MAX_ADDED_MS = 3.0
OVERHEAD_RUNS = 20
CPU_BOUNDS = {"codex": 0.5, "gemini": 0.2}


@pytest.fixture(scope="session")
def prepared(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The provider's prepared file, which is made once and not for each request."""
    folder = tmp_path_factory.mktemp("prepared")
    return locate.prepare(provider.load(cli.provider), (str(cli.find()),), None, os.environ, folder)


def starter_of(cli: Cli, server: ModelServer, prepared: str, folder: str) -> Starter:
    """Starts the same command as a lease does, in ``folder``, and with what a lease would pass of our environment.

    A variable can cost time with every turn: where one names certificates, codex reads them anew.
    """
    for name in ("home", "workspace", "tmp"):
        (Path(folder) / name).mkdir()
    chosen = provider.load(cli.provider)
    ours = {name: value for name, value in os.environ.items() if name not in cli.login_variables}
    inputs = CommandInputs(
        executable=(str(cli.find()),),
        model=cli.model,
        login="api_key",
        workspace=f"{folder}/workspace",
        home=f"{folder}/home",
        user_home=folder,
        variables=locate.passed_variables(chosen, {**ours, cli.key_variable: KEY, **cli.variables(server)}),
        prepared=prepared,
    )
    return Starter(chosen, inputs, TurnLimits())


async def turn_s(process: CliProcess, started_s: float) -> float:
    """Seconds from ``started_s`` to the first piece of text of one turn, which is then run to its end."""
    turn = process.start_turn(Prompt(text=TEXT))
    while not any(isinstance(event, AssistantDelta) for event in await turn.next_batch()):
        pass
    elapsed_s = time.perf_counter() - started_s
    while not turn.is_over:
        await turn.next_batch()
    turn.end()
    return elapsed_s


def spawn_per_request_s(cli: Cli, server: ModelServer, prepared: str) -> float:
    """Seconds from the spawn of the same command with the same prompt to its first piece of text."""

    async def once(folder: str) -> float:
        started_s = time.perf_counter()
        process = starter_of(cli, server, prepared, folder).start()
        elapsed_s = await turn_s(process, started_s)
        await process.stop()
        return elapsed_s

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(once(folder))


class DirectlyDriven:
    """One warm process after the other, driven from Python with nothing between but pipes and the connection."""

    def __init__(self, runner: asyncio.Runner, starter: Starter) -> None:
        self._runner = runner
        self._starter = starter
        self._process: CliProcess | None = None

    async def _settled(self) -> CliProcess:
        """A process that has been left alone for as long as a lease's standby."""
        process = self._process or self._starter.start()
        await asyncio.sleep(STANDBY_SETTLE_S)
        return process

    async def _stop(self, process: CliProcess) -> None:
        await process.stop()

    def first_delta_s(self) -> float:
        """Seconds from the request to its first piece of text; a process with no turn left is replaced after it."""
        process = self._runner.run(self._settled())
        elapsed_s = self._runner.run(turn_s(process, time.perf_counter()))
        self._process = process if process.has_room else None
        if self._process is None:
            self._runner.run(self._stop(process))
        return elapsed_s

    def close(self) -> None:
        """End the last one."""
        if self._process:
            self._runner.run(self._stop(self._process))


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


@pytest.mark.parametrize("cli", CLIS, indirect=True)
def test_what_the_endpoint_adds(
    with_key: InferenceEndpoint, cli: Cli, model_server: ModelServer, prepared: str, tmp_path: Path
):
    """To the first delta, against the same warm connection driven directly; medians of runs in turn."""
    descriptor = lease_of(with_key, cli)

    def ours() -> float:
        wait_for_standby(with_key, descriptor)
        return first_delta_s(descriptor, BODY)

    with asyncio.Runner() as runner:
        direct = DirectlyDriven(runner, starter_of(cli, model_server, prepared, str(tmp_path)))
        ours(), direct.first_delta_s()  # each its first time, not measured
        ours_s, direct_s = interleaved_medians_s(ours, direct.first_delta_s, OVERHEAD_RUNS)
        direct.close()
    with_key.release_endpoint(descriptor)
    added_ms = (ours_s - direct_s) * 1e3
    detail = f"endpoint {ours_s * 1e3:.1f} ms, directly driven {direct_s * 1e3:.1f} ms"
    report(
        f"added milliseconds to the first delta, {cli.provider}",
        detail,
        added_ms,
        f"at most {MAX_ADDED_MS:g}",
    )
    assert added_ms <= MAX_ADDED_MS


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
        for name in ("home", "workspace", "tmp"):
            (Path(folder) / name).mkdir()
        inputs = CommandInputs(
            executable=(str(amp),), model="default", login="api_key", workspace=f"{folder}/workspace",
            home=f"{folder}/home", user_home=folder, variables=variables,
        )  # fmt: skip
        started.append(time.perf_counter())
        process = Starter(provider.load("amp"), inputs, TurnLimits()).start()
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
