"""The real claude through the whole stack: supervisor, zygote, worker, command line, model server."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from supervisor import EndpointDescriptor, InferenceEndpoint, ProviderError
from tests.clis.conftest import CANARY, HTTP_TIMEOUT_S, KEY, MODEL, ask, bare_environ, chunks_of, text_of
from tests.clis.models.log import RecordedRequest
from tests.clis.models.server import ModelServer

pytestmark = [pytest.mark.cli, pytest.mark.process]
RUN_TIMEOUT_S = 120
WAIT_S = 60.0
POLL_S = 0.02
STREAM_JSON = (
    "-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose",
    "--include-partial-messages", "--model", MODEL, "--strict-mcp-config", "--setting-sources", "",
    "--no-session-persistence", "--permission-mode", "dontAsk",
)  # fmt: skip
CREDENTIALS = {
    "claudeAiOauth": {
        "accessToken": "sk-ant-oat01-dummy",
        "refreshToken": "sk-ant-ort01-dummy",
        "expiresAt": 4_102_444_800_000,
        "scopes": ["user:inference", "user:profile"],
        "subscriptionType": "max",
    }
}
STATUSES = {
    400: (400, "provider_rejected_request"),
    401: (502, "provider_auth_failed"),
    403: (502, "provider_auth_failed"),
    404: (404, "model_not_found"),
    429: (429, "rate_limit_exceeded"),
    500: (502, "provider_error"),
    529: (503, "provider_overloaded"),
}
BROKEN = {
    "eof": "provider_connection_failed",
    "reset": "provider_connection_failed",
    "error-event": "provider_overloaded",
}
PLAIN_PROMPTS = (
    "/cost",
    "/clear",
    "/foo bar",
    "!ls",
    "#x",
    "--version",
    "-p hello",
    "$HOME `id`",
    "nul \x00 emoji \U0001f600",
)
TOOLS = (
    "Bash",
    "Read",
    "Write",
    "Edit",
    "WebFetch",
    "WebSearch",
    "Task",
    "TodoWrite",
    "mcp__server__tool",
    "NoSuchTool",
)


def messages_request(server: ModelServer) -> RecordedRequest:
    """The first model request."""
    return server.wait_for_request(lambda request: request.method == "POST")


def posts(server: ModelServer) -> list[RecordedRequest]:
    """All model requests so far."""
    return [request for request in server.requests if request.method == "POST"]


def user_text(request: RecordedRequest) -> str:
    """The text of the last user message."""
    content = request.body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def bare_claude(
    claude: Path, prompt: str, environ: dict[str, str], cwd: Path, *flags: str, composed: bool
) -> str:
    """The command line by itself, for positive controls; its stdout."""
    lines = [
        {"type": "control_request", "request_id": "1", "request": {"subtype": "initialize", "hooks": None}},
        {
            "type": "user",
            "message": {"role": "user", "content": prompt},
            "parent_tool_use_id": None,
            "session_id": "",
        },
    ]
    if composed:
        lines[1]["client_composed"] = True
    ran = subprocess.run(
        (claude, *STREAM_JSON, *flags),
        input="".join(json.dumps(line) + "\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        env=environ,
        cwd=cwd,
        check=False,
    )
    return ran.stdout


def until(condition: Callable[[], Any]) -> None:
    """Poll, with a deadline."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(POLL_S)


def test_a_completion(lease: EndpointDescriptor, server: ModelServer):
    """Text, model, finish reason, and the provider's own usage; one model request."""
    answer = ask(lease, "[[usage:123,45]] hello", model=MODEL).json()
    assert answer["choices"][0]["message"]["content"].strip() == "echo:  hello".replace("  ", " ")
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["model"] == MODEL
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (123, 45)
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


def test_system_and_developer_messages_are_the_system_prompt(lease: EndpointDescriptor, server: ModelServer):
    """And not part of the user's text."""
    body = [
        {"role": "system", "content": "You are S."},
        {"role": "developer", "content": "Be D."},
        {"role": "user", "content": "hello"},
    ]
    httpx.post(
        f"{lease.base_url}/chat/completions",
        headers=lease.headers,
        json={"messages": body},
        timeout=HTTP_TIMEOUT_S,
    ).raise_for_status()
    request = messages_request(server)
    assert "You are S.\n\nBe D." in [block["text"] for block in request.body["system"]]
    assert user_text(request) == "hello"


def test_without_a_system_prompt_no_empty_block_is_sent(lease: EndpointDescriptor, server: ModelServer):
    """The real service refuses empty text blocks."""
    text_of(ask(lease, "hello"))
    assert all(block["text"].strip() for block in messages_request(server).body["system"])


@pytest.mark.parametrize("stream", [False, True])
def test_thinking_is_reasoning_content(lease: EndpointDescriptor, server: ModelServer, stream: bool):
    """Apart from the text."""
    answer = ask(lease, "[[thinking:3]] go", stream=stream)
    if stream:
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks_of(answer)[:-1]]
        reasoning = "".join(delta.get("reasoning_content", "") for delta in deltas)
        text = "".join(delta.get("content", "") for delta in deltas)
    else:
        message = answer.json()["choices"][0]["message"]
        reasoning, text = message["reasoning_content"], message["content"]
    assert reasoning == "thought0 thought1 thought2 "
    assert "thought" not in text
    assert text.startswith("echo:")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", STATUSES)
def test_refusals_of_the_service(lease: EndpointDescriptor, server: ModelServer, status: int, stream: bool):
    """A typed error with its own status, streaming or not, at once: nothing is tried again for minutes."""
    answer = ask(lease, f"[[status:{status}]] x", stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == STATUSES[status]
    assert answer.headers["x-should-retry"] == "false"
    assert text_of(ask(lease, "still here")) == "echo: still here"


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_stream_is_a_failure(lease: EndpointDescriptor, server: ModelServer, how: str):
    """Streaming: the pieces, an error object, no end mark. Not streaming: a typed error. Asked once."""
    streamed = ask(lease, f"[[deltas:5]] [[delay:0.02]] [[{how}]] x", stream=True)
    assert streamed.status_code == 200
    assert chunks_of(streamed)[-1]["error"]["code"] == BROKEN[how]
    assert "[DONE]" not in streamed.text
    assert len(posts(server)) == 1
    whole = ask(lease, f"[[deltas:5]] [[{how}]] x")
    assert (whole.status_code >= 500, whole.json()["error"]["code"]) == (True, BROKEN[how])
    assert len(posts(server)) == 2


@pytest.mark.parametrize(
    ("marker", "finish_reason"), [("max_tokens", "length"), ("refusal", "content_filter")]
)
def test_other_ends_of_an_answer(
    lease: EndpointDescriptor, server: ModelServer, marker: str, finish_reason: str
):
    """In OpenAI's words, and without the command line asking the model again."""
    answer = ask(lease, f"[[stop:{marker}]] x").json()
    assert answer["choices"][0]["finish_reason"] == finish_reason
    assert len(posts(server)) == 1


@pytest.mark.parametrize("prompt", PLAIN_PROMPTS)
def test_prompts_arrive_as_text(lease: EndpointDescriptor, server: ModelServer, prompt: str):
    """Commands, flags, shell and control characters are only words."""
    text_of(ask(lease, prompt))
    assert user_text(messages_request(server)) == prompt


def test_a_mentioned_file_is_not_read(lease: EndpointDescriptor, server: ModelServer, tmp_path: Path):
    """``@/path`` is text."""
    secret = tmp_path / "secret.txt"
    secret.write_text("TOPSECRET")
    text_of(ask(lease, f"summarise @{secret} please"))
    assert user_text(messages_request(server)) == f"summarise @{secret} please"
    assert "TOPSECRET" not in json.dumps(messages_request(server).body)


def test_control_a_mentioned_file_would_be_read(claude: Path, server: ModelServer, tmp_path: Path):
    """Positive control: without the locks the same prompt sends the file."""
    secret = tmp_path / "secret.txt"
    secret.write_text("TOPSECRET")
    home, cwd = tmp_path / "home", tmp_path / "cwd"
    home.mkdir()
    cwd.mkdir()
    bare_claude(
        claude, f"summarise @{secret} please", bare_environ(home, server), cwd, "--tools", "", "--max-turns", "1",
        composed=False,
    )  # fmt: skip
    assert "TOPSECRET" in json.dumps(messages_request(server).body)


def test_control_a_command_would_not_arrive(claude: Path, server: ModelServer, tmp_path: Path):
    """Positive control: without the mark of a composed message, ``/cost`` never reaches the model."""
    output = bare_claude(
        claude, "/cost", bare_environ(tmp_path, server), tmp_path, "--bare", "--disable-slash-commands",
        composed=False,
    )  # fmt: skip
    assert '"num_turns":0' in output
    assert not posts(server)


@pytest.mark.parametrize("tool", TOOLS)
def test_no_tool_is_run(
    with_key: InferenceEndpoint, lease: EndpointDescriptor, server: ModelServer, tmp_path: Path, tool: str
):
    """The turn ends with a typed refusal, no file appears, the command line is gone, and none was offered."""
    target = tmp_path / "pwned"
    arguments = {"command": f"touch {target}", "file_path": str(target), "content": "x", "description": "d"}
    refused = ask(lease, f"[[tool:{tool}]] [[tool-input:{json.dumps(arguments)}]]")
    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "tool_use_refused")
    assert posts(server)[0].body["tools"] == []
    assert not target.exists()
    assert text_of(ask(lease, "still here")) == "echo: still here"
    until(lambda: len(with_key.endpoint(lease).processes) <= 3)
    assert not target.exists()


def test_control_a_tool_would_be_run(claude: Path, server: ModelServer, tmp_path: Path):
    """Positive control: with the locks off the same script creates the file."""
    target = tmp_path / "pwned"
    arguments = {"command": f"touch {target}", "description": "d"}
    bare_claude(
        claude, f"[[tool:Bash]] [[tool-input:{json.dumps(arguments)}]]", bare_environ(tmp_path, server), tmp_path,
        "--bare", "--disable-slash-commands", "--allowedTools", "Bash", "--max-turns", "5", composed=True,
    )  # fmt: skip
    assert target.exists()


def test_nothing_of_the_machine_is_sent(
    start_supervisor: Callable[..., InferenceEndpoint], server: ModelServer, tmp_path: Path
):
    """No folder, no variable, no memory file, no token; the key is where it belongs."""
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude" / "CLAUDE.md").write_text("MEMORY-CANARY")
    (tmp_path / "CLAUDE.md").write_text("MEMORY-CANARY")
    with start_supervisor(tmp_path, ANTHROPIC_API_KEY=KEY) as endpoint:
        descriptor, _ = endpoint.ensure_endpoint({"model_preference": {"provider": "claude", "id": MODEL}})
        text_of(ask(descriptor, "hello"))
        request = messages_request(server)
        sent = json.dumps(request.body) + json.dumps(
            {k: v for k, v in request.headers.items() if k != "x-api-key"}
        )
        token = descriptor.headers["authorization"].removeprefix("Bearer ")
        for secret in (str(endpoint.home), str(tmp_path), CANARY, "MEMORY-CANARY", token, KEY):
            assert secret not in sent
        assert request.headers["x-api-key"] == KEY


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
        messages_request(server)
    server.wait_for_hangup(lambda request: request.method == "POST", WAIT_S)
    until(lambda: with_key.endpoint(lease).load["in_flight"] == 0)


def test_concurrent_answers_are_not_mixed_up(lease: EndpointDescriptor, server: ModelServer):
    """Each caller gets its own."""
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda number: text_of(ask(lease, f"number {number}")), range(4)))
    assert answers == [f"echo: number {number}" for number in range(4)]


def test_a_large_prompt_arrives(lease: EndpointDescriptor, server: ModelServer):
    """More than one argument of a command line could hold."""
    prompt = "[[text:ok]] " + "word " * 40_000
    assert text_of(ask(lease, prompt)) == "ok"
    assert user_text(messages_request(server)) == prompt


def test_a_release_ends_a_running_turn(with_key: InferenceEndpoint, server: ModelServer):
    """The model server sees the hang-up, and the proof is empty."""
    descriptor, _ = with_key.ensure_endpoint({"model_preference": {"provider": "claude", "id": MODEL}})
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(ask, descriptor, "[[hang]] x")
        messages_request(server)
        proof = with_key.release_endpoint(descriptor).proof
        assert answer.result(HTTP_TIMEOUT_S).json()["error"]["code"] == "lease_closed"
    assert proof is not None
    assert not proof.survivors
    server.wait_for_hangup(lambda request: request.method == "POST", WAIT_S)


def hostile_home(home: Path) -> Path:
    """A logged-in user whose settings would run things: hooks, MCP servers, permissions, memory. Returns the trap."""
    trap = home / "trapped"
    (home / ".claude").mkdir(parents=True)
    credentials = home / ".claude" / ".credentials.json"
    credentials.write_text(json.dumps(CREDENTIALS))
    credentials.chmod(0o600)
    hook = [{"hooks": [{"type": "command", "command": f"touch {trap}"}]}]
    settings = {
        "permissions": {"allow": ["Bash(*)", "Read(*)", "Write(*)"], "defaultMode": "bypassPermissions"},
        "hooks": {"SessionStart": hook, "UserPromptSubmit": hook, "Stop": hook},
    }
    (home / ".claude" / "settings.json").write_text(json.dumps(settings))
    server = {"command": "touch", "args": [str(trap)]}
    (home / ".claude.json").write_text(json.dumps({"mcpServers": {"trap": server}}))
    (home / ".claude" / "CLAUDE.md").write_text("MEMORY-CANARY")
    return trap


def test_a_logged_in_user(
    start_supervisor: Callable[..., InferenceEndpoint], server: ModelServer, tmp_path: Path
):
    """Their login is used; their hooks, servers, permissions and memory are not; tools stay off."""
    trap = hostile_home(tmp_path)
    with start_supervisor(tmp_path) as endpoint:
        descriptor, _ = endpoint.ensure_endpoint({"model_preference": {"provider": "claude", "id": MODEL}})
        assert text_of(ask(descriptor, "hello")) == "echo: hello"
        request = messages_request(server)
        assert request.headers["authorization"] == "Bearer sk-ant-oat01-dummy"
        assert "MEMORY-CANARY" not in json.dumps(request.body)
        target = tmp_path / "pwned"
        refused = ask(descriptor, f'[[tool:Bash]] [[tool-input:{{"command":"touch {target}"}}]]')
        assert refused.json()["error"]["code"] == "tool_use_refused"
        endpoint.release_endpoint(descriptor)
        assert not target.exists()
        assert not trap.exists()


def test_an_oauth_token(start_supervisor: Callable[..., InferenceEndpoint], server: ModelServer):
    """A login by variable."""
    with start_supervisor(CLAUDE_CODE_OAUTH_TOKEN="sk-ant-oat01-variable") as endpoint:
        descriptor, _ = endpoint.ensure_endpoint({"model_preference": {"provider": "claude", "id": MODEL}})
        assert text_of(ask(descriptor, "hello")) == "echo: hello"
        assert messages_request(server).headers["authorization"] == "Bearer sk-ant-oat01-variable"


def test_nobody_is_logged_in(start_supervisor: Callable[..., InferenceEndpoint], server: ModelServer):
    """Said at once, with what to do, before any lease."""
    with start_supervisor() as endpoint, pytest.raises(ProviderError) as refused:
        endpoint.ensure_endpoint({"model_preference": {"provider": "claude", "id": MODEL}})
    assert (refused.value.code, refused.value.status) == ("not_logged_in", 503)
    assert "ANTHROPIC_API_KEY" in refused.value.message


def test_a_login_that_the_command_line_does_not_accept(
    start_supervisor: Callable[..., InferenceEndpoint], server: ModelServer, tmp_path: Path
):
    """It says so itself, and that is the same error; no hang, no model request."""
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude" / ".credentials.json").write_text(
        json.dumps({"claudeAiOauth": {"accessToken": "x"}})
    )
    with start_supervisor(tmp_path) as endpoint:
        descriptor, _ = endpoint.ensure_endpoint({"model_preference": {"provider": "claude", "id": MODEL}})
        refused = ask(descriptor, "hello")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_logged_in")
    assert not posts(server)


def test_the_demo_runs(claude: Path, server: ModelServer, tmp_path: Path):
    """``asm-endpoint demo --provider claude``: completes, streams, proves."""
    import sys

    ran = subprocess.run(
        (
            sys.executable,
            "-m",
            "supervisor",
            "demo",
            "--provider",
            "claude",
            "--model",
            MODEL,
            "--message",
            "hi",
        ),
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        env=bare_environ(tmp_path, server, CLAUDE_CLI_PATH=str(claude)),
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("echo: hi") == 2
    assert "no survivors" in ran.stdout
    assert KEY not in ran.stdout
