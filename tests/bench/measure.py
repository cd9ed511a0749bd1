"""Measuring: medians of interleaved runs, and one line per result that says the ratio and its bound."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil


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
    """Medians of two self-timed actions run in turn, so that a slow moment of the machine meets both."""
    pairs = [(first(), second()) for _ in range(runs)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


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
