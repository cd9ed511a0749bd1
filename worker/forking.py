"""Forking a family's leader into a PID namespace of its own, by whichever way the kernel allows here.

DIRECT (root): the zygote makes the namespace for its next child and takes the choice back, so that the leader is its
own child. KEEPER (user namespaces): taking the choice back is not permitted to a zygote without privileges, so a
small keeper process enters a user and a PID namespace and forks the leader; it passes SIGTERM on, and the leader dies
with it. PLAIN: no namespace; the caller watches the descendants instead.

Which way works is tried out in processes of their own, because a half-done attempt cannot be undone.
"""

from __future__ import annotations

import contextlib
import enum
import os
import signal
from collections.abc import Callable
from typing import NoReturn

import msgspec

from shared import isolation


class Way(enum.Enum):
    """How a leader gets its PID namespace."""

    DIRECT = "direct"
    KEEPER = "keeper"
    PLAIN = "plain"


class Forked(msgspec.Struct, frozen=True, kw_only=True):
    """A forked family: the pid of the zygote's child, and the leader's PID namespace when it has its own.

    ``namespace_fd`` keeps that number from naming another namespace; it is the caller's to close.
    """

    pid: int
    namespace_fd: int | None = None

    @property
    def namespace(self) -> int | None:
        """The inode that names the namespace."""
        return None if self.namespace_fd is None else os.fstat(self.namespace_fd).st_ino


def find_way() -> Way:
    """The best way this kernel and user allow."""
    if _works(_try_direct):
        return Way.DIRECT
    return Way.KEEPER if _works(_try_keeper) else Way.PLAIN


def fork_leader(way: Way, become_leader: Callable[[], NoReturn]) -> Forked:
    """Fork; ``become_leader`` runs in the leader and never returns. Raises OSError: nothing was forked."""
    match way:
        case Way.DIRECT:
            with isolation.new_pid_namespace_for_children():
                pid = _fork(become_leader)
            return _held(pid, f"/proc/{pid}/ns/pid")
        case Way.KEEPER:
            return _fork_keeper(become_leader)
        case Way.PLAIN:
            return Forked(pid=_fork(become_leader))


def _held(pid: int, namespace_path: str) -> Forked:
    """The family with its namespace held open. Raises OSError, and then the family is gone."""
    try:
        return Forked(pid=pid, namespace_fd=os.open(namespace_path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _fork_keeper(become_leader: Callable[[], NoReturn]) -> Forked:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid = _fork(lambda: _keep(become_leader, writer))
        os.close(writer)
        writer = -1
        is_kept = os.read(reader, 1)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    if not is_kept:
        os.waitpid(pid, 0)
        raise PermissionError("the keeper could not make a PID namespace")
    return _held(pid, f"/proc/{pid}/ns/pid_for_children")


def _keep(become_leader: Callable[[], NoReturn], report: int) -> NoReturn:
    """The keeper: make the namespaces, fork the leader, tell the zygote, and wait for the leader's end."""
    isolation.die_with_parent()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    isolation.enter_user_namespace()
    isolation.leave_children_in_new_pid_namespace()
    leader = _fork(become_leader)
    signal.signal(signal.SIGTERM, lambda *_: _pass_on(leader))
    os.write(report, b"1")
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    _, status = os.waitpid(leader, 0)
    _end_like(status)


def _end_like(status: int) -> NoReturn:
    """With the leader's exit status, or by the signal that ended it, so that the zygote can tell how it was."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with contextlib.suppress(OSError):  # SIGKILL has no handler to take back
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _pass_on(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(leader, signal.SIGTERM)


def _fork(become: Callable[[], NoReturn]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            become()
        finally:
            os._exit(1)
    return pid


def _works(attempt: Callable[[], None]) -> bool:
    def become() -> NoReturn:
        try:
            attempt()
        except OSError:
            os._exit(1)
        os._exit(0)

    _, status = os.waitpid(_fork(become), 0)
    return status == 0


def _try_direct() -> None:
    with isolation.new_pid_namespace_for_children():
        pass


def _try_keeper() -> None:
    isolation.enter_user_namespace()
    isolation.leave_children_in_new_pid_namespace()
    _, status = os.waitpid(_fork(lambda: os._exit(0)), 0)
    if status:
        raise PermissionError("cannot fork into a new PID namespace")
