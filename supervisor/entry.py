"""One lease as the journal keeps it: everything about it that outlives a supervisor. No token, only its SHA-256."""

from __future__ import annotations

from typing import Any

import msgspec

from shared.contracts import LeaseOptions
from shared.processes import ProcessId
from shared.scoreboard import Totals
from supervisor.lease import LIVE_STATES, Cause, State
from supervisor.proof import ReleaseProof


class LeaseEntry(msgspec.Struct, kw_only=True, eq=False):
    """``*_at_s`` are of the wall clock, in seconds since the epoch; other times are of the monotonic clock."""

    lease_ref: str
    endpoint_id: str
    owner: str
    """The identity that made it, by name."""
    provider: str
    model: str
    consumer: str | None
    options: LeaseOptions
    lease_dir: str
    base_url: str
    token_sha256: str
    created_at_s: float
    expires_at: float
    ready_at_s: float | None = None
    ended_at_s: float | None = None
    owner_process: ProcessId | None = None
    metadata: dict[str, Any] = {}
    state: State = State.STARTING
    cause: Cause | None = None
    detail: str = ""
    """More about the cause, for people: a number, an exit status."""
    leader: ProcessId | None = None
    isolation: str | None = None
    pid_namespace: int | None = None
    totals: Totals = Totals()
    """What it has used; of an open lease, as last written."""
    proof: ReleaseProof | None = None
    log_tail: str = ""
    """The end of its log, without secrets; once it has ended."""

    @property
    def is_live(self) -> bool:
        """Whether it is starting or ready."""
        return self.state in LIVE_STATES


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(LeaseEntry).decode


def facts(entry: LeaseEntry) -> LeaseEntry:
    """Only what is kept, of a lease of which more is known."""
    return LeaseEntry(**{name: getattr(entry, name) for name in LeaseEntry.__struct_fields__})
