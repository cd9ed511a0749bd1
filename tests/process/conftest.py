"""The kinds of isolation that the process suite runs in."""

from __future__ import annotations

import pytest

ISOLATION = {"pid_namespace": (), "process_group": ("--no-namespaces",)}


@pytest.fixture(params=ISOLATION)
def isolation(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Arguments of ``serve`` for each kind."""
    return ISOLATION[request.param]
