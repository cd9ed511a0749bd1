"""The whole protocol between supervisor and zygote: one SEQPACKET socket, one JSON message per packet.

::

    supervisor                                  zygote
    Hello(protocol, adopt_grace_s)        ->
                                          <-    Ready(protocol, pid, ...), then of each family that it has:
                                          <-    Running   + scoreboard, namespace
                                          <-    Exited    of families whose end nobody has confirmed yet
                                          <-    Told      that was all
    Launch(spec) + LAUNCH_FDS             ->
                                          <-    Launched + namespace, or LaunchFailed
    Stop(lease_ref, kill_after_s)         ->
                                          <-    Exited    at the very end of every family
    Confirm(lease_ref)                    ->    forget that family
    End                                   ->    stop all, exit

A supervisor that goes without an End may come back: the zygote keeps its families for ``adopt_grace_s``, and tells the
next one that connects what it has. Without a next one it kills all and exits. An Exited is told until it is confirmed,
so an end is never lost with the supervisor that it was told to.

``PROTOCOL`` is raised with every change that an older peer would misread, of the scoreboard's slots too. ``Hello``,
``Ready`` and the SIGTERM that ends a zygote with all its families mean the same in every version, so a supervisor can
always tell what it has met.

No message holds a secret: a lease's token travels as its SHA-256, and the variables that authenticate a command
line travel in a memory file whose descriptor the zygote hands on unread.
"""

from __future__ import annotations

import msgspec

from shared.contracts import Budget, LeaseLimits
from shared.hardening import Hardening
from shared.logs import LogSettings

PROTOCOL = 1
MAX_MESSAGE_BYTES = 64 * 1024
MAX_MESSAGE_FDS = 3
LAUNCH_FDS = ("listener", "variables", "scoreboard")
"""Listening TCP socket; memory file with the command line's variables as a JSON object; memory file for counters."""

MARKER_VARIABLE = "ASM_ENDPOINT_LEASE"
"""In the environment of every command line of a lease: its lease_ref, so that strays can be found."""


class TurnLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The worker's one owner of time, in seconds. Exceeding any of them fails the turn with ``provider_timeout``."""

    first_output_s: float = 120.0
    """From the prompt to the first event that comes from the model."""
    silence_s: float = 300.0
    """Between two events."""
    total_s: float = 600.0
    """The whole turn."""
    queue_s: float = 30.0
    """In the queue for a free place."""
    status_hold_s: float = 1.0
    """Longest wait of a stream for the first piece of its answer, until when a refusal is a real HTTP status.

    Measured refusals of unloaded command lines take 0.1 to 0.4 s.
    """
    reattach_s: float = 2.0
    """For the last caller of an answer under an Idempotency-Key to come back, until its turn is cancelled."""
    replay_s: float = 600.0
    """For how long an answer under an Idempotency-Key is given again, after its end."""
    heartbeat_s: float = 10.0
    """Silence on a stream after which a comment line is sent."""
    exit_grace_s: float = 1.0
    """For a command line to leave by itself after its turn, and again after SIGTERM; then SIGKILL."""
    standby_delay_s: float = 0.1
    """From a worker's start, or a turn's, to the start of the next standby: what is waited for goes first.

    Starting a command line costs up to half a second of processor time, as much as it saves the next turn.
    """

    standby_idle_s: float = 300.0
    """Without a turn for so long, a lease's waiting command lines are stopped; the next turn starts new ones."""


class WireLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a server grants each of its connections, before it knows who is behind it."""

    head_s: float = 10.0
    """From a connection's start, or the first byte of a further request, to the end of the request's head."""
    head_bytes: int = 64 * 1024
    body_s: float = 30.0
    """From a request's head to the end of its body."""
    unread_s: float = 120.0
    """For a client to take something of an answer whose buffers are full."""
    connections: int = 512
    """At once. One too many pushes out the one that has waited for a request's head the longest."""


class LaunchSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All a worker family is told. ``lease_dir`` holds its private ``workspace``, ``home``, ``tmp`` and log."""

    lease_ref: str
    endpoint_id: str
    provider: str
    model: str
    token_sha256: str
    streaming: bool
    executable: tuple[str, ...]
    cli_version: str | None
    login: str
    prepared: str
    """The provider's prepared file; "" for none."""
    user_home: str
    lease_dir: str
    concurrency: int
    queue_limit: int
    standby: int
    budget: Budget
    limits: TurnLimits
    drain_s: float
    """From SIGTERM to the end of turns that are still running."""
    namespaces: bool
    """Whether a PID namespace is to be used where the kernel allows it."""
    lease_limits: LeaseLimits = LeaseLimits()
    """Those that hold for each command line by itself are set in it; the supervisor watches all."""
    wire: WireLimits = WireLimits()
    cors_origins: tuple[str, ...] = ()
    """Of web pages that may use the lease."""
    hardening: Hardening = Hardening()
    log: LogSettings = LogSettings()
    request_id: str | None = None
    """Of the request that asked for the lease, for the log."""


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """The first message of every supervisor. ``adopt_grace_s`` is how long its families may live without one."""

    protocol: int
    adopt_grace_s: float
    log: LogSettings = LogSettings()


class Launch(msgspec.Struct, frozen=True, tag="launch"):
    """Fork one worker family."""

    spec: LaunchSpec


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """SIGTERM now, SIGKILL after ``kill_after_s``."""

    lease_ref: str
    kill_after_s: float


class Confirm(msgspec.Struct, frozen=True, kw_only=True, tag="confirm"):
    """The Exited of that lease has been written down; the zygote may forget it."""

    lease_ref: str


class End(msgspec.Struct, frozen=True, tag="end"):
    """Kill what still runs, and exit; nobody will come back."""


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The zygote has imported everything. ``namespaces`` says whether it may create PID namespaces.

    ``program`` is the fingerprint of the code that it has imported.
    """

    protocol: int
    pid: int
    namespaces: bool
    program: str = ""


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """A family that runs. ``pid`` is its leader's.

    ``isolation`` is pid_namespace or process_group, and the locks of its command lines, each after a plus sign.
    ``pid_namespace`` is the inode of its namespace, and a descriptor of it comes along: the kernel gives the number to
    another namespace as soon as nothing holds the old one.
    """

    lease_ref: str
    pid: int
    isolation: str
    pid_namespace: int | None


class Launched(Family, frozen=True, kw_only=True, tag="launched"):
    """The answer to a Launch."""


class Running(Family, frozen=True, kw_only=True, tag="running"):
    """A family of an earlier supervisor's. ``is_stopping`` when a Stop came for it."""

    is_stopping: bool


class Told(msgspec.Struct, frozen=True, tag="told"):
    """All families have been told of."""


class LaunchFailed(msgspec.Struct, frozen=True, kw_only=True, tag="launch_failed"):
    """Nothing was started for this lease."""

    lease_ref: str
    cause: str


class Exited(msgspec.Struct, frozen=True, kw_only=True, tag="exited"):
    """The family's leader has ended and was reaped. ``stopping`` is true when a Stop came before.

    ``killed`` says that SIGKILL was needed.
    """

    lease_ref: str
    pid: int
    status: str
    stopping: bool
    killed: bool


ToZygote = Hello | Launch | Stop | Confirm | End
FromZygote = Ready | Running | Told | Launched | LaunchFailed | Exited
encode = msgspec.json.Encoder().encode
decode_to_zygote = msgspec.json.Decoder(ToZygote).decode
decode_from_zygote = msgspec.json.Decoder(FromZygote).decode
