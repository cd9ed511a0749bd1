"""The locks that an operator may put on command lines, beyond what always holds. Pure: values and their names."""

from __future__ import annotations

import msgspec


class Hardening(msgspec.Struct, frozen=True, kw_only=True):
    """None by default. Who is asked for a lock and cannot have it fails; it never goes on without.

    With either of them, root has none of its privileges (capabilities) any more.
    """

    landlock: bool = False
    """Files: read and execute the program and the system's libraries, write the lease's own folders, no more."""
    uid: int | None = None
    """The user that command lines run as; None for ours."""
    gid: int | None = None
    """That user's only group; set when ``uid`` is."""

    @property
    def locks(self) -> tuple[str, ...]:
        """As ``metadata.isolation`` names them."""
        return (
            *(("landlock",) if self.landlock else ()),
            *((f"uid:{self.uid}",) if self.uid is not None else ()),
        )
