"""amp through the whole stack: a stub that prints the documented lines, and the real one where no service is needed.

amp's own protocol to its service is proprietary, so the real command line only meets a server that refuses it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor import EndpointDescriptor, InferenceEndpoint, ProviderError
from tests.clis.amp import RefusingService, find_amp, lease_of, serve, write_stub
from tests.clis.conftest import ask, chunks_of, text_of, until
from tests.clis.failures import AMP_STATUSES, STUBBED
from tests.clis.provoke import assert_fails, assert_is_a_failure, assert_is_fatal
from tests.clis.table import KEY
from worker.session import open_session

pytestmark = [pytest.mark.cli, pytest.mark.process]


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceEndpoint]:
    """A supervisor whose amp is the stub."""
    folder = tmp_path_factory.mktemp("stub")
    with serve(write_stub(folder), folder, AMP_API_KEY=KEY) as endpoint:
        yield endpoint


@pytest.fixture
def descriptor(stub: InferenceEndpoint) -> Iterator[EndpointDescriptor]:
    """A lease of the stub, released with an empty proof."""
    leased = lease_of(stub)
    yield leased
    proof = stub.release_endpoint(leased).proof
    assert proof is not None
    assert not proof.survivors


def test_a_completion(descriptor: EndpointDescriptor):
    """Text, thoughts, usage."""
    answer = ask(descriptor, "hello").json()
    message = answer["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("echo: hello", "hm")
    assert answer["usage"]["prompt_tokens"] == 14
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 3


def test_a_stream_is_of_whole_messages_and_says_so(descriptor: EndpointDescriptor):
    """One piece; the publication does not pretend otherwise."""
    *chunks, done = chunks_of(ask(descriptor, "one two three", stream=True))
    pieces = [chunk["choices"][0]["delta"].get("content") for chunk in chunks if chunk["choices"]]
    assert [piece for piece in pieces if piece] == ["echo: one two three"]
    assert done == "[DONE]"
    assert descriptor.metadata["publication"]["streaming_granularity"] == "message"


@pytest.mark.parametrize("cause", [cause for cause, failing in STUBBED.items() if failing.by == "model"])
def test_what_amp_says_reaches_the_caller(descriptor: EndpointDescriptor, cause: str):
    """In a result that is an error with exit code 0, or on stderr alone; the lease survives each."""
    assert_fails(descriptor, STUBBED[cause])
    assert text_of(ask(descriptor, "still here")) == "echo: still here"


@pytest.mark.parametrize("cause", [cause for cause, failing in STUBBED.items() if failing.by == "deadline"])
def test_a_deadline_ends_the_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: str):
    """amp says nothing at all when its connection is cut."""
    monkeypatch.setenv("AMP_CLI_PATH", str(write_stub(tmp_path)))
    monkeypatch.setenv("AMP_API_KEY", KEY)
    asyncio.run(assert_is_a_failure("amp", "default", STUBBED[cause]))


def test_an_amp_that_is_killed_fails_its_turn_only(stub: InferenceEndpoint, descriptor: EndpointDescriptor):
    """The lease goes on with another one."""
    assert_is_fatal(stub, descriptor, STUBBED["crash"])
    assert text_of(ask(descriptor, "still here")) == "echo: still here"


def test_a_tool_ends_the_turn_and_the_process(stub: InferenceEndpoint, descriptor: EndpointDescriptor):
    """At the first try: amp announces its tools to its service whatever its settings say."""
    before = {process.pid for process in stub.endpoint(descriptor).processes[2:]}
    refused = ask(descriptor, "[[tool]]")
    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "tool_use_refused")
    assert "shell_command" in refused.json()["error"]["message"]
    assert text_of(ask(descriptor, "still here")) == "echo: still here"
    until(lambda: not before & {each.pid for each in stub.endpoint(descriptor).processes})


def test_modes_are_models(stub: InferenceEndpoint):
    """The mode is on the command line, and the locks are in the settings that amp is told to use."""
    leased = lease_of(stub, "high")
    assert text_of(ask(leased, "[[argv]]")).endswith("--mode high")
    settings = json.loads(text_of(ask(leased, "[[settings]]")).removeprefix("echo: "))
    assert settings["amp.tools.enable"] == ["__none__"]
    stub.release_endpoint(leased)


def test_an_unknown_mode_is_no_model(stub: InferenceEndpoint, monkeypatch: pytest.MonkeyPatch):
    """amp itself would pass it on unchecked; nothing is leased, here or as a library call."""
    with pytest.raises(ProviderError, match="has only default, low, medium, high, ultra") as refused:
        lease_of(stub, "smart")
    assert (refused.value.status, refused.value.code) == (404, "model_not_found")

    monkeypatch.setenv("AMP_CLI_PATH", sys.executable)
    monkeypatch.setenv("AMP_API_KEY", KEY)

    async def call() -> None:
        async with open_session("amp", model="smart"):
            raise AssertionError

    with pytest.raises(ProviderError, match="has only default"):
        asyncio.run(call())


@pytest.fixture(scope="module")
def amp() -> Path:
    """The pinned native binary."""
    return find_amp()


@pytest.mark.parametrize(("status", "code"), AMP_STATUSES.items())
def test_the_real_amp_is_refused(amp: Path, tmp_path: Path, status: int | None, code: str):
    """It says so on stderr alone, with a typed error for us; without a service at all, too."""
    with RefusingService(status or 500) as service:
        url = service.url if status else "http://127.0.0.1:1"
        with serve(amp, tmp_path, AMP_API_KEY=KEY, AMP_URL=url) as endpoint:
            refuse_a_turn(endpoint, code)


def test_the_real_amp_gets_as_far_behind_its_locks(amp: Path, tmp_path: Path):
    """To its service, with the key."""
    locks = ("--harden", "landlock", "--harden", "uid")
    with (
        RefusingService(401) as service,
        serve(amp, tmp_path, locks, AMP_API_KEY=KEY, AMP_URL=service.url) as endpoint,
    ):
        refuse_a_turn(endpoint, "provider_auth_failed")
        assert service.first_contact_s is not None


def refuse_a_turn(endpoint: InferenceEndpoint, code: str) -> None:
    """One turn that fails with that code, and a release that leaves nothing."""
    leased = lease_of(endpoint)
    assert leased.metadata["cli"]["is_supported"] is True
    refused = ask(leased, "hello")
    assert refused.json()["error"]["code"] == code, refused.text
    proof = endpoint.release_endpoint(leased).proof
    assert proof is not None
    assert not proof.survivors


def test_without_a_key_amp_is_not_started(amp: Path, tmp_path: Path):
    """It would wait for a pasted one for ever."""
    with serve(amp, tmp_path) as endpoint, pytest.raises(ProviderError) as refused:
        lease_of(endpoint)
    assert refused.value.code == "not_logged_in"
    assert "AMP_API_KEY" in refused.value.message
