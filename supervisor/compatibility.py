"""Whether a request, its consumer and a backend fit: decided in the contract's order, first failure wins.

Pure: everything comes in as arguments. Owns the reason codes; what is published comes from
:mod:`supervisor.publication`, what a request names is read in :mod:`supervisor.naming`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from shared import openai
from shared.contracts import (
    TARGET_CLASS,
    BackendManifest,
    CompatibilityResult,
    ConsumerManifest,
    InferenceRequest,
)
from supervisor.publication import Publication

CAPABILITIES = frozenset({"streaming", "tool_calling", "embeddings"})


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one decision looks at."""

    request: InferenceRequest
    consumer: ConsumerManifest
    backend: BackendManifest


class Mismatch(msgspec.Struct, frozen=True):
    """Why a case does not fit; ``noted`` goes into the result's metadata."""

    reason: str
    requirement: str
    noted: dict[str, bool] = {}


def decide(
    request: InferenceRequest,
    consumer_manifest: ConsumerManifest,
    backend_manifest: BackendManifest,
    publication: Publication,
) -> CompatibilityResult:
    """The decision. It never raises: what does not fit is the result's reason and missing requirement."""
    case = Case(request=request, consumer=consumer_manifest, backend=backend_manifest)
    metadata = _metadata(case, publication)
    for check in CHECKS:
        if mismatch := check(case):
            return CompatibilityResult(
                reason=mismatch.reason,
                missing_requirements=(mismatch.requirement,),
                metadata={**metadata, **mismatch.noted},
            )
    return CompatibilityResult(
        compatible=True,
        reason="protocol_match",
        resolved_runtime_kind=backend_manifest.runtime_kind,
        resolved_management_mode=_management_mode(case),
        resolved_protocol=_protocol(case),
        warnings=_unmet_names(consumer_manifest.optional_capabilities, backend_manifest),
        metadata=metadata,
    )


def uses_tools(request: InferenceRequest) -> bool:
    """Whether the request needs tool calling in any spelling, old or new, present or in its history.

    A ``tools`` key in ``tool_policy`` hides the request's own ``tools``, as the contract says.
    """
    policy = request.tool_policy
    offered = {
        "tools": policy.get("tools", request.tools),
        "tool_choice": request.tool_choice,
        "functions": request.functions,
        "function_call": request.function_call,
        "tool_policy": {"tool_choice": policy.get("tool_choice")},
        "messages": request.messages,
    }
    return openai.uses_tools(offered)


def _runtime_kind_check(case: Case) -> Mismatch | None:
    if case.backend.runtime_kind in case.consumer.accepted_runtime_kinds:
        return None
    return Mismatch("runtime_kind_mismatch", "runtime_kind")


def _management_mode_check(case: Case) -> Mismatch | None:
    return None if _management_mode(case) else Mismatch("management_mode_mismatch", "management_mode")


def _protocol_check(case: Case) -> Mismatch | None:
    return None if _protocol(case) else Mismatch("unsupported_protocol", "protocol")


def _startup_kind_check(case: Case) -> Mismatch | None:
    wanted = case.consumer.constraints.get("startup_kind")
    if wanted in (None, case.backend.startup_kind):
        return None
    return Mismatch("startup_kind_unsupported", "startup_kind")


def _target_class_check(case: Case) -> Mismatch | None:
    for wishes in (case.consumer.constraints, case.request.target_preference):
        if wishes.get("target_class") not in (None, TARGET_CLASS):
            return Mismatch("target_class_mismatch", "target_class")
    return None


def _requested_streaming_check(case: Case) -> Mismatch | None:
    if not case.request.stream or case.backend.capabilities.streaming is True:
        return None
    return Mismatch("missing_streaming", "streaming", {"requested_stream?": True})


def _requested_tools_check(case: Case) -> Mismatch | None:
    if not uses_tools(case.request) or case.backend.capabilities.tool_calling is True:
        return None
    return Mismatch("missing_capability", "tool_calling", {"requested_tools?": True})


def _required_capabilities_check(case: Case) -> Mismatch | None:
    unmet = _unmet_names(case.consumer.required_capabilities, case.backend)
    if not unmet:
        return None
    return Mismatch("missing_streaming" if unmet[0] == "streaming" else "missing_capability", unmet[0])


CHECKS: tuple[Callable[[Case], Mismatch | None], ...] = (
    _runtime_kind_check,
    _management_mode_check,
    _protocol_check,
    _startup_kind_check,
    _target_class_check,
    _requested_streaming_check,
    _requested_tools_check,
    _required_capabilities_check,
)
"""The decision order."""


def _management_mode(case: Case) -> str | None:
    return _first_match(case.backend.management_modes, case.consumer.accepted_management_modes)


def _protocol(case: Case) -> str | None:
    return _first_match(case.backend.protocols, case.consumer.accepted_protocols)


def _first_match(offered: Iterable[str], accepted: tuple[str, ...]) -> str | None:
    return next((name for name in offered if name in accepted), None)


def _metadata(case: Case, publication: Publication) -> dict[str, Any]:
    metadata = {
        "backend": case.backend.backend,
        "consumer": case.consumer.consumer,
        "provider": publication.provider,
        "published_capabilities": publication.published_capabilities,
        "common_surface_only?": publication.common_surface_only,
    }
    return {key: value for key, value in metadata.items() if value is not None}


def _unmet_names(expectations: Mapping[str, Any], backend: BackendManifest) -> tuple[str, ...]:
    """The names of expected capabilities that the backend does not have exactly so, each once."""
    unmet: dict[str, None] = {}
    for key, expected in expectations.items():
        name = key.strip().rstrip("?")
        actual = getattr(backend.capabilities, name) if name in CAPABILITIES else None
        # Types too: 1 == True in Python, not in the contract.
        if type(actual) is not type(expected) or actual != expected:
            unmet[name if name in CAPABILITIES else "capability"] = None
    return tuple(unmet)
