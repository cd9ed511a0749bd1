"""One embedded supervisor for all measurements."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from supervisor import InferenceEndpoint
from tests.clis.conftest import cli, model_server, start_supervisor, with_key

__all__ = ["cli", "endpoint", "model_server", "start_supervisor", "with_key"]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[InferenceEndpoint]:
    """A running supervisor and its client."""
    with InferenceEndpoint() as running:
        yield running
