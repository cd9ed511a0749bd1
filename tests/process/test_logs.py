"""What stands in the logs of real processes: which request it was, and no secret; contents only when asked for.

A family's log is looked at in every kind of isolation, a supervisor's own in one.
"""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from supervisor import EndpointDescriptor, InferenceEndpoint
from supervisor.statefolder import TOKEN_NAME
from tests.process.serving import HTTP_TIMEOUT_S, WAIT_S, ask, family_of, until
from tests.process.test_death import inner_worker

pytestmark = pytest.mark.process
MISBEHAVE = "ASM_ENDPOINT_ECHO_MISBEHAVE"
WORDS = "canary-of-ordinary-words"
API_KEY = "sk-ant-api03-canary0canary0canary0"
ENVIRONMENT_KEY = "an-unremarkable-key-of-the-environment"
REQUEST = {"model_preference": {"provider": "echo", "id": "any"}}


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Iterator[InferenceEndpoint]:
    """An embedded supervisor; its own log is in its state folder."""
    monkeypatch.setenv(MISBEHAVE, "1")
    monkeypatch.setenv("ANTHROPIC_API_KEY", ENVIRONMENT_KEY)
    with InferenceEndpoint(serve_arguments=arguments) as endpoint:
        yield endpoint


def lease(endpoint: InferenceEndpoint) -> EndpointDescriptor:
    """One without standby, so that its log tells only of what is asked."""
    descriptor, _ = endpoint.ensure_endpoint(REQUEST, lease={"standby": 0})
    return descriptor


def worker_log(endpoint: InferenceEndpoint, descriptor: EndpointDescriptor) -> Path:
    """The lease's own log."""
    return endpoint.home / "leases" / descriptor.lease_ref / "worker.log"


def lines_of(path: Path, request_id: str | None = None) -> list[dict[str, Any]]:
    """Every line, decoded; or those of one request."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if request_id is None or line.get("request_id") == request_id]


def everything_below(home: Path) -> dict[Path, str]:
    """Every file of the state folder, but the one that is there to hold the admin token."""
    files = [path for path in home.rglob("*") if path.is_file() and path.name != TOKEN_NAME]
    return {path: path.read_bytes().decode(errors="replace") for path in files}


def test_one_request_id_goes_from_the_client_to_the_command_line(
    monkeypatch: pytest.MonkeyPatch, isolation: tuple[str, ...]
):
    """Of the request for the lease, and of a completion."""
    with serving(monkeypatch, *isolation) as endpoint:
        token = (endpoint.home / TOKEN_NAME).read_text().strip()
        answer = httpx.post(
            f"{endpoint.url}/v1/endpoints",
            headers={"authorization": f"Bearer {token}", "x-request-id": "asks-for-a-lease"},
            json={"request": REQUEST, "context": {"run_id": "the-run"}},
            timeout=HTTP_TIMEOUT_S,
            trust_env=False,
        )
        assert answer.status_code == 201
        lease_ref = answer.json()["endpoint"]["lease_ref"]
        supervisor_log = endpoint.home / "supervisor.log"
        answered = until(
            lambda: [line for line in lines_of(supervisor_log, "asks-for-a-lease") if "status" in line]
        )
        assert [(line["method"], line["path"], line["status"]) for line in answered] == [
            ("POST", "/v1/endpoints", 201)
        ]
        ready = [
            line for line in lines_of(supervisor_log, "asks-for-a-lease") if line.get("state") == "ready"
        ]
        assert [(line["lease_ref"], line["run_id"]) for line in ready] == [(lease_ref, "the-run")]

        descriptor = lease(endpoint)
        log = worker_log(endpoint, descriptor)
        assert ask(descriptor, "[[cwd]] x", headers={"x-request-id": "asks-for-a-turn"}).status_code == 200
        begun, ended, completed, answered = until(
            lambda: len(found := lines_of(log, "asks-for-a-turn")) == 4 and found
        )
        assert begun["message"] == "turn begins"
        assert begun["turn"] == ended["turn"]
        assert begun["cli_pid"] > 0
        assert (completed["outcome"], completed["completion_tokens"] > 0) == ("completed", True)
        assert (answered["status"], answered["path"]) == (
            200,
            f"/leases/{descriptor.lease_ref}/v1/chat/completions",
        )
        assert {line["lease_ref"] for line in lines_of(log)} == {descriptor.lease_ref}


def test_the_request_for_a_lease_is_named_in_the_lease_s_own_log(
    monkeypatch: pytest.MonkeyPatch, isolation: tuple[str, ...]
):
    """By the id that it got when it had none."""
    with serving(monkeypatch, *isolation) as endpoint:
        log = worker_log(endpoint, lease(endpoint))
        first = until(lambda: lines_of(log))[0]
        (launched,) = until(lambda: lines_of(endpoint.home / "zygote.log", first["request_id"]))
        assert launched["message"] == "family launched"
        supervisor_log = endpoint.home / "supervisor.log"
        (made,) = until(
            lambda: [line for line in lines_of(supervisor_log, first["request_id"]) if "status" in line]
        )
        assert made["path"] == "/v1/endpoints"
        assert made["lease_ref"] == launched["lease_ref"] == first["lease_ref"]


@pytest.mark.parametrize("text", [f"{WORDS}", f"[[stderr:{WORDS}]] [[exit:3]] x", f"[[garbage]] {WORDS}"])
def test_prompts_and_answers_are_in_no_file(
    monkeypatch: pytest.MonkeyPatch, isolation: tuple[str, ...], text: str
):
    """Not even in the words of an error that quotes them; and afterwards neither."""
    with serving(monkeypatch, *isolation) as endpoint:
        descriptor = lease(endpoint)
        assert WORDS in ask(descriptor, text).text or "garbage" in text
        until(lambda: "completion ended" in worker_log(endpoint, descriptor).read_text())
        assert not [path for path, content in everything_below(endpoint.home).items() if WORDS in content]
        endpoint.release_endpoint(descriptor)
        assert not [path for path, content in everything_below(endpoint.home).items() if WORDS in content]


def test_contents_are_logged_when_asked_for_and_said_so_at_the_start(
    monkeypatch: pytest.MonkeyPatch, isolation: tuple[str, ...]
):
    """Positive control of the test above: prompt, answer, and an error's words."""
    with serving(monkeypatch, *isolation, "--log-content") as endpoint:
        descriptor = lease(endpoint)
        assert ask(descriptor, f"hello {WORDS}").status_code == 200
        assert WORDS in ask(descriptor, f"[[stderr:{WORDS}]] [[exit:3]] x").text
        completed, failed = until(
            lambda: (
                len(
                    found := [
                        line for line in lines_of(worker_log(endpoint, descriptor)) if "outcome" in line
                    ]
                )
                == 2
                and found
            )
        )
        assert completed["prompt"] == completed["answer"] == f"hello {WORDS}"
        assert failed["outcome"] == "provider_crashed"
        assert WORDS in failed["error"]
        warnings = [line for line in lines_of(endpoint.home / "supervisor.log") if line["level"] == "warning"]
        assert "--log-content" in warnings[0]["message"]


@pytest.mark.parametrize(
    "arguments", [(), ("--log-content", "--log-level", "debug")], ids=["usual", "everything"]
)
def test_secrets_are_in_no_log(
    monkeypatch: pytest.MonkeyPatch, isolation: tuple[str, ...], arguments: tuple[str, ...]
):
    """Tokens and keys, wherever somebody may put them: headers, bodies, paths, errors of command lines, environment."""
    with serving(monkeypatch, *isolation, *arguments) as endpoint:
        descriptor = lease(endpoint)
        admin_token = (endpoint.home / TOKEN_NAME).read_text().strip()
        lease_token = descriptor.headers["authorization"].removeprefix("Bearer ")
        secrets = (admin_token, lease_token, API_KEY, ENVIRONMENT_KEY)
        for secret in (admin_token, lease_token, API_KEY):
            ask(
                descriptor,
                f"{WORDS} {secret}",
                headers={"x-api-key": secret, "cookie": secret, "user-agent": secret},
            )
            ask(descriptor, f"[[stderr:{secret}]] [[exit:3]] x")
            httpx.get(
                f"{descriptor.base_url}/models/{secret}",
                headers=descriptor.headers,
                trust_env=False,
                timeout=HTTP_TIMEOUT_S,
            )
            httpx.post(
                f"{endpoint.url}/v1/endpoints",
                headers={"authorization": f"Bearer {admin_token}", "idempotency-key": secret},
                json={"request": {"model_preference": {"provider": "echo", "id": secret, "extra": secret}}},
                trust_env=False,
                timeout=HTTP_TIMEOUT_S,
            )
            httpx.get(
                f"{endpoint.url}/v1/endpoints/{secret}",
                headers={"authorization": f"Basic {secret}"},
                trust_env=False,
                timeout=HTTP_TIMEOUT_S,
            )
        until(lambda: worker_log(endpoint, descriptor).read_text().count("completion ended") == 6)
        logs = {path: text for path, text in everything_below(endpoint.home).items() if path.suffix == ".log"}
        assert len(logs) >= 3
        found = [(path.name, secret) for path, text in logs.items() for secret in secrets if secret in text]
        assert not found
        has_contents = any(WORDS in text for text in logs.values())
        assert has_contents is bool(arguments), "positive control: what stood beside the secrets"


def test_every_line_of_every_log_is_json(monkeypatch: pytest.MonkeyPatch, isolation: tuple[str, ...]):
    """Also gunicorn's, when a worker process dies, and those of processes that end."""
    with serving(monkeypatch, *isolation, "--log-format", "json") as endpoint:
        descriptor = lease(endpoint)
        log = worker_log(endpoint, descriptor)
        os.kill(inner_worker(family_of(endpoint, descriptor)).pid, signal.SIGKILL)
        until(lambda: endpoint.endpoint(descriptor).load["boots"] == 2)
        loggers = until(
            lambda: {line["logger"] for line in lines_of(log)} >= {"gunicorn.error"} and lines_of(log)
        )
        assert all(line["time"] and line["level"] and line["message"] for line in loggers)
        endpoint.release_endpoint(descriptor)
        for path in endpoint.home.rglob("*.log"):
            assert all("time" in line for line in lines_of(path)), path


def test_lines_for_people_and_levels(monkeypatch: pytest.MonkeyPatch):
    """The form holds for lease and supervisor; below the level nothing is said."""
    with serving(monkeypatch, "--log-format", "console") as endpoint:
        descriptor = lease(endpoint)
        shared = [endpoint.home / name for name in ("supervisor.log", "zygote.log")]
        said = re.compile(r"\d{4}-\d\d-\d\dT\S+Z INFO    asm_endpoint\.\w+ \w")
        for path in (*shared, worker_log(endpoint, descriptor)):
            assert said.match(until(path.read_text)), path
    with serving(monkeypatch, "--log-level", "error") as endpoint:
        descriptor = lease(endpoint)
        assert ask(descriptor, "hello").status_code == 200
        assert worker_log(endpoint, descriptor).read_text() == ""
        assert (endpoint.home / "supervisor.log").read_text() == ""
        assert (endpoint.home / "zygote.log").read_text() == ""


def test_on_a_terminal_lines_are_for_people(tmp_path: Path):
    """Without being asked."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        (sys.executable, "-P", "-m", "supervisor", "serve", "--home", str(tmp_path)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    try:
        seen = b""
        while b"supervisor ready at" not in seen:
            seen += os.read(ours, 4096)
        assert b" INFO    asm_endpoint.supervisor supervisor ready at" in seen
    finally:
        process.terminate()
        assert process.wait(WAIT_S) == 0
        os.close(ours)


def test_an_embedded_supervisor_s_log_is_bounded(monkeypatch: pytest.MonkeyPatch):
    """And any other one's, where it appends to a file and is told to."""
    with serving(monkeypatch, "--log-bytes", "4096") as endpoint:
        for _ in range(50):
            endpoint.endpoints()
        assert (endpoint.home / "supervisor.log").stat().st_size <= 4096
        until(
            lambda: [
                line
                for line in lines_of(endpoint.home / "supervisor.log")[-1:]
                if line.get("path") == "/v1/endpoints"
            ]
        )


def test_a_lease_s_log_is_bounded(monkeypatch: pytest.MonkeyPatch, isolation: tuple[str, ...]):
    """By a bound with a name; the newest lines are there."""
    bound_bytes = 8192
    with serving(monkeypatch, *isolation, "--set", f"lease_log_bytes={bound_bytes}") as endpoint:
        descriptor = lease(endpoint)
        log = worker_log(endpoint, descriptor)
        with httpx.Client(headers=descriptor.headers, trust_env=False, timeout=HTTP_TIMEOUT_S) as client:
            for number in range(200):
                client.get(f"{descriptor.base_url}/models", headers={"x-request-id": f"number-{number}"})
                assert log.stat().st_size <= bound_bytes
        newest = until(lambda: lines_of(log, "number-199"))
        assert newest[0]["status"] == 200
        assert not lines_of(log, "number-0")
