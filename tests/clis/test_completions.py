"""Every real command line through the whole stack: supervisor, zygote, worker, command line, model server."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from supervisor import EndpointDescriptor, InferenceEndpoint, ProviderError
from tests.clis.conftest import (
    CANARY,
    HTTP_TIMEOUT_S,
    WAIT_S,
    ask,
    bare_environ,
    chunks_of,
    lease_of,
    model_request,
    posts,
    text_of,
    until,
)
from tests.clis.models.server import ModelServer
from tests.clis.table import KEY, PINS, Cli

pytestmark = [pytest.mark.cli, pytest.mark.process]
RUN_TIMEOUT_S = 120
PLAIN_PROMPTS = (
    "/cost",
    "/clear",
    "/help",
    "/quit",
    "/foo bar",
    "  /memory show",
    "$skill x",
    "!ls",
    "#x",
    "--version",
    "-p hello",
    "--dangerously-skip-permissions",
    "\ufeff/init",
    "$HOME `id`",
    "nul \x00 emoji \U0001f600",
    "an e-mail a@b.example and @nobody",
)


def test_a_completion(cli: Cli, lease: EndpointDescriptor, server: ModelServer):
    """Text, model, finish reason, and the provider's own usage; one model request."""
    answer = ask(lease, "[[usage:123,45,20,5]] hello", model=cli.model).json()
    assert answer["choices"][0]["message"]["content"].strip() == "echo: hello"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["model"] == cli.model
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (123, 45, 168)
    if cli.has_details:
        assert usage["prompt_tokens_details"]["cached_tokens"] == 20
        assert usage["completion_tokens_details"]["reasoning_tokens"] == 5
    assert len(posts(server)) == 1


def test_deltas_are_true_deltas(lease: EndpointDescriptor, server: ModelServer):
    """Fifty of the model's are fifty of ours, with usage at the end."""
    *chunks, done = chunks_of(
        ask(lease, "[[deltas:50]] x", stream=True, stream_options={"include_usage": True})
    )
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert [delta["content"] for delta in deltas[1:-1]] == [f"w{number} " for number in range(50)]
    assert chunks[-1]["usage"]["completion_tokens"] > 0
    assert done == "[DONE]"
    assert posts(server)


def test_the_first_delta_comes_before_the_last_is_made(lease: EndpointDescriptor, server: ModelServer):
    """Nothing is held back until the end: the model is still at work when the first piece is here."""
    body = {"messages": [{"role": "user", "content": "[[deltas:200]] [[delay:0.05]] x"}], "stream": True}
    with httpx.stream(
        "POST", f"{lease.base_url}/chat/completions", headers=lease.headers, json=body, timeout=HTTP_TIMEOUT_S
    ) as answer:
        for line in answer.iter_lines():
            if '"content":"w0 "' in line:
                break
        assert not posts(server)[0].finished


def test_system_and_developer_messages_are_the_system_prompt(
    cli: Cli, lease: EndpointDescriptor, server: ModelServer
):
    """And not part of the user's text; the next turn has its own, or none."""
    body = [
        {"role": "system", "content": "You are S."},
        {"role": "developer", "content": "Be D."},
        {"role": "user", "content": "hello"},
    ]
    url = f"{lease.base_url}/chat/completions"
    httpx.post(url, headers=lease.headers, json={"messages": body}, timeout=HTTP_TIMEOUT_S).raise_for_status()
    request = model_request(server)
    assert "You are S.\n\nBe D." in cli.system_of(request)
    assert cli.user_text(request) == "hello"
    server.clear()
    text_of(ask(lease, "hello"))
    assert "You are S." not in json.dumps(model_request(server).body)


@pytest.mark.parametrize("stream", [False, True])
def test_thinking_is_reasoning_content(
    cli: Cli, lease: EndpointDescriptor, server: ModelServer, stream: bool
):
    """Apart from the text."""
    answer = ask(lease, "[[thinking:3]] go", stream=stream)
    if stream:
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks_of(answer)[:-1]]
        reasoning = "".join(delta.get("reasoning_content", "") for delta in deltas)
        text = "".join(delta.get("content", "") for delta in deltas)
    else:
        message = answer.json()["choices"][0]["message"]
        reasoning, text = message["reasoning_content"], message["content"]
    assert reasoning == cli.reasoning
    assert "thought" not in text
    assert text.startswith("echo:")


@pytest.mark.parametrize("prompt", PLAIN_PROMPTS)
def test_prompts_arrive_as_text(cli: Cli, lease: EndpointDescriptor, server: ModelServer, prompt: str):
    """Commands, flags, shell and control characters are only words."""
    text_of(ask(lease, prompt))
    assert cli.user_text(model_request(server)) == prompt


def test_a_mentioned_file_is_not_read(
    cli: Cli, lease: EndpointDescriptor, server: ModelServer, tmp_path: Path
):
    """``@/path`` is text."""
    secret = tmp_path / "secret.txt"
    secret.write_text("TOPSECRET")
    text_of(ask(lease, f"summarise @{secret} please"))
    assert cli.user_text(model_request(server)) == f"summarise @{secret} please"
    assert "TOPSECRET" not in json.dumps(model_request(server).body)


def test_nothing_of_the_machine_is_sent(
    cli: Cli, start_supervisor: Callable[..., InferenceEndpoint], server: ModelServer, tmp_path: Path
):
    """No folder of the user, no variable, no memory file, no token; the key is where it belongs."""
    for folder in (".claude", ".codex", ".gemini"):
        (tmp_path / folder).mkdir()
        for name in ("CLAUDE.md", "AGENTS.md", "GEMINI.md"):
            (tmp_path / folder / name).write_text("MEMORY-CANARY")
    with start_supervisor(cli, tmp_path, **{cli.key_variable: KEY}) as endpoint:
        descriptor = lease_of(endpoint, cli)
        text_of(ask(descriptor, "hello"))
        request = model_request(server)
        headers = {
            name: value
            for name, value in request.headers.items()
            if name not in ("x-api-key", "authorization", "x-goog-api-key")
        }
        sent = json.dumps(request.body) + json.dumps(headers)
        token = descriptor.headers["authorization"].removeprefix("Bearer ")
        for secret in (str(tmp_path), CANARY, "MEMORY-CANARY", token, KEY):
            assert secret not in sent
        assert cli.key_of(request) == KEY


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "[[deltas:5000]] [[delay:0.05]] x"}], "stream": True},
        {"messages": [{"role": "user", "content": "[[hang]] x"}], "stream": True},
        {"messages": [{"role": "user", "content": "[[hang]] x"}]},
    ],
    ids=["mid-stream", "before the first piece", "not streaming"],
)
def test_a_client_that_leaves_is_felt_by_the_model(
    with_key: InferenceEndpoint, lease: EndpointDescriptor, server: ModelServer, body: dict[str, Any]
):
    """The model server sees the command line hang up, and the place is free again."""
    parts, content = urlsplit(f"{lease.base_url}/chat/completions"), json.dumps(body).encode()
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(content)}\r\n"
        f"Authorization: {lease.headers['authorization']}\r\n\r\n"
    )
    with socket.create_connection((parts.hostname, parts.port), timeout=HTTP_TIMEOUT_S) as connection:
        connection.sendall(head.encode() + content)
        model_request(server)
    server.wait_for_hangup(lambda request: request.method == "POST", WAIT_S)
    until(lambda: with_key.endpoint(lease).load["in_flight"] == 0)


def test_concurrent_answers_are_not_mixed_up(cli: Cli, lease: EndpointDescriptor, server: ModelServer):
    """Each caller gets its own answer, to its own system prompt."""

    def number(index: int) -> str:
        body = [
            {"role": "system", "content": f"system <{index}>"},
            {"role": "user", "content": f"[[first:0.05]] [[text:answer-{index}]] number <{index}>"},
        ]
        url = f"{lease.base_url}/chat/completions"
        return text_of(
            httpx.post(url, headers=lease.headers, json={"messages": body}, timeout=HTTP_TIMEOUT_S)
        )

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(number, range(8)))
    assert answers == [f"answer-{index}" for index in range(8)]
    for request in posts(server):
        mark = cli.user_text(request).partition("number ")[2]
        assert f"system {mark}" in cli.system_of(request)


def test_a_large_prompt_arrives(cli: Cli, lease: EndpointDescriptor, server: ModelServer):
    """As large as the endpoint takes, more than one argument of a command line could hold."""
    prompt = ("[[text:ok]] " + "word " * 60_000)[: 256 * 1024]
    assert text_of(ask(lease, prompt)) == "ok"
    assert cli.user_text(model_request(server)).rstrip() == prompt.rstrip()


def test_a_release_ends_a_running_turn(cli: Cli, with_key: InferenceEndpoint, server: ModelServer):
    """The model server sees the hang-up, and the proof is empty."""
    descriptor = lease_of(with_key, cli)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(ask, descriptor, "[[hang]] x")
        model_request(server)
        proof = with_key.release_endpoint(descriptor).proof
        assert answer.result(HTTP_TIMEOUT_S).json()["error"]["code"] == "lease_closed"
    assert proof is not None
    assert not proof.survivors
    server.wait_for_hangup(lambda request: request.method == "POST", WAIT_S)


def test_health_tells_the_version_and_what_the_standby_weighs(
    cli: Cli, with_key: InferenceEndpoint, lease: EndpointDescriptor
):
    """A real command line is tens of megabytes."""
    until(lambda: with_key.endpoint(lease).load["standby_rss_bytes"] > 10_000_000)
    assert lease.metadata["cli"]["version"] == PINS[cli.package]


def test_nobody_is_logged_in(
    cli: Cli, start_supervisor: Callable[..., InferenceEndpoint], server: ModelServer
):
    """Said at once, with what to do, before any lease."""
    with start_supervisor(cli) as endpoint, pytest.raises(ProviderError) as refused:
        lease_of(endpoint, cli)
    assert (refused.value.code, refused.value.status) == ("not_logged_in", 503)
    assert cli.key_variable in refused.value.message


def test_the_demo_runs(cli: Cli, server: ModelServer, tmp_path: Path):
    """``asm-endpoint demo --provider …``, with a model of its choice: completes, streams, proves."""
    argv = ("demo", "--provider", cli.provider, "--message", "hi")
    ran = subprocess.run(
        (sys.executable, "-m", "supervisor", *argv),
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        env=bare_environ(cli, tmp_path, server),
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("echo: hi") == 2
    assert "no survivors" in ran.stdout
    assert KEY not in ran.stdout
