"""gunicorn, embedded: one arbiter and one ASGI worker that serve one lease on an inherited listening socket.

Only gunicorn's public application API and server hooks are used. gunicorn starts a crashed worker process again, so
the descriptor stays valid; before that, everything the dead process left is killed. A family whose worker keeps
dying ends itself.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

from gunicorn.app.base import BaseApplication

from shared import isolation
from shared.http import FalconApp
from shared.launch import LaunchSpec, WireLimits
from shared.serving import common_settings

MAX_DEATHS = 3
DEATHS_WINDOW_S = 60.0
CRASH_LOOP_EXIT = 70
CRASH_LOOP = f"its worker process died more than {MAX_DEATHS} times in {DEATHS_WINDOW_S:g} s"
"""What that exit status of a family says."""
HEARTBEAT_TIMEOUT_S = 30
"""gunicorn kills a worker process whose event loop has not moved for so long."""
STOP_MARGIN_S = 2.0
"""gunicorn's own patience beyond the lease's drain time."""


class LeaseServer(BaseApplication):  # type: ignore[misc]
    """The gunicorn application of one family.

    It is built in the zygote, once, because its configuration is the same for all families but for three settings;
    each family gets its copy by the fork and fills those in with :meth:`serve`. ``load`` gives the application in
    the worker process.
    """

    def __init__(self, load: Callable[[], FalconApp]) -> None:
        self._load = load
        self._kill_strays: Callable[[], None] = _kill_nothing
        self.wire = WireLimits()
        self._deaths: deque[float] = deque(maxlen=MAX_DEATHS + 1)
        super().__init__()

    def load_config(self) -> None:
        """The settings that are the same for every lease."""
        settings = {
            **common_settings(),
            "timeout": HEARTBEAT_TIMEOUT_S,
            "post_fork": _post_fork,
            "child_exit": self._child_exit,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def serve(self, spec: LaunchSpec, listener_fd: int, kill_strays: Callable[[], None]) -> None:
        """Serve one lease until the end. ``kill_strays`` ends all processes below the arbiter."""
        self._kill_strays = kill_strays
        self.wire = spec.wire
        self.cfg.set("bind", f"fd://{listener_fd}")
        self.cfg.set("graceful_timeout", int(spec.drain_s + STOP_MARGIN_S))
        self.cfg.set("proc_name", f"asm-endpoint {spec.lease_ref}")
        self.run()

    def load(self) -> FalconApp:
        """The application; called in the worker process."""
        return self._load()

    def _child_exit(self, arbiter: Any, worker: Any) -> None:
        self._kill_strays()
        self._deaths.append(time.monotonic())
        if len(self._deaths) > MAX_DEATHS and self._deaths[-1] - self._deaths[0] < DEATHS_WINDOW_S:
            logging.getLogger("asm_endpoint.worker").error("the lease ends: %s", CRASH_LOOP)
            sys.stderr.flush()
            os._exit(CRASH_LOOP_EXIT)


def exit_text(code: int) -> str:
    """A family's exit status, or minus the signal that ended it, in words."""
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit {code}: {CRASH_LOOP}" if code == CRASH_LOOP_EXIT else f"exit {code}"


def _kill_nothing() -> NoReturn:
    raise RuntimeError("cannot kill strays: no lease is served yet")


def _post_fork(arbiter: Any, worker: Any) -> None:
    isolation.die_with_parent()
