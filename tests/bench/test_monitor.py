"""What watching costs: one look at the process table, and a supervisor that holds 200 leases at work."""

from __future__ import annotations

import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from shared import processes
from supervisor import EndpointDescriptor
from tests.bench.measure import interleaved_medians_s, report, timed_s
from tests.process.serving import ECHO, serving

pytestmark = pytest.mark.bench
RUNS = 15
FIELDS = ["ppid", "name", "create_time", "status", "cpu_times", "memory_info"]
LEASES, HELD_S, CLIENTS = 200, 60.0, 4
REQUESTS_PER_S = 10.0
MAX_SHARE = 0.05


def test_one_look_costs_a_fraction_of_psutils():
    """The same fields of every process."""
    ours_s, psutils_s = interleaved_medians_s(
        lambda: timed_s(processes.table), lambda: timed_s(lambda: list(psutil.process_iter(FIELDS))), RUNS
    )
    ratio = ours_s / psutils_s
    detail = f"{ours_s * 1e3:.1f} ms for {len(processes.table())} processes, psutil {psutils_s * 1e3:.1f} ms"
    report("one look at the process table, against psutil's process_iter", detail, ratio, "<= 0.5")
    assert ratio <= 0.5


def test_two_hundred_leases_at_work_are_watched_for_a_twentieth_of_a_core(tmp_path: Path):
    """For a minute, with a completion every tenth of a second; none of them fails."""
    with serving(tmp_path) as held:
        with held.client() as client, ThreadPoolExecutor(CLIENTS) as threads:
            options = {"standby": 1}
            leases = list(
                threads.map(lambda _: client.ensure_endpoint(ECHO, lease=options)[0], range(LEASES))
            )
        inner = held.inner
        traffic = Traffic(leases)
        before_s, began = cpu_s(inner.pid), time.monotonic()
        traffic.run(HELD_S)
        share = (cpu_s(inner.pid) - before_s) / (time.monotonic() - began)
        running = len(processes.table())
        with held.client() as client:
            ready = sum(view.state == "ready" for view in client.endpoints())
    latency_ms = statistics.median(traffic.latencies_s) * 1e3
    detail = (
        f"{len(traffic.latencies_s)} completions, {len(traffic.failures)} failed, median {latency_ms:.0f} ms; "
        f"{running} processes"
    )
    report(f"share of a core of a supervisor with {LEASES} leases", detail, share, f"<= {MAX_SHARE}")
    assert not traffic.failures
    assert ready == LEASES
    assert share <= MAX_SHARE


class Traffic:
    """Completions on one lease after the other, at a steady rate."""

    def __init__(self, leases: list[EndpointDescriptor]) -> None:
        self._leases = leases
        self._next = 0
        self._lock = threading.Lock()
        self.latencies_s: list[float] = []
        self.failures: list[str] = []

    def run(self, for_s: float) -> None:
        """Ask from several threads."""
        ends_at = time.monotonic() + for_s
        with ThreadPoolExecutor(CLIENTS) as threads:
            list(threads.map(lambda _: self._ask_until(ends_at), range(CLIENTS)))

    def _ask_until(self, ends_at: float) -> None:
        with httpx.Client(trust_env=False, timeout=60) as http:
            while time.monotonic() < ends_at:
                began = time.monotonic()
                self._ask(http)
                time.sleep(max(0.0, CLIENTS / REQUESTS_PER_S - (time.monotonic() - began)))

    def _ask(self, http: httpx.Client) -> None:
        with self._lock:
            descriptor = self._leases[self._next % len(self._leases)]
            self._next += 1
        began = time.monotonic()
        try:
            answer = http.post(
                f"{descriptor.base_url}/chat/completions",
                headers=descriptor.headers,
                json={"messages": [{"role": "user", "content": "hello there"}]},
            )
            if answer.status_code != 200:
                self.failures.append(answer.text)
        except httpx.HTTPError as error:
            self.failures.append(repr(error))
        self.latencies_s.append(time.monotonic() - began)


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system
