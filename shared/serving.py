"""gunicorn's settings that both servers of this product share: one ASGI worker, and nothing open that need not be."""

from __future__ import annotations

import os
from typing import Any

from gunicorn.glogging import Logger

from shared.connections import BoundedWorker

KEEPALIVE_S = 75
"""An idle connection is closed after this. Clients give theirs up sooner (httpx, and so openai, after 5 s): were it
the other way round, as with gunicorn's 2 s, a request could meet a connection that is just being closed."""


class GunicornLog(Logger):  # type: ignore[misc]
    """gunicorn's log, in the same lines as everything else."""

    def setup(self, cfg: Any) -> None:
        """Its level from gunicorn's settings; its lines to the process's own handlers."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


def common_settings() -> dict[str, Any]:
    """By gunicorn's names. User and group explicitly: gunicorn's defaults are those of its import time, before a fork.

    The control socket is off because any process of the same user, a command line too, could stop the server by it;
    forwarded headers are never trusted; a client that leaves has its request cancelled at once.
    """
    return {
        "workers": 1,
        "worker_class": BoundedWorker,
        "asgi_loop": "asyncio",
        "asgi_lifespan": "on",
        "asgi_disconnect_grace_period": 0,
        "keepalive": KEEPALIVE_S,
        "control_socket_disable": True,
        "forwarded_allow_ips": "",
        "user": os.geteuid(),
        "group": os.getegid(),
        "logger_class": GunicornLog,
        "loglevel": "warning",
    }
