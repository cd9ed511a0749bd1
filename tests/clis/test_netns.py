"""A loopback-only network has no way out. Each change of namespace happens in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.clis import netns
from tests.clis.netns import only_loopback

TIMEOUT_S = 20.0
HEADER = "Inter-|   Receive\n face |bytes\n"
AS_NOBODY = """
import ctypes, os
if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    PR_SET_DUMPABLE = 4
    assert ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1) == 0
"""
ENTER = "netns.enter_loopback_only_network()\n"
TALK_TO_ONESELF = """
import socket
socket.setdefaulttimeout(5)
with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as connection:
    connection.connect(listener.getsockname())
    accepted, _ = listener.accept()
    with accepted:
        connection.sendall(b"x")
        assert accepted.recv(1) == b"x"
"""
TALK_TO_OTHERS = """
import errno, socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside:
    print(errno.errorcode.get(outside.connect_ex(("192.0.2.1", 9)), "reached"))
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh process that knows ``netns``."""
    preamble = f"import sys; sys.path.insert(0, {os.path.dirname(netns.__file__)!r}); import netns\n"
    return subprocess.run(
        [sys.executable, "-c", preamble + code],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def output_or_skip(code: str) -> str:
    """What the code prints; a machine that forbids namespaces skips, but not in CI."""
    ran = python(code)
    forbidden = "NetworkNamespaceError: cannot leave the network" in ran.stderr
    if forbidden and not os.environ.get("CI"):
        pytest.skip(ran.stderr.strip().splitlines()[-1])
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.process
@pytest.mark.parametrize("who", ["", AS_NOBODY], ids=["as we are", "as a user"])
def test_a_loopback_only_network_reaches_itself_and_nothing_else(who: str) -> None:
    """Whoever enters keeps 127.0.0.1, uid and gid, and finds every other address unreachable."""
    before = "import os; ids = os.getuid(), os.getgid(); network = os.readlink('/proc/self/ns/net')\n"
    before += "was_inside = netns.is_loopback_only()  # as the whole suite is, where that is permitted\n"
    after = """
assert (os.getuid(), os.getgid()) == ids
assert was_inside or os.readlink('/proc/self/ns/net') != network
assert netns.is_loopback_only()
"""
    code = who + before + ENTER + after + TALK_TO_ONESELF + TALK_TO_OTHERS
    assert output_or_skip(code).strip() == "ENETUNREACH"


@pytest.mark.process
def test_entering_twice_is_entering_once() -> None:
    """The second call, even with threads about, leaves the process where it is."""
    name = "import os, threading; first = os.readlink('/proc/self/ns/net')\n"
    thread = "threading.Thread(target=threading.Event().wait, args=(60,), daemon=True).start()\n"
    output_or_skip(ENTER + name + thread + ENTER + "assert os.readlink('/proc/self/ns/net') == first\n")


@pytest.mark.process
def test_children_inherit_it() -> None:
    """A process started afterwards sees the same network."""
    code = ENTER + "import subprocess; print(subprocess.check_output(['cat', '/proc/net/dev'], text=True))"
    assert only_loopback(output_or_skip(code).strip())


@pytest.mark.process
def test_by_hand_it_becomes_the_command() -> None:
    """``netns.py COMMAND`` runs the command inside and keeps its exit code."""
    output_or_skip(ENTER)
    command = [sys.executable, netns.__file__, sys.executable, "-c", "raise SystemExit(7)"]
    assert subprocess.run(command, timeout=TIMEOUT_S, check=False).returncode == 7


@pytest.mark.process
def test_threads_would_stay_outside() -> None:
    """A process with threads is refused, and stays where it is."""
    code = """
import os, threading
netns.is_loopback_only = lambda: False
before = os.readlink('/proc/self/ns/net')
threading.Thread(target=threading.Event().wait, args=(60,), daemon=True).start()
try:
    netns.enter_loopback_only_network()
except netns.NetworkNamespaceError as error:
    print(error)
assert os.readlink('/proc/self/ns/net') == before
"""
    ran = python(code)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "cannot leave the network: the process has 2 threads"


@pytest.mark.parametrize(
    ("devices", "alone"),
    [
        ("    lo: 0 0\n", True),
        ("    lo: 0 0\n  sit0: 0 0\n", True),
        ("    lo: 0 0\n  eth0: 0 0\n", False),
        ("", False),
    ],
)
def test_only_lo_counts_as_loopback_only(devices: str, alone: bool) -> None:
    """A device besides lo, but for the kernel's idle tunnels, is a way out."""
    assert only_loopback(HEADER + devices) is alone
