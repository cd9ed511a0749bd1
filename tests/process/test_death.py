"""Who dies with whom: real families, killed from outside at every level, in every kind of isolation."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from shared import processes
from shared.pidns import pid_namespace
from shared.processes import ProcessId
from supervisor import EndpointDescriptor, InferenceEndpoint
from tests.process.conftest import in_user_namespace
from tests.process.serving import HTTP_TIMEOUT_S, Reader, ask, family_of, until
from worker.server import MAX_DEATHS

pytestmark = pytest.mark.process
MISBEHAVE = "ASM_ENDPOINT_ECHO_MISBEHAVE"
SLOW = "[[pause:0.05]] " + "word " * 80
KEY_VARIABLE, KEY = "ANTHROPIC_API_KEY", "a-provider-key-that-must-not-travel"


@pytest.fixture
def endpoint(isolation: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> Iterator[InferenceEndpoint]:
    """An embedded supervisor of its own for each test, in every kind of isolation."""
    monkeypatch.setenv(MISBEHAVE, "1")
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with InferenceEndpoint(serve_arguments=isolation) as running:
        yield running


def lease(endpoint: InferenceEndpoint, standby: int = 1) -> EndpointDescriptor:
    """A lease with its standbys, seen alive."""
    request = {"model_preference": {"provider": "echo", "id": "any"}}
    descriptor, _ = endpoint.ensure_endpoint(request, lease={"standby": standby})
    until(lambda: endpoint.endpoint(descriptor).load["standbys"] == standby)
    return descriptor


def inner_worker(family: list[ProcessId]) -> ProcessId:
    """gunicorn's worker process: the last that is the zygote's fork, with the command lines below it."""
    *_, arbiter, worker = [each for each in family if "worker.zygote" in command_line(each)]
    assert psutil.Process(worker.pid).ppid() == arbiter.pid
    return worker


def below(parent: ProcessId, family: list[ProcessId]) -> list[ProcessId]:
    """Those of the family that are direct children of ``parent`` and run: a killed one may not be reaped yet."""
    children = {child.pid for child in psutil.Process(parent.pid).children()}
    return [process for process in processes.alive(family) if process.pid in children]


def command_line(process: ProcessId) -> str:
    """Its argv as one text; empty when it has gone in the meantime."""
    try:
        return " ".join(psutil.Process(process.pid).cmdline())
    except psutil.NoSuchProcess:
        return ""


def seen_of(pid: int, name: str) -> bytes:
    """A process's file in ``/proc``; nothing when it has gone in the meantime, as that of a turn may."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def words_of(reader: Reader) -> int:
    """How many words of the slow answer have come."""
    return reader.received.count("word ")


def test_the_isolation_is_the_one_asked_for(endpoint: InferenceEndpoint, isolation_name: str):
    """So every test here really runs in all: a family's last process is where its kind says."""
    descriptor = lease(endpoint)
    *_, innermost = family_of(endpoint, descriptor)
    assert in_user_namespace(innermost.pid) is (isolation_name == "user_namespace")
    is_apart = pid_namespace(innermost.pid) != pid_namespace()
    assert is_apart is (isolation_name != "process_group")
    assert descriptor.metadata["isolation"] == ("pid_namespace" if is_apart else "process_group")


def test_a_killed_zygote_takes_every_family_along(endpoint: InferenceEndpoint):
    """The kernel does it; the leases say why they ended, and there is a new zygote for the next one."""
    leases = [lease(endpoint) for _ in range(2)]
    families = [process for each in leases for process in family_of(endpoint, each)]
    psutil.Process(family_of(endpoint, leases[0])[0].pid).parent().kill()
    until(lambda: not processes.alive(families))
    until(lambda: [endpoint.endpoint(each).cause for each in leases] == ["crashed", "crashed"])
    assert "zygote" in endpoint.endpoint(leases[0]).detail
    assert ask(lease(endpoint), "again").status_code == 200


def test_a_killed_leader_takes_its_family_along(endpoint: InferenceEndpoint):
    """The lease closes as crashed, and its neighbour goes on."""
    victim, neighbour = lease(endpoint), lease(endpoint)
    family = family_of(endpoint, victim)
    os.kill(family[0].pid, signal.SIGKILL)
    until(lambda: not processes.alive(family))
    until(lambda: endpoint.endpoint(victim).state == "closed")
    assert endpoint.endpoint(victim).cause == "crashed"
    assert ask(neighbour, "still here").status_code == 200


def test_a_family_tells_how_its_arbiter_ended(endpoint: InferenceEndpoint):
    """By which signal, also where a keeper stands between it and the zygote."""
    descriptor = lease(endpoint)
    arbiter = psutil.Process(inner_worker(family_of(endpoint, descriptor)).pid).ppid()
    os.kill(arbiter, signal.SIGKILL)
    until(lambda: endpoint.endpoint(descriptor).state == "closed")
    view = endpoint.endpoint(descriptor)
    assert (view.cause, view.detail) == ("crashed", "the family ended by itself: signal SIGKILL")


def test_a_killed_worker_process_is_replaced_and_leaves_nothing(endpoint: InferenceEndpoint):
    """The descriptor stays valid; the command lines of the dead one are gone; health says degraded."""
    descriptor = lease(endpoint)
    family = family_of(endpoint, descriptor)
    worker = inner_worker(family)
    its_own = [worker, *below(worker, family)]
    os.kill(worker.pid, signal.SIGKILL)
    until(lambda: not processes.alive(its_own))
    until(lambda: endpoint.endpoint(descriptor).load["boots"] == 2)
    assert ask(descriptor, "healed").json()["choices"][0]["message"]["content"] == "healed"
    assert endpoint.endpoint(descriptor).health == "degraded"


def test_a_killed_worker_process_takes_only_its_own_turns_along(endpoint: InferenceEndpoint):
    """Its clients see a broken connection; a neighbour's stream goes on; what was used stays counted.

    A request that comes before the new process is there waits for it in the socket's backlog.
    """
    victim, neighbour = lease(endpoint), lease(endpoint)
    assert ask(victim, "one two three").status_code == 200
    other, broken = Reader(neighbour, SLOW), Reader(victim, SLOW)
    until(lambda: words_of(other) > 1 and words_of(broken) > 1)
    until(lambda: endpoint.endpoint(victim).load["cli_ms"] > 0)
    before = endpoint.endpoint(victim).load
    assert (before["in_flight"], before["requests"], before["failures"]) == (1, 2, 0)
    worker = inner_worker(family_of(endpoint, victim))
    os.kill(worker.pid, signal.SIGKILL)
    until(lambda: not processes.alive([worker]))
    assert ask(victim, "healed").json()["choices"][0]["message"]["content"] == "healed"
    broken.join(HTTP_TIMEOUT_S)
    assert isinstance(broken.error, httpx.RemoteProtocolError | httpx.ReadError)
    assert "[DONE]" not in broken.received
    assert other.is_complete
    assert words_of(other) == SLOW.count("word ")
    after = endpoint.endpoint(victim).load
    assert (after["in_flight"], after["queued"], after["pending_tokens"]) == (0, 0, 0)
    assert (after["requests"], after["failures"], after["boots"]) == (3, 1, 2)
    assert (after["prompt_tokens"], after["completion_tokens"]) == (3 + 1, 3 + 1)
    assert after["estimated_tokens"] >= before["pending_tokens"] > 0
    assert after["cli_ms"] >= before["cli_ms"]
    assert (endpoint.endpoint(victim).state, endpoint.endpoint(neighbour).load["boots"]) == ("ready", 1)


def test_a_killed_worker_process_leaves_no_one_behind(endpoint: InferenceEndpoint):
    """Not even a grandchild in a session of its own that ignores SIGTERM, under a turn that was running."""
    descriptor = lease(endpoint, standby=0)
    worker = inner_worker(family_of(endpoint, descriptor))
    broken = Reader(descriptor, f"[[ignore-term]] [[daemonise]] {SLOW}")
    until(lambda: words_of(broken) > 1)
    family = family_of(endpoint, descriptor)
    started = [each for each in family if "echo_cli" in command_line(each)]
    assert len(started) == 2
    os.kill(worker.pid, signal.SIGKILL)
    until(lambda: not processes.alive([worker, *started]))
    assert ask(descriptor, "healed").status_code == 200


def test_a_killed_command_line_fails_only_its_own_turn(endpoint: InferenceEndpoint):
    """With a typed error: an object in the stream, a status where there is none yet. The other turn goes on."""
    descriptor = lease(endpoint, standby=0)
    readers = [Reader(descriptor, SLOW) for _ in range(2)]
    until(lambda: all(words_of(reader) > 1 for reader in readers))
    family = family_of(endpoint, descriptor)
    os.kill(below(inner_worker(family), family)[0].pid, signal.SIGKILL)
    until(lambda: any(not reader.is_alive() for reader in readers))
    (failed,) = [reader for reader in readers if not reader.is_alive()]
    (whole,) = [reader for reader in readers if reader is not failed]
    assert failed.error is None
    error = json.loads(failed.received.rstrip().rpartition("data: ")[2])["error"]
    assert error["code"] == "provider_crashed"
    assert "exit code -9" in error["message"]
    assert whole.is_complete
    load = endpoint.endpoint(descriptor).load
    assert (load["failures"], load["boots"], load["in_flight"]) == (1, 1, 0)


def test_a_worker_process_that_keeps_dying_ends_the_lease(endpoint: InferenceEndpoint):
    """More than three deaths in a minute are a crash, not something to heal for ever."""
    descriptor = lease(endpoint)
    for boots in range(2, 2 + MAX_DEATHS):
        os.kill(inner_worker(family_of(endpoint, descriptor)).pid, signal.SIGKILL)
        until(lambda boots=boots: endpoint.endpoint(descriptor).load["boots"] == boots)
    os.kill(inner_worker(family_of(endpoint, descriptor)).pid, signal.SIGKILL)
    until(lambda: endpoint.endpoint(descriptor).state == "closed")
    assert endpoint.endpoint(descriptor).cause == "crashed"
    assert f"its worker process died more than {MAX_DEATHS} times in" in endpoint.endpoint(descriptor).detail


def test_a_killed_standby_is_replaced_before_it_is_needed(endpoint: InferenceEndpoint):
    """The next turn does not meet the dead one."""
    descriptor = lease(endpoint)
    family = family_of(endpoint, descriptor)
    worker = inner_worker(family)
    (standby,) = below(worker, family)
    os.kill(standby.pid, signal.SIGKILL)
    assert ask(descriptor, "served").status_code == 200


def test_a_release_ends_what_hides_and_what_ignores_sigterm(endpoint: InferenceEndpoint):
    """A daemonised grandchild in its own session that ignores SIGTERM is in the proof, and gone."""
    descriptor = lease(endpoint)
    assert ask(descriptor, "[[ignore-term]] [[daemonise]] done").status_code == 200
    family = family_of(endpoint, descriptor)
    hidden = [each for each in family if "echo_cli" in command_line(each)]
    assert hidden
    proof = endpoint.release_endpoint(descriptor).proof
    assert proof is not None
    assert not proof.survivors
    assert {each.pid for each in hidden} <= {each.pid for each in proof.processes}
    assert not processes.alive(family)


def test_no_secret_is_where_others_could_read_it(endpoint: InferenceEndpoint):
    """Neither the lease's token nor a provider's key is in any argv, environment, log or file of the family."""
    descriptor = lease(endpoint)
    token = descriptor.headers["authorization"].removeprefix("Bearer ")
    assert ask(descriptor, "hello").status_code == 200
    family = family_of(endpoint, descriptor)
    zygote = psutil.Process(family[0].pid).ppid()
    for pid in (zygote, *(process.pid for process in processes.alive(family))):
        for name in ("cmdline", "environ"):
            seen = seen_of(pid, name)
            assert token.encode() not in seen, (pid, name)
            assert KEY.encode() not in seen, (pid, name)
    for path in endpoint.home.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert token.encode() not in content, path
            assert KEY.encode() not in content, path


def test_the_check_for_secrets_has_power(endpoint: InferenceEndpoint):
    """Positive control: the supervisor itself was given the key, and the same look finds it there."""
    assert KEY.encode() in Path(f"/proc/{endpoint.pid}/environ").read_bytes()


def test_a_command_line_gets_an_environment_of_its_own(endpoint: InferenceEndpoint):
    """Exactly the allow-list: no variable of the supervisor's but those its provider file names."""
    descriptor = lease(endpoint)
    names = ask(descriptor, "[[environ]] x").json()["choices"][0]["message"]["content"].split()
    assert set(names) - {"LC_CTYPE"} == {"ASM_ENDPOINT_LEASE", "HOME", "PATH", "TMPDIR"}
    workspace = ask(descriptor, "[[cwd]] x").json()["choices"][0]["message"]["content"]
    assert workspace.endswith(f"/leases/{descriptor.lease_ref}/workspace")
    assert not list(Path(workspace).iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_supervisor_that_ends_leaves_nothing(endpoint: InferenceEndpoint, number: signal.Signals):
    """However it ends: asked, interrupted or killed."""
    family = family_of(endpoint, lease(endpoint))
    zygote = processes.identify(psutil.Process(family[0].pid).ppid())
    below = [processes.identify(child.pid) for child in psutil.Process(endpoint.pid).children(recursive=True)]
    os.kill(endpoint.pid, number)
    until(lambda: endpoint._process.poll() is not None)
    until(lambda: not processes.alive(each for each in (*family, zygote, *below) if each))
    assert number is signal.SIGKILL or not (endpoint.home / "supervisor.json").exists()


def test_an_embedded_supervisor_ends_with_its_starter(endpoint: InferenceEndpoint):
    """Its end of the pipe closes: that is all it takes."""
    family = family_of(endpoint, lease(endpoint))
    assert endpoint._process.stdin is not None
    endpoint._process.stdin.close()
    until(lambda: not processes.alive(family) and endpoint._process.poll() is not None)
