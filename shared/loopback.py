"""What counts as loopback in a Host header and in a bind address. Pure."""

from __future__ import annotations

import functools
import ipaddress


def is_loopback_host(header: str | None) -> bool:
    """Whether a Host header (with or without a port) names this machine's loopback; None does not."""
    if not header:
        return False
    name = header.rpartition(":")[0] if header.rpartition(":")[2].isdigit() else header
    return is_loopback_address(name.strip("[]"))


@functools.lru_cache(maxsize=16)
def is_loopback_address(name: str) -> bool:
    """Whether a host name or address is ``localhost`` or in 127.0.0.0/8 or ::1."""
    if name.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
