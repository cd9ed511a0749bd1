"""What the kernel is asked for so that a family stays together and dies together. Linux only.

``prctl(2)``, ``unshare(2)`` and ``capset(2)`` by ctypes: Python 3.11 has no bindings. The parent-death signal is
cleared by a change of user and fires when the parent *thread* ends, so the callers run in main threads and set it last.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import resource
import signal
from collections.abc import Iterator

PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CAPABILITIES_VERSION = 0x20080522
DESCRIPTORS = 65_536
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send this process ``number`` when its parent dies."""
    check_call(_libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies."""
    check_call(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def forbid_new_privileges() -> None:
    """No program that this process or a descendant executes gains rights by it, as by a set-user-ID bit; for good."""
    check_call(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


def forbid_core_dumps() -> None:
    """A process that holds prompts and keys leaves no picture of its memory; descendants neither."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def become(uid: int, gid: int) -> None:
    """Be that user, in that group alone, for good. Needs root; raises OSError. Forgets the parent-death signal."""
    os.setgroups(())
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid):
        raise PermissionError(
            errno.EPERM, "the kernel did not change the user"
        )  # as with -1, which is no user


def bound_capabilities() -> None:
    """No program that this process or a descendant executes brings it a capability; for good.

    Without the right to say so (CAP_SETPCAP) it does nothing: :func:`forbid_new_privileges` has to be enough.
    """
    for number in itertools.count():
        if _libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0) != 0:  # there is none of that number, or no right to
            return


def drop_capabilities() -> None:
    """Have none of root's privileges but its files, for good where no program brings any back. Raises OSError.

    Ambient ones go with the inheritable ones.
    """
    header, nothing = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0), (ctypes.c_uint32 * 6)()
    check_call(_libc.capset(header, nothing), "capset")


def enter_user_namespace() -> None:
    """Without root: a user namespace of our own, same uid and gid, in which PID namespaces may be made.

    Raises OSError where the kernel does not allow it. Only before any thread is started.
    """
    uid, gid = os.geteuid(), os.getegid()
    check_call(_libc.unshare(CLONE_NEWUSER), "unshare(CLONE_NEWUSER)")
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{uid} {uid} 1")
    _write("/proc/self/gid_map", f"{gid} {gid} 1")


def leave_children_in_new_pid_namespace() -> None:
    """The first process forked from now on is PID 1 of a new PID namespace; for good. Raises OSError."""
    check_call(_libc.unshare(CLONE_NEWPID), "unshare(CLONE_NEWPID)")


@contextlib.contextmanager
def new_pid_namespace_for_children() -> Iterator[None]:
    """The first process forked inside is PID 1 of a new PID namespace; afterwards all is as before.

    The kernel refuses a second ``unshare`` until the caller's children go to its own namespace again, so that
    one is restored at the end. Raises OSError where the kernel does not allow either.
    """
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        leave_children_in_new_pid_namespace()
        try:
            yield
        finally:
            check_call(_libc.setns(own, CLONE_NEWPID), "setns(CLONE_NEWPID)")
    finally:
        os.close(own)


def raise_descriptor_limit() -> None:
    """Room for some descriptors of every lease, as far as the system allows; the usual 1024 are for small programs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(DESCRIPTORS, hard)), hard))


def check_call(result: int, call: str) -> None:
    """Raise OSError for the result of a system call that failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
