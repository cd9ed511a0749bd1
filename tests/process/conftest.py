"""The kinds of isolation that the process suite runs in: one test body, every way the kernel may keep a family."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from worker.forking import Way, find_way

ISOLATION = {
    "pid_namespace": (),
    "user_namespace": (),
    "process_group": ("--no-namespaces",),
}
"""Arguments of ``serve`` for each. The second is what a supervisor without privileges has: see :func:`isolation`."""
WITHOUT_PRIVILEGES = """#!{python} -IS
import ctypes, os, sys
PR_CAPBSET_DROP, CAP_SYS_ADMIN = 24, 21
if ctypes.CDLL(None, use_errno=True).prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN, 0, 0, 0) and os.geteuid() == 0:
    sys.exit("cannot give up CAP_SYS_ADMIN")
os.execv({python!r}, [{python!r}, *sys.argv[1:]])
"""
"""A Python interpreter without the privilege to make namespaces but in a user namespace, even as root."""


@pytest.fixture(params=ISOLATION)
def isolation(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, ...]:
    """Arguments of ``serve`` for each kind; what the test starts with ``sys.executable`` is in that kind.

    As ``user_namespace`` it starts without CAP_SYS_ADMIN, so that the zygote needs a keeper for each family.
    """
    monkeypatch.setattr(sys, "executable", interpreter(request.param, tmp_path_factory.mktemp("python")))
    return ISOLATION[request.param]


def interpreter(kind: str, folder: Path) -> str:
    """What has to start a supervisor for that kind of isolation; a skip where there is no such kind."""
    if kind == "pid_namespace" and find_way() is not Way.DIRECT:
        pytest.skip("only root may make PID namespaces without a user namespace")
    if kind != "user_namespace":
        return sys.executable
    program = folder / "without-privileges"
    program.write_text(WITHOUT_PRIVILEGES.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


@pytest.fixture(params=["pid_namespace", "process_group"])
def either(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Arguments of ``serve`` for the best isolation there is, and for the fallback."""
    return ISOLATION[request.param]


@pytest.fixture
def isolation_name(isolation: tuple[str, ...], request: pytest.FixtureRequest) -> str:
    """Which kind it is: a key of ``ISOLATION``."""
    return str(request.node.callspec.params["isolation"])


def in_user_namespace(pid: int) -> bool:
    """Whether a process is in another user namespace than we are."""
    namespaces = [Path(f"/proc/{each}/ns/user").stat().st_ino for each in (pid, "self")]
    return namespaces[0] != namespaces[1]
