"""Which program this is: a fingerprint of the code that workers run, which tells a zygote of another one."""

from __future__ import annotations

import hashlib
from pathlib import Path

PACKAGES = ("shared", "worker")


def fingerprint() -> str:
    """The same for the same installed files: their names, sizes and times, which any upgrade changes."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            status = path.stat()
            digest.update(f"{path.relative_to(root)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
