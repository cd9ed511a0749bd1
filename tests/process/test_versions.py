"""A command line of a version that nobody has measured: it is used, and told apart wherever somebody may look."""

from __future__ import annotations

import asyncio
import stat
import sys
from pathlib import Path

import httpx
import pytest

import shared.echo_cli
from shared.provider import load
from supervisor import EndpointDescriptor, InferenceEndpoint
from supervisor.commandlines import CommandLines
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


def start(provider: str, version: str, folder: Path, *arguments: str) -> InferenceEndpoint:
    """A supervisor whose user has a key, and that version of one command line."""
    path_variable, key_variable = VARIABLES[provider]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.setenv(path_variable, str(stand_in(folder / "command-line", version)))
        patch.setenv(key_variable, "dummy-key")
        return InferenceEndpoint(serve_arguments=arguments)


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
def test_an_unknown_version_is_leased_and_told_apart(
    provider: str, isolation: tuple[str, ...], tmp_path: Path
):
    """Descriptor, lease, health and providers agree, for the family is told; nothing is refused for it."""
    supported = load(provider).supported_versions
    assert supported is not None
    expected = {
        "path": str(tmp_path / "command-line"),
        "version": "9.9.9",
        "supported_versions": str(supported),
        "is_supported": False,
    }
    with start(provider, "9.9.9", tmp_path, *isolation) as endpoint:
        descriptor, reports = seen(endpoint, provider)
        assert reports == [expected] * 4
        if provider == "claude":
            assert ask(descriptor).json()["choices"][0]["message"]["content"] == "hello"


@pytest.mark.parametrize("end", ["oldest", "newest"])
def test_a_supported_version_is_reported_as_such(end: str, tmp_path: Path):
    """Both ends of a range belong to it."""
    supported = load("claude").supported_versions
    assert supported is not None
    with start("claude", getattr(supported, end), tmp_path) as endpoint:
        _, reports = seen(endpoint, "claude")
        assert [report["is_supported"] for report in reports] == [True] * 4


def test_a_version_that_could_not_be_read_is_asked_for_again(tmp_path: Path):
    """A loaded machine must not make a command line one of an unknown version for ever."""
    path = stand_in(tmp_path / "claude", "2.1.300")
    path.write_text(path.read_text().replace("\n", f"\nmkdir {tmp_path}/asked 2>/dev/null && exit 1\n", 1))
    found = CommandLines({"CLAUDE_CLI_PATH": str(path), "PATH": "/usr/bin:/bin"}, tmp_path, tmp_path)

    async def versions() -> list[str | None]:
        return [(await found.describe("claude"))["cli"]["version"] for _ in range(2)]

    assert asyncio.run(versions()) == [None, "2.1.300"]
