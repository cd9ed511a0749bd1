"""Which Host headers and addresses are this machine's own."""

from __future__ import annotations

import pytest

from shared.loopback import is_loopback_address, is_loopback_host


@pytest.mark.parametrize(
    ("header", "is_ours"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:8080", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("LOCALHOST:1", True),
        ("localhost.", True),
        ("[::1]", True),
        ("[::1]:80", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:80", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("[::]", False),
        ("2130706433", False),
        ("", False),
        (None, False),
    ],
)
def test_host_headers(header: str | None, is_ours: bool):
    """A page that rebinds its own name to loopback still sends its own name."""
    assert is_loopback_host(header) is is_ours


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.1", "example.org", ""])
def test_addresses_that_are_not_served_on(address: str):
    """Only loopback is."""
    assert not is_loopback_address(address)
