"""Speaking with one command-line process, without I/O: what a turn is given, and what a connection answers.

Knows no provider and no process. Each provider has a :class:`Connection` of its own; whoever has a process feeds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from shared.events import Event


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image of a prompt, its bytes in base64. It stands before the character ``at`` of the prompt's text."""

    media_type: str
    base64: str
    at: int


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """One turn's input: the user's text, the system prompt ("" for none), and what the provider's options allow.

    ``output_schema`` is the JSON schema that the answer has to have.
    """

    text: str
    system: str = ""
    images: tuple[Image, ...] = ()
    output_schema: Mapping[str, Any] | None = None
    max_tokens: int | None = None
    reasoning_effort: str | None = None

    def parts(self) -> list[str | Image]:
        """The text, cut where images stand, and the images, in order; nothing empty, if that is not all."""
        parts: list[str | Image] = []
        start = 0
        for image in self.images:
            parts += [self.text[start : image.at], image]
            start = image.at
        return [part for part in (*parts, self.text[start:]) if part] or [self.text]


class Connection(Protocol):
    """The protocol of one command-line process, without I/O: bytes in, events and bytes out.

    After each call, :meth:`data_to_send` has what is to be written to the process. A turn ends with exactly one
    ``Result`` or ``Failure`` event. Turn ids are chosen by the caller.
    """

    concurrent_turns: int
    """How many turns may run at once in one process."""
    turns_before_recycle: int
    """How many turns a process may serve in its life."""
    would_go_on: bool
    """Whether the process would work on by itself although its turn has ended; it has to be killed at once."""
    is_spent: bool
    """Whether the process should get no further turns, because of what was seen of it."""

    @property
    def is_ready(self) -> bool:
        """Whether the handshake is done, and a turn would begin at once."""

    def handshake(self) -> None:
        """Begin; called once, right after the start."""

    def start_turn(self, turn_id: str, prompt: Prompt) -> None:
        """Start a turn, or queue it until the handshake is done."""

    def receive(self, lines: Sequence[bytes]) -> list[tuple[str, list[Event]]]:
        """Events of complete stdout lines (without their newlines), grouped by turn, in order within a turn."""

    def interrupt(self, turn_id: str) -> bool:
        """Cancel a turn, whose events do not matter any more. False when the process has to be stopped instead."""

    def closed(self, exit_code: int, stderr: str) -> list[tuple[str, list[Event]]]:
        """Events for the turns that were still open when the process ended."""

    def data_to_send(self) -> bytes:
        """What is to be written to the process now; each byte is given out once."""
