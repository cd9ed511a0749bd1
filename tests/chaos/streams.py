"""A streaming client whose answer can be judged: whole, failed in words, or broken."""

from __future__ import annotations

import enum
import json
import re

from supervisor import EndpointDescriptor
from tests.chaos.ledger import Story
from tests.process.serving import Reader

WORD = re.compile(r'"content":"w(\d+) ?"')
END = "data: [DONE]\n\n"


class Outcome(enum.StrEnum):
    """How a stream ended, or that it has not."""

    WHOLE = "whole"
    FAILED = "failed in words"
    BROKEN = "broken"
    ENDLESS = "endless"


class Stream(Reader):
    """One turn of ``words`` words. ``story`` is of the lease it runs on."""

    def __init__(self, story: Story, descriptor: EndpointDescriptor, markers: str, words: int) -> None:
        self.story = story
        self.words = words
        self.is_hit = False
        """Whether its worker was killed, or its lease ended: then it may break."""
        self.is_crashed = False
        """Whether a command line of its lease was killed: then it may fail, in words."""
        super().__init__(descriptor, f"{markers} " + " ".join(f"w{number}" for number in range(words)))

    @property
    def has_begun(self) -> bool:
        """Whether something of the answer has come, or nothing will."""
        return '"content":"w' in self.received or not self.is_alive()

    def outcome(self, wait_s: float) -> Outcome:
        """What became of it, after waiting for its end."""
        self.join(wait_s)
        if self.is_alive():
            return Outcome.ENDLESS
        numbers = [int(number) for number in WORD.findall(self.received)]
        if self.error is None and self.received.endswith(END) and numbers == list(range(self.words)):
            return Outcome.WHOLE
        return Outcome.FAILED if self._names_an_error() else Outcome.BROKEN

    def objection(self, outcome: Outcome) -> str | None:
        """What is wrong with that, if anything is."""
        may = {Outcome.WHOLE}
        if self.is_crashed or self.is_hit:
            may.add(Outcome.FAILED)
        if self.is_hit:
            may.add(Outcome.BROKEN)
        is_false = outcome is not Outcome.WHOLE and END in self.received
        if outcome in may and not is_false:
            return None
        return f"{self.story.name}: a stream is {outcome} ({self.error!r}): …{self.received[-300:]}"

    def _names_an_error(self) -> bool:
        """Whether its last words are an error object with a code."""
        if self.error is not None:
            return False
        try:
            last = json.loads(self.received.rstrip().rpartition("\n\n")[2].removeprefix("data: "))
            return bool(last["error"]["code"])
        except (ValueError, LookupError, TypeError):
            return False
