"""Writing the endpoint descriptor of a ready lease. Pure but for the clock that dates its expiry."""

from __future__ import annotations

import datetime
from typing import Any

from shared.contracts import BackendManifest, CompatibilityResult, EndpointDescriptor
from supervisor.publication import Publication, derive_endpoint_capabilities
from supervisor.table import LeaseRecord


def describe_endpoint(
    record: LeaseRecord,
    *,
    token: str,
    publication: Publication,
    compatibility: CompatibilityResult,
    backend: BackendManifest,
    authority_refs: dict[str, str],
    boundary_ref: str | None,
) -> EndpointDescriptor:
    """The descriptor; its ``headers`` are the only place where the token is ever written."""
    metadata: dict[str, Any] = {
        **record.metadata,
        "publication": publication.to_builtins(),
        "backend_manifest": backend.to_builtins(),
        "authority_refs": authority_refs,
        "expires_at": _expiry(record),
    }
    return EndpointDescriptor(
        endpoint_id=record.endpoint_id,
        management_mode=compatibility.resolved_management_mode or backend.management_modes[0],
        base_url=record.base_url,
        headers={"authorization": f"Bearer {token}"},
        provider_identity=record.provider,
        model_identity=record.model,
        source_runtime_ref=record.lease_ref,
        lease_ref=record.lease_ref,
        health_ref=record.base_url.removesuffix("/v1") + "/health",
        boundary_ref=boundary_ref,
        capabilities=derive_endpoint_capabilities(publication),
        metadata=metadata,
    )


def _expiry(record: LeaseRecord) -> str:
    at = datetime.datetime.fromtimestamp(record.created_at_s + record.options.ttl_s, datetime.UTC)
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
