"""The errors that carry an answer of the supervisor's, and reading any error back from its HTTP envelope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from shared.contracts import CompatibilityResult
from shared.errors import KINDS, EndpointError, RequestError, WorkerError, typed
from shared.reading import parse
from supervisor.proof import ReleaseProof
from supervisor.views import LeaseReleased


class Incompatible(RequestError):
    """The compatibility decision was no. ``compatibility`` says which requirement failed."""

    def __init__(self, compatibility: CompatibilityResult) -> None:
        missing = ", ".join(compatibility.missing_requirements) or "unknown"
        super().__init__(
            "incompatible", f"cannot lease endpoint: {compatibility.reason} (missing: {missing})"
        )
        self.compatibility = compatibility

    def envelope(self) -> dict[str, Any]:
        """The error envelope with the whole compatibility result beside it."""
        return {**super().envelope(), "compatibility": self.compatibility.to_builtins()}


class SurvivorsError(WorkerError):
    """Processes outlived SIGKILL. ``proof`` is the release proof with the survivors in it."""

    def __init__(self, proof: ReleaseProof) -> None:
        count = len(proof.survivors)
        super().__init__("survivors", f"cannot stop worker family: {count} processes survived SIGKILL")
        self.proof = proof

    def envelope(self) -> dict[str, Any]:
        """The error envelope with the proof beside it."""
        return {**super().envelope(), "proof": msgspec.to_builtins(self.proof)}


class ReleasesFailed(WorkerError):
    """Not all of several leases could be released. ``endpoints`` tells of each, of the released ones too."""

    def __init__(self, endpoints: Sequence[LeaseReleased]) -> None:
        failed = [each for each in endpoints if not each.released]
        super().__init__(
            "survivors", f"cannot release {len(failed)} of {len(endpoints)} leases: {failed[0].error}"
        )
        self.endpoints = tuple(endpoints)

    def envelope(self) -> dict[str, Any]:
        """The error envelope with every outcome beside it."""
        return {**super().envelope(), "endpoints": msgspec.to_builtins(self.endpoints)}


def from_envelope(body: Any, status: int, headers: Any = None) -> EndpointError:
    """The typed error of an HTTP answer; an answer that is not ours becomes ``internal_error``."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict) or error.get("code") not in KINDS:
        return WorkerError("internal_error", f"cannot read answer: HTTP {status} without an error envelope")
    if "compatibility" in body:
        return Incompatible(
            parse(body["compatibility"], CompatibilityResult, code="invalid_request", noun="compatibility")
        )
    if "proof" in body:
        return SurvivorsError(msgspec.convert(body["proof"], ReleaseProof))
    if "endpoints" in body:
        return ReleasesFailed(msgspec.convert(body["endpoints"], list[LeaseReleased]))
    retry_after = (headers or {}).get("retry-after")
    return typed(
        error["code"],
        str(error.get("message")),
        param=error.get("param"),
        retry_after_s=float(retry_after) if retry_after and retry_after.isdigit() else None,
        details={name: value for name, value in body.items() if name != "error"},
    )
