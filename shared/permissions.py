"""Whether another user, or root without its privileges, gets at a path, by owner and mode bits, without being them.

ACLs are not looked at.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path


def closed_to(uid: int, gids: Collection[int], path: str, wanted: int) -> str | None:
    """The first folder on the way that is closed to that user, or the file itself; None when the way is open.

    ``wanted`` is made of ``os.R_OK``, ``os.W_OK`` and ``os.X_OK``. What does not exist is closed.
    """
    steps = [*_folders(path), *_folders(os.path.realpath(path))]
    for step, bits in [*((folder, os.X_OK) for folder in steps), (path, wanted)]:
        if not _permits(uid, gids, step, bits):
            return step
    return None


def _folders(path: str) -> Iterator[str]:
    return (str(folder) for folder in reversed(Path(path).parents))


def _permits(uid: int, gids: Collection[int], path: str, bits: int) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    shift = 6 if found.st_uid == uid else 3 if found.st_gid in gids else 0
    return (found.st_mode >> shift) & bits == bits
