"""What a request names: its provider, its model and its authority references. Pure.

Names are read as the contract spells them, and refused where they could be more than a name. Whether what they stand
for suits the request is decided in :mod:`supervisor.compatibility`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared import provider as providers
from shared.contracts import ExecutionContext, InferenceRequest
from shared.errors import RequestError

PROVIDER_ALIASES = {"codex_exec": "codex"}
UNPUBLISHED_PROVIDERS = frozenset({"cursor", "antigravity"})
"""Known to the contract's family of products, but without an endpoint."""
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
