"""What holds for the whole suite: no network but loopback, no process left behind, and in CI nothing skipped."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator

import psutil
import pytest

from shared.isolation import adopt_orphans
from tests.clis.netns import NetworkNamespaceError, enter_loopback_only_network

END_WAIT_S = 10.0
POLL_S = 0.05


def in_ci() -> bool:
    """Whether every test is required to run."""
    return bool(os.environ.get("ASM_ENDPOINT_CI"))


def pytest_configure(config: pytest.Config) -> None:
    """Leave the network, if that is permitted, and become the parent of whatever the tests lose."""
    adopt_orphans()
    try:
        enter_loopback_only_network()
    except NetworkNamespaceError as error:
        if in_ci():
            raise pytest.UsageError(f"cannot run all tests: {error}") from error


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skip is a failure: everything there is required."""
    report = yield
    if in_ci() and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and CI requires it: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Fail the run when a process that a test started is still there at its end."""
    yield
    deadline = time.monotonic() + END_WAIT_S
    while (left := _running_descendants()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    described = [f"{process.pid} {' '.join(process.cmdline())}" for process in left]
    for process in left:
        process.kill()
    assert not described, f"processes left behind: {described}"


def _running_descendants() -> list[psutil.Process]:
    """Below us, orphans included because we adopt them; zombies are collected on the way."""
    running = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                if process.ppid() == os.getpid():
                    os.waitpid(process.pid, os.WNOHANG)
            else:
                running.append(process)
        except (psutil.NoSuchProcess, ChildProcessError):
            continue
    return running
