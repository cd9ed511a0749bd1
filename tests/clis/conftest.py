"""The real command lines, pinned, in front of the scripted model server, in a network that is loopback only."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from supervisor import EndpointDescriptor, InferenceEndpoint
from tests.clis.models.log import RecordedRequest
from tests.clis.models.server import ModelServer
from tests.clis.table import CLIS, KEY, Cli

HTTP_TIMEOUT_S = 120.0
WAIT_S = 60.0
POLL_S = 0.02
CANARY = "canary-that-must-not-leave"


@pytest.fixture(scope="session", params=CLIS)
def cli(request: pytest.FixtureRequest) -> Cli:
    """Each command line in turn."""
    chosen = CLIS[request.param]
    chosen.check_version()
    return chosen


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
    model_server: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., InferenceEndpoint]:
    """Starts an embedded supervisor with the pinned ``cli``; ``variables`` and ``home`` are its user's."""

    def start(
        cli: Cli, home: Path | None = None, arguments: tuple[str, ...] = (), **variables: str
    ) -> InferenceEndpoint:
        with pytest.MonkeyPatch.context() as patch:
            for name in (cli.key_variable, *cli.login_variables):
                patch.delenv(name, raising=False)
            patch.setenv("HOME", str(home or tmp_path_factory.mktemp("user-home")))
            patch.setenv("SOME_SECRET", CANARY)
            for name, value in {**cli.variables(model_server), **variables}.items():
                patch.setenv(name, value)
            return InferenceEndpoint(serve_arguments=("--set", f"status_hold_s={HTTP_TIMEOUT_S}", *arguments))

    return start


@pytest.fixture(scope="session")
def with_key(cli: Cli, start_supervisor: Callable[..., InferenceEndpoint]) -> Iterator[InferenceEndpoint]:
    """A supervisor whose user has an API key."""
    with start_supervisor(cli, **{cli.key_variable: KEY}) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def lease(cli: Cli, with_key: InferenceEndpoint) -> Iterator[EndpointDescriptor]:
    """One lease for the whole suite: it has to survive everything."""
    descriptor = lease_of(with_key, cli)
    yield descriptor
    proof = with_key.release_endpoint(descriptor).proof
    assert proof is not None
    assert not proof.survivors


@pytest.fixture
def user(cli: Cli, server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process's user has a key and the pinned command line; their home."""
    for name, value in {**cli.variables(server), cli.key_variable: KEY, "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def lease_of(endpoint: InferenceEndpoint, cli: Cli, **options: Any) -> EndpointDescriptor:
    """A lease of that command line."""
    request = {"model_preference": {"provider": cli.provider, "id": cli.model}}
    descriptor, _ = endpoint.ensure_endpoint(request, lease=options or None)
    return descriptor


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


def model_request(server: ModelServer) -> RecordedRequest:
    """The first model request."""
    return server.wait_for_request(lambda request: request.method == "POST")


def posts(server: ModelServer) -> list[RecordedRequest]:
    """All model requests so far."""
    return [request for request in server.requests if request.method == "POST"]


def until(condition: Callable[[], Any]) -> None:
    """Poll, with a deadline."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(POLL_S)


def bare_environ(cli: Cli, home: Path, server: ModelServer, **more: str) -> dict[str, str]:
    """The environment of a command line that a test runs by itself, for positive controls."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        cli.key_variable: KEY,
        **cli.variables(server),
        **more,
    }
