"""Command lines that do what none should, in the place of each real one: a typed error, and the lease survives."""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from shared.framing import MAX_LINE_BYTES
from supervisor import EndpointDescriptor, InferenceEndpoint, ProviderError

pytestmark = pytest.mark.process
HTTP_TIMEOUT_S = 60.0
FIRST_OUTPUT_S = 1.5
VARIABLES = {
    "amp": ("AMP_CLI_PATH", "AMP_API_KEY"),
    "claude": ("CLAUDE_CLI_PATH", "ANTHROPIC_API_KEY"),
    "codex": ("CODEX_PATH", "OPENAI_API_KEY"),
    "gemini": ("GEMINI_CLI_PATH", "GEMINI_API_KEY"),
}
MODELS = {"amp": "default"}
KEY = "dummy-key"
TELLING = f"""sys.stdin.readline()
keys = [value for value in os.environ.values() if value == {KEY!r}]
print("cannot use", *keys, "at http://user:{KEY}@127.0.0.1", "." * {{dots}}, file=sys.stderr)
sys.exit(3)"""
HEAD = """#!{python} -IS
import os, signal, sys, time
if sys.argv[1:] == ["--version"]:
    print("9.9.9")
    sys.exit()
if sys.argv[1:2] == ["debug"]:
    print('{{"models": []}}')
    sys.exit()
"""
BODIES = {
    "garbage": ("sys.stdin.readline(); print('this is not JSON', flush=True); time.sleep(600)", "provider_protocol_error"),
    "silence": ("time.sleep(600)", "provider_timeout"),
    "end": ("sys.stdin.readline(); print('the cause', file=sys.stderr); sys.exit(3)", "provider_crashed"),
    "good end": ("sys.stdin.readline(); sys.exit(0)", "provider_crashed"),
    "huge line": (f"sys.stdin.readline(); print('x' * {MAX_LINE_BYTES + 2}, flush=True); time.sleep(600)", "provider_protocol_error"),
    "deaf": (
        ("[signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; sys.stdin.readline(); print('?', flush=True)\n"
        "while True: time.sleep(600)"),
        "provider_protocol_error",
    ),
}  # fmt: skip


@pytest.fixture(params=VARIABLES)
def provider(request: pytest.FixtureRequest) -> str:
    """Each published provider."""
    return str(request.param)


@pytest.fixture
def start(provider: str, either: tuple[str, ...], tmp_path: Path) -> Callable[[Path], InferenceEndpoint]:
    """Starts a supervisor whose user has a key and that executable."""
    limits = ("--set", f"first_output_s={FIRST_OUTPUT_S}", "--set", "exit_grace_s=0.3")

    def start_with(executable: Path) -> InferenceEndpoint:
        path_variable, key_variable = VARIABLES[provider]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOME", str(tmp_path))
            patch.setenv(path_variable, str(executable))
            patch.setenv(key_variable, KEY)
            return InferenceEndpoint(serve_arguments=(*either, *limits))

    return start_with


def lease_of(endpoint: InferenceEndpoint, provider: str) -> EndpointDescriptor:
    """A lease of that provider."""
    request = {"model_preference": {"provider": provider, "id": MODELS.get(provider, "some-model")}}
    descriptor, _ = endpoint.ensure_endpoint(request)
    return descriptor


def program(folder: Path, body: str) -> Path:
    """An executable."""
    path = folder / "command-line"
    path.write_text(HEAD.format(python=sys.executable) + body + "\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def ask(descriptor: EndpointDescriptor) -> httpx.Response:
    """One completion."""
    return httpx.post(
        f"{descriptor.base_url}/chat/completions",
        headers=descriptor.headers,
        json={"messages": [{"role": "user", "content": "hello"}]},
        timeout=HTTP_TIMEOUT_S,
        trust_env=False,
    )


@pytest.mark.parametrize("kind", BODIES)
def test_misbehaviour_is_a_typed_error_and_the_lease_survives(
    provider: str, start: Callable[[Path], InferenceEndpoint], tmp_path: Path, kind: str
):
    """Twice the same, because the second turn gets a new one; at the end nothing is left."""
    body, code = BODIES[kind]
    with start(program(tmp_path, body)) as endpoint:
        descriptor = lease_of(endpoint, provider)
        for _ in range(2):
            failed = ask(descriptor)
            assert failed.json()["error"]["code"] == code, failed.text
            assert failed.headers["x-should-retry"] == "false"
        view = endpoint.endpoint(descriptor)
        assert (view.state, view.load["in_flight"]) == ("ready", 0)
        proof = endpoint.release_endpoint(descriptor).proof
        assert proof is not None
        assert not proof.survivors


@pytest.mark.parametrize("dots", [0, 360])
def test_who_has_a_lease_does_not_learn_the_key(
    provider: str, start: Callable[[Path], InferenceEndpoint], tmp_path: Path, dots: int
):
    """Not even when the command line tells it, nor a part of it where its words are cut. The control: the rest."""
    with start(program(tmp_path, TELLING.format(dots=dots))) as endpoint:
        message = ask(lease_of(endpoint, provider)).json()["error"]["message"]
    assert "@127.0.0.1" in message
    assert KEY[-4:] not in message


@pytest.fixture
def unusable(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Paths at which no command line is."""
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\n")
    yield {"missing": tmp_path / "nowhere", "not executable": plain, "a folder": tmp_path}


@pytest.mark.parametrize("kind", ["missing", "not executable", "a folder"])
def test_no_command_line_is_said_before_any_lease(
    provider: str, start: Callable[[Path], InferenceEndpoint], unusable: dict[str, Path], kind: str
):
    """With the variable that names it."""
    with start(unusable[kind]) as endpoint:
        with pytest.raises(ProviderError) as refused:
            lease_of(endpoint, provider)
        assert refused.value.code == "cli_not_found"
        assert VARIABLES[provider][0] in refused.value.message
        assert endpoint.endpoints() == []
