"""Wiring one lease's Falcon application from its parts. Reads no environment and starts nothing by itself."""

from __future__ import annotations

import logging

from shared import http
from shared.launch import LaunchSpec
from worker.auth import Admission, Gate
from worker.lifecycle import Lifecycle
from worker.resources import ChatCompletions, Health, Models
from worker.session import Session

_log = logging.getLogger("asm_endpoint.worker")


def create_app(
    spec: LaunchSpec, session: Session, gate: Gate, lifecycle: Lifecycle | None = None
) -> http.FalconApp:
    """The application of one lease; ``lifecycle`` is left out where no process is behind it."""
    app = http.new_app(_log, Admission(gate), *([lifecycle] if lifecycle else []))
    prefix, models = f"/leases/{spec.lease_ref}", Models(spec)
    app.add_route(f"{prefix}/health", Health(spec, session))
    app.add_route(f"{prefix}/v1/models", models)
    app.add_route(f"{prefix}/v1/models/{{model_id:path}}", models, suffix="one")
    app.add_route(f"{prefix}/v1/chat/completions", ChatCompletions(spec, session))
    return app
