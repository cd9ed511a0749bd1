"""What a scripted model does, step by step; each API turns a request into these, the server plays them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]
HANG_LIMIT_S = 120.0
BEFORE_RESET_S = 0.05  # lets the client read what a reset would throw away


@dataclass(frozen=True, kw_only=True)
class SendJson:
    """A whole answer."""

    status: int
    body: Json
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OpenStream:
    """Status 200 and the headers of a stream of events."""

    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SendEvent:
    """One server-sent event; some APIs give theirs no name."""

    name: str | None
    payload: Json


@dataclass(frozen=True)
class Sleep:
    """Silence for a while, noticing a client that leaves."""

    seconds: float


@dataclass(frozen=True)
class Cut:
    """The connection ends here: in good order, or with a TCP reset."""

    reset: bool


Step: TypeAlias = SendJson | OpenStream | SendEvent | Sleep | Cut
Steps: TypeAlias = Callable[[Any, int], Iterator[Step]]
"""One API: the JSON body of a request and its serial number in, the answer out."""
