"""The process table: the same as psutil's, identities that a reused pid does not share, families, and zombies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from shared import processes
from shared.processes import ProcessId

TIMEOUT_S = 20.0


def test_a_row_says_what_psutil_says():
    """About this very process."""
    row, known = processes.read(os.getpid()), psutil.Process()
    assert row is not None
    assert (row.id.pid, row.ppid, row.is_zombie) == (os.getpid(), os.getppid(), False)
    assert row.name == known.name()
    assert row.rss_bytes == pytest.approx(known.memory_info().rss, rel=0.2)
    assert processes.create_time_s(row.id) == pytest.approx(known.create_time(), abs=1.5)


def test_the_same_pid_with_another_start_is_another_process():
    """A reused pid names a stranger."""
    us = processes.identify(os.getpid())
    assert us is not None
    assert processes.is_alive(us)
    assert not processes.is_alive(ProcessId(us.pid, us.start_ticks + 1))
    assert processes.alive([us, ProcessId(us.pid, us.start_ticks - 1)]) == [us]


def test_names_may_hold_anything():
    """A closing parenthesis and blanks do not shift the fields."""
    code = "import ctypes, sys; ctypes.CDLL(None).prctl(15, b') R 1 (x', 0, 0, 0); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        (sys.executable, "-c", code), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        row = processes.read(child.pid)
        assert row is not None
        assert (row.name, row.ppid) == (") R 1 (x", os.getpid())
        child.kill()


def test_a_zombie_is_not_alive_and_still_has_its_identity():
    """Until it is reaped."""
    with subprocess.Popen((sys.executable, "-c", "")) as child:
        deadline = time.monotonic() + TIMEOUT_S
        while not ((row := processes.read(child.pid)) and row.is_zombie):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert processes.identify(child.pid) == row.id
        assert not processes.is_alive(row.id)
    assert processes.read(child.pid) is None


def test_a_family_is_a_leader_and_all_below_it():
    """Children's children too; and whoever is below somebody is known as such."""
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(flush=True); input()'])"
    with subprocess.Popen(
        (sys.executable, "-c", code), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        rows = processes.table()
        found = processes.family(child.pid, rows, processes.children_by_parent(rows))
        assert len(found) == 2
        assert found[0].id.pid == child.pid
        assert not processes.is_apart(found[1].id.pid, os.getpid())
        assert processes.is_apart(os.getpid(), child.pid)
        child.communicate(b"\n", TIMEOUT_S)
    assert processes.family(child.pid, processes.table(), {}) == []
    assert not processes.is_apart(child.pid, os.getpid())


def test_a_tree_is_the_family_of_the_table(monkeypatch: pytest.MonkeyPatch):
    """Whether the kernel names children, or the whole table has to be read; nothing below a process that has gone."""
    script = "import os, subprocess, sys; subprocess.run(('sleep', '600'), stdout=subprocess.DEVNULL)"
    with subprocess.Popen((sys.executable, "-c", script), start_new_session=True) as above:
        try:
            deadline = time.monotonic() + 10
            while len(processes.tree(above.pid)) < 2:
                assert time.monotonic() < deadline
            found = {row.id for row in processes.tree(above.pid)}
            rows = processes.table()
            family = processes.family(above.pid, rows, processes.children_by_parent(rows))
            assert found == {row.id for row in family}
            monkeypatch.setattr(processes, "_names_children", lambda: False)
            assert {row.id for row in processes.tree(above.pid)} == found
        finally:
            os.killpg(above.pid, signal.SIGKILL)
    assert processes.tree(above.pid) == []
