"""A network without a way out: only ``lo``, up. Linux only, and no ``ip`` or ``unshare`` program needed.

Owns the change of the calling process into such a namespace, and the question whether it is in one. What is
started afterwards inherits it. By hand: ``python tests/clis/netns.py COMMAND [ARGUMENT...]``.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys
import threading

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1
IFREQ = struct.Struct("16sh22x")
LOOPBACK = "lo"
FALLBACK_TUNNELS = frozenset(
    {"tunl0", "sit0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6tnl0", "ip6gre0"}
)
"""Devices that some kernels put into every new namespace; with nothing below them they lead nowhere."""


class NetworkNamespaceError(Exception):
    """The process cannot be put into a loopback-only network; says why."""


def enter_loopback_only_network() -> None:
    """Leave the machine's network for one with only ``lo``. Does nothing more in a process that is in one.

    Needs root, or user namespaces, in which the user keeps its own uid and gid. Call it in the main thread,
    before any other: a namespace is a thread's, and other threads would stay outside. Raises NetworkNamespaceError.
    """
    if not is_loopback_only():
        _refuse_threads()
        _unshare_network()
        if not is_loopback_only():
            raise NetworkNamespaceError("cannot leave the network: the new namespace has devices besides lo")
    _bring_up_loopback()


def is_loopback_only() -> bool:
    """Whether the calling process sees no network device but ``lo``."""
    with open("/proc/net/dev", encoding="utf-8") as table:
        return only_loopback(table.read())


def only_loopback(proc_net_dev: str) -> bool:
    """Whether this text of ``/proc/net/dev`` names no device but ``lo``."""
    devices = {line.partition(":")[0].strip() for line in proc_net_dev.splitlines()[2:]}
    return devices - FALLBACK_TUNNELS == {LOOPBACK}


def _refuse_threads() -> None:
    if threading.current_thread() is not threading.main_thread():
        raise NetworkNamespaceError("cannot leave the network: not called in the main thread")
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        raise NetworkNamespaceError(f"cannot leave the network: the process has {threads} threads")


def _unshare_network() -> None:
    try:
        _unshare(CLONE_NEWNET)
    except PermissionError:
        _unshare_as_user()


def _unshare_as_user() -> None:
    uid, gid = os.geteuid(), os.getegid()
    try:
        _unshare(CLONE_NEWUSER | CLONE_NEWNET)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
    except OSError as error:
        raise NetworkNamespaceError(f"cannot leave the network: {error}; run as root") from error


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _bring_up_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            name, flags = IFREQ.unpack(
                fcntl.ioctl(any_socket, SIOCGIFFLAGS, IFREQ.pack(LOOPBACK.encode(), 0))
            )
            if not flags & IFF_UP:
                fcntl.ioctl(any_socket, SIOCSIFFLAGS, IFREQ.pack(name, flags | IFF_UP))
        except OSError as error:
            raise NetworkNamespaceError(f"cannot bring up lo: {error}") from error


def main() -> None:
    """Become the given command, in a loopback-only network."""
    if len(sys.argv) < 2:
        sys.exit("usage: netns.py COMMAND [ARGUMENT...]")
    try:
        enter_loopback_only_network()
    except NetworkNamespaceError as error:
        sys.exit(str(error))
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
