"""How soon a request that ends early has ended: from its caller's leaving to the end of its command line."""

from __future__ import annotations

import os
import select
import socket
import statistics
import time
from collections.abc import Callable

import httpx
import pytest

from supervisor import EndpointDescriptor, InferenceEndpoint
from tests.bench.measure import report
from tests.bench.rawhttp import open_stream
from tests.departures import REQUEST_ID

pytestmark = pytest.mark.bench
RUNS = 20
MAX_MS = 100.0
WAIT_S = 20.0
BODY = {"messages": [{"role": "user", "content": "[[pause:0.01]] " + "w " * 50_000}], "stream": True}


def serving_pid(endpoint: InferenceEndpoint, descriptor: EndpointDescriptor) -> int:
    """The only command line of a lease without a standby."""
    deadline = time.monotonic() + WAIT_S
    while len(processes := endpoint.endpoint(descriptor).processes) < 3:
        assert time.monotonic() < deadline
    return processes[-1].pid


def ended_after_ms(
    endpoint: InferenceEndpoint, descriptor: EndpointDescriptor, end: Callable[[socket.socket], object]
) -> float:
    """Milliseconds from the beginning of ``end`` to the end of the command line."""
    with open_stream(descriptor, BODY, REQUEST_ID) as connection:
        received = b""
        while received.count(b'"content":"w ') < 3:
            received += connection.recv(1 << 16)
        pidfd = os.pidfd_open(serving_pid(endpoint, descriptor))
        started = time.perf_counter()
        end(connection)
        assert select.select([pidfd], [], [], WAIT_S)[0]
        elapsed_ms = (time.perf_counter() - started) * 1e3
        os.close(pidfd)
    return elapsed_ms


@pytest.mark.parametrize("way", ["the client leaves", "cancel route"])
def test_an_early_end_is_felt_at_once(endpoint: InferenceEndpoint, way: str):
    """Median of twenty."""
    descriptor, _ = endpoint.ensure_endpoint(
        {"model_preference": {"provider": "echo", "id": "any"}}, lease={"standby": 0}
    )
    url = f"{descriptor.base_url}/requests/{REQUEST_ID}/cancel"
    with httpx.Client(trust_env=False, headers=descriptor.headers) as client:
        ends: dict[str, Callable[[socket.socket], object]] = {
            "the client leaves": socket.socket.close,
            "cancel route": lambda _: client.post(url),
        }
        taken_ms = sorted(ended_after_ms(endpoint, descriptor, ends[way]) for _ in range(RUNS))
    endpoint.release_endpoint(descriptor)
    median_ms = statistics.median(taken_ms)
    report(
        f"milliseconds to the end of a command line, {way}",
        f"slowest of {RUNS} {taken_ms[-1]:.1f} ms",
        median_ms,
        f"at most {MAX_MS:g}",
    )
    assert median_ms <= MAX_MS
