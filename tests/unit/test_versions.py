"""Ranges of versions, and what is said of an installed command line."""

from __future__ import annotations

import pytest

from shared.provider import describe_cli, load, names
from shared.versions import VersionRange

RANGE = VersionRange("2.1.197", "2.1.330")


@pytest.mark.parametrize(
    ("version", "is_covered"),
    [
        ("2.1.197", True),
        ("2.1.200", True),
        ("2.1.330", True),
        ("2.1.99", False),
        ("2.1.196", False),
        ("2.1.331", False),
        ("2.1.1000", False),
        ("2.2.0", False),
        ("3.0", False),
        ("2.1", False),
        ("2.1.330-g7618fb", True),
        ("unknown", False),
        ("", False),
        (None, False),
    ],
)
def test_a_range_has_its_ends_and_compares_numbers(version: str | None, is_covered: bool):
    """Not letters: 1000 comes after 330."""
    assert RANGE.covers(version) is is_covered


def test_a_range_of_one():
    """As its only version."""
    assert str(VersionRange("0.61.0", "0.61.0")) == "0.61.0"
    assert str(RANGE) == "2.1.197..2.1.330"


def test_every_published_provider_declares_a_range_whose_ends_are_in_order():
    """And nothing else does."""
    for name in names():
        supported = load(name).supported_versions
        assert (supported is not None) is load(name).published
        if supported:
            assert supported.covers(supported.oldest)
            assert supported.covers(supported.newest)


def test_what_is_said_of_a_command_line():
    """A version that cannot be told is not a supported one; a program of our own has none and always is."""
    claude = load("claude")
    described = describe_cli(claude, "/bin/claude", None)
    assert described == {
        "path": "/bin/claude",
        "version": None,
        "supported_versions": str(claude.supported_versions),
        "is_supported": False,
    }
    assert describe_cli(load("echo"), "/bin/echo", None)["is_supported"] is True
