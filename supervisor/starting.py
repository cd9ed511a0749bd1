"""Finding a supervisor that has been started and has not come to lock its state folder: by its command line.

A shell's ``asm-endpoint serve &`` goes on to the next command long before Python has read the first one's program.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from shared import processes
from shared.processes import ProcessId
from supervisor.settings import state_home

PROGRAMS = frozenset({"asm-endpoint", "supervisor"})
"""As a script, and as ``python -m supervisor``."""
COMMAND = "serve"


def find_started(home: Path) -> ProcessId | None:
    """A process of this user that serves from ``home``, or is about to; in a container it would be another folder."""
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        proc = Path("/proc", entry)
        with contextlib.suppress(OSError):
            if proc.stat().st_uid == os.geteuid() and _home_of(proc) == home and _sees_our_files(proc):
                return processes.identify(int(entry))
    return None


def _sees_our_files(proc: Path) -> bool:
    return (proc / "ns/mnt").readlink() == Path("/proc/self/ns/mnt").readlink()


def _home_of(proc: Path) -> Path | None:
    argv = _strings(proc / "cmdline")
    if COMMAND not in argv:
        return None
    environ = dict(each.split("=", 1) for each in _strings(proc / "environ") if "=" in each)
    return served_home(argv, environ, (proc / "cwd").readlink())


def served_home(argv: Sequence[str], environ: Mapping[str, str], cwd: Path) -> Path | None:
    """The state folder that this command line serves from; None for another one. Pure but for ``~``."""
    places = [at for at, word in enumerate(argv) if word == COMMAND and at]
    at = next((at for at in places if os.path.basename(argv[at - 1]) in PROGRAMS), None)
    if at is None:
        return None
    for word, following in itertools.pairwise([*argv[at + 1 :], ""]):
        option, equals, value = word.partition("=")
        if option == "--home":
            return cwd / Path(value if equals else following).expanduser()
    return state_home(environ)


def _strings(path: Path) -> list[str]:
    return os.fsdecode(path.read_bytes()).rstrip("\0").split("\0")
