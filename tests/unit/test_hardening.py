"""``serve --harden``: how locks are read, what they are called, and when they are refused."""

from __future__ import annotations

import os
import pwd
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared import landlock
from shared.contracts import LeaseLimits
from shared.errors import ProviderError, RequestError, WorkerError
from shared.hardening import Hardening
from shared.provider import Command
from supervisor import hardening as checks
from supervisor.hardening import MAX_UID, read_hardening, require_available, require_reach
from worker.confinement import CPU_GRACE_S, FSIZE_MARGIN_BYTES, MAX_RLIMIT, rlimits

NOBODY = 65534
SOMEBODY = 54_322
LANDLOCK = Hardening(landlock=True)
FREE_UID = next(uid for uid in range(40_000, 60_000) if uid not in {entry.pw_uid for entry in pwd.getpwall()})


@pytest.mark.parametrize(
    ("words", "hardening", "locks"),
    [
        ((), Hardening(), ()),
        (("landlock",), Hardening(landlock=True), ("landlock",)),
        (("uid",), Hardening(uid=NOBODY, gid=NOBODY), ("uid:65534",)),
        (("uid:nobody",), Hardening(uid=NOBODY, gid=pwd.getpwnam("nobody").pw_gid), ("uid:65534",)),
        ((f"uid:{FREE_UID}",), Hardening(uid=FREE_UID, gid=FREE_UID), (f"uid:{FREE_UID}",)),
        (("uid", "landlock"), Hardening(landlock=True, uid=NOBODY, gid=NOBODY), ("landlock", "uid:65534")),
        (("landlock", "landlock"), Hardening(landlock=True), ("landlock",)),
    ],
)
def test_locks_are_read_by_name(words: tuple[str, ...], hardening: Hardening, locks: tuple[str, ...]):
    """In any order; they are named in one."""
    assert read_hardening(words) == hardening
    assert hardening.locks == locks


@pytest.mark.parametrize(
    "word",
    [
        "", "landlock:", "landlock:x", "Landlock", "uid:", "uid:no-such-user", "uid:-1", "uid:0", "uid:root", "uid:1.5",
        f"uid:{MAX_UID + 1}", "uid:99999999999999999999", "seccomp",
    ],
)  # fmt: skip
def test_anything_else_is_refused_by_name(word: str):
    """A lock that was misspelt must not be missing silently; root would be none, and -1 means no change."""
    with pytest.raises(RequestError, match="cannot harden with") as refused:
        read_hardening(["landlock", word])
    assert refused.value.code == "invalid_request"


def refusal(hardening: Hardening, home: Path = Path("/")) -> str:
    """Why it cannot be had; "" when it can."""
    try:
        require_available(hardening, home)
    except WorkerError as error:
        assert error.code == "hardening_unavailable"
        return error.message
    return ""


@pytest.mark.parametrize(
    ("version", "cause"),
    [(0, "has none, or it is switched off"), (2, "has only version 2"), (landlock.LEAST_ABI, "")],
)
def test_landlock_needs_a_kernel_that_has_it(version: int, cause: str, monkeypatch: pytest.MonkeyPatch):
    """One that could not keep its promise is none."""
    monkeypatch.setattr(landlock, "abi", lambda: version)
    assert cause in refusal(Hardening(landlock=True))
    assert refusal(Hardening()) == ""


def test_another_user_needs_root(monkeypatch: pytest.MonkeyPatch):
    """And rights that root in a container may lack."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "only root may run command lines as another user" in refusal(Hardening(uid=NOBODY, gid=NOBODY))
    monkeypatch.setattr(checks, "_can_become", lambda uid, gid: False)
    assert "only root" in refusal(Hardening(uid=NOBODY, gid=NOBODY))


def test_another_user_has_to_get_at_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Or their home and workspace would be out of reach."""
    monkeypatch.setattr(checks, "_can_become", lambda uid, gid: True)
    tmp_path.chmod(0o700)
    closed = refusal(Hardening(uid=NOBODY, gid=NOBODY), tmp_path / "state")
    assert "is closed to it" in closed
    assert refusal(Hardening(uid=NOBODY, gid=NOBODY), Path("/state")) == ""


@pytest.fixture
def anothers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A closed folder with a program and a login, none of them root's, who we are; pytest's own is in closed ones."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "program").touch(mode=0o755)
        (path / "login").touch(mode=0o600)
        if os.geteuid() == 0:
            for each in (path, *path.iterdir()):
                os.chown(each, SOMEBODY, SOMEBODY)
        for name, value in (("geteuid", 0), ("getegid", 0), ("getgroups", [0])):
            monkeypatch.setattr(os, name, lambda value=value: value)
        yield path


def reach(hardening: Hardening, program: Path, link: Path) -> str:
    """What command lines cannot get at of these two; "" when they can."""
    command = Command(argv=(str(program),), env={"PATH": ""}, cwd="/", links={"/home/login": str(link)})
    try:
        require_reach(hardening, command)
    except ProviderError as error:
        return f"{error.code}: {error.message}"
    return ""


def test_root_without_its_privileges_has_to_get_at_everything_too(
    anothers: Path, monkeypatch: pytest.MonkeyPatch
):
    """State folder, program and login; with them it would, and anybody else has not got them anyway."""
    program, login = anothers / "program", anothers / "login"
    closed = f"{anothers} is closed to it"
    assert closed in refusal(LANDLOCK, anothers / "state")
    assert reach(LANDLOCK, program, login).startswith("cli_not_found: ")
    assert closed in reach(LANDLOCK, program, login)
    anothers.chmod(0o711)
    assert refusal(LANDLOCK, anothers / "state") == ""
    assert reach(LANDLOCK, program, Path("/")) == ""
    assert reach(LANDLOCK, program, login).startswith("not_logged_in: ")
    assert f"as root without its privileges: {login} is closed to it" in reach(LANDLOCK, program, login)
    assert reach(Hardening(), program, login) == ""
    os.chmod(login, 0o640)
    monkeypatch.setattr(os, "getgroups", lambda: [0, login.stat().st_gid])
    assert reach(LANDLOCK, program, login) == ""
    os.chmod(login, 0o600)
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)
    assert reach(LANDLOCK, program, login) == ""


def test_a_single_process_gets_the_limits_that_make_sense_for_one():
    """With a margin, so that who is held by one is over the lease's limit."""
    assert rlimits(LeaseLimits(memory_bytes=1, processes=1, wall_s=1.0)) == {}
    assert rlimits(LeaseLimits(cpu_s=1.5, open_files=20, workspace_bytes=10_000)) == {
        resource.RLIMIT_CPU: (3, 3 + CPU_GRACE_S),
        resource.RLIMIT_NOFILE: (20, 20),
        resource.RLIMIT_FSIZE: (10_000 + FSIZE_MARGIN_BYTES,) * 2,
    }


def test_a_limit_never_raises_what_holds_already():
    """A process without privileges could not, and would not start."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = MAX_RLIMIT if most == resource.RLIM_INFINITY else most
    assert rlimits(LeaseLimits(open_files=2**80)) == {resource.RLIMIT_NOFILE: (most, most)}
