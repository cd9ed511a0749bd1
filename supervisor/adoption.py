"""What becomes of the leases of an earlier supervisor: a decision from its journal and what the zygote has. Pure.

::

    journal, zygote:    runs                   has ended                 does not know it
    starting            end: lost              end: crashed              end: lost
    ready               adopt                  end: crashed              end: lost
    (was told to stop)  end: lost              end: lost                 -
    stopping            end: as it was         end: as it was            end: as it was
    not in the journal  stop                   stop                      -
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from supervisor.entry import LeaseEntry
from supervisor.launcher import Found
from supervisor.lease import Cause, State

NOT_HANDED_OUT = "the supervisor ended while the lease started, so nobody has its token"
UNWRITTEN = "it was stopped, and why could not be written down"
UNWATCHED = "it was gone when the next supervisor came"


class Fate(msgspec.Struct, frozen=True, kw_only=True):
    """One lease, the family that it still has, and why it ends; None when it goes on."""

    entry: LeaseEntry
    found: Found | None
    cause: Cause | None
    detail: str = ""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done: a fate for each lease of the journal; and families that it does not know."""

    fates: tuple[Fate, ...]
    strangers: tuple[Found, ...]


def plan(entries: Iterable[LeaseEntry], families: Mapping[str, Found], unwatched: str = UNWATCHED) -> Plan:
    """Decide; ``unwatched`` says why the zygote does not know a lease that the journal has open."""
    fates = tuple(_fate(entry, families.get(entry.lease_ref), unwatched) for entry in entries)
    known = {fate.entry.lease_ref for fate in fates}
    strangers = tuple(found for lease_ref, found in families.items() if lease_ref not in known)
    return Plan(fates=fates, strangers=strangers)


def _fate(entry: LeaseEntry, found: Found | None, unwatched: str) -> Fate:
    if entry.state is State.STOPPING:
        return Fate(entry=entry, found=found, cause=entry.cause or Cause.LOST, detail=entry.detail)
    if found is None:
        detail = NOT_HANDED_OUT if entry.state is State.STARTING else unwatched
        return Fate(entry=entry, found=None, cause=Cause.LOST, detail=detail)
    if found.running.is_stopping:
        return Fate(entry=entry, found=found, cause=Cause.LOST, detail=UNWRITTEN)
    if found.exited is not None:
        detail = f"the family ended by itself: {found.exited.status}"
        return Fate(entry=entry, found=found, cause=Cause.CRASHED, detail=detail)
    if entry.state is State.STARTING:
        return Fate(entry=entry, found=found, cause=Cause.LOST, detail=NOT_HANDED_OUT)
    return Fate(entry=entry, found=found, cause=None)
