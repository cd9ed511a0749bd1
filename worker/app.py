"""Wiring the Falcon application of one lease from its parts. Reads no environment and starts nothing by itself."""

from __future__ import annotations

import logging

from shared import http
from shared.launch import LaunchSpec
from worker.auth import Admission
from worker.lease import ServedLease
from worker.lifecycle import Lifecycle
from worker.resources import Cancellations, ChatCompletions, Health, Models, OpenApi
from worker.session import Session

_log = logging.getLogger("asm_endpoint.worker")
LEASE_PREFIX = "/leases/{lease_ref}"


def build_app(lease: ServedLease, lifecycle: Lifecycle | None = None) -> http.FalconApp:
    """The application of a lease that may be filled in later; no ``lifecycle`` where no process is behind it."""
    app = http.new_app(
        _log, Admission(lease), *([lifecycle] if lifecycle else []), origins=lambda: lease.spec.cors_origins
    )
    models = Models(lease)
    app.add_route(f"{LEASE_PREFIX}/health", Health(lease))
    app.add_route(f"{LEASE_PREFIX}/openapi.json", OpenApi())
    app.add_route(f"{LEASE_PREFIX}/v1/models", models)
    app.add_route(f"{LEASE_PREFIX}/v1/models/{{model_id:path}}", models, suffix="one")
    app.add_route(f"{LEASE_PREFIX}/v1/chat/completions", ChatCompletions(lease))
    app.add_route(f"{LEASE_PREFIX}/v1/requests/{{request_id}}/cancel", Cancellations(lease))
    return app


def create_app(spec: LaunchSpec, session: Session) -> http.FalconApp:
    """The application of a lease that is known, without a process's life around it."""
    lease = ServedLease()
    lease.begin(spec, session)
    return build_app(lease)
