"""The compatibility decision: its order and every reason."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shared import provider as providers
from shared.contracts import (
    BackendCapabilities,
    BackendManifest,
    CompatibilityResult,
    ConsumerManifest,
    parse_request,
)
from supervisor.compatibility import CHECKS, decide, uses_tools
from supervisor.errors import Incompatible
from supervisor.publication import Publication, consumer_manifest, derive_backend_manifest, derive_publication

PUBLISHED = ("claude", "codex", "gemini", "amp")
TOOL = {"type": "function", "function": {"name": "f"}}


def _publication(*capabilities: str) -> Publication:
    profile = msgspec.structs.replace(providers.load("echo"), name="made_up", capabilities=capabilities)
    return derive_publication(profile)


def _decide(
    request: dict[str, Any] | None = None,
    consumer: dict[str, Any] | None = None,
    backend: BackendManifest | None = None,
    capabilities: tuple[str, ...] = ("streaming", "tools"),
) -> CompatibilityResult:
    publication = _publication(*capabilities)
    manifest = backend or derive_backend_manifest(publication)
    return decide(
        parse_request(request or {}),
        ConsumerManifest(**{"consumer": "me", **(consumer or {})}),
        manifest,
        publication,
    )


def _preferring(**preference: object) -> dict[str, Any]:
    return {"model_preference": preference}


BASE_METADATA = {
    "backend": "asm_inference_endpoint",
    "consumer": "me",
    "provider": "made_up",
    "published_capabilities": {"cli_completion_v1": True, "cli_streaming_v1": True, "cli_agent_v2": False},
    "common_surface_only?": True,
}

MISFITS: dict[str, tuple[dict[str, Any], dict[str, Any], str, str, dict[str, bool]]] = {
    "runtime_kind": (
        {},
        {"accepted_runtime_kinds": ("service",)},
        "runtime_kind_mismatch",
        "runtime_kind",
        {},
    ),
    "management_mode": (
        {},
        {"accepted_management_modes": ("externally_managed",)},
        "management_mode_mismatch",
        "management_mode",
        {},
    ),
    "protocol": ({}, {"accepted_protocols": ("openai_responses",)}, "unsupported_protocol", "protocol", {}),
    "startup_kind": (
        {},
        {"constraints": {"startup_kind": "attach_existing_service"}},
        "startup_kind_unsupported",
        "startup_kind",
        {},
    ),
    "target_class": (
        {},
        {"constraints": {"target_class": "cloud_provider"}},
        "target_class_mismatch",
        "target_class",
        {},
    ),
    "stream": (
        {"stream?": True},
        {},
        "missing_streaming",
        "streaming",
        {"requested_stream?": True},
    ),
    "tools": ({"tools": [TOOL]}, {}, "missing_capability", "tool_calling", {"requested_tools?": True}),
    "required": (
        {},
        {"required_capabilities": {"embeddings?": True}},
        "missing_capability",
        "embeddings",
        {},
    ),
}
"""One misfit per check, in the decision's order: request, consumer, reason, requirement, noted metadata."""


@pytest.mark.parametrize("misfit", MISFITS)
def test_each_check_has_its_reason(misfit: str) -> None:
    """What does not fit is told as one reason and one requirement, and nothing is resolved."""
    request, consumer, reason, requirement, noted = MISFITS[misfit]
    capabilities = ("tools",) if misfit == "stream" else ("streaming", "tools")
    result = _decide(request, consumer, capabilities=capabilities)
    published = {**BASE_METADATA["published_capabilities"], "cli_streaming_v1": misfit != "stream"}  # type: ignore[dict-item]
    assert result == CompatibilityResult(
        compatible=False,
        reason=reason,
        missing_requirements=(requirement,),
        metadata={**BASE_METADATA, "published_capabilities": published, **noted},
    )


def test_the_first_failure_wins() -> None:
    """With everything wrong, fixing one thing after another walks down the contract's order."""
    assert len(MISFITS) == len(CHECKS)
    remaining = dict(MISFITS)
    while remaining:
        request: dict[str, Any] = {}
        consumer: dict[str, Any] = {}
        for more_request, more_consumer, *_ in remaining.values():
            request |= more_request
            constraints = {**consumer.get("constraints", {}), **more_consumer.get("constraints", {})}
            consumer |= more_consumer | ({"constraints": constraints} if constraints else {})
        first = next(iter(remaining))
        result = _decide(request, consumer, capabilities=("tools",))
        assert (result.reason, result.missing_requirements) == (remaining[first][2], (remaining[first][3],))
        del remaining[first]


@pytest.mark.parametrize("name", PUBLISHED)
def test_our_own_manifest_fits_every_published_command_line(name: str) -> None:
    """Each of the four is leased to a consumer that sends our own manifest and asks for a stream."""
    publication = derive_publication(providers.load(name))
    request = parse_request({**_preferring(provider=name, id="m"), "stream?": True})
    result = decide(request, consumer_manifest(), derive_backend_manifest(publication), publication)
    assert result == CompatibilityResult(
        compatible=True,
        reason="protocol_match",
        resolved_runtime_kind="task",
        resolved_management_mode="jido_managed",
        resolved_protocol="openai_chat_completions",
        metadata={
            "backend": "asm_inference_endpoint",
            "consumer": "asm_openai_endpoint",
            "provider": name,
            "published_capabilities": publication.published_capabilities,
            "common_surface_only?": name in ("gemini", "amp"),
        },
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_published_command_line_takes_tools(name: str) -> None:
    """A tool-bearing request is incompatible everywhere, and the result still tells what is published."""
    publication = derive_publication(providers.load(name))
    request = parse_request({"tool_policy": {"tools": [TOOL]}})
    result = decide(request, consumer_manifest(), derive_backend_manifest(publication), publication)
    assert (result.reason, result.missing_requirements) == ("missing_capability", ("tool_calling",))
    assert result.metadata["published_capabilities"] == publication.published_capabilities
    assert result.metadata["requested_tools?"] is True


def test_the_backends_order_chooses() -> None:
    """Of several accepted modes and protocols, the backend's first is resolved."""
    backend = BackendManifest(management_modes=("m1", "m2", "m3"), protocols=("p1", "p2", "p3"))
    consumer = {"accepted_management_modes": ("m3", "m2"), "accepted_protocols": ("p3", "p2")}
    result = _decide({}, consumer, backend)
    assert (result.resolved_management_mode, result.resolved_protocol) == ("m2", "p2")


@pytest.mark.parametrize(
    "accepted", ["accepted_runtime_kinds", "accepted_management_modes", "accepted_protocols"]
)
def test_accepting_nothing_fits_nothing(accepted: str) -> None:
    """An empty list is not a wildcard."""
    assert not _decide({}, {accepted: ()}).compatible


@pytest.mark.parametrize(
    ("constraints", "preference", "fits"),
    [
        ({}, None, True),
        ({"startup_kind": "spawned", "target_class": "cli_endpoint", "region": "eu"}, None, True),
        ({"startup_kind": None, "target_class": None}, None, True),
        ({"startup_kind": ""}, None, False),
        ({"startup_kind": ["spawned"]}, None, False),
        ({"target_class": "self_hosted_endpoint"}, None, False),
        ({"target_class": {}}, None, False),
        ({}, {"target_class": "cli_endpoint"}, True),
        ({}, {"target_class": None}, True),
        ({}, {"backend": "x"}, True),
        ({}, {"target_class": "cloud_provider"}, False),
        ({"target_class": "cli_endpoint"}, {"target_class": 5}, False),
    ],
)
def test_constraints_and_preferences_are_evaluated_when_given(
    constraints: dict[str, Any], preference: dict[str, Any] | None, fits: bool
) -> None:
    """A stated start-up kind or target class must be ours; silence and null state nothing."""
    result = _decide({"target_preference": preference}, {"constraints": constraints})
    assert result.compatible is fits
    assert (result.reason in {"target_class_mismatch", "startup_kind_unsupported"}) is not fits


@pytest.mark.parametrize(
    ("required", "reason", "missing"),
    [
        ({"streaming?": True}, "protocol_match", ()),
        ({"streaming": True, "tool_calling?": False, "embeddings": "unknown"}, "protocol_match", ()),
        ({" streaming? ": True}, "protocol_match", ()),
        ({"streaming?": False}, "missing_streaming", ("streaming",)),
        ({"streaming": False}, "missing_streaming", ("streaming",)),
        ({"streaming?": 1}, "missing_streaming", ("streaming",)),
        ({"streaming?": "true"}, "missing_streaming", ("streaming",)),
        ({"streaming?": "unknown"}, "missing_streaming", ("streaming",)),
        ({"tool_calling?": True}, "missing_capability", ("tool_calling",)),
        ({"tool_calling?": 0}, "missing_capability", ("tool_calling",)),
        ({"tool_calling": True}, "missing_capability", ("tool_calling",)),
        ({"embeddings?": False}, "missing_capability", ("embeddings",)),
        ({"unknown_capability": True}, "missing_capability", ("capability",)),
        ({"__class__": True}, "missing_capability", ("capability",)),
        ({"": True}, "missing_capability", ("capability",)),
        ({"tool_calling?": True, "streaming?": False}, "missing_capability", ("tool_calling",)),
    ],
)
def test_required_capabilities_must_match_exactly(
    required: dict[str, Any], reason: str, missing: tuple[str, ...]
) -> None:
    """Each required capability, in either spelling, must have exactly the published value."""
    result = _decide({}, {"required_capabilities": required})
    assert (result.reason, result.missing_requirements) == (reason, missing)
    assert result.compatible is (missing == ())


def test_a_backend_without_streaming_fails_a_required_stream() -> None:
    """The requirement of the manifest counts even when the request itself does not stream."""
    result = _decide({}, {"required_capabilities": {"streaming?": True}}, capabilities=("thinking",))
    assert (result.reason, result.missing_requirements) == ("missing_streaming", ("streaming",))
    assert "requested_stream?" not in result.metadata


@pytest.mark.parametrize(
    ("optional", "warnings"),
    [
        ({}, ()),
        ({"streaming?": True, "tool_calling?": False}, ()),
        ({"tool_calling?": True}, ("tool_calling",)),
        ({"embeddings": True, "streaming?": False}, ("embeddings", "streaming")),
        ({"vision?": True, "audio?": True}, ("capability",)),
    ],
)
def test_unmet_optional_capabilities_are_warnings(
    optional: dict[str, Any], warnings: tuple[str, ...]
) -> None:
    """What is only welcome is named, each name once, and refuses nothing."""
    result = _decide({}, {"optional_capabilities": optional})
    assert result.compatible
    assert result.warnings == warnings


@pytest.mark.parametrize("stream", [True, "true"])
def test_a_streaming_backend_takes_a_streaming_request(stream: object) -> None:
    """Both spellings of yes are served where streaming is published."""
    assert _decide({"stream?": stream}).compatible
    assert not _decide({"stream?": stream}, capabilities=("tools",)).compatible


def test_an_unknown_streaming_capability_is_not_a_promise() -> None:
    """A backend that does not know whether it streams is not asked to."""
    backend = BackendManifest(capabilities=BackendCapabilities(streaming="unknown"))
    assert _decide({"stream?": True}, {}, backend).reason == "missing_streaming"


def test_a_consumer_without_a_name_is_left_out() -> None:
    """Metadata has no null entries."""
    assert "consumer" not in _decide({}, {"consumer": None}).metadata
    assert _decide({"tools": [TOOL]}, {"consumer": "me"}).metadata["consumer"] == "me"


def test_a_refusal_carries_the_whole_result() -> None:
    """The typed error of an incompatible request shows the decision in the contract's spelling."""
    envelope = Incompatible(_decide({"tools": [TOOL]})).envelope()
    assert envelope["compatibility"]["compatible?"] is False
    assert envelope["compatibility"]["metadata"]["requested_tools?"] is True
    assert envelope["error"]["code"] == "incompatible"


@pytest.mark.parametrize(
    "request_body",
    [
        {"tools": [TOOL]},
        {"tool_policy": {"tools": [TOOL]}},
        {"tool_policy": {"tools": [TOOL]}, "tools": []},
        {"tool_policy": {"tools": {"f": {}}}},
        {"tool_policy": {"tool_choice": "auto"}},
        {"tool_policy": {"tool_choice": "required"}},
        {"tool_policy": {"tools": []}, "functions": [{"name": "f"}]},
        {"tool_choice": "auto"},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"functions": [{"name": "f"}]},
        {"function_call": "auto"},
        {"function_call": {"name": "f"}},
        {"messages": [{"role": "user", "content": "hi"}, {"role": "tool", "content": "4"}]},
        {"messages": [{"role": " Tool ", "content": "4"}]},
        {"messages": [{"role": "function", "name": "f", "content": "4"}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "c1"}]}]},
        {"messages": [{"role": "assistant", "function_call": {"name": "f"}}]},
    ],
    ids=str,
)
def test_every_spelling_of_tools_is_noticed(request_body: dict[str, Any]) -> None:
    """Tools offered, chosen, called or answered, in old and new spellings, make a request tool-bearing."""
    assert uses_tools(parse_request(request_body))
    result = _decide(request_body)
    assert (result.reason, result.missing_requirements) == ("missing_capability", ("tool_calling",))


@pytest.mark.parametrize(
    "request_body",
    [
        {},
        {"tools": [], "tool_choice": "none", "functions": [], "function_call": "none"},
        {"tools": None, "tool_choice": None, "functions": None, "function_call": None, "tool_policy": None},
        {"tool_policy": {"tools": [], "tool_choice": "none"}},
        {"tool_policy": {"tools": None, "tool_choice": None}},
        {"tool_policy": {"tools": []}, "tools": [TOOL]},
        {"tool_policy": {"max_calls": 3}},
        {"messages": [{"role": "assistant", "content": "hi", "tool_calls": [], "function_call": None}]},
        {"messages": [{"role": 5}, {}]},
        {"prompt": "use the tools"},
    ],
    ids=str,
)
def test_requests_without_tools_are_left_alone(request_body: dict[str, Any]) -> None:
    """Empty, null and "none" are no tools, and a tool policy's own list hides the request's."""
    assert not uses_tools(parse_request(request_body))
    assert _decide(request_body).compatible
