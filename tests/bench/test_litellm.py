"""This product and LiteLLM's proxy side by side, each in front of an upstream that answers at once.

LiteLLM's upstream is a scripted OpenAI service over HTTP; ours is a scripted command line over pipes, in the protocol of
codex: the same words, one completion of one token. So nothing of a model or of a real command line is in the figures,
only what stands before it. LiteLLM runs as one worker process with its one master key, without database, logging or
callbacks; ours with all that a lease has: authentication, budget, log line, pool, 16 turns at once.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import psutil
import pytest

from supervisor import EndpointDescriptor, InferenceEndpoint
from tests.bench import scripted_openai
from tests.bench.measure import report
from tests.bench.scripted_codex import MODEL

pytestmark = pytest.mark.bench
PROXY = Path(__file__).parents[2] / ".compat" / "litellm-proxy" / "bin" / "litellm"
RUNS = 200
WARM_UP = 30
CLIENTS = 16
REQUESTS_EACH = 60
START_TIMEOUT_S = 180.0
END_WAIT_S = 20.0
POLL_S = 0.1
TIMEOUT_S = 60.0
LATENCY_BOUND = 1 / 3
THROUGHPUT_BOUND = 3.0
MASTER_KEY = f"sk-{secrets.token_hex(16)}"
TO_LITELLM = f"Bearer {MASTER_KEY}"
BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "ping"}]}).encode()


class Client:
    """One keep-alive connection that asks for the trivial completion; a context manager."""

    def __init__(self, base_url: str, authorization: str = "Bearer none") -> None:
        url = urlsplit(base_url)
        self._path = url.path + "/chat/completions"
        self._headers = {"authorization": authorization, "content-type": "application/json"}
        self._connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=TIMEOUT_S)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask_s(self) -> float:
        """Seconds from the request to the whole answer."""
        started = time.perf_counter()
        self._connection.request("POST", self._path, BODY, self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        elapsed_s = time.perf_counter() - started
        assert answer.status == 200, content
        assert json.loads(content)["choices"][0]["message"]["content"] == scripted_openai.ANSWER
        return elapsed_s


@pytest.fixture(scope="module")
def upstream_url() -> Iterator[str]:
    """The scripted service's."""
    with subprocess.Popen(
        (sys.executable, "-I", scripted_openai.__file__), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        process.stdin.close()


@pytest.fixture(scope="module")
def proxy(
    upstream_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, psutil.Process]]:
    """LiteLLM's proxy in front of it, and its process."""
    if not PROXY.exists():
        pytest.fail("LiteLLM's proxy is not installed; `make bench` installs it")
    folder = tmp_path_factory.mktemp("litellm")
    config = folder / "config.yaml"
    parameters = {"model": f"openai/{MODEL}", "api_base": upstream_url, "api_key": "none"}
    config.write_text(json.dumps({"model_list": [{"model_name": MODEL, "litellm_params": parameters}]}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LITELLM_MASTER_KEY": MASTER_KEY,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
        "LITELLM_LOG": "ERROR",
    }
    with (folder / "log").open("wb") as log, subprocess.Popen(
        (PROXY, "--config", config, "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"),
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env=environ, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            _wait_until_ready(f"http://127.0.0.1:{port}/v1", process, folder / "log")
            yield f"http://127.0.0.1:{port}/v1", psutil.Process(process.pid)
        finally:
            process.terminate()
            try:
                process.wait(END_WAIT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            with Client(url, TO_LITELLM) as client:
                client.ask_s()
        except (OSError, AssertionError, http.client.HTTPException):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(POLL_S)
        else:
            return


@pytest.fixture(scope="module")
def lease(scripted: InferenceEndpoint) -> EndpointDescriptor:
    """One lease with room for all clients."""
    request = {"model_preference": {"provider": "codex", "id": MODEL}}
    descriptor, _ = scripted.ensure_endpoint(request, lease={"concurrency": CLIENTS})
    return descriptor


def test_added_latency(lease: EndpointDescriptor, proxy: tuple[str, psutil.Process], upstream_url: str):
    """At most a third of LiteLLM's, though the scripted command line's own turn is counted as ours."""
    with (
        Client(lease.base_url, lease.headers["authorization"]) as ours,
        Client(proxy[0], TO_LITELLM) as litellm,
        Client(upstream_url) as upstream,
    ):
        rounds = [(ours.ask_s(), litellm.ask_s(), upstream.ask_s()) for _ in range(WARM_UP + RUNS)][WARM_UP:]
    ours_s, litellm_s, upstream_s = (statistics.median(column) for column in zip(*rounds, strict=True))
    added_s, litellm_added_s = ours_s - upstream_s, litellm_s - upstream_s
    ratio = added_s / litellm_added_s
    detail = (
        f"ours adds {added_s * 1e3:.2f} ms, LiteLLM's proxy {litellm_added_s * 1e3:.2f} ms to the {upstream_s * 1e3:.2f} ms "
        f"of a scripted OpenAI service; median of {RUNS}, not streamed; ours includes the scripted command line's turn"
    )
    report("added latency against LiteLLM's proxy", detail, ratio, "<= 0.33")
    assert ratio <= LATENCY_BOUND


def test_requests_per_second_of_a_core(
    scripted: InferenceEndpoint, lease: EndpointDescriptor, proxy: tuple[str, psutil.Process]
):
    """At least three times as many as LiteLLM's proxy: processor time of what serves, without either upstream."""
    serving = [
        psutil.Process(each.pid) for each in scripted.endpoint(lease).processes if "codex" not in each.name
    ]
    litellm = [proxy[1], *proxy[1].children(recursive=True)]
    ours_per_s = per_core_second(lease.base_url, lease.headers["authorization"], serving)
    litellm_per_s = per_core_second(proxy[0], TO_LITELLM, litellm)
    detail = (
        f"{ours_per_s:.0f} against {litellm_per_s:.0f} requests per second of processor time of the serving processes "
        f"alone (ours: a lease's gunicorn, with authentication, budget and log), {CLIENTS} clients, not streamed"
    )
    report("requests per core against LiteLLM's proxy", detail, ours_per_s / litellm_per_s, ">= 3")
    assert ours_per_s >= THROUGHPUT_BOUND * litellm_per_s


def per_core_second(url: str, authorization: str, processes: list[psutil.Process]) -> float:
    """Requests that these processes answer per second of their own processor time."""

    def ask(count: int) -> None:
        with Client(url, authorization) as client:
            for _ in range(count):
                client.ask_s()

    ask(WARM_UP)
    before_s = sum(cpu_s(each) for each in processes)
    with ThreadPoolExecutor(CLIENTS) as threads:
        list(threads.map(ask, [REQUESTS_EACH] * CLIENTS))
    return CLIENTS * REQUESTS_EACH / (sum(cpu_s(each) for each in processes) - before_s)


def cpu_s(process: psutil.Process) -> float:
    """Processor time so far."""
    times = process.cpu_times()
    return times.user + times.system
