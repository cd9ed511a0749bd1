"""Bridges to provider-native SDKs: their options, derived from what a lease of the same provider and model uses.

Executable, login, model, allow-listed variables and private folders come from ``worker.inputs.private_inputs`` and
are the same as a lease's. What only the SDK knows is given as ``native_overrides``, a bag of its own, which may add
but never redefine what was derived. Nothing of the product imports a bridge, and no SDK is imported before it is
asked for. Both SDKs hand the calling program's whole environment to the command line, under what is derived here:
the native surface is for a program's own use, and is no lease.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from shared.errors import RequestError


def combine(
    derived: Mapping[str, Any],
    defaults: Mapping[str, Any],
    native_overrides: Mapping[str, Any] | None,
    known: Collection[str],
) -> dict[str, Any]:
    """The options of an SDK. ``defaults`` give way to overrides; where both sides are maps, their keys are compared.

    Raises RequestError ``conflicting_options`` naming every derived option that is redefined, and
    ``invalid_request`` for an option that is not ``known`` to the SDK.
    """
    overrides = dict(native_overrides or {})
    if unknown := sorted(set(overrides) - set(known)):
        raise RequestError(
            "invalid_request", f"cannot use native overrides: unknown are {', '.join(unknown)}"
        )
    combined = {**defaults, **derived}
    conflicts = []
    for name, value in overrides.items():
        ours = derived.get(name)
        if isinstance(ours, Mapping) and isinstance(value, Mapping):
            conflicts += [f"{name}.{key}" for key in value if key in ours]
            combined[name] = {**ours, **value}
        elif name in derived:
            conflicts.append(name)
        else:
            combined[name] = value
    if conflicts:
        raise RequestError(
            "conflicting_options",
            f"cannot use native overrides: derived from the lease's options are {', '.join(sorted(conflicts))}",
            param=min(conflicts),
        )
    return combined
