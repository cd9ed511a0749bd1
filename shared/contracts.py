"""The inference contract, version ``inference.v1``: what a northbound consumer sends and what it gets back.

Owns the structs, their defaults, and the reading of untrusted input into them with typed errors. It does not
know who publishes what (``supervisor.publication``) nor whether two sides fit (``supervisor.compatibility``).

JSON keys keep the contract's question marks (``streaming?``), Python attributes have none, and both spellings
are accepted on input. Names the contract leaves open (kinds, modes, protocols) are plain strings: one that
nobody publishes is for the compatibility decision to refuse, not for the reader.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from shared.reading import parse, wire_form, without_nulls

RUNTIME_KIND = "task"
MANAGEMENT_MODE = "jido_managed"
STARTUP_KIND = "spawned"
TARGET_CLASS = "cli_endpoint"
PROTOCOL = "openai_chat_completions"
MAX_TTL_S = 7 * 86_400.0
MAX_AMOUNT = 1e9
MAX_NAME_CHARS = 256

NonEmpty = Annotated[str, Meta(min_length=1)]
Name = Annotated[str, Meta(max_length=MAX_NAME_CHARS)]
"""A caller's own for something, which goes into the journal, into lists, and into every line of a log about it."""
Count = Annotated[int, Meta(ge=1)]
Amount = Annotated[float, Meta(gt=0, le=MAX_AMOUNT)]
Capability = bool | Literal["unknown"]


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """What every contract struct has: JSON in the contract's own spelling."""

    contract_version: NonEmpty = "inference.v1"

    def to_builtins(self) -> dict[str, Any]:
        """The struct as JSON would have it: plain maps and lists, with the question marks in the keys."""
        builtins: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return builtins


class ConsumerManifest(Contract, frozen=True, kw_only=True):
    """What a consumer accepts and what it needs. Constraints: ``startup_kind``, ``target_class``."""

    consumer: Name | None = None
    accepted_runtime_kinds: tuple[str, ...] = (RUNTIME_KIND,)
    accepted_management_modes: tuple[str, ...] = (MANAGEMENT_MODE,)
    accepted_protocols: tuple[str, ...] = (PROTOCOL,)
    required_capabilities: dict[str, Any] = {}
    optional_capabilities: dict[str, Any] = {}
    constraints: dict[str, Any] = {}
    metadata: dict[str, Any] = {}


class BackendCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend publishes: always exactly these three."""

    streaming: Capability = msgspec.field(name="streaming?", default=False)
    tool_calling: Capability = msgspec.field(name="tool_calling?", default=False)
    embeddings: Capability = msgspec.field(name="embeddings?", default="unknown")


class BackendManifest(Contract, frozen=True, kw_only=True):
    """What this backend publishes for one provider."""

    backend: str = "asm_inference_endpoint"
    runtime_kind: str = RUNTIME_KIND
    management_modes: tuple[str, ...] = (MANAGEMENT_MODE,)
    startup_kind: str | None = STARTUP_KIND
    protocols: tuple[str, ...] = (PROTOCOL,)
    capabilities: BackendCapabilities = BackendCapabilities()
    supported_surfaces: tuple[str, ...] = ("local_subprocess", "ssh_exec", "guest_bridge")
    resource_profile: dict[str, Any] = {}
    metadata: dict[str, Any] = {}


class EndpointCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What one leased endpoint can do."""

    streaming: bool = msgspec.field(name="streaming?", default=False)
    tool_calling: bool = msgspec.field(name="tool_calling?", default=False)


class EndpointDescriptor(Contract, frozen=True, kw_only=True):
    """One leased endpoint. ``headers`` carry the bearer token, which no repr of this struct shows.

    ``base_url`` has no trailing slash; ``health_ref`` is a whole URL; ``model_identity`` is the requested id,
    aliases unresolved.
    """

    endpoint_id: NonEmpty
    runtime_kind: str = RUNTIME_KIND
    management_mode: str = MANAGEMENT_MODE
    target_class: str = TARGET_CLASS
    protocol: str = PROTOCOL
    base_url: NonEmpty
    headers: dict[str, str]
    provider_identity: NonEmpty
    model_identity: NonEmpty
    source_runtime: str = "agent_session_manager"
    source_runtime_ref: str | None = None
    lease_ref: NonEmpty
    health_ref: str | None = None
    boundary_ref: str | None = None
    capabilities: EndpointCapabilities = EndpointCapabilities()
    metadata: dict[str, Any] = {}

    def _redacted(self) -> dict[str, Any]:
        return {**msgspec.structs.asdict(self), "headers": dict.fromkeys(self.headers, "<redacted>")}

    def __repr__(self) -> str:
        """Without the header values: they are secrets."""
        fields = ", ".join(f"{name}={value!r}" for name, value in self._redacted().items())
        return f"EndpointDescriptor({fields})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same for rich, whose default would show every field."""
        return list(self._redacted().items())


class CompatibilityResult(Contract, frozen=True, kw_only=True):
    """The decision whether a consumer, its request and a backend fit; ``reason`` is one word."""

    compatible: bool = msgspec.field(name="compatible?", default=False)
    reason: str = "unresolved"
    resolved_runtime_kind: str | None = None
    resolved_management_mode: str | None = None
    resolved_protocol: str | None = None
    warnings: tuple[str, ...] = ()
    missing_requirements: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}


class InferenceRequest(Contract, frozen=True, kw_only=True):
    """What a northbound wants to run: only what decides about an endpoint is interpreted.

    ``model_preference`` is anything: the decision reports what is wrong. ``tools`` and the fields after it
    are those of an OpenAI body; they are kept only to notice that a request needs tools.
    """

    request_id: Name | None = None
    operation: str = "generate_text"
    messages: tuple[dict[str, Any], ...] = ()
    prompt: str | None = None
    model_preference: Any = None
    target_preference: dict[str, Any] = {}
    stream: bool = msgspec.field(name="stream?", default=False)
    tool_policy: dict[str, Any] = {}
    output_constraints: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    authority_refs: Any = None
    tools: tuple[Any, ...] = ()
    tool_choice: Any = None
    functions: tuple[Any, ...] = ()
    function_call: Any = None


class ExecutionContext(Contract, frozen=True, kw_only=True):
    """On whose behalf a request runs: opaque references, never secrets."""

    run_id: Name | None = None
    attempt_id: Name | None = None
    authority_source: str | None = None
    decision_ref: str | None = None
    authority_ref: str | None = None
    boundary_ref: str | None = None
    authority_refs: Any = None
    credential_scope: dict[str, Any] = {}
    network_policy: dict[str, Any] = {}
    observability: dict[str, Any] = {}
    streaming_policy: dict[str, Any] = {}
    replay: dict[str, Any] = {}
    metadata: dict[str, Any] = {}


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a lease may spend in its life; None is no limit.

    ``cli_s`` are seconds for which turns hold a command line, summed over turns.
    """

    requests: Count | None = None
    total_tokens: Count | None = None
    cost_usd: Amount | None = None
    cli_s: Amount | None = None


class LeaseLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a lease's processes may use; over any of it the lease ends. None is no limit.

    All processes of the lease count, those of its server too: two or three, 70 MB and more, some 40 open files.
    """

    memory_bytes: Count | None = None
    """Resident memory."""
    cpu_s: Amount | None = None
    """Processor time, since the lease began, of ended processes too."""
    processes: Count | None = None
    open_files: Count | None = None
    """Descriptors of files, sockets and pipes; no command line gets more by itself."""
    workspace_bytes: Count | None = None
    """On disk, in the lease's own folders; no command line writes a larger file."""
    wall_s: Amount | None = None
    """Since the lease began; not to be renewed, as ``ttl_s`` is."""


class LeaseOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a lease lives, for whom, and how much of it. An unknown option may be misspelt: an error."""

    ttl_s: Annotated[float, Meta(ge=1, le=MAX_TTL_S)] = 3600.0
    idle_timeout_s: Annotated[float, Meta(ge=1, le=MAX_TTL_S)] = 900.0
    owner_pid: Count | None = None
    concurrency: Annotated[int, Meta(ge=1, le=64)] = 4
    queue_limit: Annotated[int, Meta(ge=0, le=1024)] | None = None
    """Requests that may wait for a place; None is the supervisor's own setting."""
    budget: Budget | None = None
    standby: Annotated[int, Meta(ge=0, le=8)] = 1
    group: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    """The caller's own name for leases that it wants to release at once."""
    limits: LeaseLimits | None = None


def parse_request(source: object) -> InferenceRequest:
    """The request in ``source`` (a mapping or a struct). A null field is an absent one.

    Raises RequestError ``invalid_request``.
    """
    wire = without_nulls(wire_form(source, InferenceRequest))
    if isinstance(wire, dict) and isinstance(wire.get("stream?"), str):
        wire["stream?"] = wire["stream?"] == "true"
    return parse(wire, InferenceRequest, code="invalid_request", noun="request")


def parse_consumer_manifest(source: object) -> ConsumerManifest:
    """The manifest in ``source``; None is the contract's defaults. Raises RequestError."""
    if source is None:
        return ConsumerManifest()
    return parse(source, ConsumerManifest, code="invalid_consumer_manifest", noun="consumer manifest")


def parse_context(source: object) -> ExecutionContext:
    """The context in ``source``; None is an empty one, a null field an absent one. Raises RequestError."""
    if source is None:
        return ExecutionContext()
    wire = without_nulls(wire_form(source, ExecutionContext))
    return parse(wire, ExecutionContext, code="invalid_context", noun="context")


def parse_lease_options(source: object) -> LeaseOptions:
    """The options in ``source``; None is the defaults. Raises RequestError."""
    if source is None:
        return LeaseOptions()
    return parse(source, LeaseOptions, code="invalid_lease_options", noun="lease options")
