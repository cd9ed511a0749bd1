"""The proof checklist of the inference contract, line by line: all four published providers, and HTTP with echo."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from shared import provider
from shared.contracts import parse_consumer_manifest, parse_request
from shared.errors import RequestError
from supervisor import EndpointDescriptor, Incompatible, InferenceEndpoint, ProviderError
from supervisor.compatibility import decide
from supervisor.publication import consumer_manifest, derive_backend_manifest, derive_publication

pytestmark = pytest.mark.process
PUBLISHED = ("codex", "claude", "gemini", "amp")
COMMON_SURFACE_ONLY = ("gemini", "amp")
HTTP_TIMEOUT_S = 60.0
TOOL = {"type": "function", "function": {"name": "lookup"}}


def request_for(name: str, **more: Any) -> dict[str, Any]:
    """A minimal inference request."""
    return {"model_preference": {"provider": name, "id": "some-model"}, **more}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[InferenceEndpoint]:
    """An embedded supervisor whose user has no command line installed."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("CODEX_PATH", "GEMINI_CLI_PATH", "AMP_CLI_PATH"):
            patch.setenv(variable, "/nonexistent/command-line")
        running = InferenceEndpoint()
    with running:
        yield running


@pytest.fixture
def lease(endpoint: InferenceEndpoint) -> Iterator[EndpointDescriptor]:
    """One echo lease, released afterwards."""
    descriptor, _ = endpoint.ensure_endpoint(
        request_for("echo", **{"stream?": True}), None, {"boundary_ref": "boundary-1"}
    )
    yield descriptor
    endpoint.release_endpoint(descriptor)


def post(descriptor: EndpointDescriptor, body: dict[str, Any]) -> httpx.Response:
    """One chat-completions request as a northbound service would send it."""
    return httpx.post(
        f"{descriptor.base_url}/chat/completions",
        headers=descriptor.headers,
        json=body,
        timeout=HTTP_TIMEOUT_S,
        trust_env=False,
    )


def user(text: str) -> list[dict[str, str]]:
    """A one-message history."""
    return [{"role": "user", "content": text}]


def test_the_four_published_providers_are_the_published_ones():
    """Exactly codex, claude, gemini and amp are published; echo names itself and is not."""
    assert {name for name in provider.names() if provider.load(name).published} == set(PUBLISHED)


def test_consumer_manifest_values(endpoint: InferenceEndpoint):
    """The values of the contract, through the API."""
    manifest = endpoint.consumer_manifest()
    assert manifest.to_builtins() == {
        "contract_version": "inference.v1",
        "consumer": "asm_openai_endpoint",
        "accepted_runtime_kinds": ["task"],
        "accepted_management_modes": ["jido_managed"],
        "accepted_protocols": ["openai_chat_completions"],
        "required_capabilities": {},
        "optional_capabilities": {"streaming?": True},
        "constraints": {"target_class": "cli_endpoint"},
        "metadata": {"source_runtime": "agent_session_manager"},
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_tool_bearing_request_is_incompatible(endpoint: InferenceEndpoint, name: str):
    """Refused before anything starts, with the three capabilities, provider and surface in the metadata."""
    with pytest.raises(Incompatible) as refused:
        endpoint.ensure_endpoint(request_for(name, tools=[TOOL]))
    result = refused.value.compatibility
    assert (result.compatible, result.reason) == (False, "missing_capability")
    assert list(result.missing_requirements) == ["tool_calling"]
    assert result.metadata["provider"] == name
    assert result.metadata["requested_tools?"] is True
    assert result.metadata["common_surface_only?"] is (name in COMMON_SURFACE_ONLY)
    assert result.metadata["published_capabilities"] == {
        "cli_completion_v1": True,
        "cli_streaming_v1": True,
        "cli_agent_v2": name not in COMMON_SURFACE_ONLY,
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_plain_streaming_request_is_compatible(name: str):
    """Every published provider completes and streams at the contract level."""
    publication = derive_publication(provider.load(name))
    result = decide(
        parse_request(request_for(name, **{"stream?": True})),
        consumer_manifest(),
        derive_backend_manifest(publication),
        publication,
    )
    assert (result.compatible, result.reason) == (True, "protocol_match")
    assert result.resolved_protocol == "openai_chat_completions"


@pytest.mark.parametrize("name", ["codex", "gemini", "amp"])
def test_a_provider_without_its_command_line_says_so(endpoint: InferenceEndpoint, name: str):
    """After the compatibility decision, a clear error and no lease."""
    before = len(endpoint.endpoints())
    with pytest.raises(ProviderError) as refused:
        endpoint.ensure_endpoint(request_for(name))
    assert (refused.value.code, refused.value.status) == ("cli_not_found", 503)
    assert len(endpoint.endpoints()) == before


def test_publish_health_release(endpoint: InferenceEndpoint):
    """Health is 200 while the lease lives, and nothing answers after its release."""
    descriptor, compatibility = endpoint.ensure_endpoint(request_for("echo"))
    assert compatibility.compatible
    health = httpx.get(str(descriptor.health_ref), headers=descriptor.headers, trust_env=False)
    assert (health.status_code, health.json()["status"]) == (200, "ok")
    assert health.json()["lease_ref"] == descriptor.lease_ref
    released = endpoint.release_endpoint(descriptor.lease_ref)
    assert released.proof is not None
    assert released.proof.processes
    assert not released.proof.survivors
    with pytest.raises(httpx.ConnectError):
        httpx.get(str(descriptor.health_ref), headers=descriptor.headers, trust_env=False)
    assert endpoint.release_endpoint(descriptor.lease_ref).released


def test_refs_are_echoed(lease: EndpointDescriptor):
    """boundary_ref comes from the context, source_runtime_ref is the lease."""
    assert lease.boundary_ref == "boundary-1"
    assert lease.source_runtime_ref == lease.lease_ref
    assert lease.metadata["backend_manifest"]["backend"] == "asm_inference_endpoint"
    assert lease.metadata["model_version"] == "some-model"


def test_authority_refs_are_merged_and_hold_no_token(endpoint: InferenceEndpoint):
    """The request's win over the context's, unknown ones are dropped, and no bearer token is among them."""
    descriptor, _ = endpoint.ensure_endpoint(
        request_for("echo", authority_refs={"authority_ref": "request", "other": "x"}),
        None,
        {"authority_refs": {"authority_ref": "context", "target_ref": "t", "endpoint_ref": " "}},
    )
    assert descriptor.metadata["authority_refs"] == {"authority_ref": "request", "target_ref": "t"}
    token = descriptor.headers["authorization"].removeprefix("Bearer ")
    assert "Bearer" not in json.dumps(descriptor.metadata)
    assert token not in json.dumps(descriptor.metadata)
    assert token not in repr(descriptor)
    endpoint.release_endpoint(descriptor)


def test_non_stream_reply(lease: EndpointDescriptor):
    """Text, model, finish_reason and usage."""
    answer = post(lease, {"model": "some-model", "messages": user("hello there"), "max_tokens": 2048}).json()
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "some-model"
    assert answer["choices"][0]["message"]["content"] == "hello there"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["total_tokens"] == 4


def test_stream_reply(lease: EndpointDescriptor):
    """Chunk objects with the text, then stop, then the end mark."""
    text = post(lease, {"messages": user("hello there"), "stream": True}).text
    events = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "hello there"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-1] == "stop"


def test_tools_on_http_are_refused(lease: EndpointDescriptor):
    """400 with the contract's words, and the lease still serves."""
    refused = post(lease, {"messages": user("x"), "tools": [TOOL]})
    assert refused.status_code == 400
    assert "tool-bearing requests" in refused.json()["error"]["message"]
    assert post(lease, {"messages": user("x")}).status_code == 200


@pytest.mark.parametrize(
    ("required", "missing"),
    [
        ({"unknown_capability": True}, "capability"),
        ({"tool_calling?": True}, "tool_calling"),
        ({"embeddings?": True}, "embeddings"),
    ],
)
def test_required_capabilities_are_named_when_missing(
    endpoint: InferenceEndpoint, required: dict[str, bool], missing: str
):
    """The one requirement that failed is in missing_requirements."""
    manifest = parse_consumer_manifest({"required_capabilities": required})
    with pytest.raises(Incompatible) as refused:
        endpoint.ensure_endpoint(request_for("echo"), manifest)
    assert list(refused.value.compatibility.missing_requirements) == [missing]


@pytest.mark.parametrize("name", ["cursor", "antigravity"])
def test_known_providers_without_an_endpoint(endpoint: InferenceEndpoint, name: str):
    """They are resolvable names, but not published."""
    with pytest.raises(RequestError) as refused:
        endpoint.ensure_endpoint(request_for(name))
    assert refused.value.code == "unsupported_endpoint_provider"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"prompt": "x" * 262_145}, "262144-byte limit"),
        ({"messages": user("x") * 129}, "128-message limit"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role is unsupported"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": []}, "messages must not be empty"),
    ],
)
def test_the_normaliser_refuses(lease: EndpointDescriptor, body: dict[str, Any], words: str):
    """Limits and shapes of prompts, in the contract's words."""
    refused = post(lease, body)
    assert refused.status_code == 400
    assert words in refused.json()["error"]["message"]


def test_the_normaliser_joins_a_history(lease: EndpointDescriptor):
    """Two lines of role and content; echo gives back what it was given."""
    history = [{"role": "assistant", "content": "one"}, {"role": "user", "content": "two"}]
    answer = post(lease, {"messages": history}).json()
    assert answer["choices"][0]["message"]["content"] == "assistant: one\nuser: two"
