"""A compatible request with everything that was decided about it: what is to be leased, and for whom. Pure."""

from __future__ import annotations

import hashlib

import msgspec

from shared.contracts import (
    CompatibilityResult,
    ConsumerManifest,
    ExecutionContext,
    InferenceRequest,
    LeaseOptions,
)
from shared.processes import ProcessId
from shared.provider import Provider
from supervisor.publication import Publication


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of the decision order for one ensure call."""

    chosen: Provider
    model: str
    publication: Publication
    compatibility: CompatibilityResult
    request: InferenceRequest
    manifest: ConsumerManifest
    context: ExecutionContext
    options: LeaseOptions
    owner: ProcessId | None

    def fingerprint(self) -> str:
        """The same for the same four arguments of ensure."""
        given = (self.request, self.manifest, self.context, self.options)
        return hashlib.sha256(msgspec.json.encode(given, order="deterministic")).hexdigest()
