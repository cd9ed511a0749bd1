"""The one lease that a process serves.

The application is built around it before it is known: in the zygote, once for all families, which is where building
costs least. A family fills it in with :meth:`ServedLease.begin` after the fork.
"""

from __future__ import annotations

from shared.launch import LaunchSpec
from worker.auth import Gate
from worker.replay import Replays
from worker.session import Session


class ServedLease:
    """Spec, session, gate and repeatable answers; reading them before :meth:`begin` is an AttributeError."""

    spec: LaunchSpec
    session: Session
    gate: Gate
    replays: Replays

    def begin(self, spec: LaunchSpec, session: Session) -> None:
        """Serve this lease from now on."""
        self.spec = spec
        self.session = session
        self.replays = Replays(session.limits)
        self.gate = Gate(spec.lease_ref, spec.token_sha256)
