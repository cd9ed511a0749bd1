"""What every answer of both servers has in common, over real connections."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from supervisor import SupervisorClient
from tests.e2e.wire import Answer, Target, both_servers
from tests.unit.contract_examples import FOLDER

pytestmark = pytest.mark.process
PAGE = "https://app.example"
JSON = "content-type: application/json"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SupervisorClient, dict[str, Target]]]:
    """Both servers, open to one web page."""
    with both_servers(tmp_path_factory.mktemp("answers"), "--cors-origin", PAGE) as both:
        yield both


@pytest.fixture(params=["supervisor", "lease"])
def target(request: pytest.FixtureRequest, running: tuple[SupervisorClient, dict[str, Target]]) -> Target:
    """Each of the two servers."""
    return running[1][request.param]


@pytest.mark.parametrize(
    ("method", "path", "lines", "body", "status", "code"),
    [
        ("POST", "{post}", (JSON,), b"{", 400, "invalid_request"),
        ("GET", "{get}-nowhere", (), b"", 404, "not_found"),
        ("PUT", "{get}", (), b"", 405, "method_not_allowed"),
        ("POST", "{post}", (JSON,), b" " * (2**20 + 1), 413, "request_too_large"),
        ("POST", "{post}", ("content-type: text/plain",), b"{}", 415, "unsupported_media_type"),
        ("POST", "{post}", (JSON, "content-encoding: gzip"), b"\x1f\x8b", 415, "unsupported_media_type"),
    ],
)
def test_an_error_is_openais(
    target: Target, method: str, path: str, lines: tuple[str, ...], body: bytes, status: int, code: str
):
    """Four fields, a request id and how long it took."""
    head = target.head(method, path.format(**_words(target)), *lines, f"content-length: {len(body)}")
    answer = target.ask(head, body)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert _is_marked(answer)


def test_without_a_token_it_says_which_one_is_needed(target: Target):
    """401 with the scheme."""
    answer = target.ask(target.head("GET", target.get, token="wrong"))
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.error["type"] == "authentication_error"
    assert _is_marked(answer)


def test_a_head_has_no_body_and_the_connection_goes_on(target: Target):
    """Its length is the GET's; the next request on the connection is answered."""
    got = target.ask(target.head("GET", target.get))
    with target.connection() as made:
        made.sendall(target.head("HEAD", target.get) + target.head("GET", target.get, "connection: close"))
        received = b""
        while piece := made.recv(65_536):
            received += piece
    first, _, rest = received.partition(b"\r\n\r\n")
    assert b"HTTP/1.1 200 " in first
    assert f"content-length: {len(got.body)}".encode() in first.lower()
    assert rest.startswith(b"HTTP/1.1 200 ")
    assert rest.endswith(got.body)


def test_options_need_a_token_but_a_preflight_does_not(target: Target):
    """Of a page that is allowed; it then sees its answers. Any other one gets a 401."""
    allowed = target.ask(target.head("OPTIONS", target.get))
    assert (allowed.status, set(allowed.headers["allow"].split(", "))) == (200, {"GET", "HEAD"})
    lines = ("access-control-request-method: POST", "access-control-request-headers: authorization")
    preflight = target.ask(
        target.head("OPTIONS", target.post, f"origin: {PAGE}", *lines, token=""), has_body=False
    )
    assert (preflight.status, preflight.headers["access-control-allow-origin"]) == (204, PAGE)
    stranger = target.ask(
        target.head("OPTIONS", target.post, "origin: https://evil.example", *lines, token="")
    )
    assert stranger.status == 401
    assert "access-control-allow-origin" not in stranger.headers
    for token in (target.token, "wrong"):
        answer = target.ask(target.head("GET", target.get, f"origin: {PAGE}", token=token))
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "x-request-id" in answer.headers["access-control-expose-headers"]


def test_the_document_that_is_served_is_the_one_that_is_kept(target: Target):
    """But for the version, which an installation has of its own."""
    prefix = target.get.removesuffix("/v1/models") if target.name == "lease" else ""
    served = json.loads(target.ask(target.head("GET", f"{prefix}/openapi.json")).body)
    kept = json.loads((FOLDER / f"openapi.{target.name}.json").read_text(encoding="utf-8"))
    assert served["info"].pop("version")
    assert kept["info"].pop("version")
    assert served == kept


def _words(target: Target) -> dict[str, str]:
    return {"get": target.get, "post": target.post}


def _is_marked(answer: Answer) -> bool:
    is_timed = int(answer.headers["openai-processing-ms"]) >= 0
    return is_timed and answer.headers["x-request-id"].startswith("req_")
