"""Measuring what leases use: disk by a walk that ends, descriptors, and nothing that has no limit."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from shared import processes
from shared.contracts import LeaseLimits, LeaseOptions
from supervisor import usage
from supervisor.limits import UNCOUNTABLE, Sample
from supervisor.table import LeaseRecord
from supervisor.usage import BLOCK_BYTES, Usage, disk_bytes

LOTS = 2**60
MANY = 50
BIG = 300_000
PERIOD_S = 5.0


def record(lease_dir: Path, **limits: Any) -> LeaseRecord:
    """A lease whose family is this process alone."""
    row = processes.read(os.getpid())
    assert row is not None
    return LeaseRecord(
        lease_ref=str(lease_dir),
        endpoint_id="endpoint_1",
        owner="admin",
        provider="echo",
        model="any",
        consumer=None,
        options=LeaseOptions(limits=LeaseLimits(**limits) if limits else None),
        lease_dir=str(lease_dir),
        base_url="http://127.0.0.1:1",
        token_sha256="",
        created_at_s=0.0,
        expires_at=0.0,
        leader=row.id,
        processes=(row,),
    )


def written(path: Path, size: int) -> Path:
    """A file that weighs that much."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
    return path


def test_disk_is_what_weighs_on_it(tmp_path: Path):
    """Everything below, each thing something; not what a hole or a link pretends."""
    assert disk_bytes(str(tmp_path), LOTS) == 0
    written(tmp_path / "a" / "b" / "big", BIG)
    assert BIG <= disk_bytes(str(tmp_path), LOTS) < 2 * BIG
    before = disk_bytes(str(tmp_path), LOTS)
    (tmp_path / "link").symlink_to("/usr")
    with open(tmp_path / "hole", "wb") as file:
        file.truncate(10**12)
    assert 2 * BLOCK_BYTES <= disk_bytes(str(tmp_path), LOTS) - before < BIG


def test_a_walk_ends_when_it_has_seen_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With the sum so far, or with the number of files."""
    for number in range(MANY):
        written(tmp_path / f"folder-{number}" / "file", BIG // MANY)
    assert BIG // MANY < disk_bytes(str(tmp_path), BIG // MANY) < BIG
    monkeypatch.setattr(usage, "MAX_ENTRIES", MANY)
    assert disk_bytes(str(tmp_path), LOTS) == UNCOUNTABLE


def test_what_goes_away_meanwhile_is_left_out(tmp_path: Path):
    """As a lease's folder does when it ends."""
    assert disk_bytes(str(tmp_path / "missing"), LOTS) == 0


def test_a_lease_without_limits_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nor one that has others."""
    monkeypatch.setattr(usage, "_open_files", lambda row: pytest.fail("descriptors were counted"))
    monkeypatch.setattr(usage, "_walk_all", lambda wanted: pytest.fail("disk was measured"))
    assert Usage(PERIOD_S).sample(record(tmp_path)) == Sample()
    measured = Usage(PERIOD_S)
    measured.look_at_disk([record(tmp_path), record(tmp_path, memory_bytes=1)], now=0)
    sample: Any = measured.sample(record(tmp_path, memory_bytes=1))
    assert (sample.open_files, sample.workspace_bytes) == (None, None)
    assert sample.memory_bytes > 0


def test_a_lease_with_limits_is(tmp_path: Path):
    """Its descriptors each time; its age by the kernel's clock."""
    limited = record(tmp_path, open_files=1)
    sample: Any = Usage(PERIOD_S).sample(limited)
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(MANY)]
    later: Any = Usage(PERIOD_S).sample(limited)
    for file in files:
        os.close(file)
    assert later.open_files - sample.open_files == MANY
    assert 0 < sample.wall_s <= later.wall_s
    assert sample.processes == 1
    assert sample.cpu_s > 0


def test_disk_is_measured_beside_the_loop_and_again_after_a_period(tmp_path: Path):
    """Until the first measurement nothing is known; one is made at a time."""

    async def scenario() -> None:
        limited = record(tmp_path, workspace_bytes=LOTS)
        measured = Usage(PERIOD_S)

        async def look(now: float) -> Any:
            measured.look_at_disk([limited], now)
            if measured._walk is not None:
                await measured._walk
            measured.look_at_disk([limited], now)
            return measured.sample(limited).workspace_bytes

        measured.look_at_disk([limited], now=0.0)
        assert measured.sample(limited).workspace_bytes is None
        assert await look(0.0) == 0
        written(tmp_path / "big", BIG)
        assert await look(PERIOD_S - 0.1) == 0
        assert await look(PERIOD_S) >= BIG

    asyncio.run(scenario())
