"""Measuring: medians of interleaved runs, and one line per result that says the ratio and its bound."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

QUARTILES_APART = 1.349
"""In standard deviations of a normal distribution."""
MEDIAN_ERROR = 1.2533
"""How much more uncertain a median is than a mean."""


def median_s(action: Callable[[], object], runs: int) -> float:
    """The median duration of ``runs`` calls, in seconds."""
    return statistics.median(timed_s(action) for _ in range(runs))


def timed_s(action: Callable[[], object]) -> float:
    """How long one call takes, in seconds."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def interleaved_medians_s(
    first: Callable[[], float], second: Callable[[], float], runs: int
) -> tuple[float, float]:
    """Medians of :func:`interleaved_s`."""
    ours, others = interleaved_s(first, second, runs)
    return statistics.median(ours), statistics.median(others)


def interleaved_s(
    first: Callable[[], float], second: Callable[[], float], runs: int
) -> tuple[list[float], list[float]]:
    """Two self-timed actions run in turn, so that a slow moment of the machine meets both."""
    pairs = [(first(), second()) for _ in range(runs)]
    return [ours for ours, _ in pairs], [others for _, others in pairs]


def median_and_error(values: list[float]) -> tuple[float, float]:
    """A median and its standard error, from the quartiles, as if the values were normally distributed."""
    low, median, high = statistics.quantiles(values, n=4)
    deviation = (high - low) / QUARTILES_APART
    return median, MEDIAN_ERROR * deviation / len(values) ** 0.5


def all_at_once_s(actions: list[Callable[[], object]]) -> float:
    """How long all the actions take when started together, each in a thread of its own, in seconds."""
    with ThreadPoolExecutor(len(actions)) as threads:
        return timed_s(lambda: list(threads.map(lambda action: action(), actions)))


def tree_pss_bytes(pid: int) -> int:
    """Proportional set size of a process and all below it."""
    root = psutil.Process(pid)
    return sum(process.memory_full_info().pss for process in (root, *root.children(recursive=True)))


REPORTED: list[str] = []
"""The lines of this run, which are shown at its end."""


def report(name: str, detail: str, ratio: float, bound: str) -> None:
    """One line for the end of the run, and for the file that ASM_ENDPOINT_BENCH_REPORT names."""
    line = f"{name}: {ratio:.2f} (bound {bound}); {detail}"
    REPORTED.append(line)
    if path := os.environ.get("ASM_ENDPOINT_BENCH_REPORT"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
