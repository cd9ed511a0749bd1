"""What a worker family is given: its record, folders, launch spec, listening socket and memory files."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from shared import logs, processes, scoreboard, tokens
from shared.contracts import Budget, LeaseLimits
from shared.errors import RequestError, WorkerError
from shared.hardening import Hardening
from shared.launch import LaunchSpec
from shared.provider import describe_cli
from shared.scoreboard import Scoreboard
from supervisor.commandlines import CommandLine
from supervisor.decision import Decision
from supervisor.settings import DEFAULT_HOST, Settings
from supervisor.statefolder import LEASES_NAME
from supervisor.table import LeaseRecord
from supervisor.ulid import new_ulid

LISTEN_BACKLOG = 128
PRIVATE_FOLDERS = ("workspace", "home", "tmp")


def listen() -> socket.socket:
    """A socket that listens on a free loopback port. Raises WorkerError ``boot_failed``: there is none."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.bind((DEFAULT_HOST, 0))
        listener.listen(LISTEN_BACKLOG)
    except OSError as error:
        listener.close()
        raise WorkerError("boot_failed", f"cannot listen on {DEFAULT_HOST}: {error.strerror}") from error
    return listener


def owner_process(pid: int | None) -> processes.ProcessId | None:
    """The owning process, identified. Raises RequestError ``invalid_lease_options`` when it does not run."""
    if pid is None:
        return None
    found = processes.identify(pid)
    if found is None:
        raise RequestError(
            "invalid_lease_options", f"cannot lease for process {pid}: it does not run", param="owner_pid"
        )
    return found


def new_record(decision: Decision, owner: str, home: Path, port: int, token: str) -> LeaseRecord:
    """The record of a lease that is about to start."""
    lease_ref = f"lease_{new_ulid()}"
    return LeaseRecord(
        lease_ref=lease_ref,
        endpoint_id=f"endpoint_{new_ulid()}",
        owner=owner,
        provider=decision.chosen.name,
        model=decision.model,
        consumer=decision.manifest.consumer,
        options=decision.options,
        lease_dir=str(home / LEASES_NAME / lease_ref),
        base_url=f"http://{DEFAULT_HOST}:{port}/leases/{lease_ref}/v1",
        token_sha256=tokens.fingerprint(token),
        created_at_s=time.time(),
        expires_at=time.monotonic() + decision.options.ttl_s,
        owner_process=owner_process(decision.options.owner_pid),
    )


def make_folders(record: LeaseRecord, hardening: Hardening) -> None:
    """The lease's private, empty folders, which belong to the user that its command lines run as."""
    lease_dir = Path(record.lease_dir)
    for name in PRIVATE_FOLDERS:
        (lease_dir / name).mkdir(mode=0o700, parents=True)
    lease_dir.chmod(0o700)
    if hardening.uid is not None and hardening.gid is not None:
        for name in PRIVATE_FOLDERS:
            os.chown(lease_dir / name, hardening.uid, hardening.gid)
        os.chown(lease_dir, -1, hardening.gid)
        lease_dir.chmod(0o710)


def launch_spec(
    record: LeaseRecord,
    decision: Decision,
    command_line: CommandLine,
    user_home: str,
    settings: Settings,
) -> LaunchSpec:
    """What the worker is told; of the token, only its fingerprint."""
    options = decision.options
    return LaunchSpec(
        lease_ref=record.lease_ref,
        endpoint_id=record.endpoint_id,
        provider=record.provider,
        model=record.model,
        token_sha256=record.token_sha256,
        streaming=decision.publication.cli_streaming_v1,
        executable=command_line.executable,
        cli_version=command_line.version,
        login=command_line.login,
        prepared=command_line.prepared,
        user_home=user_home,
        lease_dir=record.lease_dir,
        concurrency=options.concurrency,
        queue_limit=settings.queue_limit if options.queue_limit is None else options.queue_limit,
        standby=options.standby,
        budget=options.budget or Budget(),
        limits=settings.limits,
        drain_s=settings.drain_s,
        namespaces=settings.namespaces,
        lease_limits=options.limits or LeaseLimits(),
        wire=settings.wire,
        cors_origins=settings.cors_origins,
        hardening=settings.hardening,
        log=msgspec.structs.replace(settings.log, max_bytes=settings.lease_log_bytes),
        request_id=logs.bound("request_id"),
    )


def metadata(record: LeaseRecord, decision: Decision, command_line: CommandLine) -> dict[str, Any]:
    """What travels with the lease: names of the caller's own, and the command line. No secret."""
    names = {
        "request_id": decision.request.request_id,
        "run_id": decision.context.run_id,
        "attempt_id": decision.context.attempt_id,
    }
    return {
        "model_version": record.model,
        "cli": describe_cli(decision.chosen, command_line.executable[-1], command_line.version),
        **{name: value for name, value in names.items() if value},
    }


@contextlib.contextmanager
def memory_files(variables: dict[str, str], record: LeaseRecord) -> Iterator[tuple[int, int]]:
    """Descriptors of the command line's variables and of the lease's scoreboard, closed at the end."""
    variables_fd = os.memfd_create("asm-endpoint-variables", os.MFD_CLOEXEC)
    scoreboard_fd = scoreboard.create()
    try:
        os.write(variables_fd, json.dumps(variables).encode())
        record.scoreboard = Scoreboard(scoreboard_fd)
        record.scoreboard["last_active_ns"] = time.monotonic_ns()
        yield variables_fd, scoreboard_fd
    finally:
        os.close(variables_fd)
        os.close(scoreboard_fd)
