"""Whether a worker's heart is late, told by looks and not by the clock. Pure.

A heart beats once a second on the worker's event loop. On a machine that is loaded as a whole, or stood still for a
while, every process is late, and we who look are too: such a look proves nothing and is not counted. So a heart is late
when it did not move in so many punctual looks in a row. Where no look is punctual it is late when several looks have
found it where it was for ``STOPPED_S``, after which gunicorn ends such a worker anyway. Once late, it has to beat
several times in short order before it is believed: a heart at the edge does not go to and fro.
"""

from __future__ import annotations

import msgspec

STOPPED_S = 30.0
PUNCTUAL_SHARE = 0.5
"""A look that is later than this part of the period is not punctual."""
CERTAIN_LOOKS = 3
"""So many looks prove that a heart stands still although none was punctual."""
CERTAIN_BEATS = 3
"""So many beats, each in half the time that would make it late, prove that a late heart beats again."""


class Heart(msgspec.Struct, kw_only=True):
    """One worker's heart, as our looks have seen it."""

    is_late: bool = False
    beat_ns: int = 0
    punctual_still_looks: int = 0
    still_looks: int = 0
    """Looks in a row in which it did not move."""
    quick_beats: int = 0
    """Beats in a row that came in good time."""

    def look(self, beat_ns: int, now_ns: int, *, is_punctual: bool, max_still_looks: int) -> None:
        """One look: ``beat_ns`` is when it last beat, on the clock of ``now_ns``."""
        if beat_ns != self.beat_ns:
            was_quick = self.still_looks <= max_still_looks / 2
            self.quick_beats = self.quick_beats + 1 if was_quick else 0
            self.beat_ns, self.punctual_still_looks, self.still_looks = beat_ns, 0, 0
        else:
            self.punctual_still_looks += is_punctual
            self.still_looks += 1
        is_stopped = self.still_looks >= CERTAIN_LOOKS and now_ns - beat_ns > STOPPED_S * 1e9
        if is_stopped or self.punctual_still_looks >= max_still_looks:
            self.is_late = True
        elif self.quick_beats >= CERTAIN_BEATS:
            self.is_late = False


def is_punctual(since_last_look_s: float, period_s: float) -> bool:
    """Whether a look comes when it should, by the time that has passed since the one before."""
    return since_last_look_s <= period_s * (1 + PUNCTUAL_SHARE)
