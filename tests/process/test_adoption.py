"""Leases outlive their supervisor: the next one on the state folder adopts them, or says truthfully what became of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

import worker
from shared import processes
from shared.unixsocket import listen_at
from supervisor.zygotes import IDENTITY_NAME, SOCKET_NAME, Identity
from tests.process.serving import Reader, Serving, ask, family_of, lease, serving, until, words

pytestmark = pytest.mark.process
GRACE_S = 3.0
FOREIGN_ZYGOTE = """
import socket, sys, time
listener = socket.socket(fileno=int(sys.argv[1]))
connection, _ = listener.accept()
connection.recv(65536)
connection.send(b'{"type":"ready","protocol":99,"pid":1,"namespaces":false,"news":[1,2]}')
time.sleep(600)
"""


@pytest.fixture
def held(isolation: tuple[str, ...], tmp_path: Path) -> Iterator[Serving]:
    """A supervisor of its own for each test."""
    with serving(tmp_path, *isolation) as running:
        yield running


def test_nothing_breaks_while_there_is_no_supervisor(held: Serving):
    """A stream goes on, new requests are served; afterwards URL, token, expiry and usage are the same."""
    with held.client() as client:
        descriptor = lease(client, ttl_s=500)
        assert ask(descriptor, "one two").status_code == 200
        before = client.endpoint(descriptor)
    reader = Reader(descriptor, words(60, 0.05))
    until(lambda: "w0" in reader.received)
    held.kill_wholly()
    assert ask(descriptor, "alone").json()["choices"][0]["message"]["content"] == "alone"
    held.start()
    with held.client() as client:
        after = client.endpoint(descriptor)
        assert (after.state, after.base_url, after.owner) == ("ready", descriptor.base_url, "admin")
        assert after.processes[0] == before.processes[0]
        assert 400 < (after.expires_in_s or 0) < (before.expires_in_s or 0) < 500
        assert ask(descriptor, "again").json()["choices"][0]["message"]["content"] == "again"
        received = reader.finish()
        assert '"content":"w59"' in received
        assert received.endswith("data: [DONE]\n\n")
        assert client.endpoint(descriptor).load["turns"] == 4
        proof = client.release_endpoint(descriptor).proof
        assert proof is not None
        assert not proof.survivors
        assert (client.endpoint(descriptor).state, client.endpoint(descriptor).cause) == (
            "closed",
            "released",
        )


def test_a_killed_inner_process_is_replaced_and_adopts(held: Serving):
    """gunicorn starts it again; the address stays, and so do the leases."""
    with held.client() as client:
        descriptor = lease(client)
        os.kill(held.inner.pid, signal.SIGKILL)
        until(lambda: held.log().count("leases adopted") == 1)
        assert client.endpoint(descriptor).state == "ready"
        assert ask(descriptor, "still here").status_code == 200
        assert ask(lease(client), "and a new one").status_code == 200


def test_after_the_grace_everything_is_gone(isolation: tuple[str, ...], tmp_path: Path):
    """The zygote kills its families and exits; a later supervisor says that they were lost."""
    with serving(tmp_path, *isolation, "--set", f"adopt_grace_s={GRACE_S}") as held:
        with held.client() as client:
            descriptor = lease(client, standby=1)
            until(lambda: client.endpoint(descriptor).load["standbys"] == 1)
            family = family_of(client, descriptor)
        zygote = held.zygote
        held.kill_wholly()
        assert ask(descriptor, "in the grace").status_code == 200
        until(lambda: not processes.alive([zygote, *family]))
        held.start()
        with held.client() as client:
            view = client.endpoint(descriptor)
            assert (view.state, view.cause) == ("closed", "lost")
            assert view.detail
            assert not (held.home / "leases" / descriptor.lease_ref).exists()
            assert ask(lease(client), "a new one").status_code == 200


def test_a_family_that_died_unwatched_has_crashed(held: Serving):
    """The zygote has seen how, and tells the next supervisor until that has written it down."""
    with held.client() as client:
        descriptor, neighbour = lease(client), lease(client)
        leader = family_of(client, descriptor)[0]
    held.kill_wholly()
    os.kill(leader.pid, signal.SIGKILL)
    until(lambda: not processes.is_alive(leader))
    held.start()
    with held.client() as client:
        until(lambda: client.endpoint(descriptor).state == "closed")
        view = client.endpoint(descriptor)
        assert view.cause == "crashed"
        assert "SIGKILL" in view.detail
        assert ask(neighbour, "still here").status_code == 200


def test_leases_of_a_zygote_that_died_unwatched_are_lost(held: Serving):
    """Nobody saw them end; that they are gone is checked all the same."""
    with held.client() as client:
        descriptor = lease(client, standby=1)
        until(lambda: client.endpoint(descriptor).load["standbys"] == 1)
        family = family_of(client, descriptor)
    zygote = held.zygote
    held.kill_wholly()
    os.kill(zygote.pid, signal.SIGKILL)
    until(lambda: not processes.alive(family))
    held.start()
    with held.client() as client:
        until(lambda: client.endpoint(descriptor).state == "closed")
        assert client.endpoint(descriptor).cause == "lost"
        assert client.endpoint(descriptor).proof.survivors == ()
        assert ask(lease(client), "a new one").status_code == 200


def test_a_supervisor_takes_over_from_a_running_one(held: Serving):
    """An upgrade: the old one leaves its leases and ends well, no stream breaks, and ends go by the new one's table."""
    with held.client() as client:
        descriptor = lease(client)
    old = held.process
    assert old is not None
    reader = Reader(descriptor, words(80, 0.05))
    until(lambda: "w0" in reader.received)
    zygote = held.zygote
    held.start("--take-over")
    assert old.wait(30) == 0
    assert held.zygote == zygote
    with held.client() as client:
        assert client.endpoint(descriptor).state == "ready"
        assert reader.finish().endswith("data: [DONE]\n\n")
        assert held.end() == 0
    assert not processes.is_alive(zygote)


def test_a_supervisor_that_could_not_serve_takes_nothing_over(held: Serving):
    """With a lock that cannot be had, as pytest's folders are closed to other users: the running one is not asked."""
    running = held.process
    refused = subprocess.run(
        (
            sys.executable, "-P", "-m", "supervisor", "serve", "--home", str(held.home), "--take-over",
            "--harden", "uid",
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    assert "cannot harden with uid" in refused.stderr
    assert running is not None
    assert running.poll() is None
    with held.client() as client:
        assert client.endpoints() == []


def take_over(held: Serving) -> None:
    """Start another one in place of the one that runs, which ends well."""
    before = held.process
    held.start("--take-over")
    assert before is not None
    assert before.wait(30) == 0


@pytest.fixture
def upgraded() -> Iterator[Callable[[], None]]:
    """Installs another program, as far as anybody can see, and the old one again afterwards."""
    changed = Path(worker.__file__)
    before = changed.stat()
    yield lambda: os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_an_upgrade_reaches_the_workers_as_soon_as_no_lease_needs_the_old_ones(
    held: Serving, upgraded: Callable[[], None]
):
    """While one lives, its zygote has to; the first lease after the last of them starts on the new program."""
    with held.client() as client:
        descriptor = lease(client)
        url = client.url
    old = held.zygote
    upgraded()
    take_over(held)
    with held.client() as client:
        assert client.url == url
        assert ask(lease(client), "on the old one").status_code == 200
        assert held.zygote == old
        for view in client.endpoints():
            client.release_endpoint(view.lease_ref)
        assert ask(lease(client), "on the new one").status_code == 200
        assert held.zygote != old
        assert client.endpoint(descriptor).cause == "released"
    assert not processes.is_alive(old)


def test_an_upgrade_with_no_lease_takes_no_old_zygote(held: Serving, upgraded: Callable[[], None]):
    """There is nothing to wait for."""
    old = held.zygote
    upgraded()
    take_over(held)
    assert held.zygote != old


def test_taking_over_where_nobody_is_is_serving(isolation: tuple[str, ...], tmp_path: Path):
    """The flag can always be given."""
    with serving(tmp_path, *isolation, "--take-over") as held, held.client() as client:
        assert ask(lease(client), "hello").status_code == 200


def test_a_removed_zygote_socket_is_made_again(held: Serving):
    """Somebody tidied up; the leases are adopted nevertheless."""
    with held.client() as client:
        descriptor = lease(client)
    zygote = held.zygote
    (held.home / SOCKET_NAME).unlink()
    held.kill_wholly()
    held.start()
    assert held.zygote == zygote
    with held.client() as client:
        assert client.endpoint(descriptor).state == "ready"
        assert ask(descriptor, "still here").status_code == 200


def test_a_zygote_of_another_protocol_is_ended(held: Serving):
    """Its families cannot be adopted; nothing of it is left, and the leases say so."""
    with held.client() as client:
        descriptor = lease(client)
        family = family_of(client, descriptor)
    zygote = held.zygote
    held.kill_wholly()
    os.kill(zygote.pid, signal.SIGTERM)
    until(lambda: not processes.alive([zygote, *family]))
    listener = listen_at(held.home / SOCKET_NAME)
    with subprocess.Popen(
        (sys.executable, "-c", FOREIGN_ZYGOTE, str(listener.fileno())), pass_fds=(listener.fileno(),)
    ) as foreign:
        listener.close()
        identity = msgspec.json.decode((held.home / IDENTITY_NAME).read_bytes(), type=Identity)
        replaced = msgspec.structs.replace(identity, process=processes.identify(foreign.pid))
        (held.home / IDENTITY_NAME).write_bytes(msgspec.json.encode(replaced))
        held.start()
        assert foreign.wait(30) == -signal.SIGTERM
    with held.client() as client:
        until(lambda: client.endpoint(descriptor).state == "closed")
        assert client.endpoint(descriptor).cause == "lost"
        assert "protocol 99" in client.endpoint(descriptor).detail


def test_a_copied_state_folder_touches_nothing_of_the_original(
    held: Serving, tmp_path_factory: pytest.TempPathFactory
):
    """Its journal tells of leases, its zygote.json of a zygote: both are somebody else's."""
    with held.client() as client:
        descriptor = lease(client, standby=1)
        until(lambda: client.endpoint(descriptor).load["standbys"] == 1)
        family = family_of(client, descriptor)
        copy = tmp_path_factory.mktemp("copies") / "copy"
        shutil.copytree(held.home, copy, ignore=shutil.ignore_patterns("*.sock"))
        copy.chmod(0o700)
        with serving(copy, *held.arguments) as other, other.client() as others:
            until(lambda: others.endpoint(descriptor).state == "closed")
            assert others.endpoint(descriptor).cause == "lost"
            assert "copy" in others.endpoint(descriptor).detail
            assert ask(lease(others), "its own").status_code == 200
        assert processes.alive(family) == family
        assert Path(client.endpoint(descriptor).metadata["cli"]["path"]).exists()
        assert (held.home / "leases" / descriptor.lease_ref / "workspace").is_dir()
        assert ask(descriptor, "still here").status_code == 200


def test_a_lease_that_ended_is_told_by_later_supervisors(held: Serving):
    """With its cause, its usage, its proof and the end of its log."""
    with held.client() as client:
        descriptor = lease(client)
        ask(descriptor, "one two three")
        client.release_endpoint(descriptor)
        told = client.endpoint(descriptor)
        log = client.log(descriptor)
    assert held.end() == 0
    held.start()
    with held.client() as client:
        assert client.endpoint(descriptor) == told
        assert told.proof is not None
        assert told.load["completion_tokens"] == 3
        assert client.log(descriptor) == log
        assert [view.lease_ref for view in client.endpoints(ended=True)] == [descriptor.lease_ref]
        assert client.endpoints() == []
        assert client.release_endpoint(descriptor).proof == told.proof


def test_a_released_token_is_dead_after_an_adoption(held: Serving):
    """The port may be somebody else's by then; whoever it is does not take the token."""
    with held.client() as client:
        descriptor = lease(client)
    held.kill_wholly()
    held.start()
    with held.client() as client:
        client.release_endpoint(descriptor)
    with pytest.raises(httpx.ConnectError):
        ask(descriptor, "late")
