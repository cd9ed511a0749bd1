"""Who asks, and what that one may do: one struct, made by the API's middleware and handed to every call. Pure."""

from __future__ import annotations

import msgspec

ADMIN_NAME = "admin"


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """One identity. ``name`` is what the leases it makes are owned by."""

    name: str
    is_admin: bool = False

    def may_see(self, owner: str) -> bool:
        """Whether that identity's leases exist for this caller; the admin sees all, everybody else its own."""
        return self.is_admin or owner == self.name


ADMIN = Caller(name=ADMIN_NAME, is_admin=True)
