"""What this backend publishes, derived from a provider's profile and from nothing else.

The rules are those of the inference contract: capabilities are never written down twice, and no rule names a
provider. Whether a publication suits a consumer is decided in :mod:`supervisor.compatibility`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.contracts import (
    MANAGEMENT_MODE,
    TARGET_CLASS,
    BackendCapabilities,
    BackendManifest,
    ConsumerManifest,
    EndpointCapabilities,
)
from shared.provider import Provider, TurnOptions

DEFAULT_MANAGEMENT_MODES = (MANAGEMENT_MODE,)
COMPLETION_CAPABILITIES = frozenset({"streaming", "reasoning", "thinking", "tools", "extensions", "mcp"})
"""Any of these makes a command line one that answers prompts."""
AGENT_CAPABILITIES = frozenset({"streaming", "tools"})
"""All of these, beside a native extension surface, make it an agent."""


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """One provider's published capabilities, and by which rule each was derived."""

    provider: str
    cli_completion_v1: bool
    cli_streaming_v1: bool
    cli_agent_v2: bool
    common_surface_only: bool = msgspec.field(name="common_surface_only?")
    streaming_granularity: str
    """``delta`` where pieces come as the model makes them, ``message`` where only whole messages do."""
    turn_options: TurnOptions
    """Which fields of a request are honoured because the command line takes them."""
    derivation: dict[str, str]
    profile_capabilities: tuple[str, ...]

    @property
    def published_capabilities(self) -> dict[str, bool]:
        """The three capabilities by name, as manifests and decisions show them."""
        return {
            "cli_completion_v1": self.cli_completion_v1,
            "cli_streaming_v1": self.cli_streaming_v1,
            "cli_agent_v2": self.cli_agent_v2,
        }

    def to_builtins(self) -> dict[str, Any]:
        """The publication as JSON would have it: plain maps and lists, with the question mark in the key."""
        builtins: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return builtins


def derive_publication(provider: Provider) -> Publication:
    """The publication of a provider, from its profile."""
    profile = frozenset(provider.capabilities)
    native = provider.native_extensions
    return Publication(
        provider=provider.name,
        cli_completion_v1=bool(profile & COMPLETION_CAPABILITIES),
        cli_streaming_v1="streaming" in profile,
        cli_agent_v2=native and profile >= AGENT_CAPABILITIES,
        common_surface_only=not native,
        streaming_granularity="message" if provider.streams_whole_messages else "delta",
        turn_options=provider.turn_options,
        derivation={
            "cli_completion_v1": "prompt_driven_cli_profile",
            "cli_streaming_v1": "streaming_profile_capability",
            "cli_agent_v2": "provider_native_extension_surface" if native else "common_surface_only_provider",
        },
        profile_capabilities=provider.capabilities,
    )


def derive_backend_manifest(
    publication: Publication, management_modes: tuple[str, ...] = DEFAULT_MANAGEMENT_MODES
) -> BackendManifest:
    """The manifest that offers a publication; the first management mode a consumer accepts will be used."""
    return BackendManifest(
        management_modes=management_modes,
        capabilities=BackendCapabilities(
            streaming=publication.cli_streaming_v1, tool_calling=False, embeddings="unknown"
        ),
        resource_profile={"profile": "cli_session"},
        metadata={
            "family": "asm",
            "provider": publication.provider,
            "common_surface_only?": publication.common_surface_only,
            "published_capabilities": publication.published_capabilities,
            "profile_capabilities": list(publication.profile_capabilities),
            "derivation": publication.derivation,
        },
    )


def derive_endpoint_capabilities(publication: Publication) -> EndpointCapabilities:
    """What a descriptor under this publication promises."""
    return EndpointCapabilities(streaming=publication.cli_streaming_v1, tool_calling=False)


def consumer_manifest(management_modes: tuple[str, ...] = DEFAULT_MANAGEMENT_MODES) -> ConsumerManifest:
    """The manifest of a consumer that fits every publication; streaming is welcome, not needed."""
    return ConsumerManifest(
        consumer="asm_openai_endpoint",
        accepted_management_modes=management_modes,
        optional_capabilities={"streaming?": True},
        constraints={"target_class": TARGET_CLASS},
        metadata={"source_runtime": "agent_session_manager"},
    )
