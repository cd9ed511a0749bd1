"""How much memory the machine has left. The only module that needs psutil: processes are read from ``/proc``."""

from __future__ import annotations

import psutil


def available_memory_bytes() -> int:
    """Memory of the machine that can be had without swapping."""
    return int(psutil.virtual_memory().available)
