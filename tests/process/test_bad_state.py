"""State folders and machines in a bad state: a clear error, and nothing of what ran or was written is lost."""

from __future__ import annotations

import contextlib
import http.server
import os
import resource
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from shared import processes
from shared.contracts import LeaseOptions
from shared.errors import RequestError, WorkerError
from shared.processes import ProcessId
from supervisor import EndpointDescriptor, SupervisorClient, statefolder
from supervisor.cli import main
from supervisor.database import DATABASE_NAME, Database
from supervisor.entry import LeaseEntry
from supervisor.journal import Journal
from supervisor.lease import State
from supervisor.starting import find_started
from supervisor.statefolder import ADDRESS_NAME, LEASES_NAME, Address, StateFolder
from tests.process.serving import Serving, ask, family_of, lease, serving, until

pytestmark = pytest.mark.process
RUN_TIMEOUT_S = 60
SMALL_BYTES = 4096
IN_A_FULL_HOUSE = """
import time
from pathlib import Path
from supervisor import InferenceEndpoint, WorkerError
with InferenceEndpoint() as endpoint:
    made = []
    try:
        for _ in range(40):
            made.append(endpoint.ensure_endpoint({"model_preference": {"provider": "echo", "id": "any"}}, lease={"standby": 0})[0])
    except WorkerError as error:
        print(error.code, error.message)
    print(len(made), endpoint.endpoint(made[0]).state)
    endpoint.release_endpoint(made.pop())
    deadline = time.monotonic() + 100  # the kernel keeps a port that had connections for a minute
    while time.monotonic() < deadline:
        try:
            endpoint.ensure_endpoint({"model_preference": {"provider": "echo", "id": "any"}}, lease={"standby": 0})
        except WorkerError:
            time.sleep(0.2)
        else:
            print("again")
            break
"""


@pytest.fixture
def held(either: tuple[str, ...], tmp_path: Path) -> Iterator[Serving]:
    """A supervisor of its own for each test."""
    with serving(tmp_path, *either) as running:
        yield running


def refused_start(held: Serving, *arguments: str) -> tuple[int, str]:
    """Exit code and last words of a supervisor that does not start."""
    before = len(held.log()) if (held.home / "serve.log").exists() else 0
    code = held.start(*arguments, wait=False).wait(RUN_TIMEOUT_S)
    return code, held.log()[before:].strip().splitlines()[-1]


def test_a_second_supervisor_is_refused_and_the_first_goes_on(held: Serving):
    """With where the first one is."""
    first = held.process
    with held.client() as client:
        descriptor = lease(client)
        code, said = refused_start(held)
        held.process = first
        assert code == 5
        assert f"a supervisor at {client.url} (pid {held.pid}) already does" in said
        assert ask(descriptor, "still here").status_code == 200
        assert client.endpoint(descriptor).state == "ready"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707])
def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path, mode: int):
    """Whoever can write there can take the place of anything in it."""
    home = tmp_path / "state"
    home.mkdir()
    home.chmod(mode)
    code, said = refused_start(Serving(home))
    assert code == 1
    assert "others can write to it" in said
    home.chmod(0o700)


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path):
    """Also by root, who could use it."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    home = tmp_path / "state"
    home.mkdir(mode=0o700)
    os.chown(home, 12345, 12345)
    code, said = refused_start(Serving(home))
    assert (code, "it belongs to user 12345" in said) == (1, True)


def test_a_folder_that_others_can_read_is_closed_to_them(tmp_path: Path):
    """As ``mkdir`` makes them."""
    home = tmp_path / "state"
    home.mkdir(mode=0o755)
    with serving(home):
        assert home.stat().st_mode & 0o777 == 0o700


@pytest.fixture
def stranger() -> Iterator[tuple[str, list[str]]]:
    """Somebody else's server on the port of an earlier supervisor: its URL, and the tokens that it was sent."""
    tokens: list[str] = []

    class Listen(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            tokens.append(self.headers["authorization"])
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Listen)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", tokens
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_stale_address_sends_no_token_to_a_stranger(tmp_path: Path, stranger: tuple[str, list[str]]):
    """The process that the file names has gone, or another one has its pid. The control: one that lives is asked."""
    url, tokens = stranger
    folder = StateFolder(tmp_path)
    token = folder.admin_token()
    us = processes.identify(os.getpid())
    assert us is not None
    for pid, start_ticks in ((2**22 - 1, 1), (us.pid, us.start_ticks - 1)):
        folder.write_address(Address(url=url, pid=pid, start_ticks=start_ticks))
        with pytest.raises(WorkerError) as refused:
            SupervisorClient.from_home(tmp_path)
        assert refused.value.code == "supervisor_unavailable"
    assert not tokens
    folder.write_address(Address(url=url, pid=us.pid, start_ticks=us.start_ticks))
    with SupervisorClient.from_home(tmp_path) as client, pytest.raises(WorkerError):
        client.consumer_manifest()
    assert tokens == [f"Bearer {token}"]


def never(_: float) -> None:
    """In place of a wait that there must not be."""
    raise AssertionError("somebody waited")


def test_a_supervisor_that_is_starting_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """While the lock is held and no address is there; then its caller goes on."""
    folder = StateFolder(tmp_path)
    us = processes.identify(os.getpid())
    assert us is not None
    address = Address(url="http://127.0.0.1:1", pid=us.pid, start_ticks=us.start_ticks)
    with contextlib.closing(os.fdopen(folder.lock())):
        folder.admin_token()
        monkeypatch.setattr("time.sleep", lambda _: folder.write_address(address))
        with SupervisorClient.from_home(tmp_path) as client:
            assert client.url == address.url


def test_a_supervisor_that_never_gets_ready_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The bound has a name, and the error says who was waited for."""
    monkeypatch.setattr(statefolder, "START_WAIT_S", 0.05)
    with (
        contextlib.closing(os.fdopen(StateFolder(tmp_path).lock())),
        pytest.raises(WorkerError, match=f"process {os.getpid()} is starting") as refused,
    ):
        SupervisorClient.from_home(tmp_path)
    assert refused.value.code == "supervisor_unavailable"


def test_nobody_who_is_gone_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No lock file, a broken one, one that its supervisor left, and one of an earlier process of a living pid."""
    monkeypatch.setattr("time.sleep", never)
    us = processes.identify(os.getpid())
    assert us is not None
    gone = [ProcessId(2**22 - 1, 1), ProcessId(us.pid, us.start_ticks - 1)]
    for content in (None, b"", b"{", *(msgspec.json.encode(each) + b"\n" for each in gone)):
        if content is not None:
            (tmp_path / statefolder.LOCK_NAME).write_bytes(content)
        with pytest.raises(WorkerError, match="start one with `asm-endpoint serve`") as refused:
            SupervisorClient.from_home(tmp_path)
        assert refused.value.code == "supervisor_unavailable"


def test_a_supervisor_that_has_not_come_to_lock_is_found_by_its_command_line(tmp_path: Path):
    """As long as it lives, by whoever looks for one of that state folder."""
    program = tmp_path / "asm-endpoint"
    program.write_text("#!/bin/sh\nread -r _\n")
    program.chmod(0o700)
    with subprocess.Popen((program, "serve", "--home", tmp_path), stdin=subprocess.PIPE) as started:
        found = until(lambda: find_started(tmp_path))
        assert found == processes.identify(started.pid)
        assert find_started(tmp_path / "other") is None
    assert find_started(tmp_path) is None


def test_a_supervisor_of_a_container_is_not_ours_though_its_folder_has_the_same_name(tmp_path: Path):
    """It sees other files; nobody here waits for it."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a mount namespace here")
    program = tmp_path / "asm-endpoint"
    program.write_text("#!/bin/sh\necho started\nread -r _\n")
    program.chmod(0o700)
    command = (program, "serve", "--home", tmp_path)
    for prefix, is_found in ((("unshare", "-m"), False), ((), True)):
        with subprocess.Popen((*prefix, *command), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
            assert started.stdout is not None
            assert started.stdout.readline() == b"started\n"
            assert (find_started(tmp_path) is not None) is is_found


def test_a_command_right_after_serve_finds_it(tmp_path: Path):
    """From the moment that the lock is held, which is long before the supervisor is ready."""
    held = Serving(tmp_path)
    with contextlib.closing(held):
        started = held.start(wait=False)
        until(lambda: is_locked_by(started.pid, tmp_path))
        listed = subprocess.run(
            (sys.executable, "-P", "-m", "supervisor", "ls", "--home", str(tmp_path)),
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
        )
        assert (listed.returncode, listed.stdout) == (0, "no leases\n"), listed.stderr


def is_locked_by(pid: int, home: Path) -> bool:
    """Whether the state folder says so."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        holder = msgspec.json.decode((home / statefolder.LOCK_NAME).read_bytes(), type=ProcessId)
        return holder.pid == pid
    return False


def test_a_url_without_a_token_is_an_error_and_nobody_is_asked(
    tmp_path: Path, stranger: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
):
    """Neither the one that is named nor this user's own: either might be the wrong one."""
    url, tokens = stranger
    monkeypatch.setenv("ASM_ENDPOINT_HOME", str(tmp_path))
    monkeypatch.setenv("ASM_ENDPOINT_URL", url)
    monkeypatch.delenv("ASM_ENDPOINT_TOKEN", raising=False)
    with pytest.raises(RequestError, match="ASM_ENDPOINT_URL needs ASM_ENDPOINT_TOKEN"):
        SupervisorClient.from_home()
    assert not tokens


def test_run_starts_no_supervisor_of_its_own_where_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A lease of another supervisor would have neither the limits nor the journal of the one that was meant."""
    monkeypatch.setenv("ASM_ENDPOINT_HOME", str(tmp_path))
    monkeypatch.setenv("ASM_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ASM_ENDPOINT_TOKEN", "x")
    assert main(["run", "--provider", "echo", "--model", "any", "--", "true"]) == 5
    assert "cannot reach the supervisor at http://127.0.0.1:9" in capsys.readouterr().err


def test_a_stale_address_does_not_keep_a_supervisor_from_starting(tmp_path: Path):
    """Nor does a damaged one."""
    for content in (b'{"url": "http://127.0.0.1:1", "pid": 4194303}', b"{", b""):
        (tmp_path / ADDRESS_NAME).write_bytes(content)
        with serving(tmp_path) as held, held.client() as client:
            assert ask(lease(client), "hello").status_code == 200


def entry(home: Path, leader: ProcessId) -> LeaseEntry:
    """A lease that an earlier supervisor left open."""
    return LeaseEntry(
        lease_ref="lease_left",
        endpoint_id="endpoint_left",
        owner="admin",
        provider="echo",
        model="any",
        consumer=None,
        options=LeaseOptions(),
        lease_dir=str(home / LEASES_NAME / "lease_left"),
        base_url="http://127.0.0.1:1/leases/lease_left/v1",
        token_sha256="",
        created_at_s=0.0,
        expires_at=0.0,
        state=State.READY,
        leader=leader,
    )


@pytest.mark.parametrize("ticks", [-1, 1])
def test_a_reused_pid_is_not_touched(tmp_path: Path, ticks: int):
    """The journal names a pid that is somebody else's by now."""
    with subprocess.Popen((sys.executable, "-c", "input()"), stdin=subprocess.PIPE) as bystander:
        real = processes.identify(bystander.pid)
        assert real is not None
        StateFolder(tmp_path).create()
        journal = Journal(Database(tmp_path / DATABASE_NAME))
        journal.write(entry(tmp_path, ProcessId(real.pid, real.start_ticks + ticks)))
        journal.close()
        with serving(tmp_path) as held, held.client() as client:
            until(lambda: client.endpoint("lease_left").state == "closed")
            assert client.endpoint("lease_left").cause == "lost"
            assert client.endpoint("lease_left").proof.survivors == ()
        assert processes.is_alive(real)
        bystander.communicate(b"\n", RUN_TIMEOUT_S)


def test_a_damaged_journal_is_kept_and_what_ran_is_stopped(held: Serving):
    """It is moved aside, said so, and a new one is begun; no process is forgotten with it."""
    with held.client() as client:
        descriptor = lease(client, standby=1)
        until(lambda: client.endpoint(descriptor).load["standbys"] == 1)
        family = family_of(client, descriptor)
    held.kill_wholly()
    for path in held.home.glob(f"{DATABASE_NAME}*"):
        path.write_bytes(b"damaged" * 1000)
    held.start()
    until(lambda: not processes.alive(family))
    assert "moved it to" in held.log()
    assert len(list(held.home.glob(f"{DATABASE_NAME}.damaged-*"))) == 1
    with held.client() as client:
        assert ask(lease(client), "hello").status_code == 200
        assert descriptor.lease_ref not in [view.lease_ref for view in client.endpoints(ended=True)]
    until(lambda: not (held.home / LEASES_NAME / descriptor.lease_ref).exists())


def test_a_newer_programs_journal_is_refused_and_its_leases_live_on(held: Serving):
    """For the newer program to come back in time."""
    with held.client() as client:
        descriptor = lease(client)
    held.kill_wholly()
    connection = sqlite3.connect(held.home / DATABASE_NAME)
    (known,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute("PRAGMA user_version = 1000")
    connection.close()
    code, said = refused_start(held)
    assert (code, "version 1000, of a newer program" in said) == (1, True)
    assert ask(descriptor, "still here").status_code == 200
    connection = sqlite3.connect(held.home / DATABASE_NAME)
    connection.execute(f"PRAGMA user_version = {known}")
    connection.close()
    held.start()
    with held.client() as client:
        assert client.endpoint(descriptor).state == "ready"


@contextlib.contextmanager
def full_disk(held: Serving) -> Iterator[None]:
    """The supervisor cannot make any file larger than a page."""
    inner = held.inner.pid
    before = resource.prlimit(inner, resource.RLIMIT_FSIZE)
    resource.prlimit(inner, resource.RLIMIT_FSIZE, (SMALL_BYTES, before[1]))
    yield
    resource.prlimit(inner, resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def locked(held: Serving) -> Iterator[None]:
    """Somebody else holds the journal."""
    other = sqlite3.connect(held.home / DATABASE_NAME, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    yield
    other.execute("ROLLBACK")
    other.close()


@pytest.mark.parametrize("trouble", [full_disk, locked])
def test_without_a_journal_nothing_begins_and_everything_can_end(held: Serving, trouble: object):
    """What ends meanwhile is written down later, and a later supervisor tells it."""
    assert callable(trouble)
    with held.client() as client:
        descriptor, crashing = lease(client), lease(client)
        leader = family_of(client, crashing)[0]
        with trouble(held):
            with pytest.raises(WorkerError) as refused:
                lease(client)
            assert (refused.value.code, refused.value.status) == ("journal_unavailable", 503)
            proof = client.release_endpoint(descriptor).proof
            assert proof is not None
            assert proof.survivors == ()
            os.kill(leader.pid, 9)
            until(lambda: client.endpoint(crashing).state == "closed")
            assert client.endpoint(descriptor).cause == "released"
        assert ask(until(lambda: attempt(client)), "hello").status_code == 200
    held.kill_wholly()
    held.start()
    with held.client() as client:
        causes = {view.lease_ref: view.cause for view in client.endpoints(ended=True)}
        assert causes[descriptor.lease_ref] == "released"
        assert causes[crashing.lease_ref] == "crashed"


def attempt(client: SupervisorClient) -> EndpointDescriptor | None:
    """A lease, as soon as it can be written down."""
    try:
        return lease(client)
    except WorkerError:
        return None


def test_without_proc_nothing_is_served(tmp_path: Path):
    """A supervisor that cannot see processes could not prove anything."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a mount namespace here")
    served = ("-P", "-m", "supervisor", "serve", "--home", str(tmp_path))
    ran = subprocess.run(
        (
            "unshare",
            "-m",
            "sh",
            "-c",
            'mount -t tmpfs none /proc && exec "$@"',
            "sh",
            sys.executable,
            *served,
        ),
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    assert ran.stderr.strip().endswith("cannot watch processes: there is no /proc here")
    assert not (tmp_path / ADDRESS_NAME).exists()


def test_without_free_ports_the_next_lease_is_refused_and_the_others_live(tmp_path: Path):
    """In a network of its own with a handful of ports."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a network namespace here")
    program = tmp_path / "program.py"
    program.write_text(IN_A_FULL_HOUSE)
    setup = 'ip link set lo up && echo "40000 40009" > /proc/sys/net/ipv4/ip_local_port_range && exec "$@"'
    ran = subprocess.run(
        ("unshare", "-n", "sh", "-c", setup, "sh", sys.executable, "-P", str(program)),
        capture_output=True,
        text=True,
        timeout=3 * RUN_TIMEOUT_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    refusal, open_leases, again = ran.stdout.splitlines()
    assert refusal.startswith("boot_failed cannot ")
    assert "in use" in refusal
    assert 0 < int(open_leases.split()[0]) < 10
    assert open_leases.split()[1] == "ready"
    assert again == "again"
