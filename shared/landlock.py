"""Landlock: a process gives up the file system but for the paths it names, for itself and all it starts, for good.

The three system calls by number, through ctypes: neither libc nor Python has them (landlock(7)). What a rule names is
the file or folder as it is now; whatever lies below a folder is included. Following and reading links, ``stat``,
``chdir``, and what a user may do with modes, owners, times and extended attributes stay possible everywhere, and so
does connecting to a socket that has a name in the file system. A process that is so confined can neither trace nor
signal one outside, nor connect to one's abstract socket, and may never gain privileges by executing a program.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import os
import stat
from collections.abc import Iterable

from shared.isolation import check_call, forbid_new_privileges

LEAST_ABI = 3
"""Linux 6.2. Older ones cannot keep a confined process from truncating files."""
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1
_SCOPE_ABI, _SCOPES = 6, 0b11
"""Abstract sockets and signals."""
_libc = ctypes.CDLL(None, use_errno=True)


class Access(enum.IntFlag):
    """What can be done with a file or in a folder, by the kernel's numbers."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


READ = Access.READ_FILE | Access.READ_DIR
RUN = READ | Access.EXECUTE
WRITE = ~Access.EXECUTE & ~Access.MAKE_CHAR & ~Access.MAKE_BLOCK
"""Reading included, executing not: what a program has written is no program."""
_OF_FILES = Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV
_IOCTL_ABI = 5


class _RulesetAttr(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def abi() -> int:
    """The version of Landlock that this kernel has; 0 for none, or one that is switched off."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, 0, _VERSION)))


class Ruleset:
    """Who enters it can do nothing with files but what was allowed. Close it with :meth:`close`; for one thread."""

    def __init__(self) -> None:
        version = abi()
        self._handled = ~Access(0) if version >= _IOCTL_ABI else ~Access.IOCTL_DEV
        scoped = _SCOPES if version >= _SCOPE_ABI else 0
        wanted = _RulesetAttr(handled_access_fs=self._handled, handled_access_net=0, scoped=scoped)
        self._fd = int(_libc.syscall(_CREATE_RULESET, ctypes.byref(wanted), ctypes.sizeof(wanted), 0))
        check_call(min(self._fd, 0), "landlock_create_ruleset")

    def allow(self, paths: Iterable[str], access: Access) -> None:
        """Allow ``access`` to these files and folders and all below, but for what we cannot reach. Raises OSError."""
        for path in paths:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                self._allow(path, access)

    def enter(self) -> None:
        """Confine the calling thread and whatever it starts. Raises OSError."""
        forbid_new_privileges()
        check_call(_libc.syscall(_RESTRICT_SELF, self._fd, 0), "landlock_restrict_self")

    def close(self) -> None:
        """Forget it here; who has entered it stays confined."""
        os.close(self._fd)

    def _allow(self, path: str, access: Access) -> None:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            fits = access if stat.S_ISDIR(os.fstat(fd).st_mode) else access & _OF_FILES
            rule = _PathBeneathAttr(allowed_access=fits & self._handled, parent_fd=fd)
            added = _libc.syscall(_ADD_RULE, self._fd, _PATH_BENEATH, ctypes.byref(rule), 0)
            check_call(added, f"landlock_add_rule({path})")
        finally:
            os.close(fd)


__all__ = ["LEAST_ABI", "READ", "RUN", "WRITE", "Access", "Ruleset", "abi"]
