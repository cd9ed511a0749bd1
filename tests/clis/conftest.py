"""The real command lines, pinned, in front of the scripted model server, in a network that is loopback only."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from supervisor import EndpointDescriptor, InferenceEndpoint
from tests.clis.models.server import ModelServer
from tests.clis.netns import is_loopback_only

ROOT = Path(__file__).parents[2]
PACKAGE = "@anthropic-ai/claude-code"
VERSION_TIMEOUT_S = 60
HTTP_TIMEOUT_S = 120.0
KEY = "dummy-key"
CANARY = "canary-that-must-not-leave"
MODEL = "mock-1"
OURS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CONFIG_DIR")


@pytest.fixture(scope="session")
def claude() -> Path:
    """The pinned native binary; a skip without it, which CI does not allow."""
    if not is_loopback_only():
        pytest.skip("real command lines run only in a loopback-only network, and none is permitted here")
    found = sorted((ROOT / ".clis" / "node_modules").glob(f"{PACKAGE}-linux-*/claude"))
    if not found:
        pytest.skip("claude is not installed; `make clis` installs it where npm is there")
    pinned = json.loads((Path(__file__).parent / "package.json").read_text())["dependencies"][PACKAGE]
    printed = subprocess.run(
        (found[0], "--version"),
        capture_output=True,
        text=True,
        timeout=VERSION_TIMEOUT_S,
        check=True,
        env={"HOME": "/nonexistent", "DISABLE_AUTOUPDATER": "1"},
    ).stdout
    assert printed.split()[0] == pinned, "the installed claude is not the pinned one: run `make clean clis`"
    return found[0]


@pytest.fixture(scope="session")
def model_server() -> Iterator[ModelServer]:
    """The scripted model, for all tests."""
    with ModelServer() as server:
        yield server


@pytest.fixture
def server(model_server: ModelServer) -> ModelServer:
    """The scripted model with no request recorded yet."""
    model_server.clear()
    return model_server


@pytest.fixture(scope="session")
def start_supervisor(
    claude: Path, model_server: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., InferenceEndpoint]:
    """Starts an embedded supervisor whose claude is the pinned one; ``variables`` and ``home`` are its user's."""

    def start(home: Path | None = None, **variables: str) -> InferenceEndpoint:
        with pytest.MonkeyPatch.context() as patch:
            for name in OURS:
                patch.delenv(name, raising=False)
            patch.setenv("HOME", str(home or tmp_path_factory.mktemp("user-home")))
            patch.setenv("CLAUDE_CLI_PATH", str(claude))
            patch.setenv("ANTHROPIC_BASE_URL", model_server.base_url)
            patch.setenv("SOME_SECRET", CANARY)
            for name, value in variables.items():
                patch.setenv(name, value)
            return InferenceEndpoint(serve_arguments=("--set", f"status_hold_s={HTTP_TIMEOUT_S}"))

    return start


@pytest.fixture(scope="session")
def with_key(start_supervisor: Callable[..., InferenceEndpoint]) -> Iterator[InferenceEndpoint]:
    """A supervisor whose user has an API key."""
    with start_supervisor(ANTHROPIC_API_KEY=KEY) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def lease(with_key: InferenceEndpoint) -> Iterator[EndpointDescriptor]:
    """One lease for the whole suite: it has to survive everything."""
    descriptor, _ = with_key.ensure_endpoint({"model_preference": {"provider": "claude", "id": MODEL}})
    yield descriptor
    proof = with_key.release_endpoint(descriptor).proof
    assert proof is not None
    assert not proof.survivors


def ask(descriptor: EndpointDescriptor, text: str, **more: Any) -> httpx.Response:
    """One completion."""
    return httpx.post(
        f"{descriptor.base_url}/chat/completions",
        headers=descriptor.headers,
        json={"messages": [{"role": "user", "content": text}], **more},
        timeout=HTTP_TIMEOUT_S,
        trust_env=False,
    )


def text_of(response: httpx.Response) -> str:
    """The answer's text."""
    assert response.status_code == 200, response.text
    content: str = response.json()["choices"][0]["message"]["content"]
    return content


def chunks_of(response: httpx.Response) -> list[Any]:
    """The decoded events of a stream; the end mark as it is."""
    events = [
        part.removeprefix("data: ") for part in response.text.split("\n\n") if part.startswith("data: ")
    ]
    return [event if event == "[DONE]" else json.loads(event) for event in events]


def bare_environ(claude_home: Path, server: ModelServer, **more: str) -> dict[str, str]:
    """The environment of a claude that a test runs by itself, for positive controls."""
    return {
        "PATH": os.defpath,
        "HOME": str(claude_home),
        "ANTHROPIC_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": server.base_url,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_MAX_RETRIES": "0",
        **more,
    }
