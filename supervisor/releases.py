"""Releasing leases, one or many at once, and telling how it went for each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from shared.errors import EndpointError
from supervisor.endings import Endings
from supervisor.errors import ReleasesFailed, SurvivorsError
from supervisor.lease import Cause, State
from supervisor.table import LeaseRecord
from supervisor.views import LeaseReleased, Released

_log = logging.getLogger("asm_endpoint.releases")


async def release(record: LeaseRecord, endings: Endings) -> Released:
    """End a lease and wait for the proof; whoever waits gives up without stopping it.

    Raises SurvivorsError when processes outlived SIGKILL.
    """
    proof = await asyncio.shield(endings.begin(record, Cause.RELEASED))
    endings.recheck()
    if proof.survivors and record.state is not State.CLOSED:
        raise SurvivorsError(proof)
    return Released(released=True, proof=record.proof or proof)


async def release_all(records: Iterable[LeaseRecord], endings: Endings) -> list[LeaseReleased]:
    """End all of them at once. Raises ReleasesFailed, with the outcome of every one, when it failed for any."""
    ending = list(records)
    outcomes = await asyncio.gather(*(release(record, endings) for record in ending), return_exceptions=True)
    told = [_told(record, outcome) for record, outcome in zip(ending, outcomes, strict=True)]
    if not all(each.released for each in told):
        raise ReleasesFailed(told)
    return told


def _told(record: LeaseRecord, outcome: Released | BaseException) -> LeaseReleased:
    match outcome:
        case Released():
            return LeaseReleased(lease_ref=record.lease_ref, released=True, proof=outcome.proof)
        case SurvivorsError():
            return LeaseReleased(
                lease_ref=record.lease_ref, released=False, proof=outcome.proof, error=outcome.message
            )
    _log.error("cannot release the lease", exc_info=outcome, extra={"lease_ref": record.lease_ref})
    error = outcome.message if isinstance(outcome, EndpointError) else "an internal error was logged"
    return LeaseReleased(lease_ref=record.lease_ref, released=False, error=error)
