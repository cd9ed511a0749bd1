"""A compatible request with everything that was decided about it: what is to be leased, and for whom. Pure."""

from __future__ import annotations

import hashlib

import msgspec

from shared import provider
from shared.contracts import (
    BackendManifest,
    CompatibilityResult,
    ConsumerManifest,
    ExecutionContext,
    InferenceRequest,
    LeaseOptions,
)
from shared.provider import Provider
from supervisor.compatibility import decide
from supervisor.errors import Incompatible
from supervisor.naming import resolve_model, resolve_provider
from supervisor.publication import Publication, derive_backend_manifest, derive_publication


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of the decision order for one ensure call."""

    chosen: Provider
    model: str
    publication: Publication
    backend: BackendManifest
    compatibility: CompatibilityResult
    request: InferenceRequest
    manifest: ConsumerManifest
    context: ExecutionContext
    options: LeaseOptions

    def fingerprint(self) -> str:
        """The same for the same four arguments of ensure."""
        given = (self.request, self.manifest, self.context, self.options)
        return hashlib.sha256(msgspec.json.encode(given, order="deterministic")).hexdigest()


def make_decision(
    request: InferenceRequest,
    manifest: ConsumerManifest,
    context: ExecutionContext,
    options: LeaseOptions,
    management_modes: tuple[str, ...],
) -> Decision:
    """Provider, model, publication, compatibility, in this order. Raises RequestError or Incompatible."""
    chosen = provider.load(resolve_provider(request))
    model = resolve_model(request)
    publication = derive_publication(chosen)
    backend = derive_backend_manifest(publication, management_modes)
    compatibility = decide(request, manifest, backend, publication)
    if not compatibility.compatible:
        raise Incompatible(compatibility)
    provider.require_cost_reports(chosen, options.budget)
    return Decision(
        chosen=chosen,
        model=model,
        publication=publication,
        backend=backend,
        compatibility=compatibility,
        request=request,
        manifest=manifest,
        context=context,
        options=options,
    )
