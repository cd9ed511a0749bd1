"""Which leases a call is about: those that its caller may see, of one owner or group where it names them. Pure."""

from __future__ import annotations

import msgspec

from supervisor.caller import Caller
from supervisor.entry import LeaseEntry


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """None is any."""

    caller: Caller
    owner: str | None = None
    group: str | None = None

    @property
    def is_narrowed(self) -> bool:
        """Whether it names anything, and so cannot mean everything by mistake."""
        return self.owner is not None or self.group is not None

    @property
    def whose(self) -> str | None:
        """The one owner of all that it can include; None where that may be anybody."""
        return self.owner if self.caller.is_admin else self.caller.name

    def includes(self, record: LeaseEntry) -> bool:
        """Whether the call is about this lease."""
        return (
            self.caller.may_see(record.owner)
            and self.owner in (None, record.owner)
            and self.group in (None, record.options.group)
        )
