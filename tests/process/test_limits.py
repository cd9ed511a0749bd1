"""Leases whose command line takes more than the lease's limits allow: each ends by its name, and nothing is left."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared import processes
from shared.contracts import LeaseLimits
from supervisor import EndpointDescriptor, InferenceEndpoint, WorkerError
from supervisor.views import LeaseView
from tests.process.conftest import ISOLATION, interpreter
from tests.process.serving import ask, family_of, until
from tests.process.test_death import MISBEHAVE

pytestmark = pytest.mark.process
MB = 10**6
PERIODS = ("--set", "monitor_period_s=0.1", "--set", "disk_period_s=0.1")
EXCESSES = {
    "memory_bytes": (300 * MB, "[[allocate:400]]", r"\d\d\d(\.\d)? MB over the limit of 300 MB"),
    "cpu_s": (0.9, "[[burn:600]]", r"\d\.\d+ s over the limit of 0.9 s"),
    "processes": (12, "[[fork:20]]", r"\d\d over the limit of 12"),
    "open_files": (200, "[[open:1000]]", r"\d\d\d over the limit of 200"),
    "workspace_bytes": (2 * MB, "[[write:9000000]]", r"\d\.\d+ MB over the limit of 2 MB"),
    "wall_s": (1.5, "", r"\d\.\d+ s over the limit of 1.5 s"),
}
ENOUGH: dict[str, Any] = {
    "memory_bytes": 8_000 * MB,
    "cpu_s": 600,
    "processes": 200,
    "open_files": 5_000,
    "workspace_bytes": 1_000 * MB,
    "wall_s": 600,
}
ROUNDS = 5
"""Looks of the monitor that a lease within its limits has to outlive."""


@pytest.fixture(scope="module", params=ISOLATION)
def endpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[InferenceEndpoint]:
    """A supervisor that looks often, in every kind of isolation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", interpreter(request.param, tmp_path_factory.mktemp("python")))
        patch.setenv(MISBEHAVE, "1")
        running = InferenceEndpoint(serve_arguments=(*ISOLATION[request.param], *PERIODS))
    with running:
        yield running


@pytest.fixture(scope="module")
def neighbour(endpoint: InferenceEndpoint) -> EndpointDescriptor:
    """A lease without limits, through it all."""
    return lease(endpoint)


def lease(endpoint: InferenceEndpoint, **limits: float) -> EndpointDescriptor:
    """A lease with those limits, with one standby."""
    request = {"model_preference": {"provider": "echo", "id": "any"}}
    descriptor, _ = endpoint.ensure_endpoint(request, lease={"limits": limits or None})
    until(lambda: endpoint.endpoint(descriptor).load["standbys"] == 1)
    return descriptor


def closed(endpoint: InferenceEndpoint, descriptor: EndpointDescriptor) -> LeaseView:
    """How it ended."""
    until(lambda: endpoint.endpoint(descriptor).state == "closed")
    return endpoint.endpoint(descriptor)


def test_every_limit_is_tried():
    """None is forgotten here."""
    assert set(EXCESSES) == set(ENOUGH) == set(LeaseLimits.__struct_fields__)


@pytest.mark.parametrize("name", EXCESSES)
def test_over_a_limit_the_lease_ends(endpoint: InferenceEndpoint, neighbour: EndpointDescriptor, name: str):
    """It says which and with which number; the turn fails; every process is gone; the neighbour goes on."""
    limit, marker, told = EXCESSES[name]
    descriptor = lease(endpoint, **{name: limit})
    family = family_of(endpoint, descriptor)
    with ThreadPoolExecutor() as background:
        asked = background.submit(ask, descriptor, f"{marker} [[silence]] x")
        ended = closed(endpoint, descriptor)
        assert failed(asked.exception(), asked)
    assert ended.cause == "limit_exceeded"
    assert re.fullmatch(f"{name}: {told}", ended.detail)
    proof = endpoint.release_endpoint(descriptor).proof
    assert proof is not None
    assert (proof.cause, proof.survivors) == ("limit_exceeded", ())
    assert {each.pid for each in family} <= {each.pid for each in proof.processes}
    assert not processes.alive(family)
    assert ask(neighbour, "still here").status_code == 200


def failed(error: BaseException | None, asked: Any) -> bool:
    """Whether a turn of a lease that ended meanwhile was told so, or cut off."""
    if error is not None:
        return isinstance(error, httpx.HTTPError)
    return asked.result().json()["error"]["code"] in {"lease_closed", "provider_crashed"}


@pytest.mark.parametrize("name", [name for name, (_, marker, _) in EXCESSES.items() if marker])
def test_within_its_limits_it_goes_on(endpoint: InferenceEndpoint, name: str):
    """Positive control: the same attempt with room for it, seen by several looks, is only a turn."""
    _, marker, _ = EXCESSES[name]
    descriptor = lease(endpoint, **ENOUGH)
    with ThreadPoolExecutor() as background:
        words = "w " * 10
        asked = background.submit(ask, descriptor, f"{marker.replace('600', '1')} [[pause:0.1]] {words}")
        assert asked.result().status_code == 200
    assert endpoint.endpoint(descriptor).state == "ready"
    proof = endpoint.release_endpoint(descriptor).proof
    assert proof is not None
    assert (proof.cause, proof.survivors) == ("released", ())


def test_what_ended_processes_have_used_counts(endpoint: InferenceEndpoint):
    """No single one is over the limit, and at no moment do those that run make up for it."""
    descriptor = lease(endpoint, cpu_s=1.5)
    with contextlib.suppress(httpx.HTTPError):
        for _ in range(ROUNDS):
            ask(descriptor, "[[burn:0.5]] x")
    assert closed(endpoint, descriptor).detail.startswith("cpu_s: ")


def test_a_command_line_is_held_by_itself(endpoint: InferenceEndpoint):
    """Between two looks the kernel holds it: descriptors, size of a file, processor time."""
    descriptor = lease(endpoint, open_files=200, workspace_bytes=2 * MB, cpu_s=2)
    standby = endpoint.endpoint(descriptor).processes[-1]
    limits = Path(f"/proc/{standby.pid}/limits").read_text()
    assert re.search(r"Max open files +200 +200 ", limits)
    assert re.search(r"Max file size +2004096 +2004096 ", limits)
    assert re.search(r"Max cpu time +4 +5 ", limits)
    endpoint.release_endpoint(descriptor)


def test_a_limit_that_no_lease_can_keep(endpoint: InferenceEndpoint):
    """It ends before or soon after it is ready; in both cases it says why."""
    request = {"model_preference": {"provider": "echo", "id": "any"}}
    with contextlib.suppress(WorkerError):
        endpoint.ensure_endpoint(request, lease={"limits": {"memory_bytes": 1}, "group": "impossible"})
    until(lambda: [view.state for view in ended(endpoint)] == ["closed"])
    (view,) = ended(endpoint)
    assert view.cause == "limit_exceeded"
    assert view.detail.endswith("over the limit of 1 bytes")


def ended(endpoint: InferenceEndpoint) -> list[LeaseView]:
    """The one that could not be."""
    return [view for view in endpoint.endpoints(ended=True) if view.group == "impossible"]
