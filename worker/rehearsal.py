"""Doing everything once before the first fork, so that families find it done.

Imports that gunicorn would make late, the server's configuration, the application, and its first requests: they
fill caches, compile routes and touch memory that all families then share. Nothing here listens or starts a process.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from typing import Any, NoReturn

import msgspec

from shared import provider, tokens
from shared.contracts import Budget
from shared.http import FalconApp
from shared.launch import LaunchSpec, TurnLimits
from worker.app import build_app
from worker.capacity import Capacity
from worker.lease import ServedLease
from worker.lifecycle import Lifecycle
from worker.pool import Pool
from worker.server import LeaseServer
from worker.session import Session

PRELOAD = (
    "asyncio.runners",
    "gunicorn.arbiter",
    "gunicorn.asgi.lifespan",
    "gunicorn.asgi.protocol",
    "gunicorn.glogging",
    "gunicorn.instrument.statsd",
    "gunicorn.workers.gasgi",
)
"""gunicorn names its classes by strings and imports them when it needs them."""
TOKEN = "rehearsal"  # noqa: S105  # opens nothing: no process serves this lease
SPEC = LaunchSpec(
    lease_ref="rehearsal",
    endpoint_id="rehearsal",
    provider="echo",
    model="rehearsal",
    token_sha256=tokens.fingerprint(TOKEN),
    streaming=True,
    executable=("rehearsal",),
    cli_version=None,
    login="",
    prepared="",
    user_home="/",
    lease_dir="/",
    concurrency=1,
    queue_limit=0,
    standby=0,
    budget=Budget(),
    limits=TurnLimits(),
    drain_s=0,
    namespaces=False,
)
REQUESTS = (
    ("GET", "/leases/rehearsal/health", b"", 200),
    ("GET", "/leases/rehearsal/nowhere", b"", 404),
    ("POST", "/leases/rehearsal/v1/chat/completions", b'{"messages":[],"tools":[1]}', 400),
)
"""Method, path, body and the status that shows that the rehearsal went as it should."""


class Rehearsed(msgspec.Struct, frozen=True, kw_only=True):
    """What families take over: the lease to fill in, the application around it, and the server."""

    lease: ServedLease
    app: FalconApp
    server: LeaseServer


def rehearse() -> Rehearsed:
    """Import and build everything, and serve a few requests without a socket. Raises RuntimeError on a wrong answer."""
    for module in PRELOAD:
        importlib.import_module(module)
    for name in provider.names():
        provider.load(name)
    lease = ServedLease()
    capacity = Capacity(concurrency=1, queue_limit=0)
    lease.begin(SPEC, Session(Pool(_start_nothing, 0), SPEC.limits, capacity))
    app = build_app(lease, Lifecycle(lease))
    for method, path, body, status in REQUESTS:
        answered = asyncio.run(_request(app, method, path, body))
        if answered != status:
            raise RuntimeError(f"rehearsal: {method} {path} answered {answered} instead of {status}")
    return Rehearsed(lease=lease, app=app, server=LeaseServer(lambda: app))


async def _request(app: FalconApp, method: str, path: str, body: bytes) -> int:
    sent: list[dict[str, Any]] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), (b"authorization", f"Bearer {TOKEN}".encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 1),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    logger = logging.getLogger("asm_endpoint")
    logger.disabled = True
    await app(scope, receive, send)
    logger.disabled = False
    return int(sent[0]["status"])


def _start_nothing() -> NoReturn:
    raise RuntimeError("a rehearsal starts no process")
