"""What a run has counted, and the table that is printed of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from tests.chaos.ledger import Phase, Victim
from tests.chaos.streams import Outcome

MAX_SHOWN = 20


class Toll(msgspec.Struct, kw_only=True):
    """Kills, and what came of them."""

    kills: Counter[tuple[Victim, Phase]] = msgspec.field(default_factory=Counter)
    causes: Counter[str] = msgspec.field(default_factory=Counter)
    """Of the leases that ended."""
    streams: Counter[Outcome] = msgspec.field(default_factory=Counter)
    holes: int = 0
    """Survivors of the one kind that cannot be found without namespaces."""
    survivors: list[str] = []
    leaks: list[str] = []
    wrong_ends: list[str] = []
    wrong_streams: list[str] = []
    """That failed, or broke, though nothing of theirs was killed; or that seem whole and are not."""

    @property
    def complaints(self) -> dict[str, list[str]]:
        """All that should not be, by kind."""
        return {
            "survivors": self.survivors,
            "leaks": self.leaks,
            "wrong ends": self.wrong_ends,
            "wrong streams": self.wrong_streams,
        }

    @property
    def is_clean(self) -> bool:
        """Whether there is nothing to complain of."""
        return not any(self.complaints.values())


def table(tolls: Mapping[str, Toll]) -> str:
    """Kills by victim and phase over all runs, then a line for each run, then every complaint."""
    kills: Counter[tuple[Victim, Phase]] = sum((toll.kills for toll in tolls.values()), Counter())
    lines = [_row("killed", *Phase, "all")]
    for victim in Victim:
        counts = [kills[victim, phase] for phase in Phase]
        lines.append(_row(victim, *counts, sum(counts)))
    lines.append(
        _row("all", *(sum(kills[victim, phase] for victim in Victim) for phase in Phase), kills.total())
    )
    for name, toll in tolls.items():
        counted = {kind: len(found) for kind, found in toll.complaints.items()}
        lines.append(
            f"{name}: {toll.kills.total()} kills, {_counts(counted)}, documented holes {toll.holes};"
        )
        lines.append(f"    leases ended: {_counts(toll.causes)}; streams: {_counts(toll.streams)}")
        lines += [
            f"    {kind}: {complaint}"
            for kind, found in toll.complaints.items()
            for complaint in found[:MAX_SHOWN]
        ]
    return "\n".join(lines)


def _row(first: object, *others: object) -> str:
    return f"{first!s:<22}" + "".join(f"{other!s:>11}" for other in others)


def _counts(counted: Mapping[Any, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counted.items()) or "none"
