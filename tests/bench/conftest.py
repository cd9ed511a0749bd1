"""One embedded supervisor for all measurements."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from supervisor import InferenceEndpoint
from tests.bench.measure import REPORTED
from tests.clis.conftest import cli, model_server, start_supervisor, with_key

__all__ = ["cli", "endpoint", "model_server", "start_supervisor", "with_key"]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[InferenceEndpoint]:
    """A running supervisor and its client."""
    with InferenceEndpoint() as running:
        yield running


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was measured, whatever else pytest has kept to itself."""
    for line in REPORTED:
        terminalreporter.write_line(line)
