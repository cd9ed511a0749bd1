"""Leases of process-isolated inference endpoints over coding-agent command lines.

Stable API, three calls: ``consumer_manifest()``, ``ensure_endpoint(request, consumer_manifest, context)`` and
``release_endpoint(lease_ref)``, of :class:`InferenceEndpoint` (embedded) or :class:`SupervisorClient` (running).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.contracts import (
    BackendManifest,
    CompatibilityResult,
    ConsumerManifest,
    EndpointDescriptor,
    ExecutionContext,
    InferenceRequest,
    LeaseOptions,
)
from shared.errors import EndpointError, ProviderError, RequestError, WorkerError
from supervisor.errors import Incompatible, SurvivorsError

if TYPE_CHECKING:
    from supervisor.client import SupervisorClient
    from supervisor.embedded import InferenceEndpoint

__all__ = [
    "BackendManifest",
    "CompatibilityResult",
    "ConsumerManifest",
    "EndpointDescriptor",
    "EndpointError",
    "ExecutionContext",
    "Incompatible",
    "InferenceEndpoint",
    "InferenceRequest",
    "LeaseOptions",
    "ProviderError",
    "RequestError",
    "SupervisorClient",
    "SurvivorsError",
    "WorkerError",
]


def __getattr__(name: str) -> object:
    """The two clients, imported at first use: the serving process needs neither."""
    if name == "SupervisorClient":
        from supervisor.client import SupervisorClient

        return SupervisorClient
    if name == "InferenceEndpoint":
        from supervisor.embedded import InferenceEndpoint

        return InferenceEndpoint
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
