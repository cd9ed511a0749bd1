"""How soon nothing is left of a lease, against a bare ``killpg`` of an equal tree, which proves nothing."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import statistics
import threading
import time

import pytest

from supervisor import EndpointDescriptor, InferenceEndpoint
from tests.bench.measure import report
from tests.bench.tree import Trees

pytestmark = pytest.mark.bench
RUNS = 40
REQUEST = {"model_preference": {"provider": "echo", "id": "any"}}
SETTLE_S = 0.15
"""For a new tree to come to rest; and a lease that has just worked is given time to drain."""
GONE_S = 10.0
MAX_MS, MAX_RATIO = 25, 2


class Watch:
    """Some processes, by their pidfds, which no other process can be mistaken for."""

    def __init__(self, pids: list[int]) -> None:
        self._stack = contextlib.ExitStack()
        self._fds = [os.pidfd_open(pid) for pid in pids]
        for fd in self._fds:
            self._stack.callback(os.close, fd)

    def wait(self) -> float:
        """Until all have ended; returns when that was, on the clock of ``time.perf_counter``."""
        with self._stack:
            poll = select.poll()
            for fd in self._fds:
                poll.register(fd, select.POLLIN)
            left = set(self._fds)
            while left:
                ended = poll.poll(GONE_S * 1000)
                assert ended, "some process has not ended"
                for fd, _ in ended:
                    poll.unregister(fd)
                    left.discard(fd)
            return time.perf_counter()


def family(endpoint: InferenceEndpoint, descriptor: EndpointDescriptor) -> list[int]:
    """Its processes: arbiter, worker, and a standby that has come to rest."""
    while endpoint.endpoint(descriptor).load["standbys"] < 1:
        time.sleep(0.01)
    time.sleep(SETTLE_S)
    return [process.pid for process in endpoint.endpoint(descriptor).processes]


def release_ms(endpoint: InferenceEndpoint) -> tuple[float, float]:
    """From the call to the end of the last process, and to the proof."""
    descriptor, _ = endpoint.ensure_endpoint(REQUEST)
    pids = family(endpoint, descriptor)
    assert len(pids) == 3
    watch = Watch(pids)
    emptied: list[float] = []
    watching = threading.Thread(target=lambda: emptied.append(watch.wait()))
    watching.start()
    started = time.perf_counter()
    proof = endpoint.release_endpoint(descriptor).proof
    proven = time.perf_counter()
    watching.join()
    assert proof is not None
    assert {process.pid for process in proof.processes} == set(pids)
    return (emptied[0] - started) * 1e3, (proven - started) * 1e3


def killpg_ms(trees: Trees) -> float:
    """From the call to the end of the last process."""
    pids = trees.grow()
    time.sleep(SETTLE_S)
    watch = Watch(pids)
    started = time.perf_counter()
    os.killpg(pids[0], signal.SIGKILL)
    return (watch.wait() - started) * 1e3


def test_a_release_takes_at_most_twice_as_long_as_a_bare_kill(endpoint: InferenceEndpoint):
    """To the empty family and to the proof, medians of 40, in turn with the bare kill."""
    empty, proof, bare = [], [], []
    with Trees() as trees:
        for _ in range(RUNS):
            emptied_ms, proven_ms = release_ms(endpoint)
            empty.append(emptied_ms)
            proof.append(proven_ms)
            bare.append(killpg_ms(trees))
    empty_ms, proof_ms, bare_ms = map(statistics.median, (empty, proof, bare))
    detail = (
        f"released: empty after {empty_ms:.1f} ms, proven after {proof_ms:.1f} ms; killpg {bare_ms:.1f} ms"
    )
    report("release to an empty family, against killpg", detail, empty_ms / bare_ms, f"<= {MAX_RATIO}")
    report("release to an empty family, in ms", detail, empty_ms, f"<= {MAX_MS}")
    assert empty_ms <= MAX_MS
    assert empty_ms <= MAX_RATIO * bare_ms
