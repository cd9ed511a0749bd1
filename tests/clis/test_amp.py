"""amp through the whole stack: a stub that prints the documented lines, and the real one where no service is needed.

amp's own protocol to its service is proprietary, so the real command line only meets a server that refuses it.
"""

from __future__ import annotations

import asyncio
import http.server
import json
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor import EndpointDescriptor, InferenceEndpoint, ProviderError
from tests.clis.conftest import ask, chunks_of, text_of
from tests.clis.netns import is_loopback_only
from tests.clis.table import KEY, MODULES
from worker.session import open_session

pytestmark = [pytest.mark.cli, pytest.mark.process]
EXECUTABLE = "@ampcode/cli-linux-*/amp"
FIRST_OUTPUT_S = 5.0
STUB = """#!{python} -IS
import json, os, sys, time

def put(**line):
    print(json.dumps(line), flush=True)

text = json.loads(sys.stdin.readline())["message"]["content"][0]["text"]
put(type="system", subtype="init", cwd=os.getcwd(), session_id="T-1", tools=["Bash"], agent_mode="medium")
put(type="user", message={{"role": "user", "content": [{{"type": "text", "text": text}}]}}, session_id="T-1")
if "[[hang]]" in text:
    time.sleep(600)
if "[[argv]]" in text:
    text = " ".join(sys.argv[1:])
if "[[settings]]" in text:
    text = open(sys.argv[sys.argv.index("--settings-file") + 1]).read()
content = [{{"type": "thinking", "thinking": "hm"}}, {{"type": "text", "text": "echo: " + text}}]
if "[[tool]]" in text:
    content.append({{"type": "tool_use", "id": "TU-1", "name": "shell_command", "input": {{}}}})
usage = {{"input_tokens": 11, "output_tokens": 7, "cache_read_input_tokens": 3}}
put(type="assistant", message={{"type": "message", "role": "assistant", "content": content,
    "stop_reason": "end_turn", "usage": usage}}, session_id="T-1")
if "[[tool]]" in text:
    time.sleep(600)
if "[[error]]" in text:
    put(type="result", subtype="error_during_execution", is_error=True, num_turns=0,
        error="Model Provider Overloaded Try again in a few seconds.")
else:
    put(type="result", subtype="success", duration_ms=1, is_error=False, num_turns=1, result="echo: " + text)
"""


def serve(executable: Path, home: Path, **variables: str) -> InferenceEndpoint:
    """A supervisor with that amp."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AMP_API_KEY", raising=False)
        patch.setenv("HOME", str(home))
        patch.setenv("AMP_CLI_PATH", str(executable))
        for name, value in variables.items():
            patch.setenv(name, value)
        return InferenceEndpoint(
            serve_arguments=("--set", f"first_output_s={FIRST_OUTPUT_S}", "--set", "status_hold_s=60")
        )


def lease_of(endpoint: InferenceEndpoint, mode: str = "default") -> EndpointDescriptor:
    """A lease of a mode."""
    descriptor, _ = endpoint.ensure_endpoint({"model_preference": {"provider": "amp", "id": mode}})
    return descriptor


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceEndpoint]:
    """A supervisor whose amp is the stub."""
    folder = tmp_path_factory.mktemp("stub")
    path = folder / "amp"
    path.write_text(STUB.format(python=sys.executable))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    with serve(path, folder, AMP_API_KEY=KEY) as endpoint:
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


@pytest.mark.parametrize(
    ("prompt", "status", "code"),
    [
        ("[[error]]", 503, "provider_overloaded"),
        ("[[tool]]", 502, "tool_use_refused"),
        ("[[hang]]", 504, "provider_timeout"),
    ],
)
def test_bad_ends(descriptor: EndpointDescriptor, prompt: str, status: int, code: str):
    """An error with exit code 0, a tool, and a connection that says nothing; the lease survives each."""
    refused = ask(descriptor, prompt)
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
    assert text_of(ask(descriptor, "still here")) == "echo: still here"


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
    """The pinned native binary; a skip without it, which CI does not allow."""
    if not is_loopback_only():
        pytest.skip("real command lines run only in a loopback-only network, and none is permitted here")
    found = sorted(MODULES.glob(EXECUTABLE))
    if not found:
        pytest.skip("amp is not installed; `make clis` installs it where npm is there")
    return found[0]


@pytest.fixture
def refusing() -> Iterator[Callable[[int], str]]:
    """Starts a service that answers everything with one status; its URL."""
    servers = []

    def start(status: int) -> str:
        class Refuse(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                """Quiet."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "provider_auth_failed"),
        (403, "provider_auth_failed"),
        (500, "provider_error"),
        (None, "provider_connection_failed"),
    ],
)
def test_the_real_amp_is_refused(
    amp: Path, refusing: Callable[[int], str], tmp_path: Path, status: int | None, code: str
):
    """It says so on stderr alone, with a typed error for us; without a service at all, too."""
    url = "http://127.0.0.1:1" if status is None else refusing(status)
    with serve(amp, tmp_path, AMP_API_KEY=KEY, AMP_URL=url) as endpoint:
        leased = lease_of(endpoint)
        assert leased.metadata["cli"]["is_measured_version"] is True
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
