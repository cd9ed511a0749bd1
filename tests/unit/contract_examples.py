"""What stands in ``examples/contracts``, made by the product's own code: ``make contracts`` writes it anew.

An example of every contract, of the decision for each of its reasons, of errors, and both OpenAPI documents: for
whoever speaks to the product in another language.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import msgspec

import supervisor.openapi
import worker.openapi
from shared import provider as providers
from shared.budget import Spent, refusal
from shared.contracts import (
    BackendManifest,
    Budget,
    CompatibilityResult,
    ConsumerManifest,
    EndpointDescriptor,
    ExecutionContext,
    InferenceRequest,
    LeaseLimits,
    LeaseOptions,
)
from shared.errors import EndpointError, RequestError, WorkerError
from supervisor.compatibility import decide
from supervisor.errors import Incompatible, ReleasesFailed, SurvivorsError
from supervisor.proof import ProvenProcess, ReleaseProof
from supervisor.publication import (
    consumer_manifest,
    derive_backend_manifest,
    derive_endpoint_capabilities,
    derive_publication,
)
from supervisor.views import LeaseReleased

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "contracts"
LEASE_REF = "lease_01JD0000000000000000000000"
REQUEST = InferenceRequest(
    request_id="req-1",
    operation="stream_text",
    messages=({"role": "user", "content": "Say hello."},),
    model_preference={"provider": "claude", "id": "sonnet"},
    target_preference={"target_class": "cli_endpoint"},
    stream=True,
    metadata={"trace": "t-1"},
)
CONTEXT = ExecutionContext(
    run_id="run-1",
    attempt_id="run-1:1",
    boundary_ref="boundary-1",
    authority_refs={"authority_ref": "authority-1", "target_ref": "target-1"},
    observability={"trace_id": "t-1"},
)
OPTIONS = LeaseOptions(
    ttl_s=600.0,
    idle_timeout_s=120.0,
    owner_pid=4242,
    concurrency=2,
    queue_limit=8,
    budget=Budget(requests=100, total_tokens=200_000, cost_usd=2.5, cli_s=900.0),
    standby=1,
    group="nightly",
    limits=LeaseLimits(memory_bytes=2**31, processes=64, wall_s=3600.0),
)
PUBLICATION = derive_publication(providers.load("claude"))
BACKEND = derive_backend_manifest(PUBLICATION)
SILENT_BACKEND = msgspec.structs.replace(
    BACKEND, capabilities=msgspec.structs.replace(BACKEND.capabilities, streaming=False)
)
CONSUMER = consumer_manifest()
PROOF = ReleaseProof(
    lease_ref=LEASE_REF,
    cause="released",
    isolation="pid_namespace",
    processes=(
        ProvenProcess(pid=5000, create_time=1_750_000_000.25, start_ticks=123456, name="asm-endpoint"),
    ),
    sigkill_needed=False,
    elapsed_ms=12.5,
    survivors=(),
    verified="pid_namespace_empty",
)
STUCK = msgspec.structs.replace(PROOF, sigkill_needed=True, survivors=PROOF.processes)
Decided = tuple[InferenceRequest, ConsumerManifest, BackendManifest]
DECIDED: dict[str, Decided] = {
    "protocol_match": (REQUEST, CONSUMER, BACKEND),
    "runtime_kind_mismatch": (REQUEST, ConsumerManifest(accepted_runtime_kinds=("service",)), BACKEND),
    "management_mode_mismatch": (
        REQUEST,
        ConsumerManifest(accepted_management_modes=("externally_managed",)),
        BACKEND,
    ),
    "unsupported_protocol": (REQUEST, ConsumerManifest(accepted_protocols=("openai_responses",)), BACKEND),
    "startup_kind_unsupported": (
        REQUEST,
        ConsumerManifest(constraints={"startup_kind": "attach_existing_service"}),
        BACKEND,
    ),
    "target_class_mismatch": (
        REQUEST,
        ConsumerManifest(constraints={"target_class": "cloud_provider"}),
        BACKEND,
    ),
    "missing_streaming": (REQUEST, CONSUMER, SILENT_BACKEND),
    "missing_capability": (
        REQUEST,
        ConsumerManifest(required_capabilities={"tool_calling?": True}),
        BACKEND,
    ),
}
"""One case for each reason that a decision can have."""


def descriptor() -> EndpointDescriptor:
    """As an ensure answers, with a token that opens nothing."""
    base = f"http://127.0.0.1:40001/leases/{LEASE_REF}"
    return EndpointDescriptor(
        endpoint_id="endpoint_01JD0000000000000000000000",
        base_url=f"{base}/v1",
        headers={"authorization": "Bearer EXAMPLE"},
        provider_identity="claude",
        model_identity="sonnet",
        source_runtime_ref=LEASE_REF,
        lease_ref=LEASE_REF,
        health_ref=f"{base}/health",
        boundary_ref=CONTEXT.boundary_ref,
        capabilities=derive_endpoint_capabilities(PUBLICATION),
        metadata={
            "publication": PUBLICATION.to_builtins(),
            "backend_manifest": BACKEND.to_builtins(),
            "authority_refs": CONTEXT.authority_refs,
            "expires_at": "2030-01-01T00:10:00Z",
        },
    )


def decision(reason: str) -> CompatibilityResult:
    """The result for one of the cases."""
    return decide(*DECIDED[reason], PUBLICATION)


STRUCTS: dict[str, msgspec.Struct] = {
    "consumer-manifest": CONSUMER,
    "backend-manifest": BACKEND,
    "endpoint-descriptor": descriptor(),
    "inference-request": REQUEST,
    "execution-context": CONTEXT,
    "lease-options": OPTIONS,
    "release-proof": PROOF,
    **{f"compatibility-result.{reason}": decision(reason) for reason in DECIDED},
}
"""Each can be read back into a struct of its own class."""
ERRORS: dict[str, EndpointError] = {
    "invalid_request": RequestError(
        "invalid_request", "expected a prompt string or a messages array", param="messages"
    ),
    "unauthorized": RequestError("unauthorized", "unauthorized"),
    "at_capacity": WorkerError("at_capacity", "cannot run turn: the queue is full", retry_after_s=1.0),
    "insufficient_quota": refusal(Budget(requests=1), Spent(requests=1), ("requests",)),
    "incompatible": Incompatible(decision("missing_capability")),
    "survivors": SurvivorsError(STUCK),
    "survivors_of_many": ReleasesFailed(
        [
            LeaseReleased(lease_ref=LEASE_REF, released=True, proof=PROOF),
            LeaseReleased(lease_ref=LEASE_REF, released=False, error="cannot stop worker family"),
        ]
    ),
}


def files() -> dict[str, str]:
    """The whole folder: text by file name."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    contents: dict[str, Any] = {
        "openapi.supervisor": supervisor.openapi.document(version),
        "openapi.lease": worker.openapi.document(version),
        **{name: msgspec.json.decode(msgspec.json.encode(struct)) for name, struct in STRUCTS.items()},
        **{f"error.{name}": error.envelope() for name, error in ERRORS.items()},
    }
    return {
        f"{name}.json": json.dumps(msgspec.to_builtins(content), indent=2, ensure_ascii=False) + "\n"
        for name, content in contents.items()
    }


def write() -> None:
    """Write all, and remove what is no example any more."""
    FOLDER.mkdir(exist_ok=True)
    made = files()
    for path in FOLDER.glob("*.json"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
