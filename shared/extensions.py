"""Provider-native agent SDKs: which exist, which are importable here, and what they can do that a lease does not.

An endpoint completes and streams, and nothing here changes that. A program that wants a provider's own agent surface
(hooks, approvals, threads) uses that provider's SDK itself, beside a lease; the bridges in ``worker.bridges`` derive
the SDK's options from what a lease of the same provider and model would use. This module is data and look-ups: no SDK
is ever imported by it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import Literal

import msgspec

from shared import provider
from shared.errors import ProviderError, RequestError


class Extension(msgspec.Struct, frozen=True, kw_only=True):
    """One provider-native SDK. ``native_surface`` are the names its users program against.

    ``distribution`` is what pip installs, by way of our optional extra ``extra``; ``module`` is what is imported.
    ``bridge`` is the module of ours that derives its options.
    """

    id: str
    provider: str
    distribution: str
    module: str
    extra: str
    bridge: str
    description: str
    native_capabilities: tuple[str, ...]
    native_surface: tuple[str, ...]

    @property
    def is_available(self) -> bool:
        """Whether the SDK can be imported here; nothing more."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def version(self) -> str | None:
        """The installed version; None when it is not installed."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return None


class ExtensionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one provider offers beyond the common surface. ``native_capabilities`` only of what is importable."""

    provider: str
    composition_mode: Literal["common_surface_only", "native_extension"]
    sdk_available: bool
    sdk_version: str | None
    registered: tuple[Extension, ...]
    native_capabilities: tuple[str, ...]
    native_surface: tuple[str, ...]


_EXTENSIONS = (
    Extension(
        id="claude_agent_sdk",
        provider="claude",
        distribution="claude-agent-sdk",
        module="claude_agent_sdk",
        extra="claude-sdk",
        bridge="worker.bridges.claude",
        description="Claude Agent SDK: a client of claude's control protocol, with hooks and permission callbacks",
        native_capabilities=("control_client", "control_protocol", "hooks", "permission_callbacks"),
        native_surface=("ClaudeSDKClient", "ClaudeAgentOptions", "HookMatcher", "CanUseTool"),
    ),
    Extension(
        id="openai_codex",
        provider="codex",
        distribution="openai-codex",
        module="openai_codex",
        extra="codex-sdk",
        bridge="worker.bridges.codex",
        description="Codex SDK: threads and turns of codex's app server, with sandbox and approval modes",
        native_capabilities=("app_server", "approvals", "sandbox", "threads"),
        native_surface=("AsyncCodex", "Codex", "CodexConfig", "ApprovalMode", "Sandbox", "Thread"),
    ),
)


def extensions() -> tuple[Extension, ...]:
    """All that are known, sorted by provider."""
    return tuple(sorted(_EXTENSIONS, key=lambda each: each.provider))


def extension(extension_id: str) -> Extension:
    """The one of that id. Raises RequestError ``unsupported_extension``."""
    for each in _EXTENSIONS:
        if each.id == extension_id:
            return each
    known = ", ".join(each.id for each in extensions())
    raise RequestError(
        "unsupported_extension",
        f"cannot use extension {extension_id!r}: known are {known}",
        param="extension",
    )


def require(extension_id: str) -> None:
    """Do nothing where the SDK is importable. Raises ProviderError ``sdk_not_installed``."""
    wanted = extension(extension_id)
    if not wanted.is_available:
        raise ProviderError(
            "sdk_not_installed",
            f"cannot use {wanted.distribution}: it is not installed; `pip install 'asm-endpoint[{wanted.extra}]'`",
        )


def provider_report(provider_name: str) -> ExtensionReport:
    """What that provider offers here. Raises RequestError ``unsupported_provider``."""
    name = provider.load(provider_name).name
    registered = tuple(each for each in extensions() if each.provider == name)
    available = tuple(each for each in registered if each.is_available)
    return ExtensionReport(
        provider=name,
        composition_mode="native_extension" if registered else "common_surface_only",
        sdk_available=bool(available),
        sdk_version=available[0].version if available else None,
        registered=registered,
        native_capabilities=tuple(sorted({name for each in available for name in each.native_capabilities})),
        native_surface=tuple(name for each in available for name in each.native_surface),
    )


def capability_report() -> tuple[ExtensionReport, ...]:
    """One report for each published provider, sorted by provider."""
    return tuple(provider_report(name) for name in provider.names() if provider.load(name).published)
