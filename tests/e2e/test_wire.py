"""Both servers against clients that are slow, greedy or wrong, as bytes on a socket."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import psutil
import pytest

from supervisor import SupervisorClient
from tests.e2e.wire import Target, both_servers, is_closed, read_answer
from tests.process.serving import until

pytestmark = pytest.mark.process
CONNECTIONS = 12
SETTINGS = ("head_s=1", "body_s=1", "unread_s=4", f"connections={CONNECTIONS}")
JSON = "content-type: application/json"
WORDS = 120_000
"""One delta each: a stream of more than 20 MB."""
MAX_GROWTH_BYTES = 16 * 2**20
EMPTY_BODY = {
    "supervisor": "cannot read request: it must be an object",
    "lease": "expected a prompt string or a messages array",
}
SERVERS = ("supervisor", "lease")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SupervisorClient, dict[str, Target]]]:
    """A supervisor with short deadlines and few connections, and one lease on it."""
    home = tmp_path_factory.mktemp("wire")
    arguments = [part for setting in SETTINGS for part in ("--set", setting)]
    with both_servers(home, *arguments, standby=0, concurrency=CONNECTIONS) as both:
        yield both


@pytest.fixture(params=SERVERS)
def target(request: pytest.FixtureRequest, running: tuple[SupervisorClient, dict[str, Target]]) -> Target:
    """Each of the two servers."""
    return running[1][request.param]


def test_a_connection_that_says_nothing_is_closed(target: Target):
    """Without a word: there is nothing to answer."""
    with target.connection() as made:
        assert is_closed(made)


@pytest.mark.parametrize("end", [-2, -30])
def test_half_a_head_is_answered_after_its_time(target: Target, end: int):
    """408 in the envelope, and closed; no token is needed for that."""
    with target.connection() as made:
        made.sendall(target.head("GET", target.get)[:end])
        answer = read_answer(made)
        assert (answer.status, answer.error["code"]) == (408, "request_timeout")
        assert answer.headers["x-request-id"].startswith("req_")
        assert is_closed(made)


def test_a_head_that_trickles_is_cut_as_well(target: Target):
    """The time is for the whole head: a byte now and then does not renew it."""
    with target.connection() as made:
        made.settimeout(0.1)
        answer = b""
        for byte in target.head("GET", target.get, "x-a: " + "y" * 2000):
            try:
                made.sendall(bytes([byte]))
                answer = made.recv(4096)
            except TimeoutError:
                continue
            except ConnectionError:
                break
            if answer:
                break
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_the_second_request_of_a_connection_has_the_same_time(target: Target):
    """From its first byte; an idle connection may stay longer."""
    with target.connection() as made:
        made.sendall(target.head("GET", target.get))
        assert read_answer(made).status == 200
        made.sendall(b"GET ")
        assert read_answer(made).status == 408


@pytest.mark.parametrize("framing", ["content-length: 10", "transfer-encoding: chunked"])
def test_half_a_body_is_answered_after_its_time(target: Target, framing: str):
    """408, and the connection is given up; with a wrong token it is a 401, no later."""
    with target.connection() as made:
        made.sendall(target.head("POST", target.post, JSON, framing) + b"2\r\n{")
        answer = read_answer(made)
        assert (answer.status, answer.error["code"]) == (408, "request_timeout")
        assert is_closed(made)
    refused = target.ask(target.head("POST", target.post, JSON, framing, token="wrong") + b"2\r\n{")
    assert refused.status == 401


def test_idle_connections_give_way(target: Target):
    """Many more than there may be: whoever comes with a request is served, the oldest idle ones are closed."""
    with ExitStack() as stack:
        idle = [stack.enter_context(target.connection()) for _ in range(3 * CONNECTIONS)]
        assert target.ask(target.head("GET", target.get)).status == 200
        assert is_closed(idle[0])


def test_busy_connections_do_not_give_way(running: tuple[SupervisorClient, dict[str, Target]]):
    """One too many is told so; those with a request go on."""
    client, servers = running
    lease = servers["lease"]
    body = json.dumps({"messages": [{"role": "user", "content": "[[pause:3]]one"}]}).encode()
    with ExitStack() as stack:
        busy = [stack.enter_context(lease.connection()) for _ in range(CONNECTIONS)]
        for made in busy:
            made.sendall(lease.head("POST", lease.post, JSON, f"content-length: {len(body)}") + body)
        until(lambda: _in_flight(client) == CONNECTIONS)
        refused = read_answer(stack.enter_context(lease.connection()))
        assert (refused.status, refused.error["code"]) == (503, "too_many_connections")
        assert {read_answer(made).status for made in busy} == {200}


@pytest.mark.parametrize(
    ("request_line", "lines", "status", "code"),
    [
        ("GET /{long}", (), 414, "uri_too_long"),
        ("GET {get}", tuple(f"x-{number}: 1" for number in range(120)), 431, "headers_too_large"),
        ("GET {get}", ("x-a: {long}",), 431, "headers_too_large"),
        ("GET {get}", tuple("x-a: " + "y" * 8000 for _ in range(20)), 431, "headers_too_large"),
        ("GET {get}", ("x-a: a\x00b",), 400, "invalid_request"),
        ("GET {get}", ("x a: b",), 400, "invalid_request"),
        ("GET {get}", ("host: evil.example",), 400, "invalid_request"),
        ("POST {post}", ("content-length: 2", "content-length: 3"), 400, "invalid_request"),
        ("POST {post}", ("content-length: -1",), 400, "invalid_request"),
        ("POST {post}", ("content-length: 2", "transfer-encoding: chunked"), 400, "invalid_request"),
        ("POST {post}", ("transfer-encoding: chunked, identity",), 400, "invalid_request"),
        ("GET  {get}", (), 400, "invalid_request"),
        ("\x16\x03\x01", (), 400, "invalid_request"),
    ],
)
def test_what_cannot_be_read_is_refused_in_the_envelope(
    target: Target, request_line: str, lines: tuple[str, ...], status: int, code: str
):
    """Too long, ambiguous or not HTTP at all: closed after the answer, so nothing after it is read as a request."""
    words = {"get": target.get, "post": target.post, "long": "x" * 9000}
    method, _, path = request_line.format(**words).partition(" ")
    head = target.head(method, path, *(line.format(**words) for line in lines))
    with target.connection() as made:
        made.sendall(head)
        answer = read_answer(made)
        assert (answer.status, answer.error["code"]) == (status, code)
        assert answer.error["type"] == "invalid_request_error"
        assert answer.headers["x-request-id"].startswith("req_")
        assert answer.headers["content-type"] == "application/json"
        assert is_closed(made)


def test_two_authorizations_are_none(target: Target):
    """Whichever comes first is not believed."""
    right, wrong = f"authorization: Bearer {target.token}", "authorization: Bearer wrong"
    assert target.ask(target.head("GET", target.get, wrong)).status == 401
    assert target.ask(target.head("GET", target.get, right, token="wrong")).status == 401


def test_a_chunked_body_is_a_body(target: Target):
    """In pieces of any size; the limit holds for their sum, and the answer to too much comes at once."""
    head = target.head("POST", target.post, JSON, "transfer-encoding: chunked")
    empty = target.ask(head, b"1\r\n{\r\n", b"1\r\n}\r\n0\r\n\r\n")
    assert (empty.status, empty.error["message"]) == (400, EMPTY_BODY[target.name])
    assert target.ask(head, b"zz\r\n").error["message"].startswith("cannot read this request")
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    refused = target.ask(head, piece * 17, b"0\r\n\r\n")
    assert (refused.status, refused.error["code"]) == (413, "request_too_large")


def test_depth_is_bounded(target: Target):
    """A body within the size limit, but of brackets only."""
    body = b"[" * 200_000
    answer = target.ask(target.head("POST", target.post, JSON, f"content-length: {len(body)}"), body)
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")


def test_pipelined_requests_are_answered_in_their_order(target: Target):
    """Three at once, on one connection; the one in the middle is not there."""
    with target.connection() as made:
        paths = (target.get, f"{target.get}/nothing-here", target.get)
        made.sendall(b"".join(target.head("GET", path) for path in paths))
        answers, rest = [], b""
        for _ in paths:
            answers.append(read_answer(made, rest))
            rest = answers[-1].rest
        assert [answer.status for answer in answers] == [200, 404, 200]


def test_an_absolute_target_counts_with_its_own_host(target: Target):
    """As HTTP has it: the Host header beside it does not."""
    assert target.ask(target.head("GET", f"http://127.0.0.1:{target.port}{target.get}")).status == 200
    assert target.ask(target.head("GET", f"HTTP://evil.example{target.get}")).status == 421
    assert target.ask(target.head("GET", f"http://{target.get}")).status == 421


def test_upgrades_are_not_offered(target: Target):
    """A websocket or HTTP/2 over clear text: the request itself is answered."""
    for upgrade in ("websocket", "h2c"):
        lines = (
            f"upgrade: {upgrade}", "connection: upgrade, http2-settings", "http2-settings: AAMAAABk",
            "sec-websocket-version: 13", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        )  # fmt: skip
        assert target.ask(target.head("GET", target.get, *lines)).status == 200


def test_half_closed_is_gone(running: tuple[SupervisorClient, dict[str, Target]]):
    """Whoever closes its sending side gets no answer, and its turn is stopped."""
    client, servers = running
    lease = servers["lease"]
    body = json.dumps({"messages": [{"role": "user", "content": "[[pause:60]]one"}]}).encode()
    with lease.connection() as made:
        made.sendall(lease.head("POST", lease.post, JSON, f"content-length: {len(body)}") + body)
        until(lambda: _in_flight(client) == 1)
        made.shutdown(socket.SHUT_WR)
        assert is_closed(made)
        until(lambda: _in_flight(client) == 0)


def test_a_client_that_does_not_read_costs_little(running: tuple[SupervisorClient, dict[str, Target]]):
    """Of a stream of more than 20 MB little is kept, others are served, and after its time it is cut off."""
    client, servers = running
    lease = servers["lease"]
    body = json.dumps({"stream": True, "messages": [{"role": "user", "content": "a " * WORDS}]}).encode()
    worker = _worker_process(client)
    before = most = worker.memory_info().rss
    with lease.connection() as made:
        made.sendall(lease.head("POST", lease.post, JSON, f"content-length: {len(body)}") + body)
        until(lambda: _in_flight(client) == 1)
        while _in_flight(client):
            assert lease.ask(lease.head("GET", lease.get)).status == 200
            most = max(most, worker.memory_info().rss)
            time.sleep(0.02)
        assert most - before < MAX_GROWTH_BYTES
        taken = 0
        while piece := _receive(made):
            taken += len(piece)
        assert 0 < taken < WORDS * 100  # cut off long before the end


def _receive(made: socket.socket) -> bytes:
    try:
        return made.recv(1 << 20)
    except ConnectionError:
        return b""


def _in_flight(client: SupervisorClient) -> int:
    (view,) = client.endpoints()
    return view.load["in_flight"]


def _worker_process(client: SupervisorClient) -> psutil.Process:
    """gunicorn's worker below the family's leader, the one that serves."""
    (view,) = client.endpoints()
    pids = {row.pid for row in view.processes}
    (worker,) = (process for process in map(psutil.Process, pids) if process.ppid() in pids)
    return worker
