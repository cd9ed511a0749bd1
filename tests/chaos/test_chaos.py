"""Whatever is killed, whenever: nothing survives, nothing leaks, and every lease's end is told truthfully.

``make chaos`` runs it, bounded in count and time; ``SEED=… KILLS=… make chaos`` runs a certain sequence again, as far as
the machine's timing lets it.
"""

from __future__ import annotations

import math
import os
import random
import time
from pathlib import Path

import pytest

from tests.chaos.onslaught import Onslaught
from tests.chaos.toll import Toll, table
from tests.process.conftest import ISOLATION
from tests.process.serving import serving

KILLS = int(os.environ.get("KILLS", "510"))
SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
SMOKE_KILLS, SMOKE_SEED = 12, 4
BASE_S, PER_KILL_S = 120.0, 8.0
"""The time there is for a run."""
SETTINGS = ("drain_s=0.5", "kill_margin_s=1", "exit_grace_s=0.2", "standby_delay_s=0.02")
"""Shorter waits than usual, so that more is killed in the same time."""


def run(home: Path, isolation: tuple[str, ...], name: str, seed: int, kills: int) -> Toll:
    """One run against a supervisor of its own."""
    arguments = [argument for setting in SETTINGS for argument in ("--set", setting)]
    with serving(home, *isolation, *arguments) as held:
        onslaught = Onslaught(
            held,
            random.Random(f"{seed} {name}"),
            has_keeper=name == "user_namespace",
            has_namespaces=name != "process_group",
        )
        return onslaught.run(kills, time.monotonic() + BASE_S + PER_KILL_S * kills)


@pytest.mark.process
def test_a_few_random_kills(tmp_path: Path, isolation: tuple[str, ...], isolation_name: str):
    """The same every time, for the usual tests."""
    toll = run(tmp_path, isolation, isolation_name, SMOKE_SEED, SMOKE_KILLS)
    assert toll.is_clean, table({isolation_name: toll})
    assert toll.kills.total() >= SMOKE_KILLS


TOLLS: dict[str, Toll] = {}


@pytest.mark.chaos
def test_many_random_kills(
    tmp_path: Path, isolation: tuple[str, ...], isolation_name: str, capfd: pytest.CaptureFixture[str]
):
    """An equal part of them in each kind of isolation; the table is printed after the last."""
    share = math.ceil(KILLS / len(ISOLATION))
    with capfd.disabled():
        print(f"\nSEED={SEED} KILLS={KILLS}: {share} in {isolation_name}", flush=True)
    toll = TOLLS[isolation_name] = run(tmp_path, isolation, isolation_name, SEED, share)
    if isolation_name == [*ISOLATION][-1]:
        with capfd.disabled():
            print(f"\n{table(TOLLS)}", flush=True)
    assert toll.is_clean, table({isolation_name: toll})
    assert toll.kills.total() >= share, "there was not time for all of it"
