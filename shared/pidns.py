"""The name of a process's PID namespace. No psutil, so that the zygote can use it too."""

from __future__ import annotations

import os


def pid_namespace(pid: int | str = "self") -> int | None:
    """The inode that names a process's PID namespace; None when it is gone or not ours to see."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return None
