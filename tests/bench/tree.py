"""The comparison: a tree like a lease's family, which a bare ``killpg`` ends. Nothing watches it.

Run as a program it forks one tree for each line on stdin, from a process that has imported what the zygote has, and
prints the tree's pids: a leader in a session and group of its own, a worker below it, and echo below that.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn, Self

ROOT = Path(__file__).parents[2]


class Trees:
    """A process that forks such trees; a context manager."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            (sys.executable, "-m", "tests.bench.tree"),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=10)

    def grow(self) -> list[int]:
        """One more tree; its pids, leader first. It is to be killed before the next one."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return [int(pid) for pid in self._process.stdout.readline().split()]


def main() -> None:
    """Fork on demand, until stdin closes."""
    from worker.rehearsal import rehearse

    rehearse()
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in sys.stdin:
        if os.fork() == 0:
            _lead()


def _lead() -> NoReturn:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if os.fork() == 0:
        _work()
    _stay()


def _work() -> NoReturn:
    from shared import provider

    command = (*provider.load("echo").executable.pinned, "--model", "any")
    with contextlib.ExitStack() as stack:
        echo = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        print(os.getppid(), os.getpid(), echo.pid, flush=True)
        _stay()


def _stay() -> NoReturn:
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
