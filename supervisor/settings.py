"""Everything about a supervisor that can be set, with its default and unit, and where its state lives."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from shared.errors import RequestError
from shared.hardening import Hardening
from shared.launch import TurnLimits, WireLimits
from shared.logs import LogSettings

HOME_VARIABLE = "ASM_ENDPOINT_HOME"
DEFAULT_HOST = "127.0.0.1"


EMBEDDED_ADOPT_GRACE_S = 5.0
"""For an embedded supervisor: nobody comes to adopt but its own second try after a crash."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One supervisor's settings. All waits are bounded by one of these."""

    home: Path
    """State folder: supervisor.json, admin.token, leases.sqlite, zygote.sock, leases/."""
    management_modes: tuple[str, ...] = ("jido_managed",)
    namespaces: bool = True
    """Use PID namespaces where the kernel allows it."""
    hardening: Hardening = Hardening()
    """Locks for every command line, beyond what always holds."""
    limits: TurnLimits = TurnLimits()
    wire: WireLimits = WireLimits()
    """Of the supervisor and of every lease."""
    cors_origins: tuple[str, ...] = ()
    """Of web pages that may use the supervisor and every lease."""
    max_leases: int = 256
    max_starts: int = 64
    """Leases that may be starting at once; more are refused for a moment."""
    min_available_bytes: int = 256 * 2**20
    """With less memory to be had on the machine, new leases are refused."""
    queue_limit: int = 16
    """Turns that may wait per lease."""
    budget_grace_s: float = 30.0
    """From the end of a lease's budget, with callers told so, to the end of the lease."""
    drain_s: float = 2.0
    """For running turns to finish when a lease ends."""
    kill_margin_s: float = 3.0
    """From the end of the drain to SIGKILL of the family."""
    exit_wait_s: float = 10.0
    """From SIGKILL to giving up and telling of survivors."""
    boot_timeout_s: float = 30.0
    """From the launch of a family to its first healthy answer."""
    zygote_timeout_s: float = 30.0
    """From starting the zygote to its Ready."""
    adopt_grace_s: float = 30.0
    """How long families live on without a supervisor, for the next one to adopt them."""
    take_over_s: float = 60.0
    """For a running supervisor to leave when another one takes over: as long as a start and a stop may take."""
    monitor_period_s: float = 1.0
    disk_period_s: float = 5.0
    """How often the folders of leases with a limit of disk are measured."""
    totals_period_s: float = 5.0
    """How often the journal is told what open leases have used."""
    prune_period_s: float = 3600.0
    """How often the journal is looked through for leases to forget."""
    ended_kept_s: float = 7 * 86_400.0
    """How long the journal keeps a lease that has ended."""
    ended_kept: int = 10_000
    """How many of them at most."""
    ended_kept_always: int = 100
    """How many of them however old they seem: the wall clock may have jumped."""
    heartbeat_max_age_s: float = 5.0
    """A worker that stands still for longer makes its lease degraded."""
    log: LogSettings = LogSettings()
    lease_log_bytes: int = 1024 * 1024
    """Bound of each lease's worker.log; the older half gives way."""


MAX_NUMBER = 1e9
MAX_BYTES = 1e15
"""For names that end in ``_bytes``."""
NUMBERS: dict[type, dict[str, type[float | int]]] = {
    owner: {field.name: field.type for field in msgspec.structs.fields(owner) if field.type in (int, float)}
    for owner in (Settings, TurnLimits, WireLimits)
}
"""What :func:`changed` can change."""


def changed(settings: Settings, assignments: Iterable[str]) -> Settings:
    """``settings`` with ``NAME=NUMBER`` assignments applied; names of ``TurnLimits`` and ``WireLimits`` count too.

    Raises RequestError ``invalid_request`` for a name that is not there or a value that is not a positive number.
    """
    chosen: dict[type, dict[str, float | int]] = {owner: {} for owner in NUMBERS}
    for assignment in assignments:
        name, _, text = assignment.partition("=")
        owner = next((owner for owner, kinds in NUMBERS.items() if name in kinds), None)
        if owner is None:
            known = ", ".join(sorted(name for kinds in NUMBERS.values() for name in kinds))
            raise RequestError("invalid_request", f"cannot set {name!r}: known are {known}", param=name)
        chosen[owner][name] = _number(name, text, NUMBERS[owner][name])
    return msgspec.structs.replace(
        settings,
        **chosen[Settings],
        limits=msgspec.structs.replace(settings.limits, **chosen[TurnLimits]),
        wire=msgspec.structs.replace(settings.wire, **chosen[WireLimits]),
    )


def _number(name: str, text: str, kind: type[float | int]) -> float | int:
    try:
        value = kind(text)
    except ValueError:
        value = kind(-1)
    most = MAX_BYTES if name.endswith("_bytes") else MAX_NUMBER
    if not 0 < value < most:
        article = "a whole" if kind is int else "a"
        raise RequestError(
            "invalid_request",
            f"cannot set {name} to {text!r}: {article} number above 0 and below {most:g} is needed",
            param=name,
        )
    return value


def state_home(environ: Mapping[str, str]) -> Path:
    """``$ASM_ENDPOINT_HOME``, else ``asm-endpoint`` in the XDG state folder."""
    if named := environ.get(HOME_VARIABLE):
        return Path(named).expanduser().absolute()
    base = environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(base) / "asm-endpoint"
