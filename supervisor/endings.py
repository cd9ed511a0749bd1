"""The one path by which leases end, whatever the cause: stop the family, prove it, write it down, clear up.

Every lease in the table has a family here, from before its launch to the proof of its end. All who end a lease share
one stop and its proof.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from pathlib import Path

import msgspec

from shared.launch import Exited
from shared.redaction import redacted
from supervisor import stopping
from supervisor.journal import Journal
from supervisor.launcher import Launcher
from supervisor.lease import Cause, Happening, State, Step
from supervisor.metrics import Metrics
from supervisor.proof import ReleaseProof
from supervisor.settings import Settings
from supervisor.statefolder import LEASES_NAME
from supervisor.table import LeaseRecord, LeaseTable

LOG_NAME = "worker.log"
COPIED = "the state folder is a copy of the one that it lives in"
LOG_TAIL_BYTES = 16 * 1024
LOG_TAIL_CHARS = 4096
_log = logging.getLogger("asm_endpoint.endings")


class _Family(msgspec.Struct, kw_only=True, eq=False):
    """What is awaited of a lease's family: that its launch is settled, that it exits, and the proof of its end."""

    exited: asyncio.Future[Exited]
    launch_settled: asyncio.Event
    ending: asyncio.Task[ReleaseProof] | None = None


class Endings:
    """The families of all open leases, and how they end."""

    def __init__(
        self, table: LeaseTable, launcher: Launcher, journal: Journal, metrics: Metrics, settings: Settings
    ) -> None:
        self._table = table
        self._metrics = metrics
        self._launcher = launcher
        self._journal = journal
        self._settings = settings
        self._families: dict[str, _Family] = {}
        self._unconfirmed: set[str] = set()

    def expect(self, record: LeaseRecord) -> None:
        """A family is about to be launched; :meth:`settle` says that it was, or that nothing was started."""
        self._families[record.lease_ref] = _Family(
            exited=asyncio.get_running_loop().create_future(), launch_settled=asyncio.Event()
        )

    def recheck(self) -> None:
        """Close the leases whose survivors have gone in the meantime; confirm the ends that are written by now."""
        self._confirm_written()
        for record in self._table.unfinished():
            ending = self._families[record.lease_ref].ending
            if ending and ending.done() and not ending.cancelled() and not ending.exception():
                proof = ending.result()
                if proof.survivors and not stopping.remains(record):
                    self.close(record, msgspec.structs.replace(proof, survivors=()))

    def settle(self, record: LeaseRecord) -> None:
        """It is known what was launched."""
        self._families[record.lease_ref].launch_settled.set()

    def begin(self, record: LeaseRecord, cause: Cause, detail: str = "") -> asyncio.Task[ReleaseProof]:
        """Apply the cause; the one caller that crosses into STOPPING starts the stop, all share its proof."""
        family = self._families[record.lease_ref]
        if self.apply(record, cause, detail) or family.ending is None:
            family.ending = asyncio.create_task(self._end(record, family))
        return family.ending

    def apply(self, record: LeaseRecord, happening: Happening, detail: str = "") -> bool:
        """Change the lease's state and write it down; True when its family is now to be stopped."""
        before = record.state
        stops = self._table.apply(record, happening, detail)
        if record.state is not before:
            more = f": {detail}" if detail else ""
            fields = {"lease_ref": record.lease_ref, "state": record.state, "happening": happening}
            _log.info("lease %s -> %s (%s%s)", before, record.state, happening, more, extra=fields)
            self._journal.keep(record)
        return stops

    def disown(self, record: LeaseRecord) -> None:
        """Close a lease of the state folder that this one is a copy of: nothing of it is ours to stop or look at."""
        self.apply(record, Cause.LOST, COPIED)
        self.close(record, None)

    def close(self, record: LeaseRecord, proof: ReleaseProof | None) -> None:
        """Nothing is left of the family: write the proof, remove the folder, let the zygote forget."""
        if record.state is not State.STOPPING:
            return
        record.proof, record.ended_at_s = proof, time.time()
        record.log_tail = log_tail(Path(record.lease_dir)) if self.owns_folder(record) else ""
        record.let_go()
        self.apply(record, Step.EMPTIED)
        self._unconfirmed.add(record.lease_ref)
        self._confirm_written()
        if self.owns_folder(record):
            self.remove_folder(record.lease_ref)
        self._table.drop(record)
        if proof is not None:
            self._metrics.ended(record)
        del self._families[record.lease_ref]

    def owns_folder(self, record: LeaseRecord) -> bool:
        """Whether the lease's folder is in this state folder, and not in one that this is a copy of."""
        return Path(record.lease_dir).parent.parent == self._settings.home

    def sweep(self, keep: set[str]) -> None:
        """Remove the folders of leases that nobody knows any more, but for those."""
        for folder in (self._settings.home / LEASES_NAME).iterdir():
            if folder.name not in keep and self._table.get(folder.name) is None:
                self.remove_folder(folder.name)

    def remove_folder(self, lease_ref: str) -> None:
        """Remove what is left of a lease in this state folder."""
        shutil.rmtree(self._settings.home / LEASES_NAME / lease_ref, ignore_errors=True)

    def on_exit(self, message: Exited) -> None:
        """A family has ended; by itself, unless it was being stopped."""
        family = self._families.get(message.lease_ref)
        record = self._table.get(message.lease_ref)
        if family is None or record is None:
            if self._journal.is_written(message.lease_ref):
                self._launcher.confirm(message.lease_ref)
                self.remove_folder(message.lease_ref)
        elif not family.exited.done():
            family.exited.set_result(message)
            if not message.stopping:
                self.begin(record, Cause.CRASHED, f"the family ended by itself: {message.status}")

    def heard(self, record: LeaseRecord, message: Exited) -> None:
        """The family of a lease that is being taken over has ended already."""
        self._families[record.lease_ref].exited.set_result(message)

    def on_lost(self) -> None:
        """The zygote is gone, and by the kernel's hand every family with it."""
        for record in self._table.unfinished():
            self.on_gone(record)
            self.begin(record, Cause.CRASHED, "the zygote ended, and the family with it")

    def on_gone(self, record: LeaseRecord) -> None:
        """Nobody will tell of this family's end any more."""
        exited = self._families[record.lease_ref].exited
        if not exited.done():
            status = "nobody saw its end"
            exited.set_result(
                Exited(lease_ref=record.lease_ref, pid=0, status=status, stopping=False, killed=True)
            )

    def _confirm_written(self) -> None:
        """An end that is not written down yet has to be told again, should we be gone before it is."""
        for lease_ref in [ref for ref in self._unconfirmed if self._journal.is_written(ref)]:
            self._unconfirmed.discard(lease_ref)
            self._launcher.confirm(lease_ref)

    async def _end(self, record: LeaseRecord, family: _Family) -> ReleaseProof:
        await family.launch_settled.wait()
        proof = await stopping.stop_family(record, self._launcher, family.exited, self._settings)
        self._metrics.stopped(
            proof.elapsed_ms / 1e3, was_killed=proof.sigkill_needed, survivors=len(proof.survivors)
        )
        if proof.survivors:
            self.apply(record, Step.SURVIVED)
            fields = {"lease_ref": record.lease_ref}
            _log.error("%d processes of the lease survived", len(proof.survivors), extra=fields)
        else:
            self.close(record, proof)
        return proof


def log_tail(lease_dir: Path) -> str:
    """The end of the lease's log, for whoever wants to know why it ended."""
    try:
        with open(lease_dir / LOG_NAME, "rb") as log:
            size = log.seek(0, 2)
            log.seek(max(0, size - LOG_TAIL_BYTES))
            return redacted(log.read().decode(errors="replace"))[-LOG_TAIL_CHARS:]
    except OSError:
        return ""
