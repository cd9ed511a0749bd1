"""How fast a lease is there, and what it weighs, against a worker spawned by ``python -m gunicorn``."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from supervisor import EndpointDescriptor, InferenceEndpoint
from tests.bench.cold import ColdLease
from tests.bench.measure import all_at_once_s, interleaved_medians_s, report, tree_pss_bytes

pytestmark = pytest.mark.bench
SEQUENTIAL_RUNS = 20
PARALLEL_LEASES = 50
PARALLEL_ROUNDS = 3
MEMORY_LEASES = 20
REQUEST = {"model_preference": {"provider": "echo", "id": "any"}}
NO_STANDBY = {"standby": 0}


def ensure_and_ask(endpoint: InferenceEndpoint, http: httpx.Client) -> EndpointDescriptor:
    """Lease, and get the first healthy answer as a caller would."""
    descriptor, _ = endpoint.ensure_endpoint(REQUEST, lease=NO_STANDBY)
    assert http.get(descriptor.health_ref or "", headers=descriptor.headers).status_code == 200
    return descriptor


def cold_start(folder: Path, http: httpx.Client) -> ColdLease:
    """Spawn, and get the first healthy answer."""
    lease = ColdLease(folder)
    lease.wait(http)
    return lease


def test_a_lease_is_ready_five_times_faster_than_a_spawned_server(
    endpoint: InferenceEndpoint, tmp_path: Path
):
    """ensure to the first health 200, median of 20, in turn with the spawned server."""
    with httpx.Client(trust_env=False) as http:

        def warm() -> float:
            started = time.perf_counter()
            descriptor = ensure_and_ask(endpoint, http)
            elapsed_s = time.perf_counter() - started
            endpoint.release_endpoint(descriptor)
            return elapsed_s

        def cold() -> float:
            started = time.perf_counter()
            lease = cold_start(tmp_path, http)
            elapsed_s = time.perf_counter() - started
            lease.end()
            return elapsed_s

        warm()
        warm_s, cold_s = interleaved_medians_s(warm, cold, SEQUENTIAL_RUNS)
    ratio = cold_s / warm_s
    report(
        "spawn, one after the other",
        f"lease {warm_s * 1e3:.1f} ms, gunicorn {cold_s * 1e3:.1f} ms",
        ratio,
        ">= 5",
    )
    assert ratio >= 5


def test_fifty_leases_are_ready_eight_times_faster_in_parallel(endpoint: InferenceEndpoint, tmp_path: Path):
    """50 at once, all ready; the median of three rounds of each kind."""
    with httpx.Client(trust_env=False, limits=httpx.Limits(max_connections=None)) as http:

        def warm() -> float:
            leases: list[EndpointDescriptor] = []
            elapsed_s = all_at_once_s(
                [lambda: leases.append(ensure_and_ask(endpoint, http))] * PARALLEL_LEASES
            )
            all_at_once_s([lambda lease=lease: endpoint.release_endpoint(lease) for lease in leases])
            return elapsed_s

        def cold() -> float:
            leases: list[ColdLease] = []
            elapsed_s = all_at_once_s([lambda: leases.append(cold_start(tmp_path, http))] * PARALLEL_LEASES)
            for lease in leases:
                lease.end()
            return elapsed_s

        warm_s, cold_s = interleaved_medians_s(warm, cold, PARALLEL_ROUNDS)
    ratio = cold_s / warm_s
    report("spawn, 50 in parallel", f"leases {warm_s:.2f} s, gunicorn {cold_s:.2f} s", ratio, ">= 8")
    assert ratio >= 8


def test_an_idle_lease_weighs_at_most_two_fifths_of_a_spawned_server(
    endpoint: InferenceEndpoint, tmp_path: Path
):
    """PSS of 20 idle leases, the zygote's own memory included, against 20 spawned servers."""
    with httpx.Client(trust_env=False) as http:
        cold = [cold_start(tmp_path, http) for _ in range(MEMORY_LEASES)]
        cold_bytes = sum(tree_pss_bytes(lease.pid) for lease in cold)
        for lease in cold:
            lease.end()
        leases = [ensure_and_ask(endpoint, http) for _ in range(MEMORY_LEASES)]
    zygote_pid = _zygote_pid(endpoint, leases[0])
    warm_bytes = tree_pss_bytes(zygote_pid)
    for descriptor in leases:
        endpoint.release_endpoint(descriptor)
    ratio = warm_bytes / cold_bytes
    per_lease = f"lease {warm_bytes / MEMORY_LEASES / 2**20:.1f} MiB, gunicorn {cold_bytes / MEMORY_LEASES / 2**20:.1f} MiB"
    report("idle memory at 20 leases (PSS)", per_lease, ratio, "<= 0.40")
    assert ratio <= 0.40


def _zygote_pid(endpoint: InferenceEndpoint, descriptor: EndpointDescriptor) -> int:
    import psutil

    leader = endpoint.endpoint(descriptor.lease_ref).processes[0].pid
    return psutil.Process(leader).ppid()
