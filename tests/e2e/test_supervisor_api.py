"""The supervisor's API over HTTP and as Python calls: leases from their decision to their end."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from supervisor import (
    EndpointDescriptor,
    Incompatible,
    InferenceEndpoint,
    ProviderError,
    RequestError,
    SupervisorClient,
    WorkerError,
)
from supervisor.statefolder import StateFolder
from tests.e2e.conftest import END_TIMEOUT_S
from tests.process.serving import until

pytestmark = pytest.mark.process
Make = Callable[..., EndpointDescriptor]
ECHO = {"model_preference": {"provider": "echo", "id": "any"}}
SECOND_INSTANCE_TIMEOUT_S = 60
IDLE_S = 3.0
"""Longer than gunicorn's default of 2 s."""


@pytest.fixture(scope="module")
def api(supervisor_client: SupervisorClient, state_home: Path) -> Any:
    """The bare HTTP API, with the admin token from its file."""
    folder = StateFolder(state_home)
    with httpx.Client(
        base_url=supervisor_client.url,
        headers={"authorization": f"Bearer {folder.read_token()}"},
        trust_env=False,
        timeout=END_TIMEOUT_S,
    ) as client:
        yield client


def test_a_lease_over_plain_http(api: httpx.Client):
    """201 with descriptor and compatibility; shown and listed without the token; released with proof, twice."""
    ensured = api.post("/v1/endpoints", json={"request": ECHO})
    assert ensured.status_code == 201
    endpoint, compatibility = ensured.json()["endpoint"], ensured.json()["compatibility"]
    assert compatibility["compatible?"] is True
    assert endpoint["capabilities"] == {"streaming?": True, "tool_calling?": False}
    token = endpoint["headers"]["authorization"].removeprefix("Bearer ")
    path = f"/v1/endpoints/{endpoint['lease_ref']}"
    shown, listed = api.get(path), api.get("/v1/endpoints")
    assert shown.json()["state"] == "ready"
    assert endpoint["lease_ref"] in listed.text
    assert token not in shown.text + listed.text + api.get("/metrics").text
    released = api.delete(path).json()
    assert released["released"] is True
    assert released["proof"]["survivors"] == []
    assert released["proof"]["processes"]
    assert api.delete(path).json()["proof"] == released["proof"]
    assert api.get(path).json()["state"] == "closed"


def test_releasing_the_unknown_is_fine(api: httpx.Client, supervisor_client: SupervisorClient):
    """200, over HTTP and as a call."""
    assert api.delete("/v1/endpoints/lease_unknown").json() == {"released": True, "proof": None}
    assert supervisor_client.release_endpoint("../strange/../ref?x=y").released


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({}, 400, "invalid_request", None),
        ({"request": []}, 400, "invalid_request", None),
        ({"request": ECHO, "extra": 1}, 400, "invalid_request", "extra"),
        ({"request": {"model_preference": None}}, 400, "unsupported_provider", None),
        ({"request": {"model_preference": {"provider": "nope", "id": "m"}}}, 400, "unsupported_provider", None),
        ({"request": {"model_preference": {"provider": "cursor", "id": "m"}}}, 400, "unsupported_endpoint_provider", None),
        ({"request": {"model_preference": {"provider": "echo"}}}, 400, "missing_model_identity", None),
        ({"request": ECHO, "consumer_manifest": {"accepted_protocols": "x"}}, 400, "invalid_consumer_manifest", None),
        ({"request": ECHO, "context": []}, 400, "invalid_context", None),
        ({"request": ECHO, "lease": {"ttl": 5}}, 400, "invalid_lease_options", "ttl"),
        ({"request": ECHO, "lease": {"ttl_s": 0}}, 400, "invalid_lease_options", "ttl_s"),
        ({"request": ECHO, "lease": {"owner_pid": 4_000_000}}, 400, "invalid_lease_options", "owner_pid"),
        ({"request": {**ECHO, "tools": [{}]}}, 409, "incompatible", None),
        ({"request": {"model_preference": {"provider": "codex", "id": "m"}}}, 503, "cli_not_found", None),
    ],
)  # fmt: skip
def test_bad_ensures(api: httpx.Client, body: Any, status: int, code: str, param: str | None):
    """Typed, and no lease is left of them."""
    before = len(api.get("/v1/endpoints").json()["endpoints"])
    refused = api.post("/v1/endpoints", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
    assert param is None or refused.json()["error"]["param"] == param
    assert len(api.get("/v1/endpoints").json()["endpoints"]) == before


def test_an_incompatible_answer_carries_the_decision(api: httpx.Client, supervisor_client: SupervisorClient):
    """In the body, and in the exception of the client."""
    body = {"request": ECHO, "consumer_manifest": {"accepted_runtime_kinds": ["service"]}}
    assert api.post("/v1/endpoints", json=body).json()["compatibility"]["reason"] == "runtime_kind_mismatch"
    with pytest.raises(Incompatible) as refused:
        supervisor_client.ensure_endpoint(ECHO, {"accepted_protocols": ["other"]})
    assert refused.value.compatibility.reason == "unsupported_protocol"


@pytest.mark.parametrize("token", ["", "Bearer wrong", "Basic x"])
def test_the_admin_token_is_needed(api: httpx.Client, token: str):
    """For everything but the health of the supervisor."""
    for path in ("/v1/endpoints", "/v1/providers", "/metrics", "/openapi.json", "/nowhere"):
        assert api.get(path, headers={"authorization": token}).status_code == 401
    assert api.get("/healthz", headers={"authorization": token}).json() == {"status": "ok", "reasons": []}


def test_a_lease_token_opens_no_supervisor(api: httpx.Client, lease: Make):
    """And neither does it open another lease."""
    one, other = lease(), lease()
    assert api.get("/v1/endpoints", headers=one.headers).status_code == 401
    assert httpx.get(str(other.health_ref), headers=one.headers, trust_env=False).status_code == 401


def test_a_foreign_host_is_refused(api: httpx.Client):
    """Also with the admin token."""
    assert api.get("/v1/endpoints", headers={"host": "evil.example"}).status_code == 421


def test_files_are_private(state_home: Path, supervisor_client: SupervisorClient, lease: Make):
    """Token 0600, folder and leases 0700, and the address says where we are."""
    descriptor = lease()
    assert stat.S_IMODE((state_home / "admin.token").stat().st_mode) == 0o600
    assert stat.S_IMODE((state_home / "zygote.sock").stat().st_mode) == 0o600
    folder = state_home / "leases" / descriptor.lease_ref
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir()) if path.is_dir()} == {
        0o700
    }
    address = json.loads((state_home / "supervisor.json").read_text())
    assert address["url"] == supervisor_client.url
    assert address["url"].startswith("http://127.0.0.1:")
    supervisor_client.release_endpoint(descriptor)
    assert not folder.exists()


def test_a_second_instance_is_refused(state_home: Path, supervisor_client: SupervisorClient):
    """In one line, with the exit code that says so, and the first one goes on."""
    second = subprocess.run(
        (sys.executable, "-m", "supervisor", "serve", "--home", str(state_home)),
        capture_output=True,
        text=True,
        timeout=SECOND_INSTANCE_TIMEOUT_S,
        check=False,
    )
    assert second.returncode == 5
    assert "already does" in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1
    assert supervisor_client.providers()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_only_loopback_is_served(tmp_path: Path, host: str):
    """Refused before anything is opened."""
    refused = subprocess.run(
        (sys.executable, "-m", "supervisor", "serve", "--home", str(tmp_path / "state"), "--host", host),
        capture_output=True,
        text=True,
        timeout=SECOND_INSTANCE_TIMEOUT_S,
        check=False,
    )
    assert refused.returncode == 2
    assert "only loopback addresses are allowed" in refused.stderr


def test_the_same_key_is_the_same_lease(supervisor_client: SupervisorClient):
    """Same descriptor, same token; another request under the key is an error; after its end it is a new lease."""
    first = supervisor_client.ensure_endpoint(ECHO, idempotency_key="once")
    again = supervisor_client.ensure_endpoint(ECHO, idempotency_key="once")
    assert first == again
    with pytest.raises(RequestError) as reused:
        supervisor_client.ensure_endpoint({**ECHO, "stream?": True}, idempotency_key="once")
    assert (reused.value.code, reused.value.status) == ("idempotency_key_reused", 422)
    supervisor_client.release_endpoint(first[0])
    anew, _ = supervisor_client.ensure_endpoint(ECHO, idempotency_key="once")
    assert anew.lease_ref != first[0].lease_ref
    assert anew.headers != first[0].headers
    supervisor_client.release_endpoint(anew)


@pytest.mark.parametrize(
    ("options", "cause"),
    [({"ttl_s": 1, "idle_timeout_s": 60}, "expired"), ({"ttl_s": 60, "idle_timeout_s": 1}, "idle")],
)
def test_leases_end_by_themselves(
    supervisor_client: SupervisorClient, lease: Make, options: dict[str, float], cause: str
):
    """By their time to live or by idleness, with the same proof as a release."""
    descriptor = lease(**options)
    until(lambda: supervisor_client.endpoint(descriptor).state == "closed")
    assert supervisor_client.endpoint(descriptor).cause == cause
    with pytest.raises(httpx.ConnectError):
        httpx.get(str(descriptor.health_ref), headers=descriptor.headers, trust_env=False)


def test_a_renewed_lease_lives_on(supervisor_client: SupervisorClient, lease: Make):
    """From now, not from its start; a closed one cannot be renewed."""
    descriptor = lease(ttl_s=5)
    assert (supervisor_client.renew_endpoint(descriptor, 500).expires_in_s or 0) > 400
    with pytest.raises(RequestError, match="ttl_s"):
        supervisor_client.renew_endpoint(descriptor, -1)
    supervisor_client.release_endpoint(descriptor)
    with pytest.raises(RequestError) as closed:
        supervisor_client.renew_endpoint(descriptor, 500)
    assert closed.value.code == "not_found"


def test_a_lease_ends_with_its_owner(supervisor_client: SupervisorClient, lease: Make):
    """Also when the owner is killed."""
    with subprocess.Popen(("sleep", "600")) as owner:
        descriptor = lease(owner_pid=owner.pid)
        owner.kill()
    until(lambda: supervisor_client.endpoint(descriptor).state == "closed")
    assert supervisor_client.endpoint(descriptor).cause == "owner_gone"


def test_all_three_ways_in_are_one(supervisor_client: SupervisorClient, api: httpx.Client):
    """Embedded, client and HTTP give the same manifest and the same kind of descriptor."""
    with InferenceEndpoint() as embedded:
        assert embedded.consumer_manifest() == supervisor_client.consumer_manifest()
        assert embedded.consumer_manifest().to_builtins() == api.get("/v1/consumer-manifest").json()
        descriptors = [client.ensure_endpoint(ECHO)[0] for client in (embedded, supervisor_client)]
        assert len({tuple(sorted(each.to_builtins())) for each in descriptors}) == 1
        supervisor_client.release_endpoint(descriptors[1])


@pytest.mark.parametrize(
    ("environ", "code", "words"),
    [
        (
            {"CLAUDE_CLI_PATH": "", "PATH": "/nowhere"},
            "cli_not_found",
            "npm install -g @anthropic-ai/claude-code",
        ),
        ({"CLAUDE_CLI_PATH": "/no/such/claude"}, "cli_not_found", "non-existent file"),
        ({"CLAUDE_CLI_PATH": sys.executable}, "not_logged_in", "ANTHROPIC_API_KEY"),
    ],
)
def test_a_missing_command_line_or_login_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], code: str, words: str
):
    """503 with a code of its own, at once, and no lease."""
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with InferenceEndpoint() as endpoint:
        with pytest.raises(ProviderError) as refused:
            endpoint.ensure_endpoint({"model_preference": {"provider": "claude", "id": "sonnet"}})
        assert (refused.value.code, refused.value.status) == (code, 503)
        assert words in refused.value.message
        assert endpoint.endpoints() == []


def test_a_client_of_nothing_says_so(tmp_path: Path):
    """No supervisor in the folder, or none behind its address; reading creates nothing."""
    with pytest.raises(WorkerError) as missing:
        SupervisorClient.from_home(tmp_path / "none")
    assert missing.value.code == "supervisor_unavailable"
    assert not (tmp_path / "none").exists()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with SupervisorClient(url, "token") as client, pytest.raises(WorkerError) as dead:
            client.endpoints()
    assert dead.value.code == "supervisor_unavailable"


def test_failed_ensures_leak_no_descriptor(api: httpx.Client, state_home: Path):
    """The supervisor has as many open files after fifty refusals of each kind as before."""
    import psutil

    address = json.loads((state_home / "supervisor.json").read_text())
    (worker,) = [each for each in psutil.Process(address["pid"]).children() if each.ppid() == address["pid"]]
    bodies = [{"request": {**ECHO, "tools": [1]}}, {"request": ECHO, "lease": {"owner_pid": 4_000_000}}, {}]

    def refuse() -> None:
        for body in bodies:
            assert api.post("/v1/endpoints", json=body).is_error

    refuse()
    before = worker.num_fds()
    for _ in range(50):
        refuse()
    assert worker.num_fds() <= before
    assert os.path.isdir(state_home)


def test_an_idle_connection_stays_usable(
    supervisor_client: SupervisorClient, lease: Callable[..., EndpointDescriptor]
):
    """For longer than gunicorn would keep it: a client's next request must not meet a connection that is closing."""
    descriptor = lease()

    def local_port(client: httpx.Client, url: str) -> int:
        with client.stream("GET", url, headers=descriptor.headers) as answer:
            answer.read()
            return answer.extensions["network_stream"].get_extra_info("socket").getsockname()[1]

    with httpx.Client(trust_env=False, limits=httpx.Limits(keepalive_expiry=60)) as client:
        urls = (f"{supervisor_client.url}/healthz", str(descriptor.health_ref))
        before = [local_port(client, url) for url in urls]
        time.sleep(IDLE_S)
        assert [local_port(client, url) for url in urls] == before
