"""What locks keep a command line from: one that tries, with each lock and, as a control, with none of them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
import pytest

import shared.echo_cli
from shared import isolation, processes
from shared.hardening import Hardening
from shared.launch import TurnLimits
from shared.permissions import closed_to
from shared.provider import load
from supervisor import EndpointDescriptor, InferenceEndpoint, ProviderError, WorkerError
from tests.process.conftest import ISOLATION, interpreter
from tests.process.serving import ask as post
from tests.process.serving import family_of, until
from tests.process.test_death import command_line, seen_of
from worker.confinement import Confinement
from worker.inputs import private_inputs
from worker.starter import Starter

pytestmark = pytest.mark.process
NOBODY = 65534
SOMEBODY = 54_322
SOME_GROUP = 54_321
NOT_A_USER = 2**32 - 1
LOCKS = {
    "none": (),
    "landlock": ("landlock",),
    "uid": (f"uid:{NOBODY}",),
    "both": ("landlock", f"uid:{NOBODY}"),
}
DONE, DENIED = "done", "PermissionError"
LEADERS_ENVIRONMENT = "[[read:/proc/{leader}/environ]]"
OUTSIDE = {
    # what is tried                            landlock  uid
    "[[read:{home}/private]]":                 (DENIED, DENIED),
    "[[read:{home}/public]]":                  (DENIED, DONE),
    "[[create:{home}/planted]]":               (DENIED, DENIED),
    "[[read:{state}/admin.token]]":            (DENIED, DENIED),
    "[[read:{state}/supervisor.log]]":         (DENIED, DENIED),
    "[[create:{state}/planted]]":              (DENIED, DENIED),
    "[[mode:{state}/admin.token]]":           (DONE, DENIED),
    "[[read:{own}/worker.log]]":               (DENIED, DENIED),
    "[[create:{own}/planted]]":                (DENIED, DENIED),
    "[[read:{neighbour}/workspace/note]]":     (DENIED, DONE),
    "[[create:{neighbour}/workspace/planted]]": (DENIED, DONE),
    LEADERS_ENVIRONMENT:                       (DENIED, DENIED),
    "[[read:/proc/self/root{home}/private]]":  (DENIED, DENIED),
}  # fmt: skip
"""Without a lock, every one of these is done. A user of their own keeps leases from us, not from each other.

Landlock keeps files from being read and written, but not their owner from changing their modes.
"""
INSIDE = (
    "[[read:/proc/self/maps]]",
    "[[create:{own}/workspace/mine]]",
    "[[create:{own}/home/mine]]",
    "[[create:{own}/tmp/mine]]",
    "[[read:/usr]]",
)


PRIVILEGED = {
    # what is tried           in our own user namespace, in another one
    "[[mode:{home}/foreign]]": (DONE, DENIED),
    "[[chroot:/]]":            (DONE, DONE),
}  # fmt: skip
"""What root may do by its capabilities alone, without a lock; in a user namespace not to what lies outside of it."""
CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
NO_CAPABILITIES = {name: ["0" * 16] for name in CAPABILITIES}
CAP_SETPCAP = 8
GIVE_UP = """
import os
from shared import isolation
isolation.bound_capabilities()
isolation.forbid_new_privileges()
isolation.drop_capabilities()
os.execvp("grep", ["grep", "^Cap", "/proc/self/status"])
"""
as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root may become another user, and has capabilities to lose"
)


class Place(NamedTuple):
    """A supervisor with certain locks, two of its leases, and their user's home."""

    endpoint: InferenceEndpoint
    lease: EndpointDescriptor
    neighbour: EndpointDescriptor
    home: Path
    locks: tuple[str, ...]

    def fill(self, marker: str) -> str:
        """A marker with the place's own paths."""
        leases = self.endpoint.home / "leases"
        return marker.format(
            home=self.home,
            state=self.endpoint.home,
            own=leases / self.lease.lease_ref,
            neighbour=leases / self.neighbour.lease_ref,
            leader=self.endpoint.endpoint(self.lease).processes[0].pid,
        )


def open_python() -> str:
    """An interpreter that everybody may execute."""
    candidates = (os.path.realpath(sys.executable), shutil.which("python3", path=os.defpath))
    for candidate in candidates:
        if candidate and not closed_to(NOBODY, {NOBODY}, candidate, os.R_OK | os.X_OK):
            return candidate
    pytest.skip("a command line of another user needs a Python that is not in a closed folder")


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A user's home with one file for all and one for themselves, and with echo as their claude."""
    with tempfile.TemporaryDirectory(prefix="asm-endpoint-home-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        (path / "public").touch(0o644)
        (path / "private").touch(0o600)
        (path / "foreign").touch(0o600)
        if os.geteuid() == 0:
            os.chown(path / "foreign", SOMEBODY, SOMEBODY)
        echo = Path(shared.echo_cli.__file__).read_text()
        program = path / "claude"
        program.write_text(
            f"#!{open_python()} -IS\n" + echo.replace("main(sys.argv[1:])", 'main(["--misbehave"])')
        )
        program.chmod(0o755)
        yield path


@pytest.fixture(scope="module", params=ISOLATION)
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind of isolation."""
    return str(request.param)


@pytest.fixture(scope="module", params=LOCKS)
def place(request: pytest.FixtureRequest, kind: str, home: Path) -> Iterator[Place]:
    """None of the locks, each, and both."""
    locks = LOCKS[request.param]
    with started(home, kind, locks) as endpoint:
        lease, neighbour = (lease_of(endpoint, "claude") for _ in range(2))
        ask(neighbour, "[[create:note]]")
        yield Place(endpoint, lease, neighbour, home, locks)
        for each in (lease, neighbour):
            proof = endpoint.release_endpoint(each).proof
            assert proof is not None
            assert proof.isolation == said(kind, locks)
            assert not proof.survivors


def said(kind: str, locks: tuple[str, ...]) -> str:
    """What the kind and the locks are called; in a user namespace of ours nobody could become another user."""
    is_group = kind == "process_group" or (kind == "user_namespace" and has_user(locks))
    return "+".join(("process_group" if is_group else "pid_namespace", *locks))


def has_user(locks: tuple[str, ...]) -> bool:
    """Whether one of the locks is another user."""
    return any(lock.startswith("uid") for lock in locks)


def started(home: Path, kind: str, locks: tuple[str, ...]) -> InferenceEndpoint:
    """A supervisor of the user with that home."""
    if has_user(locks) and os.geteuid() != 0:
        pytest.skip("only root may run command lines as another user")
    hardening = [part for lock in locks for part in ("--harden", lock)]
    with (
        pytest.MonkeyPatch.context() as patch,
        in_another_group_too(),
        tempfile.TemporaryDirectory() as folder,
    ):
        patch.setattr(sys, "executable", interpreter(kind, Path(folder)))
        patch.setenv("HOME", str(home))
        patch.setenv("CLAUDE_CLI_PATH", str(home / "claude"))
        patch.setenv("ANTHROPIC_API_KEY", "dummy-key")
        return InferenceEndpoint(serve_arguments=(*ISOLATION[kind], *hardening))


@contextlib.contextmanager
def in_another_group_too() -> Iterator[None]:
    """What is started inside has a group that a user change has to take away; only root can arrange that."""
    before = os.getgroups()
    if os.geteuid() == 0:
        os.setgroups([*before, SOME_GROUP])
    try:
        yield
    finally:
        if os.geteuid() == 0:
            os.setgroups(before)


def lease_of(endpoint: InferenceEndpoint, provider: str) -> EndpointDescriptor:
    """A lease."""
    descriptor, _ = endpoint.ensure_endpoint({"model_preference": {"provider": provider, "id": "any"}})
    return descriptor


def ask(descriptor: EndpointDescriptor, text: str) -> str:
    """The answer to it."""
    answer = post(descriptor, text)
    assert answer.status_code == 200, answer.text
    content: str = answer.json()["choices"][0]["message"]["content"]
    return content


def command_lines(place: Place) -> list[int]:
    """Pids of the lease's command lines."""
    family = family_of(place.endpoint, place.lease)
    return [process.pid for process in family if str(place.home / "claude") in command_line(process)]


def status_of(pid: int) -> dict[str, list[str]]:
    """What the kernel says of a process; nothing of one that has gone in the meantime."""
    lines = seen_of(pid, "status").decode().splitlines()
    return {name: values.split() for name, _, values in (line.partition(":") for line in lines)}


def test_what_is_said_is_what_was_reached(place: Place, kind: str):
    """In the descriptor, in lists and in the proof: one string."""
    assert place.lease.metadata["isolation"] == said(kind, place.locks)
    assert place.endpoint.endpoint(place.lease).isolation == said(kind, place.locks)


@pytest.mark.parametrize("attempt", OUTSIDE)
def test_what_lies_outside(place: Place, kind: str, attempt: str):
    """Each lock keeps out what it is there for; without one all of it can be had, so that this has power.

    But for one thing: who is not root has no capability after an exec, and the leader has all in a user namespace.
    """
    landlock, uid = OUTSIDE[attempt]
    holding = {landlock if lock == "landlock" else uid for lock in place.locks}
    if attempt == LEADERS_ENVIRONMENT and kind == "user_namespace" and os.geteuid() != 0:
        holding.add(DENIED)
    assert ask(place.lease, place.fill(attempt)) == (DENIED if DENIED in holding else DONE)


@pytest.mark.parametrize("attempt", INSIDE)
def test_what_a_command_line_has_to_be_able_to_do(place: Place, attempt: str):
    """Its own folders are its own, and the system's programs can be read."""
    assert ask(place.lease, place.fill(attempt)) == DONE


@as_root
@pytest.mark.parametrize("attempt", PRIVILEGED)
def test_root_behind_a_lock_is_a_user_like_any_other(place: Place, kind: str, attempt: str):
    """Whatever lock it is: what takes a capability can be done without one only."""
    ours, another = PRIVILEGED[attempt]
    without = another if kind == "user_namespace" else ours
    assert ask(place.lease, place.fill(attempt)) == (DENIED if place.locks else without)


@as_root
def test_the_kernel_knows_of_no_capability_behind_a_lock(place: Place):
    """None that is held, inherited, or could be had by executing something; without a lock they are root's."""
    until(lambda: any(map(status_of, command_lines(place))))
    for pid in command_lines(place):
        if status := status_of(pid):
            found = {name: status[name] for name in CAPABILITIES}
            assert found == NO_CAPABILITIES if place.locks else found["CapEff"] != NO_CAPABILITIES["CapEff"]


@as_root
def test_capabilities_go_also_where_they_cannot_be_bounded():
    """As root in a container may lack the right to; no program brings them back then, for want of new privileges."""
    left = subprocess.run(
        [sys.executable, "-c", GIVE_UP],
        capture_output=True,
        check=True,
        text=True,
        preexec_fn=functools.partial(isolation._libc.prctl, isolation.PR_CAPBSET_DROP, CAP_SETPCAP, 0, 0, 0),
    ).stdout
    found = {name: values.split() for name, _, values in (line.partition(":") for line in left.splitlines())}
    assert found.pop("CapBnd") != NO_CAPABILITIES["CapBnd"]
    assert found == {name: none for name, none in NO_CAPABILITIES.items() if name != "CapBnd"}


def test_processes_outside_cannot_be_signalled(place: Place, kind: str):
    """Not even seen from a PID namespace; from elsewhere kept off by Landlock, and by the other user."""
    leader = place.endpoint.endpoint(place.lease).processes[0].pid
    expected = DENIED if place.locks else DONE
    if said(kind, place.locks).startswith("pid_namespace"):
        expected = "ProcessLookupError"
    assert ask(place.lease, f"[[signal:{leader}]]") == expected


def test_the_kernel_says_who_a_command_line_is(place: Place):
    """Never more rights by executing something, no core dumps; and another user's whole identity."""
    until(lambda: any(map(status_of, command_lines(place))))
    for pid in command_lines(place):
        limits, status = seen_of(pid, "limits").decode(), status_of(pid)
        if not (limits and status):
            continue
        assert status["NoNewPrivs"] == ["1"]
        assert re.search(r"Max core file size +0 +0 ", limits)
        if has_user(place.locks):
            assert status["Uid"] == status["Gid"] == [str(NOBODY)] * 4
            assert status["CapEff"] == status["CapPrm"] == ["0" * 16]
            assert status["Groups"] == []


@pytest.mark.parametrize("locks", LOCKS)
def test_whoever_starts_it_takes_it_along(home: Path, kind: str, locks: str):
    """A killed zygote's families end by the kernel's hand alone, whatever locks were entered after the fork."""
    with started(home, kind, LOCKS[locks]) as endpoint:
        lease = lease_of(endpoint, "claude")
        with ThreadPoolExecutor() as background:
            asked = background.submit(post, lease, "[[ignore-term]] [[silence]]")
            until(lambda: endpoint.endpoint(lease).load["in_flight"] == 1)
            until(lambda: len(endpoint.endpoint(lease).processes) > 3)
            family = family_of(endpoint, lease)
            (supervisor,) = psutil.Process(endpoint.pid).children()
            supervisor.suspend()
            try:
                psutil.Process(family[0].pid).parent().kill()
                until(lambda: not processes.alive(family))
            finally:
                supervisor.resume()
            assert isinstance(asked.exception(), httpx.HTTPError)


def test_a_process_that_cannot_enter_its_locks_is_not_started():
    """It never runs without them, and the error has the cause."""

    async def start() -> None:
        async with private_inputs("echo", model="any") as inputs:
            locked = Confinement(hardening=Hardening(uid=NOT_A_USER, gid=NOT_A_USER))
            Starter(load("echo"), inputs, TurnLimits(), confinement=locked).start()

    with pytest.raises(ProviderError, match=f"cannot start {sys.executable}: .+") as refused:
        asyncio.run(start())
    assert refused.value.code == "provider_crashed"


def test_echo_itself_answers_behind_landlock():
    """Its own Python is wherever it is."""
    with InferenceEndpoint(serve_arguments=("--harden", "landlock")) as endpoint:
        assert ask(lease_of(endpoint, "echo"), "hello") == "hello"


@as_root
def test_a_program_that_the_other_user_cannot_execute_is_said_before_any_lease(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    """With the place that is closed."""
    with tempfile.TemporaryDirectory() as closed:
        program = shutil.copy(home / "claude", closed)
        monkeypatch.setenv("CLAUDE_CLI_PATH", program)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "dummy-key")
        with InferenceEndpoint(serve_arguments=("--harden", "uid")) as endpoint:
            with pytest.raises(ProviderError, match=f"as user {NOBODY}: {closed} is closed to it") as refused:
                lease_of(endpoint, "claude")
            assert refused.value.code == "cli_not_found"
            described = {each["provider"]: each["problem"] for each in endpoint.providers()}
            assert described["claude"]["code"] == "cli_not_found"
            assert endpoint.endpoints() == []


@as_root
def test_what_only_roots_privileges_open_is_said_before_any_lease(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    """They are gone behind the lock; a home of somebody else's, say."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "dummy-key")
    with tempfile.TemporaryDirectory() as closed:
        monkeypatch.setenv("CLAUDE_CLI_PATH", shutil.copy(home / "claude", closed))
        os.chown(closed, SOMEBODY, SOMEBODY)
        with InferenceEndpoint() as endpoint:
            assert ask(lease_of(endpoint, "claude"), "hello") == "hello"
        with (
            InferenceEndpoint(serve_arguments=("--harden", "landlock")) as endpoint,
            pytest.raises(ProviderError, match=f"as root without .*: {closed} is closed to it") as refused,
        ):
            lease_of(endpoint, "claude")
    assert refused.value.code == "cli_not_found"


@as_root
def test_a_state_folder_that_the_other_user_cannot_enter_is_said_at_once(tmp_path: Path):
    """Nothing is served."""
    tmp_path.chmod(0o700)
    with pytest.raises(WorkerError, match=f"cannot harden with uid:{NOBODY}: .* is closed to it"):
        InferenceEndpoint(tmp_path / "state", serve_arguments=("--harden", "uid"))
