"""The comparison: the same Falcon application, each lease spawned by ``python -m gunicorn`` as a program of its own.

``application`` is what gunicorn loads; :class:`ColdLease` starts and ends one such server on a socket that already
listens, which is the fastest way to start gunicorn from a command.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx

LEASE_REF = "lease_cold"
TOKEN = "cold"
END_WAIT_S = 20.0
READY_TIMEOUT_S = 120.0


def application() -> object:
    """The worker's own application for one echo lease, with no standby."""
    from shared import provider, tokens
    from shared.contracts import Budget
    from shared.launch import LaunchSpec, TurnLimits
    from shared.provider import CommandInputs
    from worker.app import create_app
    from worker.capacity import Capacity
    from worker.pool import Pool
    from worker.session import Session
    from worker.starter import Starter

    echo = provider.load("echo")
    limits = TurnLimits()
    folder = os.environ["COLD_FOLDER"]
    spec = LaunchSpec(
        lease_ref=LEASE_REF,
        endpoint_id="endpoint_cold",
        provider="echo",
        model="any",
        token_sha256=tokens.fingerprint(TOKEN),
        streaming=True,
        executable=echo.executable.pinned,
        cli_version=None,
        login="",
        prepared="",
        user_home=folder,
        lease_dir=folder,
        concurrency=4,
        queue_limit=16,
        standby=0,
        budget=Budget(),
        limits=limits,
        drain_s=0,
        namespaces=False,
    )
    inputs = CommandInputs(
        executable=spec.executable,
        model="any",
        login="",
        workspace=folder,
        home=f"{folder}/home",
        user_home=folder,
        variables={},
    )
    pool = Pool(Starter(echo, inputs, limits).start, 0)
    session = Session(pool, limits, Capacity(concurrency=4, queue_limit=16))
    return create_app(spec, session)


class ColdLease:
    """One such server; :meth:`wait` returns at its first healthy answer."""

    def __init__(self, folder: Path) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/leases/{LEASE_REF}/health"
        with listener:
            self._process = subprocess.Popen(
                (
                    sys.executable, "-m", "gunicorn", "--worker-class", "asgi", "--workers", "1",
                    "--bind", f"fd://{listener.fileno()}", "--no-control-socket", "--log-level", "warning",
                    "tests.bench.cold:application()",
                ),
                pass_fds=(listener.fileno(),),
                cwd=Path(__file__).parents[2],
                env={**os.environ, "COLD_FOLDER": str(folder)},
                start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """The arbiter's."""
        return self._process.pid

    def wait(self, http: httpx.Client) -> None:
        """Until the first 200."""
        answer = http.get(self.url, headers={"authorization": f"Bearer {TOKEN}"}, timeout=READY_TIMEOUT_S)
        assert answer.status_code == 200

    def end(self) -> None:
        """Kill the whole group."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(END_WAIT_S)
