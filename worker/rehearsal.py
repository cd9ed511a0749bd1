"""Doing everything once before the first fork, so that families find it done.

Imports that gunicorn would make late, and the first building of an application and a server configuration, which
fills caches and touches pages that all families then share. Nothing here serves, listens or starts a process.
"""

from __future__ import annotations

import importlib
from typing import NoReturn

from shared import provider, scoreboard
from shared.contracts import Budget
from shared.launch import LaunchSpec, TurnLimits
from worker.app import create_app
from worker.auth import Gate
from worker.capacity import Capacity
from worker.lifecycle import Lifecycle
from worker.pool import Pool
from worker.server import LeaseServer
from worker.session import Session

PRELOAD = (
    "asyncio.runners",
    "falcon.asgi",
    "gunicorn.arbiter",
    "gunicorn.asgi.lifespan",
    "gunicorn.asgi.protocol",
    "gunicorn.glogging",
    "gunicorn.instrument.statsd",
    "gunicorn.workers.gasgi",
)
"""gunicorn names its classes by strings and imports them when it needs them."""
SPEC = LaunchSpec(
    lease_ref="rehearsal",
    endpoint_id="rehearsal",
    provider="rehearsal",
    model="rehearsal",
    token_sha256="",
    streaming=True,
    executable=("rehearsal",),
    cli_version=None,
    login="",
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


def rehearse() -> LeaseServer:
    """Import and build everything once; returns the server that families are to fill in."""
    for module in PRELOAD:
        importlib.import_module(module)
    for name in provider.names():
        provider.load(name)
    capacity = Capacity(concurrency=1, queue_limit=0, board=scoreboard.local())
    session = Session(Pool(_start_nothing, 0), SPEC.limits, capacity)
    gate = Gate(SPEC.lease_ref, SPEC.token_sha256)
    create_app(SPEC, session, gate, Lifecycle(SPEC, session, gate))
    return LeaseServer()


def _start_nothing() -> NoReturn:
    raise NotImplementedError("a rehearsal starts no process")
