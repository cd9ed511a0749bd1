"""Health tells the truth of real leases, in both kinds of isolation: what is wrong, what is not, and never that it is busy."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from supervisor import EndpointDescriptor, InferenceEndpoint
from supervisor.cli import main
from tests.process.serving import HTTP_TIMEOUT_S, ask, until

pytestmark = pytest.mark.process
ISOLATION = {"pid_namespace": (), "process_group": ("--no-namespaces",)}
QUICK = ("--set", "monitor_period_s=0.2", "--set", "heartbeat_max_age_s=3")
MISBEHAVE = "ASM_ENDPOINT_ECHO_MISBEHAVE"
STREAMS = 50
WATCHED_S = 5.0
"""Longer than a heart may stand still."""
BROKEN_CLAUDE = """#!{python} -IS
import sys
if sys.argv[1:] == ["--version"]:
    print("0.0.1")
    sys.exit()
sys.exit(3)
"""
Codes = list[str]


@pytest.fixture(scope="module", params=ISOLATION)
def endpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[InferenceEndpoint]:
    """An embedded supervisor; its claude is of a version that nobody has tested, and ends at once."""
    claude = tmp_path_factory.mktemp("bin") / "claude"
    claude.write_text(BROKEN_CLAUDE.format(python=sys.executable))
    claude.chmod(claude.stat().st_mode | stat.S_IXUSR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MISBEHAVE, "1")
        patch.setenv("CLAUDE_CLI_PATH", str(claude))
        patch.setenv("ANTHROPIC_API_KEY", "a-key")
        with InferenceEndpoint(serve_arguments=(*ISOLATION[request.param], *QUICK)) as running:
            yield running


def lease(endpoint: InferenceEndpoint, provider: str = "echo", **options: Any) -> EndpointDescriptor:
    """A lease without standby, unless asked for one."""
    descriptor, _ = endpoint.ensure_endpoint(
        {"model_preference": {"provider": provider, "id": "any"}, "stream?": True},
        lease={"standby": 0, **options},
    )
    return descriptor


def own(descriptor: EndpointDescriptor) -> tuple[str, Codes]:
    """What the worker says of itself; the answer itself shows that its event loop goes on."""
    answer = httpx.get(
        str(descriptor.health_ref), headers=descriptor.headers, timeout=HTTP_TIMEOUT_S, trust_env=False
    )
    assert answer.status_code == 200
    return answer.json()["status"], [reason["code"] for reason in answer.json()["reasons"]]


def seen(endpoint: InferenceEndpoint, descriptor: EndpointDescriptor) -> tuple[str, Codes]:
    """What the supervisor says of the lease."""
    view = endpoint.endpoint(descriptor)
    assert all(reason.message for reason in view.health_reasons)
    return view.health, [reason.code for reason in view.health_reasons]


def both(endpoint: InferenceEndpoint, descriptor: EndpointDescriptor) -> list[tuple[str, Codes]]:
    """They never disagree on what the worker knows."""
    return [own(descriptor), seen(endpoint, descriptor)]


def inner_worker(endpoint: InferenceEndpoint, descriptor: EndpointDescriptor) -> psutil.Process:
    """gunicorn's worker process: the leader's child."""
    (worker,) = psutil.Process(endpoint.endpoint(descriptor).processes[0].pid).children()
    return worker


OK: tuple[str, Codes] = ("ok", [])


def test_a_lease_is_ok(endpoint: InferenceEndpoint):
    """Idle, and after a turn."""
    descriptor = lease(endpoint)
    assert both(endpoint, descriptor) == [OK, OK]
    assert ask(descriptor, "hello").status_code == 200
    assert both(endpoint, descriptor) == [OK, OK]


def test_a_worker_whose_places_and_queue_are_full_is_ok(endpoint: InferenceEndpoint):
    """All turns silent for longer than a heart may stand still, others waiting, one more refused."""
    descriptor = lease(endpoint, concurrency=2, queue_limit=1)
    with ThreadPoolExecutor() as threads:
        turns = [threads.submit(ask, descriptor, f"[[pause:{WATCHED_S}]] word") for _ in range(3)]
        until(lambda: endpoint.endpoint(descriptor).load["queued"] == 1)
        assert ask(descriptor, "one too many").status_code == 429
        watch_while(turns[:2], endpoint, descriptor)
        assert [turn.result().status_code for turn in turns] == [200, 200, 200]
    assert both(endpoint, descriptor) == [OK, OK]


def test_a_worker_with_fifty_streams_is_ok(endpoint: InferenceEndpoint):
    """However loaded the machine is by them."""
    descriptor = lease(endpoint, concurrency=STREAMS)
    text = f"[[pause:{WATCHED_S / 100}]] " + "word " * 100
    with ThreadPoolExecutor(STREAMS) as threads:
        turns = [threads.submit(ask, descriptor, text, stream=True) for _ in range(STREAMS)]
        watch_while(turns, endpoint, descriptor)
        assert all("[DONE]" in turn.result().text for turn in turns)
    assert both(endpoint, descriptor) == [OK, OK]


def watch_while(
    turns: list[Future[httpx.Response]], endpoint: InferenceEndpoint, descriptor: EndpointDescriptor
) -> None:
    """At every moment of it both say that it is ok."""
    looks = 0
    while not all(turn.done() for turn in turns):
        assert both(endpoint, descriptor) == [OK, OK]
        looks += 1
    assert looks > 1


def test_a_standby_that_died_is_told_until_a_turn_has_worked(endpoint: InferenceEndpoint):
    """By the worker at its next heartbeat."""
    descriptor = lease(endpoint, standby=1)
    until(lambda: endpoint.endpoint(descriptor).load["standbys"] == 1)
    (standby,) = until(lambda: inner_worker(endpoint, descriptor).children())
    standby.kill()
    bad = ("degraded", ["standby_failing"])
    until(lambda: both(endpoint, descriptor) == [bad, bad])
    assert ask(descriptor, "hello").status_code == 200
    assert both(endpoint, descriptor) == [OK, OK]


def test_a_command_line_that_never_works_and_was_never_tested(endpoint: InferenceEndpoint):
    """Told before anybody has asked anything; the lease stays."""
    descriptor = lease(endpoint, "claude", standby=1)
    bad = ("degraded", ["standby_failing", "unsupported_version"])
    until(lambda: both(endpoint, descriptor) == [bad, bad])
    for _ in range(3):
        assert ask(descriptor, "hello").status_code == 502
    until(lambda: "provider_failing" in own(descriptor)[1])


def test_a_refused_login_is_told_at_once_and_other_failures_in_a_row(endpoint: InferenceEndpoint):
    """Each until a turn works; what a request itself is to blame for is not told."""
    descriptor = lease(endpoint)
    assert ask(descriptor, "[[error:401]] x").status_code == 502
    bad = ("degraded", ["not_logged_in"])
    assert both(endpoint, descriptor) == [bad, bad]
    assert ask(descriptor, "hello").status_code == 200
    assert both(endpoint, descriptor) == [OK, OK]
    for _ in range(5):
        assert ask(descriptor, "[[error:400]] x").status_code == 400
    assert both(endpoint, descriptor) == [OK, OK]
    for _ in range(3):
        assert ask(descriptor, "[[error:529]] x").status_code == 503
    bad = ("degraded", ["provider_failing"])
    assert both(endpoint, descriptor) == [bad, bad]


def test_a_restart_is_told(endpoint: InferenceEndpoint):
    """Once the new worker process serves."""
    descriptor = lease(endpoint)
    inner_worker(endpoint, descriptor).kill()
    bad = ("degraded", ["worker_restarted"])
    until(lambda: endpoint.endpoint(descriptor).load["boots"] == 2)
    until(lambda: both(endpoint, descriptor) == [bad, bad])


def test_a_worker_that_stands_still_is_told_and_recovers(endpoint: InferenceEndpoint):
    """Only the supervisor can know."""
    descriptor = lease(endpoint)
    worker = inner_worker(endpoint, descriptor)
    worker.suspend()
    until(lambda: seen(endpoint, descriptor) == ("degraded", ["heart_late"]))
    worker.resume()
    until(lambda: seen(endpoint, descriptor) == OK)


def test_a_lease_that_has_ended_is_unavailable(endpoint: InferenceEndpoint):
    """For the reason that it ended."""
    released, crashed = lease(endpoint), lease(endpoint)
    endpoint.release_endpoint(released)
    os.kill(endpoint.endpoint(crashed).processes[0].pid, signal.SIGKILL)
    until(lambda: endpoint.endpoint(crashed).state == "closed")
    for descriptor, cause in ((released, "released"), (crashed, "crashed")):
        view = endpoint.endpoint(descriptor)
        assert (view.health, view.health_reasons[0].code) == ("unavailable", "closed")
        assert cause in view.health_reasons[0].message


def test_the_list_of_leases_says_it(endpoint: InferenceEndpoint, capsys: pytest.CaptureFixture[str]):
    """Each with the codes of what is wrong."""
    good, bad = lease(endpoint), lease(endpoint)
    assert ask(bad, "[[error:401]] x").status_code == 502
    assert main(["ls", "--home", str(endpoint.home)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert " ok " in lines[good.lease_ref]
    assert "degraded (not_logged_in)" in lines[bad.lease_ref]


def healthz(endpoint: InferenceEndpoint) -> tuple[int, str, Codes]:
    """What the supervisor says of itself, without a token."""
    answer = httpx.get(f"{endpoint.url}/healthz", timeout=HTTP_TIMEOUT_S, trust_env=False)
    body = answer.json()
    return answer.status_code, body["status"], [reason["code"] for reason in body["reasons"]]


def test_a_supervisor_is_ok_and_so_again_after_its_zygote_was_lost(endpoint: InferenceEndpoint):
    """With all leases that it may have, too."""
    descriptor = lease(endpoint)
    assert healthz(endpoint) == (200, "ok", [])
    zygote = psutil.Process(endpoint.endpoint(descriptor).processes[0].pid).parent()
    zygote.kill()
    until(lambda: endpoint.endpoint(descriptor).state == "closed")
    until(lambda: healthz(endpoint) == (200, "ok", []))
    assert own(lease(endpoint)) == OK


def test_a_supervisor_without_memory_to_spare_says_so():
    """And leases nothing; what it has goes on."""
    with InferenceEndpoint(serve_arguments=("--set", "min_available_bytes=999999999999999")) as endpoint:
        assert healthz(endpoint) == (503, "unavailable", ["memory_pressure"])
