"""Every way for a turn to fail that echo can be made to take, through a real lease: whole, refused, and in the stream."""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import pytest

from shared.errors import PROVIDER_KINDS
from supervisor import EndpointDescriptor, InferenceEndpoint, SupervisorClient
from tests.departures import REQUEST_ID, TIMEOUT_S, cancel
from tests.e2e.test_endpoint import ask, chunks_of, say, url
from tests.process.serving import lease, serving, until
from tests.process.test_versions import stand_in

pytestmark = pytest.mark.process
ROOT = Path(__file__).parents[2]
HELD, SENT = "status_hold_s=60", "status_hold_s=0.000001"
"""Whether a stream that has not begun can still be refused by its status."""
WORDS = b'"delta":{"content":'
QUICK = ("exit_grace_s=0.2",)
Meanwhile = Callable[[SupervisorClient, EndpointDescriptor], object]
Start = Callable[..., SupervisorClient]


class Cause(msgspec.Struct, frozen=True):
    """What is asked, and done meanwhile, and what comes of it. ``has_begun``: something of an answer comes first."""

    prompt: str
    status: int
    code: str
    type: str = "server_error"
    meanwhile: Meanwhile | None = None
    settings: tuple[str, ...] = ()
    has_begun: bool = False


def command_lines(client: SupervisorClient, descriptor: EndpointDescriptor) -> list[int]:
    """The pids of those that run on that lease."""
    pids = [process.pid for process in client.endpoint(descriptor).processes]
    return [pid for pid in pids if psutil.pid_exists(pid) and is_command_line(pid)]


def is_command_line(pid: int) -> bool:
    """Whether it is one, and not of the worker family that serves; gone is no."""
    try:
        return any("echo_cli" in argument for argument in psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return False


def is_cancelled(_: SupervisorClient, descriptor: EndpointDescriptor) -> None:
    """By its route."""
    assert cancel(descriptor).status_code == 200


def is_released(client: SupervisorClient, descriptor: EndpointDescriptor) -> None:
    """The lease, under the turn."""
    client.release_endpoint(descriptor)


def is_killed(client: SupervisorClient, descriptor: EndpointDescriptor) -> None:
    """The command line, from outside."""
    (pid,) = command_lines(client, descriptor)
    os.kill(pid, signal.SIGKILL)


_INVALID = "invalid_request_error"
CAUSES = {
    "bad request": Cause("[[error:400]]", 400, "provider_rejected_request", _INVALID),
    "too long": Cause("[[error:413]]", 400, "context_length_exceeded", _INVALID),
    "unknown model": Cause("[[error:404]]", 404, "model_not_found", "not_found_error"),
    "rate limit": Cause("[[error:429]]", 429, "rate_limit_exceeded", "rate_limit_error"),
    "quota": Cause("[[error:402]]", 429, "quota_exhausted", "insufficient_quota"),
    "cancelled": Cause("[[silence]] x", 499, "turn_cancelled", meanwhile=is_cancelled),
    "cancelled late": Cause(
        "[[stall:1]] a b", 499, "turn_cancelled", meanwhile=is_cancelled, has_begun=True
    ),
    "key": Cause("[[error:401]]", 502, "provider_auth_failed"),
    "server error": Cause("[[error:500]]", 502, "provider_error"),
    "good end": Cause("[[exit:0]] x", 502, "provider_crashed"),
    "bad end": Cause("[[exit:3]] x", 502, "provider_crashed"),
    "half a line": Cause("[[half-line]] x", 502, "provider_crashed"),
    "killed": Cause("[[silence]] x", 502, "provider_crashed", meanwhile=is_killed),
    "garbage": Cause("[[garbage]] x", 502, "provider_protocol_error"),
    "huge line": Cause("[[huge-line:17000000]] x", 502, "provider_protocol_error"),
    "tool": Cause("[[tool:Bash]] x", 502, "tool_use_refused"),
    "overloaded": Cause("[[error:529]]", 503, "provider_overloaded"),
    "overloaded late": Cause("[[error:529]] some words", 503, "provider_overloaded", has_begun=True),
    "released": Cause("[[silence]] x", 503, "lease_closed", meanwhile=is_released),
    "gateway timeout": Cause("[[error:504]]", 504, "provider_timeout", "timeout_error"),
    "silence": Cause(
        "[[silence]] x", 504, "provider_timeout", "timeout_error", settings=("first_output_s=1",)
    ),
    "silence late": Cause(
        "[[stall:1]] a b", 504, "provider_timeout", "timeout_error", settings=("silence_s=3",), has_begun=True
    ),
}  # fmt: skip
ELSEWHERE = {
    "content_filter": "tests/clis/failures.py",
    "not_logged_in": "tests/clis/failures.py",
    "provider_connection_failed": "tests/clis/failures.py",
    "schema_mismatch": "tests/clis/test_parameters.py",
    "sdk_not_installed": "tests/unit/test_extensions.py",
}
"""What echo cannot be made to say: where the real command lines are, or, of the last, who says it without a lease."""


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Gives a supervisor with these settings, the same one for the same."""
    with ExitStack() as stack:

        @functools.cache
        def started(*settings: str) -> SupervisorClient:
            arguments = [part for setting in (*QUICK, *settings) for part in ("--set", setting)]
            held = stack.enter_context(serving(tmp_path_factory.mktemp("failures"), *arguments))
            return stack.enter_context(held.client())

        yield started


def fail(
    client: SupervisorClient,
    descriptor: EndpointDescriptor,
    cause: Cause,
    http: httpx.Client,
    *,
    stream: bool,
) -> httpx.Response:
    """The answer to that request."""
    begun = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        body = say(cause.prompt, stream=stream)
        answer = threads.submit(answer_of, http, descriptor, body, begun)
        if cause.meanwhile:
            until(lambda: client.endpoint(descriptor).load["in_flight"] and command_lines(client, descriptor))
            if cause.has_begun and stream:
                until(begun.is_set)
            cause.meanwhile(client, descriptor)
        return answer.result(TIMEOUT_S)


def answer_of(
    http: httpx.Client, descriptor: EndpointDescriptor, body: dict[str, Any], begun: threading.Event
) -> httpx.Response:
    """The whole answer; ``begun`` says that the first words of a stream have come."""
    headers = {**descriptor.headers, "x-request-id": REQUEST_ID}
    content = b""
    with http.stream("POST", url(descriptor), headers=headers, json=body) as answer:
        for part in answer.iter_raw():
            content += part
            if WORDS in content:
                begun.set()
    return httpx.Response(answer.status_code, headers=answer.headers, content=content)


def error_of(cause: Cause, envelope: Any) -> Any:
    """The envelope that it should be, with the words that it has."""
    message = envelope["error"]["message"]
    assert message.startswith("cannot complete: ")
    return {"error": {"message": message, "type": cause.type, "param": None, "code": cause.code}}


@pytest.mark.parametrize("way", ["whole", "refused", "in the stream"])
@pytest.mark.parametrize("name", CAUSES)
def test_a_failure_has_one_form(start: Start, http: httpx.Client, name: str, way: str):
    """Status, type and code of the table, not to be retried; the lease serves on.

    A stream whose status is sent ends with the same error as an event, and without the end mark.
    """
    cause = CAUSES[name]
    client = start(SENT if way == "in the stream" else HELD, *cause.settings)
    descriptor = lease(client)
    answer = fail(client, descriptor, cause, http, stream=way != "whole")
    if way == "in the stream" or (cause.has_begun and way != "whole"):
        assert (answer.status_code, answer.headers["content-type"]) == (
            200,
            "text/event-stream; charset=utf-8",
        )
        *chunks, last = chunks_of(answer)
        assert last == error_of(cause, last)
        assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)
        assert (len(chunks) > 1) is cause.has_begun
        assert "[DONE]" not in answer.text
    else:
        assert (answer.status_code, answer.headers["content-type"]) == (cause.status, "application/json")
        assert answer.headers["x-should-retry"] == "false"
        assert answer.json() == error_of(cause, answer.json())
    if cause.meanwhile is not is_released:
        assert ask(http, descriptor, "still here").json()["choices"][0]["message"]["content"] == "still here"
        proof = client.release_endpoint(descriptor).proof
        assert proof is not None
        assert not proof.survivors


@pytest.mark.parametrize("stream", [False, True])
def test_a_command_line_that_is_gone_is_said(http: httpx.Client, tmp_path: Path, stream: bool):
    """Removed under a lease, or between two versions of it; the turn after it is back is served."""
    program = stand_in(tmp_path / "claude", "2.1.300")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path))
        patch.setenv("CLAUDE_CLI_PATH", str(program))
        patch.setenv("ANTHROPIC_API_KEY", "dummy-key")
        with InferenceEndpoint() as endpoint:
            request = {"model_preference": {"provider": "claude", "id": "some-model"}, "stream?": True}
            descriptor, _ = endpoint.ensure_endpoint(request, lease={"standby": 0})
            program.unlink()
            answer = ask(http, descriptor, "hello", stream=stream)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "cli_not_found")
            assert answer.json()["error"]["type"] == "server_error"
            stand_in(program, "2.1.300")
            assert ask(http, descriptor, "hello").status_code == 200


def test_no_failure_of_a_provider_is_left_out():
    """Each is made here, or in the file that is named, with its code."""
    here = {cause.code for cause in CAUSES.values()} | {"cli_not_found"}
    assert set(PROVIDER_KINDS) <= here | set(ELSEWHERE)
    assert not here & set(ELSEWHERE)
    for code, path in ELSEWHERE.items():
        assert f'"{code}"' in (ROOT / path).read_text(encoding="utf-8"), code
