"""Which files a program is made of: the executable, the packages it is installed with, the interpreter of a script."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

PACKAGES = "node_modules"
MAX_INTERPRETERS = 4
SHEBANG_BYTES = 512


def program_files(path: str, search_path: str) -> Iterator[str]:
    """Files and folders that the program at ``path`` needs, the system's libraries left out.

    Of a Node program, the outermost folder of packages that it is in; ``search_path`` finds what ``env`` would find.
    """
    for _ in range(MAX_INTERPRETERS):
        real = Path(os.path.realpath(path))
        yield str(_packages(real) or real)
        interpreter = shutil.which(_interpreter(real), path=search_path)
        if interpreter is None:
            return
        path = interpreter


def _packages(path: Path) -> Path | None:
    return next((folder for folder in reversed(path.parents) if folder.name == PACKAGES), None)


def _interpreter(path: Path) -> str:
    """What a script's first line names; "" for a program that is none."""
    try:
        with path.open("rb") as file:
            head = file.readline(SHEBANG_BYTES)
    except OSError:
        return ""
    if not head.startswith(b"#!"):
        return ""
    words = head[2:].decode(errors="replace").split()
    if words and os.path.basename(words[0]) == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    return words[0] if words else ""
