"""Named API tokens over HTTP: what their callers see and may do, how they end, and that the admin sees it all."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from shared.contracts import MAX_TTL_S
from supervisor import EndpointDescriptor, RequestError, SupervisorClient, WorkerError
from supervisor.openapi import document
from supervisor.views import NewToken
from tests.e2e.conftest import END_TIMEOUT_S
from tests.process.serving import until

pytestmark = pytest.mark.process
ECHO = {"model_preference": {"provider": "echo", "id": "any"}}
UNKNOWN = "lease_00000000000000000000000000"
TIMEOUT_S = 120
Identity = Callable[..., SupervisorClient]


@pytest.fixture
def identity(supervisor_client: SupervisorClient) -> Iterator[Identity]:
    """Makes named callers; afterwards their tokens are revoked and their leases released."""
    made: list[SupervisorClient] = []
    names: list[str] = []

    def make(name: str, *, expires_in_s: float | None = None, **limits: Any) -> SupervisorClient:
        new = supervisor_client.add_token(name, expires_in_s=expires_in_s, limits=limits)
        client = SupervisorClient(supervisor_client.url, new.token)
        names.append(name)
        made.append(client)
        return client

    yield make
    known = {view.name for view in supervisor_client.tokens()}
    for name in set(names):
        if name in known:
            supervisor_client.revoke_token(name)
        for ended in supervisor_client.release_endpoints(owner=name):
            assert ended.proof is not None
            assert not ended.proof.survivors
    for client in made:
        client.close()


def lease(client: SupervisorClient, **options: Any) -> EndpointDescriptor:
    """One echo lease without a standby."""
    return client.ensure_endpoint(ECHO, lease={"standby": 0, **options})[0]


def refs(client: SupervisorClient, **selection: Any) -> set[str]:
    """The leases that the caller sees and that have not ended."""
    return {view.lease_ref for view in client.endpoints(**selection) if view.state != "closed"}


def bare(client: SupervisorClient, method: str, path: str, **details: Any) -> httpx.Response:
    """The answer as it is on the wire, with the client's own token."""
    headers = {"authorization": client._http.headers["authorization"]}
    return httpx.request(
        method, f"{client.url}{path}", headers=headers, trust_env=False, timeout=END_TIMEOUT_S, **details
    )


def is_alive(descriptor: EndpointDescriptor) -> bool:
    """Whether the endpoint answers."""
    return httpx.get(str(descriptor.health_ref), headers=descriptor.headers, trust_env=False).is_success


def plain(answer: httpx.Response, lease_ref: str) -> tuple[int, str]:
    """Status and body without the ref that was asked for."""
    return answer.status_code, answer.text.replace(lease_ref, "REF")


def test_a_lease_belongs_to_who_made_it(supervisor_client: SupervisorClient, identity: Identity):
    """Its owner sees, renews and releases it; so does the admin; it says whose it is."""
    alice = identity("alice")
    mine, another = lease(alice), lease(alice)
    shown = alice.endpoint(mine)
    assert (shown.owner, shown.state) == ("alice", "ready")
    assert supervisor_client.endpoint(mine).owner == "alice"
    assert {mine.lease_ref, another.lease_ref} == refs(alice)
    assert refs(alice) <= refs(supervisor_client)
    assert (alice.renew_endpoint(mine, 500).expires_in_s or 0) > 400
    assert (supervisor_client.renew_endpoint(mine, 1000).expires_in_s or 0) > 900
    proof = alice.release_endpoint(mine).proof
    assert proof is not None
    assert not proof.survivors
    assert alice.endpoint(mine).state == "closed"
    ended = [view.lease_ref for view in alice.endpoints(ended=True) if view.state == "closed"]
    assert mine.lease_ref in ended
    assert {view.owner for view in alice.endpoints(ended=True)} == {"alice"}
    assert supervisor_client.release_endpoint(another).proof is not None
    assert refs(alice) == set()


def test_anothers_lease_is_like_one_that_never_was(
    supervisor_client: SupervisorClient, identity: Identity, lease_of_admin: EndpointDescriptor
):
    """Word for word, for every verb, and nothing happens to it."""
    alice, bob = identity("alice"), identity("bob")
    foreign = lease(alice)
    for ref in (foreign.lease_ref, lease_of_admin.lease_ref):
        for method, suffix, details in (
            ("GET", "", {}),
            ("DELETE", "", {}),
            ("GET", "/log", {}),
            ("POST", "/renew", {"json": {"ttl_s": 5}}),
            ("POST", "/renew", {"json": {"ttl_s": -5}}),
        ):
            answer, unknown = (
                bare(bob, method, f"/v1/endpoints/{each}{suffix}", **details) for each in (ref, UNKNOWN)
            )
            assert plain(answer, ref) == plain(unknown, UNKNOWN), (method, suffix)
    assert bob.release_endpoint(foreign).proof is None
    assert refs(bob) == refs(bob, owner="alice") == refs(bob, owner="admin") == set()
    assert bob.release_endpoints(owner="alice") == []
    # The controls: both still live, and who may see them sees them.
    assert is_alive(foreign)
    assert is_alive(lease_of_admin)
    assert refs(alice) == {foreign.lease_ref}
    assert {foreign.lease_ref, lease_of_admin.lease_ref} <= refs(supervisor_client)
    assert refs(supervisor_client, owner="alice") == {foreign.lease_ref}


@pytest.fixture
def lease_of_admin(supervisor_client: SupervisorClient) -> Iterator[EndpointDescriptor]:
    """A lease of the admin's."""
    descriptor = lease(supervisor_client)
    yield descriptor
    supervisor_client.release_endpoint(descriptor)


def test_what_is_the_admins_alone(supervisor_client: SupervisorClient, identity: Identity):
    """Every operation that the document keeps for the admin is refused to others, and no other one is."""
    alice = identity("alice")
    kept = 0
    for path, operations in document("0")["paths"].items():
        for method, operation in operations.items():
            if method == "parameters":
                continue
            concrete = path.replace("{lease_ref}", UNKNOWN).replace("{name}", "alice")
            answer = bare(alice, method.upper(), concrete, **({"json": {}} if method == "post" else {}))
            is_kept = operation["security"] == [{"adminToken": []}]
            kept += is_kept
            assert (answer.status_code == 403) is is_kept, (method, path)
            if is_kept:
                assert answer.json()["error"]["code"] == "not_permitted"
    assert kept == 6
    assert "asm_endpoint_leases" in bare(supervisor_client, "GET", "/metrics").text
    assert [view.name for view in supervisor_client.tokens()] == ["alice"]


def test_nobody_learns_why_a_token_is_refused(supervisor_client: SupervisorClient, identity: Identity):
    """None, an unknown, an expired, a revoked and a replaced one get the same bytes."""
    revoked, replaced, expired = (
        identity("revoked"),
        identity("replaced"),
        identity("expired", expires_in_s=1.5),
    )
    for client in (revoked, replaced, expired):
        assert client.endpoints() == []
    supervisor_client.revoke_token("revoked")
    supervisor_client.rotate_token("replaced")
    until(lambda: bare(expired, "GET", "/v1/endpoints").status_code == 401)
    answers = [bare(client, "GET", "/v1/endpoints") for client in (revoked, replaced, expired)]
    unknown = ({}, {"authorization": "Bearer asm_" + "A" * 43}, {"authorization": "Bearer"})
    answers += [
        httpx.get(f"{revoked.url}/v1/endpoints", headers=headers, trust_env=False) for headers in unknown
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    headers = [{name for name in answer.headers if name != "x-request-id"} for answer in answers]
    assert all(each == headers[0] for each in headers)
    views = {view.name: view for view in supervisor_client.tokens()}
    assert views["expired"].is_expired
    assert not views["replaced"].is_expired


def test_a_revoked_identitys_leases_live_to_their_own_end(
    supervisor_client: SupervisorClient, identity: Identity
):
    """The token is refused at the next request; the endpoint serves on; the admin can end it."""
    alice = identity("alice")
    mine = lease(alice)
    assert supervisor_client.revoke_token("alice") == []
    with pytest.raises(RequestError) as refused:
        alice.endpoint(mine)
    assert (refused.value.code, refused.value.status) == ("unauthorized", 401)
    assert is_alive(mine)
    assert supervisor_client.endpoint(mine).owner == "alice"
    (ended,) = supervisor_client.release_endpoints(owner="alice")
    assert ended.lease_ref == mine.lease_ref
    assert not ended.proof.survivors


def test_revoking_may_release(supervisor_client: SupervisorClient, identity: Identity):
    """All of that identity's leases, with proofs, and nobody else's."""
    alice, bob = identity("alice"), identity("bob")
    mine, theirs = {lease(alice).lease_ref, lease(alice, group="g").lease_ref}, lease(bob, group="g")
    ended = supervisor_client.revoke_token("alice", release=True)
    assert {each.lease_ref for each in ended} == mine
    assert all(each.released and each.proof.processes and not each.proof.survivors for each in ended)
    assert refs(supervisor_client, owner="alice") == set()
    assert is_alive(theirs)
    with pytest.raises(RequestError) as refused:
        lease(alice)
    assert refused.value.code == "unauthorized"


def test_a_new_token_of_the_same_name_is_the_same_identity(
    supervisor_client: SupervisorClient, identity: Identity
):
    """It finds what the old one left; a replaced token's limits go on."""
    old = identity("alice", max_leases=1)
    mine = lease(old)
    new = supervisor_client.rotate_token("alice")
    with SupervisorClient(old.url, new.token) as renewed:
        assert refs(renewed) == {mine.lease_ref}
        with pytest.raises(WorkerError, match="this token's 1 leases are open"):
            lease(renewed)
    supervisor_client.revoke_token("alice")
    assert refs(identity("alice")) == {mine.lease_ref}


def test_limits_of_an_identity(supervisor_client: SupervisorClient, identity: Identity):
    """Leases at once, time to live, providers, models: each refused by name, and within them all goes well."""
    alice = identity("alice", max_leases=1, max_ttl_s=120, providers=["echo"], models=["any"])
    claude = {"model_preference": {"provider": "claude", "id": "any"}}
    other_model = {"model_preference": {"provider": "echo", "id": "other"}}
    for request, options, param in (
        (claude, {}, "model_preference.provider"),
        (other_model, {}, "model_preference.id"),
        (ECHO, {"ttl_s": 121}, "ttl_s"),
    ):
        with pytest.raises(RequestError) as refused:
            alice.ensure_endpoint(request, lease=options)
        assert (refused.value.code, refused.value.status, refused.value.param) == (
            "not_permitted",
            403,
            param,
        )
    mine = lease(alice)
    assert 60 < (alice.endpoint(mine).expires_in_s or 0) <= 120
    with pytest.raises(RequestError) as too_long:
        alice.renew_endpoint(mine, 121)
    assert too_long.value.code == "not_permitted"
    assert (alice.renew_endpoint(mine, 30).expires_in_s or 0) <= 30
    with pytest.raises(WorkerError, match="this token's 1 leases are open") as full:
        lease(alice)
    assert (full.value.code, full.value.status) == ("at_capacity", 429)
    assert 5 <= (full.value.retry_after_s or 0) <= 10
    bob = identity("bob")
    lease(bob, ttl_s=5000)  # the control: another identity has no such limits
    alice.release_endpoint(mine)
    alice.release_endpoint(lease(alice))
    descriptor, _ = supervisor_client.ensure_endpoint(other_model, lease={"standby": 0})
    supervisor_client.release_endpoint(descriptor)


def test_idempotency_keys_are_each_identitys_own(supervisor_client: SupervisorClient, identity: Identity):
    """The same key is another lease for another caller, even for the admin, and the same one for the same caller."""
    clients = identity("alice"), identity("bob"), supervisor_client
    made = [client.ensure_endpoint(ECHO, idempotency_key="the-same") for client in clients]
    again = [client.ensure_endpoint(ECHO, idempotency_key="the-same") for client in clients]
    assert made == again
    assert len({descriptor.lease_ref for descriptor, _ in made}) == 3
    assert len({descriptor.headers["authorization"] for descriptor, _ in made}) == 3
    supervisor_client.release_endpoint(made[2][0])


def test_a_group_is_released_at_once(supervisor_client: SupervisorClient, identity: Identity):
    """Of the caller's own leases; with every proof; once more there is nothing left to tell."""
    alice, bob = identity("alice"), identity("bob")
    mine = {lease(alice, group="batch").lease_ref for _ in range(3)}
    rest, theirs = lease(alice, group="other"), lease(bob, group="batch")
    assert {view.group for view in alice.endpoints(group="batch")} == {"batch"}
    assert refs(alice, group="batch") == mine
    assert refs(supervisor_client, group="batch") == {*mine, theirs.lease_ref}
    assert refs(supervisor_client, group="batch", owner="bob") == {theirs.lease_ref}
    ended = alice.release_endpoints(group="batch")
    assert {each.lease_ref for each in ended} == mine
    assert all(each.released and each.proof.processes and not each.proof.survivors for each in ended)
    assert alice.release_endpoints(group="batch") == []
    assert is_alive(rest)
    assert is_alive(theirs)
    assert {each.lease_ref for each in supervisor_client.release_endpoints(group="batch")} == {
        theirs.lease_ref
    }


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?grup=x",
        "?group=x&ower=y",
        "?group=a&group=b",
        "?group=&all=1",
        "?ended=true",
        "?group=x&ended=true",
    ],
)
def test_nothing_is_released_by_mistake(
    supervisor_client: SupervisorClient, lease_of_admin: EndpointDescriptor, query: str
):
    """No filter, a misspelt one and a doubled one are errors."""
    answer = bare(supervisor_client, "DELETE", f"/v1/endpoints{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert is_alive(lease_of_admin)


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({}, 400, "invalid_request", "name"),
        ({"name": "admin"}, 400, "invalid_request", "name"),
        ({"name": "a/b"}, 400, "invalid_request", "name"),
        ({"name": 5}, 400, "invalid_request", "name"),
        ({"name": "a", "extra": 1}, 400, "invalid_request", "extra"),
        ({"name": "a", "expires_in_s": 0}, 400, "invalid_request", "expires_in_s"),
        ({"name": "a", "expires_in_s": 1e300}, 400, "invalid_request", "expires_in_s"),
        ({"name": "a", "limits": {"max_leases": 0}}, 400, "invalid_request", "limits.max_leases"),
        ({"name": "a", "limits": {"max_lease": 1}}, 400, "invalid_request", "limits.max_lease"),
        ({"name": "a", "limits": {"providers": []}}, 400, "invalid_request", "limits.providers"),
        ({"name": "a", "limits": {"providers": ["cluade"]}}, 400, "unsupported_provider", None),
    ],
)
def test_bad_tokens(
    supervisor_client: SupervisorClient, body: Any, status: int, code: str, param: str | None
):
    """Typed, and none is made."""
    refused = bare(supervisor_client, "POST", "/v1/tokens", json=body)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (status, code, param)
    assert supervisor_client.tokens() == []


def test_unknown_and_taken_names(supervisor_client: SupervisorClient, identity: Identity):
    """404 and 409; nothing changes."""
    alice = identity("alice")
    for call in (supervisor_client.revoke_token, supervisor_client.rotate_token):
        with pytest.raises(RequestError) as unknown:
            call("../bob?x=y")
        assert unknown.value.code == "not_found"
    with pytest.raises(RequestError) as taken:
        supervisor_client.add_token("alice")
    assert (taken.value.code, taken.value.status) == ("name_taken", 409)
    assert refs(alice) == set()


def test_no_token_is_in_the_state_folder(
    supervisor_client: SupervisorClient, identity: Identity, state_home: Path
):
    """Nor in lists; only its hash is kept. The control: the admin's, which is a file there, is found."""
    token = identity("alice")._http.headers["authorization"].removeprefix("Bearer ")
    admin = supervisor_client._http.headers["authorization"].removeprefix("Bearer ")
    listed = bare(supervisor_client, "GET", "/v1/tokens").text
    files = [path for path in state_home.rglob("*") if path.is_file()]
    content = b"".join(path.read_bytes() for path in files)
    assert token not in listed
    assert token.removeprefix("asm_").encode() not in content
    assert admin.encode() in content


@pytest.fixture
def run(
    supervisor_client: SupervisorClient, state_home: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command with this environment instead of a state folder's, or with the folder."""

    def run_command(*argv: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        where = {"ASM_ENDPOINT_HOME": str(state_home)} if environ is None else environ
        return subprocess.run(
            (sys.executable, "-m", "supervisor", *argv),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env={**os.environ, **where},
            check=False,
        )

    return run_command


def test_tokens_from_the_shell(
    supervisor_client: SupervisorClient, run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
):
    """Added, used without the state folder, listed, replaced, and revoked with its leases."""
    added = run(
        "token", "add", "shell", "--expires-in", "3600", "--max-leases", "2", "--provider", "echo", "--json"
    )
    assert added.returncode == 0, added.stderr
    token = json.loads(added.stdout)["token"]
    as_shell = {
        "ASM_ENDPOINT_HOME": str(tmp_path / "nothing"),
        "ASM_ENDPOINT_URL": supervisor_client.url,
        "ASM_ENDPOINT_TOKEN": token,
    }
    made = run("ensure", "--provider", "echo", "--model", "any", "--group", "g", "--json", environ=as_shell)
    assert made.returncode == 0, made.stderr
    lease_ref = json.loads(made.stdout)["endpoint"]["lease_ref"]
    assert lease_ref in run("ls", environ=as_shell).stdout
    (head, line) = run("ls", "--owner", "shell", "--group", "g").stdout.splitlines()
    assert head.split() == [
        "LEASE", "OWNER", "GROUP", "PROVIDER", "MODEL", "STATE", "HEALTH", "PROCESSES", "MEMORY", "AGE", "EXPIRES", "IN",
    ]  # fmt: skip
    assert re.fullmatch(
        rf"{lease_ref} +shell +g +echo +any +ready +ok +\d+ +\d+ MiB +\d+ s +(59|60) min", line
    )
    assert "no leases" in run("ls", "--owner", "shell", "--group", "h").stdout
    listed = run("token", "ls")
    assert re.search(r"^shell .* 2 .* echo ", listed.stdout, re.MULTILINE)
    assert token not in listed.stdout + run("token", "ls", "--json").stdout
    assert run("token", "ls", environ=as_shell).returncode == 3
    assert run("token", "add", "shell").returncode == 3
    replaced = run("token", "rotate", "shell")
    assert "shown this once" in replaced.stdout
    refused = run("ls", environ=as_shell)
    assert (refused.returncode, refused.stdout) == (3, "")
    revoked = run("token", "revoke", "shell", "--release")
    assert revoked.returncode == 0
    assert revoked.stdout.splitlines()[0] == "revoked shell"
    assert re.search(rf"released {lease_ref}: .* no survivors", revoked.stdout)
    assert run("token", "revoke", "shell").returncode == 3
    assert run("token", "ls").stdout == "no tokens\n"


@pytest.mark.parametrize(
    ("limit", "asked", "code", "given"),
    [
        (("--max-ttl-s", "120"), (), 0, 120.0),
        (("--max-ttl-s", "86400"), (), 0, 86_400.0),
        (("--max-ttl-s", "120"), ("--ttl-s", "60"), 0, 60.0),
        (("--max-ttl-s", "120"), ("--ttl-s", "121"), 3, None),
        ((), (), 0, MAX_TTL_S),
    ],
)
def test_run_asks_for_as_long_as_it_may(
    supervisor_client: SupervisorClient,
    run: Callable[..., subprocess.CompletedProcess[str]],
    limit: tuple[str, ...],
    asked: tuple[str, ...],
    code: int,
    given: float | None,
):
    """Where nobody names a time, which its command's end makes needless; one that is named is refused if too long."""
    token = json.loads(run("token", "add", "runner", *limit, "--json").stdout)["token"]
    as_runner = {"ASM_ENDPOINT_URL": supervisor_client.url, "ASM_ENDPOINT_TOKEN": token}
    script = 'echo "$ASM_ENDPOINT_LEASE_REF"'
    ran = run(
        "run", "--provider", "echo", "--model", "any", *asked, "--", "sh", "-c", script, environ=as_runner
    )
    supervisor_client.revoke_token("runner", release=True)
    assert ran.returncode == code, ran.stderr
    if given is None:
        assert "this token may for at most 120 s" in ran.stderr
    else:
        assert supervisor_client.endpoint(ran.stdout.strip()).options.ttl_s == given


def test_groups_from_the_shell(
    supervisor_client: SupervisorClient, run: Callable[..., subprocess.CompletedProcess[str]]
):
    """Released at once, each in a line; without a lease, a group or an owner it is a usage error."""
    mine = {lease(supervisor_client, group="shell-group").lease_ref for _ in range(2)}
    assert mine == refs(supervisor_client, group="shell-group")
    wrong = run("release"), run("release", "--group", "shell-group", *mine)
    assert [each.returncode for each in wrong] == [2, 2]
    assert mine == refs(supervisor_client, group="shell-group")
    ended = run("release", "--group", "shell-group", "--owner", "admin")
    assert ended.returncode == 0
    assert {line.split()[1].rstrip(":") for line in ended.stdout.splitlines()} == mine
    assert run("release", "--group", "shell-group").stdout == "no leases\n"
    assert run("release", "--group", "shell-group", "--json").stdout == "[]\n"


def test_the_admins_token_can_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The file has the new one, the old one is refused, and the client that asked goes on."""
    from supervisor import InferenceEndpoint

    with InferenceEndpoint(tmp_path) as endpoint:
        before = (tmp_path / "admin.token").read_text().strip()
        new: NewToken = endpoint.rotate_token("admin")
        assert new.token != before
        assert (tmp_path / "admin.token").read_text().strip() == new.token
        assert (tmp_path / "admin.token").stat().st_mode & 0o777 == 0o600
        assert endpoint.endpoints() == []
        with SupervisorClient(endpoint.url, before) as old, pytest.raises(RequestError) as refused:
            old.endpoints()
        assert refused.value.code == "unauthorized"


def test_tokens_outlive_the_supervisor(tmp_path: Path):
    """A token of yesterday opens today's supervisor on the same state folder; a revoked one does not."""
    from supervisor import InferenceEndpoint

    with InferenceEndpoint(tmp_path) as yesterday:
        kept, revoked = (yesterday.add_token(name).token for name in ("kept", "revoked"))
        yesterday.revoke_token("revoked")
    with InferenceEndpoint(tmp_path) as today:
        assert [view.name for view in today.tokens()] == ["kept"]
        with SupervisorClient(today.url, kept) as client:
            assert client.endpoints() == []
        with SupervisorClient(today.url, revoked) as client, pytest.raises(RequestError):
            client.endpoints()


def test_a_lease_stays_its_owners_when_the_supervisor_is_killed(tmp_path: Path):
    """The next one adopts it: seen by its owner and the admin alone, counted against its owner's limit."""
    from supervisor import InferenceEndpoint

    with InferenceEndpoint(tmp_path) as killed:
        alices, bobs = (killed.add_token(name, limits={"max_leases": 1}).token for name in ("alice", "bob"))
        with SupervisorClient(killed.url, alices) as alice:
            mine = lease(alice, group="g")
        processes = [psutil.Process(killed.pid), *psutil.Process(killed.pid).children()]
        processes[0].kill()
        assert not psutil.wait_procs(processes, END_TIMEOUT_S)[1]
        assert is_alive(mine)
    with (
        InferenceEndpoint(tmp_path) as adopting,
        SupervisorClient(adopting.url, alices) as alice,
        SupervisorClient(adopting.url, bobs) as bob,
    ):
        assert refs(alice) == refs(alice, group="g") == refs(adopting, owner="alice") == {mine.lease_ref}
        assert refs(bob) == set()
        assert plain(bare(bob, "GET", f"/v1/endpoints/{mine.lease_ref}"), mine.lease_ref)[0] == 404
        with pytest.raises(WorkerError, match="this token's 1 leases are open"):
            lease(alice)
        lease(bob)
        (ended,) = alice.release_endpoints(group="g")
        assert ended.lease_ref == mine.lease_ref
        assert not ended.proof.survivors
