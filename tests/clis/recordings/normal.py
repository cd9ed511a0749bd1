"""The normal form of a recording: no path of a machine, no id, time or address that the next run would change. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

PATH = "/lease/path"
MAX_STRING_CHARS = 120
MAX_ITEMS = 4
"""What is longer is never read: built-in instructions, lists of models, agents and capabilities."""
CHANGING_KEY = re.compile(r"(?:^|_)(?:ms|at|time|timestamp|pid)$|Ms$|At$|_ms_|duration", re.IGNORECASE)
HOST_KEYS = frozenset({"serverName", "hostname"})
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
ADDRESS = re.compile(r"(127\.0\.0\.1|localhost):\d+")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?")
SYSTEM = re.compile(r"\([^()]*; ?(?:x86_64|aarch64|arm64)\)")
ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{32,}\b")
SERIAL = re.compile(r"(?<=scripted)\d{6,}")


class Normaliser:
    """Normalises the lines of one recording: the same id is the same number everywhere in it."""

    def __init__(self, folders: Iterable[str]) -> None:
        longest_first = sorted(set(folders), key=len, reverse=True)
        self._path = re.compile("(?:" + "|".join(map(re.escape, longest_first)) + r")[^\s\"'`,;:)\]}]*")
        self._ids: dict[str, str] = {}
        self._serials: dict[str, str] = {}

    def value(self, value: Any, key: str = "") -> Any:
        """A JSON value of a line."""
        if isinstance(value, dict):
            return {self.text(name): self.value(each, name) for name, each in value.items()}
        if isinstance(value, list):
            return [self.value(each) for each in value[:MAX_ITEMS]]
        if isinstance(value, bool) or value is None:
            return value
        if key in HOST_KEYS:
            return "host"
        if CHANGING_KEY.search(key):
            return 0
        return self.text(value)[:MAX_STRING_CHARS] if isinstance(value, str) else value

    def text(self, text: str) -> str:
        """A text of any length, as what was printed on stderr."""
        text = COLOUR.sub("", self._path.sub(PATH, text))
        text = ADDRESS.sub(r"\1:1", text)
        text = TIME.sub("2000-01-01T00:00:00Z", text)
        text = SYSTEM.sub("(system)", text)
        text = ID.sub(lambda found: _number(self._ids, found[0], "id-{}"), text)
        return SERIAL.sub(lambda found: _number(self._serials, found[0], "{:06}"), text)


def _number(known: dict[str, str], found: str, form: str) -> str:
    return known.setdefault(found, form.format(len(known) + 1))
