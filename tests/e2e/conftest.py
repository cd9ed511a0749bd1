"""One supervisor, started by pytest-xprocess as a user would start it, and leases on it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import httpx
import psutil
import pytest
from xprocess import ProcessStarter, XProcess

from supervisor import EndpointDescriptor, SupervisorClient

START_TIMEOUT_S = 60
END_TIMEOUT_S = 30
HTTP_TIMEOUT_S = 60.0


@pytest.fixture(scope="session")
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of the supervisor under test."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="session")
def supervisor_client(xprocess: XProcess, state_home: Path) -> Iterator[SupervisorClient]:
    """A client of a running ``asm-endpoint serve``, ended by SIGTERM afterwards."""
    name = f"supervisor-{os.getpid()}"

    class Starter(ProcessStarter):
        pattern = "supervisor ready at"
        args = (sys.executable, "-P", "-m", "supervisor", "serve", "--home", str(state_home))
        timeout = START_TIMEOUT_S
        terminate_on_interrupt = True
        env: ClassVar = {**os.environ, "ASM_ENDPOINT_ECHO_MISBEHAVE": "1", "CODEX_PATH": "/nonexistent/codex"}

    pid, _ = xprocess.ensure(name, Starter)
    process = psutil.Process(pid)
    try:
        with SupervisorClient.from_home(state_home) as client:
            yield client
    finally:
        process.terminate()
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(END_TIMEOUT_S)
        xprocess.getinfo(name).terminate(timeout=1)


@pytest.fixture
def lease(supervisor_client: SupervisorClient) -> Iterator[Callable[..., EndpointDescriptor]]:
    """Makes echo leases; all are released afterwards, each with a proof without survivors."""
    made: list[EndpointDescriptor] = []

    def make(**options: Any) -> EndpointDescriptor:
        request = {"model_preference": {"provider": "echo", "id": "any"}, "stream?": True}
        descriptor, _ = supervisor_client.ensure_endpoint(request, lease=options)
        made.append(descriptor)
        return descriptor

    yield make
    for descriptor in made:
        released = supervisor_client.release_endpoint(descriptor)
        assert released.proof is not None
        assert not released.proof.survivors


@pytest.fixture(scope="session")
def http() -> Iterator[httpx.Client]:
    """A client that ignores the machine's proxies."""
    with httpx.Client(
        trust_env=False, timeout=HTTP_TIMEOUT_S, limits=httpx.Limits(max_connections=None)
    ) as client:
        yield client
