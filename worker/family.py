"""The first process of a worker family, from the fork to the running server.

It cuts every tie to the zygote: own session, own log, empty environment, only its three descriptors, and death
with the zygote. Below it is gunicorn's worker process, and below that the command lines.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
from collections.abc import Sequence
from pathlib import Path

from shared import isolation, locate, logs, processes, provider
from shared.launch import LAUNCH_FDS, LaunchSpec
from shared.provider import CommandInputs
from shared.redaction import secret_values
from shared.scoreboard import Scoreboard
from worker.capacity import Capacity
from worker.confinement import Confinement
from worker.pool import Pool
from worker.rehearsal import Rehearsed
from worker.session import Session
from worker.starter import Starter

FIRST_FD = 3
HIGH_FD = 512
"""Descriptors are parked up here while the low numbers are freed."""
LISTENER_FD, VARIABLES_FD, SCOREBOARD_FD = range(FIRST_FD, FIRST_FD + len(LAUNCH_FDS))
ENVIRONMENT = {"PATH": os.defpath, "LANG": "C.UTF-8"}
MAX_VARIABLES_BYTES = 1024 * 1024
KILL_ROUNDS = 20


def run(
    rehearsed: Rehearsed, spec: LaunchSpec, fds: Sequence[int], lifeline: int, has_namespace: bool
) -> None:
    """Become the family's leader and serve until the end. Called in the forked child; never returns normally."""
    os.setsid()
    isolation.die_with_parent()
    if select.select([lifeline], [], [], 0)[0]:
        return
    if not has_namespace:
        isolation.adopt_orphans()
    isolation.forbid_new_privileges()
    isolation.forbid_core_dumps()
    _reset_signals()
    _keep_only(fds)
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    os.umask(0o077)
    _open_log(Path(spec.lease_dir) / "worker.log")
    os.chdir(Path(spec.lease_dir) / "workspace")
    kill_strays = _kill_namespace if has_namespace else kill_descendants
    variables = json.loads(os.pread(VARIABLES_FD, MAX_VARIABLES_BYTES, 0))
    fields = {"lease_ref": spec.lease_ref, "provider": spec.provider}
    logs.configure(spec.log, fields=fields, secrets=secret_values(variables))
    if spec.request_id:
        logs.begin(request_id=spec.request_id)
    rehearsed.lease.begin(spec, _new_session(spec, variables, has_namespace))
    rehearsed.server.serve(spec, LISTENER_FD, kill_strays)


def _new_session(spec: LaunchSpec, variables: dict[str, str], has_namespace: bool) -> Session:
    """The lease's session; it is used by gunicorn's worker process, and made anew by the fork when that dies."""
    chosen = provider.load(spec.provider)
    inputs = CommandInputs(
        executable=spec.executable,
        version=spec.cli_version,
        model=spec.model,
        login=spec.login,
        workspace=f"{spec.lease_dir}/workspace",
        home=f"{spec.lease_dir}/home",
        user_home=spec.user_home,
        variables=variables,
        prepared=spec.prepared,
        settings=locate.user_settings(chosen, variables, Path(spec.user_home)),
    )
    confinement = Confinement(
        hardening=spec.hardening,
        limits=spec.lease_limits,
        folders=(inputs.workspace, inputs.home, str(Path(spec.lease_dir) / "tmp")),
        dies_with_parent=not has_namespace,
    )
    starter = Starter(chosen, inputs, spec.limits, marker=spec.lease_ref, confinement=confinement)
    capacity = Capacity(
        concurrency=spec.concurrency,
        queue_limit=spec.queue_limit,
        budget=spec.budget,
        board=Scoreboard(SCOREBOARD_FD),
    )
    pool = Pool(starter.start, spec.standby, spec.limits.standby_idle_s)
    return Session(pool, spec.limits, capacity, logs_content=spec.log.content)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _keep_only(fds: Sequence[int]) -> None:
    """Close every descriptor but the standard streams and ``fds``, which get the numbers from FIRST_FD on."""
    parked = [fcntl.fcntl(fd, fcntl.F_DUPFD, HIGH_FD) for fd in fds]
    for number, fd in enumerate(parked, FIRST_FD):
        os.dup2(fd, number, inheritable=False)
    os.closerange(FIRST_FD + len(fds), os.sysconf("SC_OPEN_MAX"))


def _open_log(path: Path) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(null)
    os.close(log)


def _kill_namespace() -> None:
    """From PID 1 of a PID namespace: SIGKILL to everything else in it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)


def kill_descendants(keep: frozenset[int] = frozenset()) -> None:
    """SIGKILL to everything below us until nothing new turns up, but not to ``keep`` and what is below them.

    Complete because we adopt orphans: whatever loses its parent while we kill comes to us.
    """
    for _ in range(KILL_ROUNDS):
        rows = processes.table()
        kept: dict[int, list[processes.ProcessRow]] = {pid: [] for pid in keep}
        children = (
            processes.children_by_parent({pid: row for pid, row in rows.items() if pid not in keep}) | kept
        )
        below = processes.family(os.getpid(), rows, children)[1:]
        running = [row.id.pid for row in below if not row.is_zombie]
        if not running:
            return
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
