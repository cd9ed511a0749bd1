"""Provider-native SDKs where none is installed: the report says so, and a bridge refuses with the way to get one."""

from __future__ import annotations

import asyncio
import importlib.util

import pytest

from shared import extensions, provider
from shared.errors import ProviderError, RequestError
from worker.bridges import claude, codex, combine
from worker.inputs import private_inputs


@pytest.fixture(autouse=True)
def nothing_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is installed where the tests run."""
    real = importlib.util.find_spec
    modules = {each.module for each in extensions.extensions()}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in modules else real(name, *rest)
    )


def test_the_report_covers_every_published_provider():
    """Claude and codex are native but not importable; gemini and amp have the common surface only."""
    reports = {each.provider: each for each in extensions.capability_report()}
    assert {name: report.composition_mode for name, report in reports.items()} == {
        "amp": "common_surface_only",
        "claude": "native_extension",
        "codex": "native_extension",
        "gemini": "common_surface_only",
    }
    for report in reports.values():
        assert not report.sdk_available
        assert report.sdk_version is None
        assert not report.native_capabilities


def test_the_catalogue_agrees_with_the_providers():
    """Exactly the providers that publish a native surface have an SDK here."""
    native = {name for name in provider.names() if provider.load(name).native_extensions}
    assert {each.provider for each in extensions.extensions()} == native
    for each in extensions.extensions():
        assert importlib.util.find_spec(each.bridge) is not None


def test_an_unknown_extension_or_provider_is_refused():
    """By name, with what there is."""
    with pytest.raises(RequestError, match="known are claude_agent_sdk, openai_codex") as refused:
        extensions.extension("gemini_sdk")
    assert refused.value.code == "unsupported_extension"
    with pytest.raises(RequestError) as refused:
        extensions.provider_report("nobody")
    assert refused.value.code == "unsupported_provider"


def test_a_bridge_without_its_sdk_says_how_to_get_it():
    """And nothing else happens."""

    async def call() -> None:
        async with private_inputs("echo", model="any") as inputs:
            for bridge, extra in (
                (claude.start_client, "claude-sdk"),
                (codex.connect_app_server, "codex-sdk"),
                (codex.thread_options, "codex-sdk"),
            ):
                with pytest.raises(ProviderError, match=rf"pip install 'asm-endpoint\[{extra}\]'") as refused:
                    bridge(inputs)
                assert refused.value.code == "sdk_not_installed"

    asyncio.run(call())


def test_the_two_bags_are_kept_apart():
    """Defaults give way, derived options do not, and maps are compared by key."""
    derived = {"model": "m", "env": {"HOME": "/home"}}
    known = {"model", "env", "tools"}
    assert combine(derived, {"tools": []}, None, known) == {**derived, "tools": []}
    assert combine(derived, {"tools": []}, {"tools": ["Read"]}, known)["tools"] == ["Read"]
    assert combine(derived, {}, {"env": {"MORE": "1"}}, known)["env"] == {"HOME": "/home", "MORE": "1"}
    with pytest.raises(RequestError, match=r"are env\.HOME, model") as refused:
        combine(derived, {}, {"env": {"HOME": "/"}, "model": "other"}, known)
    assert (refused.value.code, refused.value.param) == ("conflicting_options", "env.HOME")
    with pytest.raises(RequestError, match=r"derived .* env$"):
        combine(derived, {}, {"env": None}, known)
    with pytest.raises(RequestError, match="unknown are nothing"):
        combine(derived, {}, {"nothing": 1}, known)
