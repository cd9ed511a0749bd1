"""Two thousand leases, one after the other: what supervisor and zygote hold does not grow with them."""

from __future__ import annotations

import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.bench.measure import report
from tests.chaos import leaks
from tests.process.serving import ECHO, serving

pytestmark = pytest.mark.bench
CYCLES, CLIENTS, SAMPLES = 2000, 4, 20
WARM_UP = 200
"""Until caches and heaps have the size that they keep."""
MAX_BYTES_PER_LEASE = 1024


def test_nothing_grows_with_the_leases(tmp_path: Path):
    """Descriptors and threads are the same at the end; memory grows by less than a KiB for each lease."""
    with serving(tmp_path) as held:
        pids = {"supervisor": held.inner.pid, "zygote": held.zygote.pid}

        def cycle(_: int) -> None:
            with held.client() as client:
                for _ in range(CYCLES // SAMPLES // CLIENTS):
                    descriptor, _compatibility = client.ensure_endpoint(ECHO, lease={"standby": 0})
                    proof = client.release_endpoint(descriptor).proof
                    assert proof is not None
                    assert not proof.survivors

        def some() -> None:
            with ThreadPoolExecutor(CLIENTS) as threads:
                list(threads.map(cycle, range(CLIENTS)))

        for _ in range(WARM_UP * SAMPLES // CYCLES):
            some()
        before = {name: leaks.steady(pid) for name, pid in pids.items()}
        rss: dict[str, list[int]] = {name: [] for name in pids}
        for _ in range(SAMPLES):
            some()
            for name, pid in pids.items():
                rss[name].append(psutil.Process(pid).memory_info().rss)
        grown = leaks.stays(lambda: leaks.more(before, pids))
        left = leaks.workspaces(tmp_path)
    leases = [(number + 1) * CYCLES // SAMPLES for number in range(SAMPLES)]
    slopes = {name: statistics.linear_regression(leases, samples).slope for name, samples in rss.items()}
    for name, slope in slopes.items():
        detail = f"{CYCLES} leases; from {rss[name][0] / 2**20:.1f} to {rss[name][-1] / 2**20:.1f} MiB"
        report(f"bytes that the {name} grows by for each lease", detail, slope, f"<= {MAX_BYTES_PER_LEASE}")
    assert not grown
    assert not left
    assert all(slope <= MAX_BYTES_PER_LEASE for slope in slopes.values())
