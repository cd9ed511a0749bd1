"""What one caller gets of a turn: its projection, up to the first of the caller's stop strings. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from shared.events import AssistantDelta, Event, Usage
from shared.result import Completion, Projection, Shown
from worker.budget import estimated_tokens
from worker.stop import StopMatcher


class Answer:
    """Shows the events of a turn. With :attr:`is_cut` the caller has all it will get, though the turn may go on."""

    def __init__(self, projection: Projection, stop: Sequence[str], *, prompt_chars: int) -> None:
        self._projection = projection
        self._matcher = StopMatcher(stop) if stop else None
        self._prompt_chars = prompt_chars

    @property
    def is_cut(self) -> bool:
        """Whether a stop string has come."""
        return self._matcher is not None and self._matcher.is_met

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be shown."""
        return self.is_cut or self._projection.is_over

    @property
    def completion(self) -> Completion:
        """The outcome so far; final once :attr:`is_over` without an error."""
        whole = self._projection.completion
        if self._matcher is None or not self._matcher.is_met:
            return whole
        text = whole.text[: self._matcher.given_chars]
        return msgspec.structs.replace(whole, text=text, finish_reason="stop", usage=self._usage_at_cut())

    def show(self, events: Iterable[Event]) -> list[Shown]:
        """What the caller should see of these events. What was held back comes with the turn's end."""
        shown = self._projection.show(events)
        if self._matcher is None:
            return shown
        kept: list[Shown] = []
        for piece in shown:
            if not isinstance(piece, AssistantDelta):
                kept.append(piece)
            elif text := self._matcher.feed(piece.content):
                kept.append(AssistantDelta(text))
            if self._matcher.is_met:
                return kept
        if self._projection.is_over and self._projection.error is None and (text := self._matcher.rest()):
            kept.append(AssistantDelta(text))
        return kept

    def _usage_at_cut(self) -> Usage:
        """The command line is stopped before its last count: what it has not counted is estimated by its length."""
        counted, uncounted = self._projection.usage, estimated_tokens(self._projection.uncounted_chars)
        if counted is None:
            counted = Usage(prompt_tokens=estimated_tokens(self._prompt_chars))
        return msgspec.structs.replace(counted, completion_tokens=counted.completion_tokens + uncounted)
