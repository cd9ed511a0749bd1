"""Stop strings: an answer ends right before the first of them, however it is cut into pieces. Pure.

No command line takes any for a turn, so this is done to what they print. Of an answer, only as much is held back as may
be the beginning of a stop string.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared.errors import RequestError

MAX_STRINGS = 4
MAX_CHARS = 1024


def read_stop(value: Any) -> tuple[str, ...]:
    """The stop strings of a request: one, or a list of them. Raises RequestError ``invalid_request``."""
    strings = value if isinstance(value, list) else [] if value is None else [value]
    if len(strings) > MAX_STRINGS:
        raise _invalid(f"must hold at most {MAX_STRINGS} strings")
    for string in strings:
        if not isinstance(string, str) or not string:
            raise _invalid("must be a non-empty string, or a list of them")
        if len(string) > MAX_CHARS:
            raise _invalid(f"must not hold a string of more than {MAX_CHARS} characters")
    return tuple(strings)


class StopMatcher:
    """Fed with the pieces of a text, gives back the text up to the first stop string, as soon as it is sure of it.

    First is the one that is complete first; of several that end together, the longest.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = strings
        self._held = ""
        self.is_met = False
        """Whether a stop string has come; nothing is given after it."""
        self.given_chars = 0
        """The length of all that was given."""

    def feed(self, piece: str) -> str:
        """What may be shown, now that this piece has come."""
        if self.is_met:
            return ""
        text = self._held + piece
        found = [(at + len(string), at) for string in self._strings if (at := text.find(string)) >= 0]
        if found:
            self.is_met = True
            return self._give(text, min(found)[1])
        return self._give(text, len(text) - max((_overlap(text, each) for each in self._strings), default=0))

    def rest(self) -> str:
        """What was held back in vain, at the end of the text."""
        return "" if self.is_met else self._give(self._held, len(self._held))

    def _give(self, text: str, end: int) -> str:
        self._held = text[end:]
        self.given_chars += end
        return text[:end]


def _overlap(text: str, string: str) -> int:
    """How many characters at the end of ``text`` may be the beginning of ``string``."""
    longest = min(len(text), len(string) - 1)
    return next((count for count in range(longest, 0, -1) if text.endswith(string[:count])), 0)


def _invalid(cause: str) -> RequestError:
    return RequestError("invalid_request", f"stop {cause}", param="stop")
