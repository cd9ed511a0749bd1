"""Whether another user gets at a path: every bit that counts, and which place is named."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.permissions import closed_to

STRANGER = 54_321


@pytest.fixture
def folder() -> Iterator[Path]:
    """An open folder; pytest's own are closed."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o755)
        yield Path(path)


def file(path: Path, mode: int) -> Path:
    """A file of that mode."""
    path.touch()
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("mode", "wanted", "is_open"),
    [
        (0o604, os.R_OK, True),
        (0o640, os.R_OK, False),
        (0o600, os.R_OK, False),
        (0o604, os.R_OK | os.W_OK, False),
        (0o606, os.R_OK | os.W_OK, True),
        (0o601, os.X_OK, True),
        (0o604, os.X_OK, False),
    ],
)
def test_a_stranger_has_the_bits_of_others(folder: Path, mode: int, wanted: int, is_open: bool):
    """All of those that are wanted."""
    path = str(file(folder / "file", mode))
    assert closed_to(STRANGER, {STRANGER}, path, wanted) == (None if is_open else path)


@pytest.mark.parametrize(("mode", "is_open"), [(0o040, True), (0o404, False), (0o004, False)])
def test_a_member_has_the_bits_of_the_group_alone(folder: Path, mode: int, is_open: bool):
    """As the kernel has it, also where others have more."""
    path = file(folder / "file", mode)
    assert (closed_to(STRANGER, {STRANGER, path.stat().st_gid}, str(path), os.R_OK) is None) is is_open


@pytest.mark.parametrize(("mode", "is_open"), [(0o400, True), (0o044, False)])
def test_the_owner_has_the_bits_of_the_owner_alone(folder: Path, mode: int, is_open: bool):
    """The same."""
    path = file(folder / "file", mode)
    assert (closed_to(path.stat().st_uid, {STRANGER}, str(path), os.R_OK) is None) is is_open


def test_every_folder_on_the_way_has_to_let_through(folder: Path):
    """The first closed one is named."""
    inner = folder / "a" / "b"
    inner.mkdir(parents=True)
    path = str(file(inner / "file", 0o644))
    for each in (folder / "a", inner):
        each.chmod(0o711)
    assert closed_to(STRANGER, {STRANGER}, path, os.R_OK) is None
    (folder / "a").chmod(0o700)
    assert closed_to(STRANGER, {STRANGER}, path, os.R_OK) == str(folder / "a")


def test_the_way_behind_a_link_counts_too(folder: Path):
    """A link in an open folder opens nothing."""
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    file(closed / "file", 0o644)
    link = folder / "link"
    link.symlink_to(closed / "file")
    assert closed_to(STRANGER, {STRANGER}, str(link), os.R_OK) == str(closed)


def test_what_is_not_there_is_closed(folder: Path):
    """To everybody."""
    assert closed_to(0, {0}, str(folder / "missing"), os.R_OK) == str(folder / "missing")
