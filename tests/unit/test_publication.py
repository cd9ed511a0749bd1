"""What is published for a provider follows from its profile alone."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
import pytest

from shared import provider as providers
from shared.contracts import (
    BackendCapabilities,
    BackendManifest,
    ConsumerManifest,
    EndpointCapabilities,
    parse_consumer_manifest,
)
from shared.provider import Provider
from shared.reading import parse
from supervisor.publication import (
    consumer_manifest,
    derive_backend_manifest,
    derive_endpoint_capabilities,
    derive_publication,
)

NATIVE = "provider_native_extension_surface"
COMMON = "common_surface_only_provider"


EFFORTS = "none minimal low medium high xhigh max"
NO_OPTIONS = {"max_tokens": False, "reasoning_efforts": [], "response_formats": [], "image_types": []}
IMAGES = ["image/gif", "image/jpeg", "image/png", "image/webp"]
TURN_OPTIONS = {
    "claude": {
        "max_tokens": True,
        "reasoning_efforts": EFFORTS.split()[2:],
        "response_formats": ["json_object", "json_schema"],
        "image_types": IMAGES,
    },
    "codex": {
        **NO_OPTIONS,
        "reasoning_efforts": EFFORTS.split(),
        "response_formats": ["json_schema"],
        "image_types": IMAGES,
    },
    "gemini": {**NO_OPTIONS, "image_types": IMAGES[1:]},
    "amp": NO_OPTIONS,
}


def _provider(*capabilities: str, native_extensions: bool = False) -> Provider:
    return msgspec.structs.replace(
        providers.load("echo"), name="made_up", capabilities=capabilities, native_extensions=native_extensions
    )


@pytest.mark.parametrize(
    ("name", "agent", "profile"),
    [
        ("claude", True, "approval cost interrupt resume streaming thinking tools"),
        ("codex", True, "interrupt plan reasoning streaming structured_output tools"),
        ("gemini", False, "extensions interrupt sandbox streaming tools"),
        ("amp", False, "approval interrupt mcp streaming thinking tools"),
    ],
)
def test_published_command_lines_follow_the_contracts_table(name: str, agent: bool, profile: str) -> None:
    """The four publications are the contract's, to the last capability."""
    publication = derive_publication(providers.load(name))
    assert publication.to_builtins() == {
        "provider": name,
        "cli_completion_v1": True,
        "cli_streaming_v1": True,
        "cli_agent_v2": agent,
        "common_surface_only?": not agent,
        "streaming_granularity": "message" if name == "amp" else "delta",
        "turn_options": TURN_OPTIONS[name],
        "derivation": {
            "cli_completion_v1": "prompt_driven_cli_profile",
            "cli_streaming_v1": "streaming_profile_capability",
            "cli_agent_v2": NATIVE if agent else COMMON,
        },
        "profile_capabilities": profile.split(),
    }
    assert providers.load(name).published


@pytest.mark.parametrize(
    ("capability", "completes", "streams"),
    [
        ("streaming", True, True),
        ("reasoning", True, False),
        ("thinking", True, False),
        ("tools", True, False),
        ("extensions", True, False),
        ("mcp", True, False),
        ("interrupt", False, False),
        ("structured_output", False, False),
    ],
)
def test_each_capability_counts_for_what_it_is(capability: str, completes: bool, streams: bool) -> None:
    """Completion follows from any prompt-driven capability, streaming only from streaming."""
    publication = derive_publication(_provider(capability))
    assert publication.cli_completion_v1 is completes
    assert publication.cli_streaming_v1 is streams
    assert publication.cli_agent_v2 is False


@pytest.mark.parametrize(
    ("capabilities", "native", "agent"),
    [
        (("streaming", "tools"), True, True),
        (("streaming", "tools"), False, False),
        (("streaming",), True, False),
        (("tools",), True, False),
        ((), True, False),
    ],
)
def test_an_agent_needs_streaming_tools_and_native_extensions(
    capabilities: tuple[str, ...], native: bool, agent: bool
) -> None:
    """Two out of three do not make an agent."""
    publication = derive_publication(_provider(*capabilities, native_extensions=native))
    assert publication.cli_agent_v2 is agent
    assert publication.common_surface_only is not native
    assert publication.derivation["cli_agent_v2"] == (NATIVE if native else COMMON)


@pytest.mark.parametrize("streaming", [True, False])
def test_the_manifest_offers_what_is_published(streaming: bool) -> None:
    """Manifest and descriptor capabilities come from the publication; tool calling is never offered."""
    publication = derive_publication(_provider("streaming" if streaming else "tools"))
    manifest = derive_backend_manifest(publication)
    assert manifest == BackendManifest(
        capabilities=BackendCapabilities(streaming=streaming, tool_calling=False, embeddings="unknown"),
        resource_profile={"profile": "cli_session"},
        metadata={
            "family": "asm",
            "provider": "made_up",
            "common_surface_only?": True,
            "published_capabilities": {
                "cli_completion_v1": True,
                "cli_streaming_v1": streaming,
                "cli_agent_v2": False,
            },
            "profile_capabilities": ["streaming" if streaming else "tools"],
            "derivation": publication.derivation,
        },
    )
    assert derive_endpoint_capabilities(publication) == EndpointCapabilities(streaming=streaming)
    assert parse(manifest.to_builtins(), BackendManifest, code="invalid_request", noun="it") == manifest


def test_management_modes_are_configurable() -> None:
    """An operator can offer other management modes than the contract's default."""
    publication = derive_publication(_provider("streaming"))
    assert derive_backend_manifest(publication).management_modes == ("jido_managed",)
    modes = ("externally_managed", "jido_managed")
    assert derive_backend_manifest(publication, modes).management_modes == modes
    assert consumer_manifest(modes).accepted_management_modes == modes


def test_our_own_consumer_manifest_has_the_contracts_values() -> None:
    """``consumer_manifest()`` says who we are, that streaming is welcome, and where endpoints come from."""
    expected = ConsumerManifest(
        consumer="asm_openai_endpoint",
        accepted_runtime_kinds=("task",),
        accepted_management_modes=("jido_managed",),
        accepted_protocols=("openai_chat_completions",),
        required_capabilities={},
        optional_capabilities={"streaming?": True},
        constraints={"target_class": "cli_endpoint"},
        metadata={"source_runtime": "agent_session_manager"},
    )
    assert consumer_manifest() == expected
    assert parse_consumer_manifest(consumer_manifest().to_builtins()) == expected


@pytest.mark.parametrize(
    ("name", "variable", "names", "places", "package"),
    [
        ("codex", "CODEX_PATH", ("codex",), (), "@openai/codex"),
        ("gemini", "GEMINI_CLI_PATH", ("gemini",), ("~/.npm-global/bin/gemini",), "@google/gemini-cli"),
        ("amp", "AMP_CLI_PATH", ("amp",), ("~/.amp/bin/amp", "~/.local/bin/amp"), "@sourcegraph/amp"),
    ],
)
def test_executables_are_searched_as_documented(
    name: str, variable: str, names: tuple[str, ...], places: tuple[str, ...], package: str
) -> None:
    """Override variable, PATH name, known places and install hint are the contract's."""
    executable = providers.load(name).executable
    assert executable.variable == variable
    assert executable.names == names
    assert set(places) <= set(executable.known_places)
    assert executable.install_hint == f"npm install -g {package}"
    assert executable.pinned == ()


@pytest.mark.parametrize("name", ["codex", "gemini", "amp"])
def test_every_variable_a_login_reads_may_reach_the_command_line(name: str) -> None:
    """A login that is found is one the command line can use."""
    provider = providers.load(name)
    variables = {variable for login in provider.logins for variable in login.variables}
    folders = {login.home_variable for login in provider.logins if login.home_variable}
    assert variables
    assert variables | folders <= set(provider.environment)
    assert provider.login_hint


FOREIGN: dict[str, Callable[[str], bool]] = {
    "codex": lambda name: bool(re.match("ANTHROPIC|CLAUDE|GEMINI|GOOGLE|AMP_", name)),
    "gemini": lambda name: bool(re.match("ANTHROPIC|CLAUDE|OPENAI|CODEX|AMP_", name)),
    "amp": lambda name: bool(re.match("ANTHROPIC|CLAUDE|OPENAI|CODEX|GEMINI|GOOGLE", name)),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_no_provider_gets_anothers_keys(name: str) -> None:
    """An allow-list has no variable of another vendor, no HOME, no settings file and no duplicates."""
    environment = providers.load(name).environment
    assert [variable for variable in environment if FOREIGN[name](variable)] == []
    assert not {"HOME", "AMP_SETTINGS_FILE", "GEMINI_CLI_SYSTEM_SETTINGS_PATH"} & set(environment)
    assert len(set(environment)) == len(environment)
