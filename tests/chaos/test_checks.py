"""The checks of a chaos run have power: what is planted is found."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from supervisor.statefolder import LEASES_NAME
from tests.chaos import leaks, victims
from tests.chaos.ledger import Phase, Victim
from tests.chaos.toll import Toll, table

pytestmark = pytest.mark.process


def test_a_planted_survivor_is_found():
    """And one that is expected is not taken for one, nor what is below it."""
    with subprocess.Popen((sys.executable, "-c", "input()"), stdin=subprocess.PIPE) as planted:
        others = {pid for pid in victims.left_behind(os.getpid(), set(), set(), None) if pid != planted.pid}
        assert victims.left_behind(os.getpid(), others, set(), None) == [planted.pid]
        assert victims.left_behind(os.getpid(), others | {planted.pid}, set(), None) == []
        planted.kill()


def test_planted_leaks_are_found(tmp_path: Path):
    """A descriptor, a socket that listens, a folder of a lease, a file that nobody knows."""
    us = os.getpid()
    before = {"us": leaks.held_by(us)}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert leaks.more(before, {"us": us}) == ["us: {'socket:[N]': 1}"]
        assert len(leaks.listening({listener.getsockname()[1]})) == 1
    assert leaks.more(before, {"us": us}) == []
    (tmp_path / LEASES_NAME / "lease_1").mkdir(parents=True)
    (tmp_path / ".supervisor.json.7").touch()
    assert leaks.workspaces(tmp_path) == ["workspace lease_1"]
    assert leaks.unknown_files(tmp_path, is_served=True, others=set()) == ["file .supervisor.json.7"]


def test_the_table_tells_all_of_it():
    """Counts by victim and phase, and every complaint."""
    toll = Toll(kills=Counter({(Victim.ZYGOTE, Phase.IDLE): 7}), survivors=["1: b'sleep'"], holes=2)
    assert not toll.is_clean
    told = table({"process_group": toll})
    assert "documented holes 2" in told
    assert "survivors: 1: b'sleep'" in told
    assert Toll().is_clean
