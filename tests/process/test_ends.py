"""Every end of a lease has its cause, one path and one proof; and a release is true at any moment of a lease's life."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from shared import processes
from supervisor import EndpointDescriptor, SupervisorClient, WorkerError
from supervisor.lease import Cause
from tests.process.serving import Reader, Serving, ask, family_of, lease, serving, until, words

pytestmark = pytest.mark.process
CALLERS = 8
PROBLEMS = (httpx.HTTPError, WorkerError)


@pytest.fixture
def held(isolation: tuple[str, ...], tmp_path: Path) -> Iterator[Serving]:
    """A supervisor of its own for each test."""
    with serving(tmp_path, *isolation, "--set", "monitor_period_s=0.1") as running:
        yield running


@pytest.fixture
def client(held: Serving) -> Iterator[SupervisorClient]:
    """Its client."""
    with held.client() as connected:
        yield connected


def owner() -> subprocess.Popen[bytes]:
    """A process that may own a lease."""
    return subprocess.Popen((sys.executable, "-c", "input()"), stdin=subprocess.PIPE)


def expire(held: Serving, client: SupervisorClient) -> EndpointDescriptor:
    """By its time."""
    return lease(client, ttl_s=1)


def idle(held: Serving, client: SupervisorClient) -> EndpointDescriptor:
    """By having no work."""
    return lease(client, idle_timeout_s=1)


def lose_owner(held: Serving, client: SupervisorClient) -> EndpointDescriptor:
    """By the end of the process that it is for."""
    with owner() as process:
        descriptor = lease(client, owner_pid=process.pid)
        process.kill()
    return descriptor


def crash(held: Serving, client: SupervisorClient) -> EndpointDescriptor:
    """By the death of its first process."""
    descriptor = lease(client)
    os.kill(family_of(client, descriptor)[0].pid, signal.SIGKILL)
    return descriptor


def lose_zygote(held: Serving, client: SupervisorClient) -> EndpointDescriptor:
    """By the death of the zygote, which takes the family along."""
    descriptor = lease(client)
    os.kill(held.zygote.pid, signal.SIGKILL)
    return descriptor


def release(held: Serving, client: SupervisorClient) -> EndpointDescriptor:
    """By asking for it."""
    descriptor = lease(client)
    client.release_endpoint(descriptor)
    return descriptor


def release_group(held: Serving, client: SupervisorClient) -> EndpointDescriptor:
    """With all of its group."""
    descriptor = lease(client, group="g")
    assert len(client.release_endpoints(group="g")) == 1
    return descriptor


def shut_down(held: Serving, client: SupervisorClient) -> EndpointDescriptor:
    """With its supervisor; the next one tells."""
    descriptor = lease(client)
    assert held.end() == 0
    held.start()
    return descriptor


ENDS: dict[str, tuple[Callable[[Serving, SupervisorClient], EndpointDescriptor], Cause, str]] = {
    "expired": (expire, Cause.EXPIRED, ""),
    "idle": (idle, Cause.IDLE, ""),
    "owner gone": (lose_owner, Cause.OWNER_GONE, "has ended"),
    "crashed": (crash, Cause.CRASHED, "signal SIGKILL"),
    "zygote": (lose_zygote, Cause.CRASHED, "zygote"),
    "released": (release, Cause.RELEASED, ""),
    "group": (release_group, Cause.RELEASED, ""),
    "shutdown": (shut_down, Cause.SHUTDOWN, ""),
}


@pytest.mark.parametrize("name", ENDS)
def test_each_end_has_its_cause_and_its_proof(held: Serving, client: SupervisorClient, name: str):
    """And leaves no process and no folder. Limits, budgets, boots and losses have tests of their own."""
    end, cause, words_of_detail = ENDS[name]
    descriptor = end(held, client)
    with held.client() as later:
        until(lambda: later.endpoint(descriptor).state == "closed")
        view = later.endpoint(descriptor)
    assert view.cause == cause
    assert words_of_detail in view.detail
    assert view.proof is not None
    assert view.proof.survivors == ()
    assert view.ended_at is not None
    assert not list(processes.with_marker(descriptor.lease_ref))
    assert not (held.home / "leases" / descriptor.lease_ref).exists()


def test_a_renewed_lease_lives_on(held: Serving, client: SupervisorClient):
    """Past the time it was made for."""
    short, renewed = lease(client, ttl_s=2), lease(client, ttl_s=2)
    client.renew_endpoint(renewed, 500)
    until(lambda: client.endpoint(short).state == "closed")
    assert client.endpoint(renewed).state == "ready"
    assert ask(renewed, "still here").status_code == 200


def test_concurrent_releases_share_one_proof(client: SupervisorClient):
    """And so does every later one."""
    descriptor = lease(client, standby=1)
    until(lambda: client.endpoint(descriptor).load["standbys"] == 1)
    family = family_of(client, descriptor)

    def end(_: int) -> object:
        with SupervisorClient(client.url, client._http.headers["authorization"].split()[1]) as another:
            return another.release_endpoint(descriptor)

    with ThreadPoolExecutor(CALLERS) as threads:
        proofs = list(threads.map(end, range(CALLERS)))
    assert all(proof == proofs[0] for proof in proofs)
    assert client.release_endpoint(descriptor) == proofs[0]
    proof = client.endpoint(descriptor).proof
    assert proof is not None
    assert {process.pid for process in family} <= {process.pid for process in proof.processes}
    assert 0 < proof.elapsed_ms < 60_000
    assert not processes.alive(family)


def test_a_release_while_streaming_tells_the_stream(client: SupervisorClient):
    """An error object and no end mark; the command line is gone."""
    descriptor = lease(client)
    reader = Reader(descriptor, words(500, 0.05))
    until(lambda: "w0" in reader.received)
    proof = client.release_endpoint(descriptor).proof
    assert proof is not None
    assert proof.survivors == ()
    received = reader.finish()
    assert '"code":"lease_closed"' in received
    assert "[DONE]" not in received


def test_a_release_while_starting_ends_it(held: Serving, client: SupervisorClient):
    """Whoever waited for the lease hears that it ended; whoever released it gets the proof."""
    zygote = held.zygote
    os.kill(zygote.pid, signal.SIGSTOP)  # nothing starts meanwhile
    try:
        with ThreadPoolExecutor(2) as threads, held.client() as other:
            starting = threads.submit(lambda: lease(client))
            (view,) = until(other.endpoints)
            assert view.state == "starting"
            releasing = threads.submit(lambda: other.release_endpoint(view.lease_ref))
            with held.client() as third:
                until(lambda: third.endpoint(view.lease_ref).state == "stopping")
            os.kill(zygote.pid, signal.SIGCONT)
            proof = releasing.result(60).proof
            with pytest.raises(WorkerError) as refused:
                starting.result(60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(zygote.pid, signal.SIGCONT)
    assert refused.value.code in {"lease_closed", "boot_failed"}
    assert proof is not None
    assert proof.survivors == ()
    assert client.endpoint(view.lease_ref).cause == "released"
    assert ask(lease(client), "a new one").status_code == 200


def test_a_release_while_stopping_is_the_same_one(client: SupervisorClient):
    """A command line that ignores SIGTERM makes it take a while; the second caller waits with the first."""
    descriptor = lease(client)
    reader = Reader(descriptor, "[[ignore-term]] " + words(500, 0.05))
    until(lambda: "w0" in reader.received)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(lambda: client.release_endpoint(descriptor))
        with SupervisorClient(client.url, client._http.headers["authorization"].split()[1]) as other:
            until(lambda: other.endpoint(descriptor).state == "stopping")
            second = other.release_endpoint(descriptor)
        assert first.result(60) == second
    assert second.proof is not None
    assert second.proof.survivors == ()


def test_a_worker_that_cannot_boot_is_told_with_its_reason(held: Serving, client: SupervisorClient):
    """Its folder cannot be made; nothing is left of it but the story."""
    folder = held.home / "leases"
    moved = folder.with_name("moved")
    folder.rename(moved)
    folder.touch()
    try:
        with pytest.raises(WorkerError) as refused:
            lease(client)
    finally:
        folder.unlink()
        moved.rename(folder)
    assert refused.value.code == "boot_failed"
    (view,) = client.endpoints(ended=True)
    assert (view.state, view.cause) == ("closed", "boot_failed")
    assert view.detail
    assert ask(lease(client), "a new one").status_code == 200


def test_a_busy_zygote_death_while_starting_fails_that_start_only(held: Serving, client: SupervisorClient):
    """With a typed error; the next lease starts on another zygote."""
    zygote = held.zygote
    os.kill(zygote.pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as threads, held.client() as other:
        starting = threads.submit(lambda: lease(client))
        (view,) = until(other.endpoints)
        os.kill(zygote.pid, signal.SIGKILL)
        with pytest.raises(PROBLEMS):
            starting.result(60)
        until(lambda: other.endpoint(view.lease_ref).state == "closed")
        assert other.endpoint(view.lease_ref).cause == "crashed"
    assert ask(lease(client), "a new one").status_code == 200
