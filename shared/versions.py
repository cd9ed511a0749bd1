"""Versions of command lines: which of them a provider's file was measured with. Pure."""

from __future__ import annotations

import re

import msgspec

NUMBERS = re.compile(r"\d+(?:\.\d+)*")


class VersionRange(msgspec.Struct, frozen=True):
    """From ``oldest`` to ``newest``, both of which are recorded in ``tests/transcripts``; the two may be the same.

    Only the numbers count: what follows them is a build's name, or says that it comes before its release.
    """

    oldest: str
    newest: str

    def __str__(self) -> str:
        """As people write it."""
        return self.oldest if self.oldest == self.newest else f"{self.oldest}..{self.newest}"

    def covers(self, version: str | None) -> bool:
        """Whether that version lies in the range; one that is not known does not."""
        return version is not None and numbers(self.oldest) <= numbers(version) <= numbers(self.newest)


def is_at_least(version: str | None, oldest: str) -> bool:
    """Whether that version is known and is ``oldest`` or a later one."""
    return version is not None and numbers(version) >= numbers(oldest)


def numbers(version: str) -> tuple[int, ...]:
    """What versions are compared by; () for a text that does not begin with any."""
    found = NUMBERS.match(version)
    return tuple(map(int, found[0].split("."))) if found else ()
