"""A command line of a version that nobody has measured: it is used, and told apart wherever somebody may look."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import httpx
import pytest

import shared.echo_cli
from shared.provider import load
from supervisor import EndpointDescriptor, InferenceEndpoint
from tests.process.test_bad_command_lines import HTTP_TIMEOUT_S, MODELS, VARIABLES, ask

pytestmark = pytest.mark.process
PROGRAM = """#!/bin/sh
[ "$1" = --version ] && exec echo "{version} (stand-in)"
[ "$1" = debug ] && exec echo '{{"models": []}}'
exec {python} -IS {echo}
"""
"""Speaks claude's protocol, whoever it stands in for."""


def stand_in(path: Path, version: str) -> Path:
    """An executable of that version."""
    path.write_text(PROGRAM.format(version=version, python=sys.executable, echo=shared.echo_cli.__file__))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def start(provider: str, version: str, folder: Path) -> InferenceEndpoint:
    """A supervisor whose user has a key, and that version of one command line."""
    path_variable, key_variable = VARIABLES[provider]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.setenv(path_variable, str(stand_in(folder / "command-line", version)))
        patch.setenv(key_variable, "dummy-key")
        return InferenceEndpoint()


def seen(endpoint: InferenceEndpoint, provider: str) -> tuple[EndpointDescriptor, list[dict[str, object]]]:
    """A lease, and what the descriptor, the lease's view and health, and the list of providers say of its program."""
    request = {"model_preference": {"provider": provider, "id": MODELS.get(provider, "some-model")}}
    descriptor, _ = endpoint.ensure_endpoint(request)
    health = httpx.get(
        str(descriptor.health_ref), headers=descriptor.headers, timeout=HTTP_TIMEOUT_S, trust_env=False
    ).json()
    (described,) = [each for each in endpoint.providers() if each["provider"] == provider]
    view = endpoint.endpoint(descriptor)
    return descriptor, [descriptor.metadata["cli"], view.metadata["cli"], health["cli"], described["cli"]]


@pytest.mark.parametrize("provider", VARIABLES)
def test_an_unknown_version_is_leased_and_told_apart(provider: str, tmp_path: Path):
    """Descriptor, lease, health and providers agree; nothing is refused for it."""
    supported = load(provider).supported_versions
    assert supported is not None
    expected = {
        "path": str(tmp_path / "command-line"),
        "version": "9.9.9",
        "supported_versions": str(supported),
        "is_supported": False,
    }
    with start(provider, "9.9.9", tmp_path) as endpoint:
        descriptor, reports = seen(endpoint, provider)
        assert reports == [expected] * 4
        if provider == "claude":
            assert ask(descriptor).json()["choices"][0]["message"]["content"] == "hello"


def test_a_supported_version_is_reported_as_such(tmp_path: Path):
    """Both ends of a range belong to it."""
    supported = load("claude").supported_versions
    assert supported is not None
    with start("claude", supported.oldest, tmp_path) as endpoint:
        _, reports = seen(endpoint, "claude")
        assert [report["is_supported"] for report in reports] == [True] * 4
