"""Whether a request, its consumer and a backend fit: decided in the contract's order, first failure wins.

Pure: everything comes in as arguments. Owns the reason codes and how a request names its provider, its model
and its authority references; what is published comes from :mod:`supervisor.publication`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from shared import openai
from shared import provider as providers
from shared.contracts import (
    TARGET_CLASS,
    BackendManifest,
    CompatibilityResult,
    ConsumerManifest,
    ExecutionContext,
    InferenceRequest,
)
from shared.errors import RequestError
from supervisor.publication import Publication

PROVIDER_ALIASES = {"codex_exec": "codex"}
UNPUBLISHED_PROVIDERS = frozenset({"cursor", "antigravity"})
"""Known to the contract's family of products, but without an endpoint."""

CAPABILITIES = frozenset({"streaming", "tool_calling", "embeddings"})
MAX_MODEL_CHARS = 256

AUTHORITY_REFS = frozenset(
    {
        "attach_grant_ref",
        "authority_decision_ref",
        "authority_ref",
        "caller_trace_ref",
        "credential_lease_ref",
        "endpoint_ref",
        "execution_context_ref",
        "model_account_ref",
        "native_auth_assertion_ref",
        "operation_policy_ref",
        "provider_account_ref",
        "target_posture_ref",
        "target_ref",
    }
)


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


def resolve_provider(request: InferenceRequest) -> str:
    """The provider the request prefers, by its file's name.

    Raises RequestError ``unsupported_provider`` or ``unsupported_endpoint_provider``.
    """
    wanted = _preference(request).get("provider")
    name = wanted.strip().lower() if isinstance(wanted, str) else ""
    name = PROVIDER_ALIASES.get(name, name)
    known = providers.names()
    if name in known:
        return name
    if name in UNPUBLISHED_PROVIDERS:
        code, cause = "unsupported_endpoint_provider", f"{name} has no endpoint"
    else:
        code, cause = "unsupported_provider", f"{name[:64]!r} is not known" if name else "none is given"
    message = f"cannot resolve provider: {cause}; use one of {', '.join(known)}"
    raise RequestError(code, message, param="model_preference.provider")


def resolve_model(request: InferenceRequest) -> str:
    """The model id exactly as requested, safe to be a command line's argument.

    Raises RequestError ``missing_model_identity`` or ``invalid_request``.
    """
    preference = _preference(request)
    key = "id" if preference.get("id") is not None else "model"
    model = preference.get(key)
    if not isinstance(model, str) or not model.strip():
        raise RequestError(
            "missing_model_identity",
            "cannot resolve model: model_preference.id must be a non-empty string",
            param="model_preference.id",
        )
    if cause := _model_flaw(model):
        message = f"cannot resolve model: model_preference.{key} {cause}"
        raise RequestError("invalid_request", message, param=f"model_preference.{key}")
    return model


def merge_authority_refs(context: ExecutionContext, request: InferenceRequest) -> dict[str, str]:
    """The authority references of both, the request's winning; unknown keys and blank values are dropped."""
    return {**_authority_refs(context.authority_refs), **_authority_refs(request.authority_refs)}


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


def _preference(request: InferenceRequest) -> Mapping[str, Any]:
    preference = request.model_preference
    return preference if isinstance(preference, Mapping) else {}


def _model_flaw(model: str) -> str | None:
    if len(model) > MAX_MODEL_CHARS:
        return f"must be at most {MAX_MODEL_CHARS} characters"
    if not model.isprintable():
        return "must not contain control or invisible characters"
    if model.lstrip().startswith("-"):
        return 'must not start with "-": a command line would read it as an option'
    return None


def _authority_refs(refs: object) -> dict[str, str]:
    if not isinstance(refs, Mapping):
        return {}
    return {
        key: value
        for key, value in refs.items()
        if key in AUTHORITY_REFS and isinstance(value, str) and value.strip()
    }
