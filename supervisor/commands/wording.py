"""How descriptors and proofs are put into words, and into shell variables. Pure."""

from __future__ import annotations

import shlex

from shared import tokens
from shared.contracts import EndpointDescriptor
from supervisor.views import LeaseReleased, LeaseView, Released

DURATIONS = (("d", 86_400, 172_800), ("h", 3_600, 7_200), ("min", 60, 120), ("s", 1, 0))
"""Units, their seconds, and the seconds from which on they are used."""


def token(descriptor: EndpointDescriptor) -> str:
    """The endpoint's API key."""
    return tokens.bearer_token(descriptor.headers["authorization"]) or ""


def summary(descriptor: EndpointDescriptor) -> dict[str, str]:
    """What a person wants to know of an endpoint; without its token."""
    return {
        "base_url": descriptor.base_url,
        "lease_ref": descriptor.lease_ref,
        "provider": descriptor.provider_identity,
        "model": descriptor.model_identity,
        "isolation": str(descriptor.metadata.get("isolation")),
        "expires": str(descriptor.metadata.get("expires_at")),
    }


def variables(descriptor: EndpointDescriptor) -> dict[str, str]:
    """The environment that OpenAI's clients read, and the lease to release."""
    return {
        "OPENAI_BASE_URL": descriptor.base_url,
        "OPENAI_API_KEY": token(descriptor),
        "ASM_ENDPOINT_LEASE_REF": descriptor.lease_ref,
    }


def health(view: LeaseView) -> str:
    """How a lease is, and what is wrong where its state does not say it."""
    codes = ", ".join(reason.code for reason in view.health_reasons)
    return f"{view.health} ({codes})" if view.health == "degraded" else view.health


def duration(seconds: float) -> str:
    """So long, in whole units of a size that leaves few of them."""
    unit, size = next((unit, size) for unit, size, least in DURATIONS if seconds >= least)
    return f"{seconds // size:.0f} {unit}"


def exports(descriptor: EndpointDescriptor) -> str:
    """The same as lines for a POSIX shell to evaluate."""
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables(descriptor).items())


def proof_line(lease_ref: str, released: Released) -> str:
    """How a lease ended, in one line."""
    proof = released.proof
    if proof is None:
        return f"nothing to release: {lease_ref} is unknown here"
    how = "SIGKILL was needed" if proof.sigkill_needed else "SIGTERM was enough"
    verb = "released" if released.released else "could not end"
    return (
        f"{verb} {lease_ref}: {len(proof.processes)} processes in {proof.elapsed_ms:.0f} ms, {how}, "
        f"{len(proof.survivors) or 'no'} survivors ({proof.verified})"
    )


def outcome_line(outcome: LeaseReleased) -> str:
    """How one of several leases ended, in one line."""
    if outcome.proof is None and outcome.error is not None:
        return f"could not end {outcome.lease_ref}: {outcome.error}"
    return proof_line(outcome.lease_ref, Released(released=outcome.released, proof=outcome.proof))
